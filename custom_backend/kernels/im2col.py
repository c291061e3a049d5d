"""Convolution by im2col on the CPU, in blocks of columns that stay in the cache, shared out among threads."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from custom_backend.array import Pair, columns_of, pair
from custom_backend.functional.conv import output_size, windows
from custom_backend.kernels.memory import empty
from custom_backend.kernels.parallel import PRODUCTS, split, split_sum

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


def blocks(start: int, stop: int, width: int, batch: int, pixel: int) -> Iterator[tuple[slice, slice, slice]]:
    """Cut windows [start, stop), counted row by row, `width` in a row, into rectangles that fit the cache.

    A window needs `pixel` bytes. Yields (rows, columns, where in a matrix of `batch` columns a window).
    """
    most = max(1, CACHE // pixel)
    step = -(-width // -(-width // most))  # what does not hold a row holds an equal part of one
    while start < stop:
        row, col = divmod(start, width)
        whole = min(most, stop - start) // width if col == 0 else 0
        count = whole * width or min(step, width - col, stop - start)
        cols = slice(0, width) if whole else slice(col, col + count)
        yield slice(row, row + max(whole, 1)), cols, slice(start * batch, (start + count) * batch)
        start += count


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
    y = empty((outputs, math.prod(size) * batch), x.dtype)

    def part(start: int, stop: int) -> None:
        for rows, cols, run in blocks(start, stop, size[1], batch, matrix.shape[1] * batch * x.itemsize):
            # unnamed, so that the next block lies in the same memory, which the cache still holds
            np.matmul(matrix, _columns(padded, rows, cols, kernel, stride), out=y[:, run])

    split(part, math.prod(size), weight.size * y.shape[1] // PRODUCTS)
    return y.reshape(outputs, *size, batch)


def weight_gradient(x: FloatArray, grad: FloatArray, kernel: Pair, stride: Pair, padding: Pair) -> FloatArray:
    """∂L/∂W of `functional.conv.conv2d_backward`: the threads share the columns and add up at the end."""
    g, rows_of_matrix = columns_of(grad), x.shape[0] * math.prod(kernel)
    _, height, width, batch = grad.shape
    padded = bordered(x, padding, 0.0)

    def part(start: int, stop: int) -> FloatArray:
        total = np.zeros((rows_of_matrix, len(g)), x.dtype)  # the longer side first is faster by a fifth
        for rows, cols, run in blocks(start, stop, width, batch, rows_of_matrix * batch * x.itemsize):
            total += _columns(padded, rows, cols, kernel, stride) @ g[:, run].T
        return total

    total = split_sum(part, height * width, rows_of_matrix * g.size // PRODUCTS)
    return np.ascontiguousarray(total.T).reshape(len(g), x.shape[0], *kernel)


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
        for rows, cols, run in blocks(0, math.prod(size), size[1], batch, len(own) * batch * grad.itemsize):
            columns = empty((len(own), run.stop - run.start), grad.dtype)
            np.matmul(own, g[:, run], out=columns)
            seen = columns.reshape(stop - start, math.prod(kernel), rows.stop - rows.start, -1, batch)
            for place, (r, s) in enumerate(_seen(rows, cols, kernel, stride)):
                padded[start:stop, r, s] += seen[:, place]
            del columns, seen  # see correlate

    split(part, channels, weight.size * g.shape[1] // PRODUCTS)
    return inside(padded, shape, padding)
