"""Convolution by im2col on the CPU, in blocks of columns that stay in the cache, shared out among threads."""

import functools
import math
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from custom_backend.array import Pair, columns_of, pair
from custom_backend.functional.conv import output_size, windows
from custom_backend.kernels.memory import empty
from custom_backend.kernels.parallel import split

FloatArray = npt.NDArray[Any]

CACHE = 1 << 21  # bytes that a thread works on at a time


def bordered(x: FloatArray, padding: Pair, border: float) -> FloatArray:
    """`x` with `padding` pixels of the value `border` all round."""
    (top, left), (channels, height, width, batch) = padding, x.shape
    if padding == (0, 0):
        return x
    out = empty((channels, height + 2 * top, width + 2 * left, batch), x.dtype)

    def part(start: int, stop: int) -> None:
        own = out[start:stop]
        edges = (np.s_[:, :top], np.s_[:, top + height :], np.s_[:, :, :left], np.s_[:, :, left + width :])
        for edge in edges:
            own[edge] = border
        own[:, top : top + height, left : left + width] = x[start:stop]

    split(part, channels, out.size)
    return out


def inside(padded: FloatArray, shape: tuple[int, ...], padding: Pair) -> FloatArray:
    """Take off the border."""
    (top, left), (_, height, width, _) = padding, shape
    return padded[:, top : top + height, left : left + width]


def blocks(size: Pair, rows: int, batch: int, itemsize: int) -> list[tuple[slice, slice, slice]]:
    """Cut the columns of a matrix of `rows` rows, one for each pixel and image, into runs that fit the cache.

    A run is either several whole rows of pixels or a part of one: (rows, columns, where in the matrix).
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


def _columns(padded: FloatArray, rows: slice, cols: slice, kernel: Pair, stride: Pair) -> FloatArray:
    """The columns of the im2col matrix that belong to the windows (rows, cols)."""
    shape = (len(padded), math.prod(kernel), rows.stop - rows.start, cols.stop - cols.start, padded.shape[3])
    columns = empty(shape, padded.dtype)
    for place, (r, s) in enumerate(_seen(rows, cols, kernel, stride)):
        columns[:, place] = padded[:, r, s]
    return columns.reshape(shape[0] * shape[1], -1)


def correlate(x: FloatArray, weight: FloatArray, stride: Pair, padding: Pair) -> FloatArray:
    """The product of `functional.conv.conv2d_forward`, by blocks of columns.

    Of the columns there are never more than `CACHE` bytes a thread (or one pixel's, if those are more).
    """
    outputs, kernel = weight.shape[0], pair(weight.shape[2:])
    size = output_size(x.shape[1:3], kernel, stride, padding)
    batch, matrix = x.shape[3], columns_of(weight)
    padded = bordered(x, padding, 0.0)
    runs = blocks(size, matrix.shape[1], batch, x.itemsize)
    y = empty((outputs, math.prod(size) * batch), x.dtype)

    def part(start: int, stop: int) -> None:
        for rows, cols, run in runs[start:stop]:
            # unnamed, so that the next block lies in the same memory, which the cache still holds
            np.matmul(matrix, _columns(padded, rows, cols, kernel, stride), out=y[:, run])

    split(part, len(runs), matrix.shape[1] * y.shape[1])
    return y.reshape(outputs, *size, batch)


def weight_gradient(x: FloatArray, grad: FloatArray, kernel: Pair, stride: Pair, padding: Pair) -> FloatArray:
    """∂L/∂W of `functional.conv.conv2d_backward`: the threads share the columns and add up at the end."""
    g, rows_of_matrix, batch = columns_of(grad), x.shape[0] * math.prod(kernel), x.shape[3]
    padded = bordered(x, padding, 0.0)
    runs = blocks(grad.shape[1:3], rows_of_matrix, batch, x.itemsize)
    partial: dict[int, FloatArray] = {}

    def part(start: int, stop: int) -> None:
        total = np.zeros((rows_of_matrix, len(g)), x.dtype)  # the longer side first is faster by a fifth
        for rows, cols, run in runs[start:stop]:
            total += _columns(padded, rows, cols, kernel, stride) @ g[:, run].T
        partial[start] = total

    split(part, len(runs), rows_of_matrix * g.shape[1])
    total = functools.reduce(np.add, (partial[start] for start in sorted(partial)))
    return total.T.reshape(len(g), x.shape[0], *kernel)


def input_gradient(
    shape: tuple[int, ...], weight: FloatArray, grad: FloatArray, stride: Pair, padding: Pair
) -> FloatArray:
    """∂L/∂x of `functional.conv.conv2d_backward`, for x of `shape`.

    The threads share the channels of x, so that no two of them add to the same pixel.
    """
    kernel, size, (channels, height, width, batch) = pair(weight.shape[2:]), grad.shape[1:3], shape
    g = columns_of(grad)
    padded = empty((channels, height + 2 * padding[0], width + 2 * padding[1], batch), grad.dtype)

    def part(start: int, stop: int) -> None:
        padded[start:stop] = 0
        own = columns_of(weight[:, start:stop]).T
        for rows, cols, run in blocks(size, len(own), batch, grad.itemsize):
            columns = empty((len(own), run.stop - run.start), grad.dtype)
            np.matmul(own, g[:, run], out=columns)
            seen = columns.reshape(stop - start, math.prod(kernel), rows.stop - rows.start, -1, batch)
            for place, (r, s) in enumerate(_seen(rows, cols, kernel, stride)):
                padded[start:stop, r, s] += seen[:, place]
            del columns, seen  # see correlate

    split(part, channels, weight[0].size * g.shape[1])
    return inside(padded, shape, padding)
