"""NumPy kernels of the activations.

`numpy.where` on a random mask is ten times as slow as arithmetic, and a product with the mask turns 0 · ∞
into NaN: it is the bits of an array, as an integer, that are multiplied by 0 or 1.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from custom_backend.functional import activation
from custom_backend.kernels.memory import empty, empty_like
from custom_backend.kernels.parallel import split

FloatArray = npt.NDArray[Any]


def keep(x: FloatArray, mask: npt.NDArray[np.bool_], out: FloatArray) -> None:
    """Write x where `mask` is true, 0 elsewhere, into `out`."""
    bits = np.dtype(f"i{x.itemsize}")
    np.multiply(x.view(bits), mask, out=out.view(bits))


def leaky_relu_forward(x: FloatArray, slope: float) -> tuple[FloatArray, Any]:
    """See `functional.activation.leaky_relu_forward`; y is the greater of x and slope · x, if slope ≤ 1."""
    y, rises = empty_like(x), empty(x.shape, np.bool_)
    greater = np.maximum if slope <= 1 else np.minimum

    def apply(start: int, stop: int) -> None:
        chunk, out, mask = x[start:stop], y[start:stop], rises[start:stop]
        if slope == 0:
            np.maximum(chunk, 0, out=out)
            np.less_equal(chunk, 0, out=mask)
            np.logical_not(mask, out=mask)
        else:
            np.multiply(chunk, slope, out=out)
            greater(chunk, out, out=out)
            np.greater(chunk, 0, out=mask)

    split(apply, len(x), x.size)
    return y, (rises, slope)


def leaky_relu_backward(saved: Any, grad: FloatArray) -> FloatArray:
    """See `functional.activation.leaky_relu_backward`; the derivative is slope + (1 − slope) · mask."""
    rises, slope = saved
    grad_x, rise = empty_like(grad), grad.dtype.type(1 - slope)

    def apply(start: int, stop: int) -> None:
        out = grad_x[start:stop]
        if slope == 0:
            keep(grad[start:stop], rises[start:stop], out)
            return
        np.multiply(rises[start:stop], rise, out=out)
        out += grad.dtype.type(slope)
        out *= grad[start:stop]

    split(apply, len(grad), grad.size)
    return grad_x


def normal_cdf(x: FloatArray) -> FloatArray:
    """See `functional.activation.normal_cdf`: SciPy's, where it is installed."""
    try:
        from scipy.special import ndtr
    except ImportError:
        return activation.normal_cdf.__wrapped__(x)  # type: ignore[attr-defined, no-any-return]
    y: FloatArray = ndtr(x)
    return y
