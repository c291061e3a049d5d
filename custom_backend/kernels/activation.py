"""NumPy kernels of the activations: no `where`.

Arithmetic on a mask is ten times as fast as `numpy.where` or a masked copy with a random mask.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from custom_backend.kernels.memory import empty, empty_like
from custom_backend.kernels.parallel import split

FloatArray = npt.NDArray[Any]


def leaky_relu_forward(x: FloatArray, slope: float) -> tuple[FloatArray, Any]:
    """See `functional.activation.leaky_relu_forward`; y is the greater of x and slope · x, if slope ≤ 1."""
    y, positive = empty_like(x), empty(x.shape, np.bool_)
    greater = np.maximum if slope <= 1 else np.minimum

    def apply(start: int, stop: int) -> None:
        chunk, out = x[start:stop], y[start:stop]
        np.multiply(chunk, slope, out=out)
        greater(chunk, out, out=out)
        np.greater(chunk, 0, out=positive[start:stop])

    split(apply, len(x), x.size)
    return y, (positive, slope)


def leaky_relu_backward(saved: Any, grad: FloatArray) -> FloatArray:
    """See `functional.activation.leaky_relu_backward`; the derivative is slope + (1 − slope) · mask."""
    positive, slope = saved
    grad_x, rise = empty_like(grad), grad.dtype.type(1 - slope)

    def apply(start: int, stop: int) -> None:
        out = grad_x[start:stop]
        np.multiply(positive[start:stop], rise, out=out)
        out += grad.dtype.type(slope)
        out *= grad[start:stop]

    split(apply, len(grad), grad.size)
    return grad_x
