"""NumPy kernels of max-pooling: arithmetic on a mask, see `activation`."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from custom_backend.array import Pair
from custom_backend.functional.convolution import output_size, unpad, windows
from custom_backend.kernels.im2col import bordered
from custom_backend.kernels.memory import empty
from custom_backend.kernels.parallel import split

FloatArray = npt.NDArray[Any]


def max_pool2d_forward(x: FloatArray, kernel: Pair, stride: Pair, padding: Pair) -> tuple[FloatArray, Any]:
    """See `functional.pooling.max_pool2d_forward`."""
    size = output_size(x.shape[1:3], kernel, stride, padding)
    padded = bordered(x, padding, -math.inf)
    shape = (x.shape[0], *size, x.shape[3])
    y, index, better = empty(shape, x.dtype), empty(shape, np.uint8), empty(shape, np.bool_)

    def apply(start: int, stop: int) -> None:
        chunk = slice(start, stop)
        first, *others = (padded[chunk, rows, cols] for rows, cols in windows(size, kernel, stride))
        np.copyto(y[chunk], first)
        index[chunk] = 0
        for number, seen in enumerate(others, start=1):
            np.greater(seen, y[chunk], out=better[chunk])
            np.maximum(index[chunk], better[chunk] * np.uint8(number), out=index[chunk])
            np.maximum(y[chunk], seen, out=y[chunk])

    split(apply, len(x), x.size)
    return y, (index, x.shape, kernel, stride, padding)


def max_pool2d_backward(saved: Any, grad: FloatArray) -> FloatArray:
    """See `functional.pooling.max_pool2d_backward`; windows that do not overlap are written, not added."""
    index, shape, kernel, stride, padding = saved
    size = grad.shape[1:3]
    whole = (shape[1] + 2 * padding[0], shape[2] + 2 * padding[1])
    disjoint = kernel == stride
    tiled = disjoint and (size[0] * stride[0], size[1] * stride[1]) == whole
    padded = empty((shape[0], *whole, shape[3]), grad.dtype)

    def apply(start: int, stop: int) -> None:
        chunk = slice(start, stop)
        if not tiled:
            padded[chunk] = 0
        for number, (rows, cols) in enumerate(windows(size, kernel, stride)):
            chosen = index[chunk] == number
            if disjoint:
                np.multiply(grad[chunk], chosen, out=padded[chunk, rows, cols])
            else:
                padded[chunk, rows, cols] += grad[chunk] * chosen

    split(apply, len(grad), padded.size)
    grad_x: FloatArray = unpad(padded, padding)
    return grad_x
