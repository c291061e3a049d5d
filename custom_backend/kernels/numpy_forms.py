"""NumPy forms of the hot operations: every result and temporary on pooled memory, no `where`.

Arithmetic on a mask is ten times as fast as `numpy.where` or a masked copy with a random mask.
"""

import math
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from custom_backend.array import Pair, column, columns_of
from custom_backend.functional.conv import output_size, windows
from custom_backend.functional.normalization import Norm, Normalised
from custom_backend.kernels import im2col
from custom_backend.kernels.im2col import bordered, inside
from custom_backend.kernels.memory import empty, empty_like
from custom_backend.kernels.parallel import PRODUCTS, split

FloatArray = npt.NDArray[Any]


def zeros(like: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """See `array.zeros`."""
    out = empty(shape, like.dtype)
    out.fill(0)
    return out


def matmul(a: FloatArray, b: FloatArray) -> FloatArray:
    """See `array.matmul`."""
    out = empty((a.shape[0], b.shape[1]), a.dtype)

    def part(start: int, stop: int) -> None:
        np.matmul(a, b[:, start:stop], out=out[:, start:stop])

    split(part, b.shape[1], (a.size // PRODUCTS + len(a)) * b.shape[1])
    return out


def conv2d_forward(
    x: FloatArray,
    weight: FloatArray,
    bias: FloatArray | None,
    stride: Pair,
    padding: Pair,
    method: ModuleType = im2col,
) -> tuple[FloatArray, Any]:
    """See `functional.conv.conv2d_forward`; `method` is where to find the three products."""
    y: FloatArray = method.correlate(x, weight, stride, padding)
    if bias is not None:
        y += bias.reshape(-1, 1, 1, 1)
    return y, (x, weight, stride, padding, bias is not None)


def conv2d_backward(
    saved: Any, grad: FloatArray, need_x: bool = True, method: ModuleType = im2col
) -> tuple[FloatArray | None, FloatArray, FloatArray | None]:
    """See `functional.conv.conv2d_backward`; a layer without a bias has no gradient of it."""
    x, weight, stride, padding, has_bias = saved
    grad_weight = method.weight_gradient(x, grad, weight.shape[2:], stride, padding)
    grad_bias = columns_of(grad).sum(axis=1) if has_bias else None
    grad_x = method.input_gradient(x.shape, weight, grad, stride, padding) if need_x else None
    return grad_x, grad_weight, grad_bias


def leaky_relu_forward(x: FloatArray, slope: float) -> tuple[FloatArray, Any]:
    """See `functional.activation.leaky_relu_forward`; y is the greater of x and slope · x, if slope ≤ 1."""
    y, positive = empty_like(x), empty(x.shape, np.bool_)
    greater = np.maximum if slope <= 1 else np.minimum

    def part(start: int, stop: int) -> None:
        own, out = x[start:stop], y[start:stop]
        np.multiply(own, slope, out=out)
        greater(own, out, out=out)
        np.greater(own, 0, out=positive[start:stop])

    split(part, len(x), x.size)
    return y, (positive, slope)


def leaky_relu_backward(saved: Any, grad: FloatArray) -> FloatArray:
    """See `functional.activation.leaky_relu_backward`; the derivative is slope + (1 − slope) · mask."""
    positive, slope = saved
    grad_x, rise = empty_like(grad), grad.dtype.type(1 - slope)

    def part(start: int, stop: int) -> None:
        out = grad_x[start:stop]
        np.multiply(positive[start:stop], rise, out=out)
        out += grad.dtype.type(slope)
        out *= grad[start:stop]

    split(part, len(grad), grad.size)
    return grad_x


def batch_norm_forward(x: FloatArray, norm: Norm) -> tuple[FloatArray, Normalised]:
    """See `functional.normalization.batch_norm_forward`."""
    weight, bias, eps, statistics = norm
    flat = columns_of(x)
    centred, y = empty_like(flat), empty_like(flat)
    mean, variance = statistics or (np.empty_like(weight), np.empty_like(weight))
    inverse_std = np.empty_like(weight)

    def part(start: int, stop: int) -> None:
        own = slice(start, stop)
        if statistics is None:
            np.mean(flat[own], axis=1, out=mean[own])
        np.subtract(flat[own], column(mean[own]), out=centred[own])
        if statistics is None:
            np.divide(np.vecdot(centred[own], centred[own]), flat.shape[1], out=variance[own])
        np.divide(1, np.sqrt(variance[own] + eps), out=inverse_std[own])
        np.multiply(centred[own], column(weight[own] * inverse_std[own]), out=y[own])
        y[own] += column(bias[own])

    split(part, len(x), x.size)
    saved = Normalised(centred.reshape(x.shape), mean, variance, weight, inverse_std, statistics is None)
    return y.reshape(x.shape), saved


def batch_norm_backward(saved: Normalised, grad: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """See `functional.normalization.batch_norm_backward`."""
    g, centred = columns_of(grad), columns_of(saved.centred)
    grad_x, grad_weight, grad_bias = empty_like(g), np.empty_like(saved.mean), np.empty_like(saved.mean)

    def part(start: int, stop: int) -> None:
        own = slice(start, stop)
        inverse_std, out = saved.inverse_std[own], grad_x[own]
        np.multiply(np.vecdot(g[own], centred[own]), inverse_std, out=grad_weight[own])
        np.sum(g[own], axis=1, out=grad_bias[own])
        if saved.of_batch:
            np.multiply(centred[own], column(grad_weight[own] * inverse_std / -g.shape[1]), out=out)
            out -= column(grad_bias[own] / g.shape[1])
            out += g[own]
        else:
            np.copyto(out, g[own])
        out *= column(saved.weight[own] * inverse_std)

    split(part, len(g), g.size)
    return grad_x.reshape(grad.shape), grad_weight, grad_bias


def max_pool2d_forward(x: FloatArray, kernel: Pair, stride: Pair, padding: Pair) -> tuple[FloatArray, Any]:
    """See `functional.pooling.max_pool2d_forward`."""
    size = output_size(x.shape[1:3], kernel, stride, padding)
    padded = bordered(x, padding, -math.inf)
    shape = (x.shape[0], *size, x.shape[3])
    y, place, better = empty(shape, x.dtype), empty(shape, np.uint8), empty(shape, np.bool_)

    def part(start: int, stop: int) -> None:
        own = slice(start, stop)
        first, *others = (padded[own, rows, cols] for rows, cols in windows(size, kernel, stride))
        np.copyto(y[own], first)
        place[own] = 0
        for number, seen in enumerate(others, start=1):
            np.greater(seen, y[own], out=better[own])
            np.maximum(place[own], better[own] * np.uint8(number), out=place[own])
            np.maximum(y[own], seen, out=y[own])

    split(part, len(x), x.size)
    return y, (place, x.shape, kernel, stride, padding)


def max_pool2d_backward(saved: Any, grad: FloatArray) -> FloatArray:
    """See `functional.pooling.max_pool2d_backward`; windows that do not overlap are written, not added."""
    place, shape, kernel, stride, padding = saved
    size = grad.shape[1:3]
    whole = (shape[1] + 2 * padding[0], shape[2] + 2 * padding[1])
    disjoint = kernel == stride
    tiled = disjoint and (size[0] * stride[0], size[1] * stride[1]) == whole
    padded = empty((shape[0], *whole, shape[3]), grad.dtype)

    def part(start: int, stop: int) -> None:
        own = slice(start, stop)
        if not tiled:
            padded[own] = 0
        for number, (rows, cols) in enumerate(windows(size, kernel, stride)):
            chosen = place[own] == number
            if disjoint:
                np.multiply(grad[own], chosen, out=padded[own, rows, cols])
            else:
                padded[own, rows, cols] += grad[own] * chosen

    split(part, len(grad), padded.size)
    return inside(padded, shape, padding)
