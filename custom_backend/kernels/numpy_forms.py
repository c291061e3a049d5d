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
    np.matmul(a, b, out=out)
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
    """See `functional.conv.conv2d_forward`: the same product, by blocks of columns that stay in the cache."""
    outputs, kernel = weight.shape[0], pair(weight.shape[2:])
    size = output_size(x.shape[1:3], kernel, stride, padding)
    batch, matrix = x.shape[3], columns_of(weight)
    padded = _bordered(x, padding, 0.0)
    blocks = _blocks(size, matrix.shape[1], batch, x.itemsize)
    y = empty((outputs, math.prod(size) * batch), x.dtype)

    def part(start: int, stop: int) -> None:
        for rows, cols, run in blocks[start:stop]:
            columns = _columns(padded, rows, cols, kernel, stride)
            np.matmul(matrix, columns, out=y[:, run])
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
        total = np.zeros_like(matrix)
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
            columns = matmul(own, g[:, run])
            seen = columns.reshape(stop - start, math.prod(kernel), rows.stop - rows.start, -1, batch)
            for place, (r, s) in enumerate(_seen(rows, cols, kernel, stride)):
                grad_padded[start:stop, r, s] += seen[:, place]

    split(input_part, x.shape[0], work)
    return _inside(grad_padded, x.shape, padding), grad_weight, grad_bias


def _inside(padded: FloatArray, shape: tuple[int, ...], padding: Pair) -> FloatArray:
    """Take off the border."""
    (top, left), (_, height, width, _) = padding, shape
    return padded[:, top : top + height, left : left + width]


def leaky_relu_forward(x: FloatArray, slope: float) -> tuple[FloatArray, Any]:
    """See `functional.activation.leaky_relu_forward`; y is the greater of x and slope · x, if slope ≤ 1."""
    y = np.multiply(x, slope, out=empty_like(x))
    (np.maximum if slope <= 1 else np.minimum)(x, y, out=y)
    return y, (np.greater(x, 0, out=empty(x.shape, np.bool_)), slope)


def leaky_relu_backward(saved: Any, grad: FloatArray) -> FloatArray:
    """See `functional.activation.leaky_relu_backward`; the derivative is slope + (1 − slope) · mask."""
    positive, slope = saved
    out = empty_like(grad)
    np.multiply(positive, grad.dtype.type(1 - slope), out=out)
    out += grad.dtype.type(slope)
    out *= grad
    return out


def batch_norm_forward(x: FloatArray, norm: Norm) -> tuple[FloatArray, Normalised]:
    """See `functional.normalization.batch_norm_forward`."""
    weight, bias, eps, statistics = norm
    flat = columns_of(x)
    mean = flat.mean(axis=1) if statistics is None else statistics[0]
    centred = np.subtract(flat, column(mean), out=empty_like(flat))
    variance = np.vecdot(centred, centred) / flat.shape[1] if statistics is None else statistics[1]
    inverse_std = 1 / np.sqrt(variance + x.dtype.type(eps))
    y = np.multiply(centred, column(weight * inverse_std), out=empty_like(flat))
    y += column(bias)
    saved = Normalised(centred.reshape(x.shape), mean, variance, weight, inverse_std, statistics is None)
    return y.reshape(x.shape), saved


def batch_norm_backward(saved: Normalised, grad: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """See `functional.normalization.batch_norm_backward`."""
    g, centred = columns_of(grad), columns_of(saved.centred)
    grad_weight = np.vecdot(g, centred) * saved.inverse_std
    grad_bias = g.sum(axis=1)
    out = empty_like(g)
    if saved.of_batch:
        np.multiply(centred, column(grad_weight * saved.inverse_std / -g.shape[1]), out=out)
        out -= column(grad_bias / g.shape[1])
        out += g
        out *= column(saved.weight * saved.inverse_std)
    else:
        np.multiply(g, column(saved.weight * saved.inverse_std), out=out)
    return out.reshape(grad.shape), grad_weight, grad_bias


def max_pool2d_forward(x: FloatArray, kernel: Pair, stride: Pair, padding: Pair) -> tuple[FloatArray, Any]:
    """See `functional.pooling.max_pool2d_forward`."""
    size = output_size(x.shape[1:3], kernel, stride, padding)
    padded = _bordered(x, padding, -math.inf)
    first, *others = (padded[:, rows, cols] for rows, cols in windows(size, kernel, stride))
    y, place = empty(first.shape, x.dtype), empty(first.shape, np.uint8)
    better, won = empty(first.shape, np.bool_), empty(first.shape, np.uint8)
    np.copyto(y, first)
    place.fill(0)
    for number, seen in enumerate(others, start=1):
        np.greater(seen, y, out=better)
        np.maximum(place, np.multiply(better, np.uint8(number), out=won), out=place)
        np.maximum(y, seen, out=y)
    return y, (place, x.shape, kernel, stride, padding)


def max_pool2d_backward(saved: Any, grad: FloatArray) -> FloatArray:
    """See `functional.pooling.max_pool2d_backward`; windows that do not overlap are written, not added."""
    place, (channels, height, width, batch), kernel, stride, padding = saved
    size = grad.shape[1:3]
    whole = (height + 2 * padding[0], width + 2 * padding[1])
    disjoint = kernel == stride
    tiled = disjoint and (size[0] * stride[0], size[1] * stride[1]) == whole
    shape = (channels, *whole, batch)
    padded = empty(shape, grad.dtype) if tiled else zeros(grad, shape)
    chosen, share = empty(grad.shape, np.bool_), empty_like(grad)
    for number, (rows, cols) in enumerate(windows(size, kernel, stride)):
        np.equal(place, number, out=chosen)
        if disjoint:
            np.multiply(grad, chosen, out=padded[:, rows, cols])
        else:
            padded[:, rows, cols] += np.multiply(grad, chosen, out=share)
    return padded[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width]
