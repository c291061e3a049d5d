"""NumPy forms of the hot operations: every result and temporary on pooled memory, no `where`.

Arithmetic on a mask is ten times as fast as `numpy.where` or a masked copy with a random mask.
"""

import functools
import math
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from custom_backend.array import Pair, column, columns_of, pair
from custom_backend.functional.conv import output_size, windows
from custom_backend.functional.normalization import Norm, Normalised
from custom_backend.kernels.memory import empty, empty_like
from custom_backend.kernels.parallel import split

FloatArray = npt.NDArray[Any]

CACHE = 1 << 21  # bytes of an im2col matrix at a time


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

    split(part, b.shape[1], b.size)
    return out


def _bordered(x: FloatArray, padding: Pair, border: float) -> FloatArray:
    """`x` with a border of `padding` pixels of the value `border`; only the border is filled."""
    (top, left), (channels, height, width, batch) = padding, x.shape
    if padding == (0, 0):
        return x
    out = empty((channels, height + 2 * top, width + 2 * left, batch), x.dtype)
    for edge in (np.s_[:, :top], np.s_[:, top + height :], np.s_[:, :, :left], np.s_[:, :, left + width :]):
        out[edge] = border
    out[:, top : top + height, left : left + width] = x
    return out


def _blocks(size: Pair, rows: int, batch: int, itemsize: int) -> list[tuple[slice, slice, slice]]:
    """Cut the columns of an im2col matrix of `rows` rows into runs that fit the cache.

    A run is either several whole rows of the output or a part of one: (rows, columns, where in the matrix).
    """
    pixels = max(1, CACHE // (rows * batch * itemsize))
    height, width = size
    if pixels >= width:
        step = pixels // width
        pieces = [(slice(r, min(r + step, height)), slice(0, width)) for r in range(0, height, step)]
    else:
        parts = -(-width // pixels)
        cuts = [width * part // parts for part in range(parts + 1)]
        pieces = [(slice(r, r + 1), slice(*cut)) for r in range(height) for cut in pairwise(cuts)]
    return [
        (r, s, slice((r.start * width + s.start) * batch, ((r.stop - 1) * width + s.stop) * batch))
        for r, s in pieces
    ]


def _seen(rows: slice, cols: slice, kernel: Pair, stride: Pair) -> list[tuple[slice, slice]]:
    """The pixels that each place of the kernel meets in the windows (rows, cols)."""
    size = rows.stop - rows.start, cols.stop - cols.start
    top, left = rows.start * stride[0], cols.start * stride[1]
    return [
        (slice(r.start + top, r.stop + top, r.step), slice(s.start + left, s.stop + left, s.step))
        for r, s in windows(size, kernel, stride)
    ]


def conv2d_forward(
    x: FloatArray, weight: FloatArray, bias: FloatArray | None, stride: Pair, padding: Pair
) -> tuple[FloatArray, Any]:
    """See `functional.conv.conv2d_forward`: the same product, by blocks of columns that stay in the cache.

    Of the columns there are never more than `CACHE` bytes a thread (or one pixel's, if those are more).
    """
    outputs, kernel = weight.shape[0], pair(weight.shape[2:])
    size = output_size(x.shape[1:3], kernel, stride, padding)
    batch, matrix = x.shape[3], columns_of(weight)
    padded = _bordered(x, padding, 0.0)
    blocks = _blocks(size, matrix.shape[1], batch, x.itemsize)
    y = empty((outputs, math.prod(size) * batch), x.dtype)

    def part(start: int, stop: int) -> None:
        for rows, cols, run in blocks[start:stop]:
            # unnamed, so that the next block lies in the same memory, which the cache still holds
            np.matmul(matrix, _columns(padded, rows, cols, kernel, stride), out=y[:, run])
            if bias is not None:
                y[:, run] += column(bias)

    split(part, len(blocks), matrix.shape[1] * y.shape[1])
    return y.reshape(outputs, *size, batch), (x, weight, stride, padding)


def _columns(padded: FloatArray, rows: slice, cols: slice, kernel: Pair, stride: Pair) -> FloatArray:
    """The columns of the im2col matrix that belong to the windows (rows, cols)."""
    shape = (len(padded), math.prod(kernel), rows.stop - rows.start, cols.stop - cols.start, padded.shape[3])
    columns = empty(shape, padded.dtype)
    for place, (r, s) in enumerate(_seen(rows, cols, kernel, stride)):
        columns[:, place] = padded[:, r, s]
    return columns.reshape(shape[0] * shape[1], -1)


def conv2d_backward(
    saved: Any, grad: FloatArray, need_x: bool
) -> tuple[FloatArray | None, FloatArray, FloatArray]:
    """See `functional.conv.conv2d_backward`.

    For ∂L/∂W the threads share the columns and add up at the end; for ∂L/∂x they share the channels of x, so
    that no two of them add to the same pixel.
    """
    x, weight, stride, padding = saved
    kernel, size, batch = pair(weight.shape[2:]), grad.shape[1:3], x.shape[3]
    matrix, g = columns_of(weight), columns_of(grad)
    work = matrix.shape[1] * g.shape[1]
    padded = _bordered(x, padding, 0.0)
    blocks = _blocks(size, matrix.shape[1], batch, x.itemsize)
    partial: dict[int, FloatArray] = {}

    def weight_part(start: int, stop: int) -> None:
        total = zeros(matrix, matrix.shape)
        for rows, cols, run in blocks[start:stop]:
            total += g[:, run] @ _columns(padded, rows, cols, kernel, stride).T
        partial[start] = total

    split(weight_part, len(blocks), work)
    grad_weight = functools.reduce(np.add, (partial[start] for start in sorted(partial)))
    grad_weight, grad_bias = grad_weight.reshape(weight.shape), g.sum(axis=1)
    if not need_x:
        return None, grad_weight, grad_bias

    grad_padded = empty(padded.shape, x.dtype)

    def input_part(start: int, stop: int) -> None:
        grad_padded[start:stop] = 0
        own = columns_of(weight[:, start:stop]).T
        for rows, cols, run in _blocks(size, len(own), batch, x.itemsize):
            columns = empty((len(own), run.stop - run.start), x.dtype)
            np.matmul(own, g[:, run], out=columns)
            seen = columns.reshape(stop - start, math.prod(kernel), rows.stop - rows.start, -1, batch)
            for place, (r, s) in enumerate(_seen(rows, cols, kernel, stride)):
                grad_padded[start:stop, r, s] += seen[:, place]
            del columns, seen  # see conv2d_forward

    split(input_part, x.shape[0], work)
    return _inside(grad_padded, x.shape, padding), grad_weight, grad_bias


def _inside(padded: FloatArray, shape: tuple[int, ...], padding: Pair) -> FloatArray:
    """Take off the border."""
    (top, left), (_, height, width, _) = padding, shape
    return padded[:, top : top + height, left : left + width]


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
    padded = _bordered(x, padding, -math.inf)
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
    return _inside(padded, shape, padding)
