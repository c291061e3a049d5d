"""NumPy kernels of max-pooling; see `activation` about masks."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from custom_backend.array import Pair
from custom_backend.functional.convolution import output_size, unpad, windows
from custom_backend.kernels.activation import keep
from custom_backend.kernels.im2col import bordered
from custom_backend.kernels.memory import empty
from custom_backend.kernels.parallel import split

FloatArray = npt.NDArray[Any]


def _first_index(size: Pair, whole: Pair, kernel: Pair, stride: Pair, padding: Pair) -> npt.NDArray[np.uint8]:
    """The index (1, *size, 1) of the first pixel of the image, not of the border, that each window meets."""
    inside = np.zeros(whole, bool)
    inside[padding[0] : whole[0] - padding[0], padding[1] : whole[1] - padding[1]] = True
    first = np.zeros(size, np.uint8)
    for number, (rows, cols) in reversed([*enumerate(windows(size, kernel, stride))]):
        first[inside[rows, cols]] = number
    return first[None, :, :, None]


def max_pool2d_forward(x: FloatArray, kernel: Pair, stride: Pair, padding: Pair) -> tuple[FloatArray, Any]:
    """See `functional.pooling.max_pool2d_forward`."""
    size = output_size(x.shape[1:3], kernel, stride, padding)
    padded = bordered(x, padding, -math.inf)
    shape = (x.shape[0], *size, x.shape[3])
    y, index, better = empty(shape, x.dtype), empty(shape, np.uint8), empty(shape, np.bool_)
    first_index = _first_index(size, padded.shape[1:3], kernel, stride, padding)

    def apply(start: int, stop: int) -> None:
        chunk = slice(start, stop)
        first, *others = all_seen = [
            padded[chunk, rows, cols] for rows, cols in windows(size, kernel, stride)
        ]
        np.copyto(y[chunk], first)
        index[chunk] = first_index
        for number, seen in enumerate(others, start=1):
            np.greater(seen, y[chunk], out=better[chunk])
            np.maximum(index[chunk], better[chunk] * np.uint8(number), out=index[chunk])
            np.maximum(y[chunk], seen, out=y[chunk])
        if np.isnan(np.max(y[chunk])):
            for number, seen in enumerate(all_seen):
                index[chunk][np.isnan(seen)] = number

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
                keep(grad[chunk], chosen, padded[chunk, rows, cols])
            else:
                part = empty(chosen.shape, grad.dtype)
                keep(grad[chunk], chosen, part)
                padded[chunk, rows, cols] += part

    split(apply, len(grad), padded.size)
    grad_x: FloatArray = unpad(padded, padding)
    return grad_x
