"""Convolution by im2col on the CPU, in blocks of columns that stay in the cache, shared out among threads."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from custom_backend.array import Pair, by_group
from custom_backend.functional.convolution import Geometry, output_size, unpad, windows
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
    edges = (np.s_[:, :top], np.s_[:, top + height :], np.s_[:, :, :left], np.s_[:, :, left + width :])

    def copy(start: int, stop: int) -> None:
        for edge in edges:
            out[start:stop][edge] = border
        unpad(out[start:stop], padding)[...] = x[start:stop]

    split(copy, channels, out.size)
    return out


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


def _windows(rows: slice, cols: slice, geometry: Geometry) -> list[tuple[slice, slice]]:
    """The pixels that each entry of the kernel meets in the windows (rows, cols)."""
    kernel, stride, _, dilation = geometry.window
    size = rows.stop - rows.start, cols.stop - cols.start
    return windows(size, kernel, stride, dilation, (rows.start * stride[0], cols.start * stride[1]))


def _columns(padded: FloatArray, rows: slice, cols: slice, geometry: Geometry) -> FloatArray:
    """The columns of the im2col matrix of each group that belong to the windows (rows, cols)."""
    entries = _windows(rows, cols, geometry)
    size = rows.stop - rows.start, cols.stop - cols.start
    columns = empty((len(padded), len(entries), *size, padded.shape[3]), padded.dtype)
    for entry, (r, s) in enumerate(entries):
        columns[:, entry] = padded[:, r, s]
    return columns.reshape(geometry.groups, -1, math.prod(columns.shape[2:]))


def correlate(x: FloatArray, weight: FloatArray, geometry: Geometry) -> FloatArray:
    """The product of `conv2d_forward`, by blocks of columns.

    Of the columns there are never more than `CACHE` bytes a thread (or one pixel's, if those are more).
    """
    size, batch, groups = output_size(x.shape[1:3], *geometry.window), x.shape[3], geometry.groups
    matrices, padded = by_group(weight, groups), bordered(x, geometry.padding, 0.0)
    y = empty((*matrices.shape[:2], math.prod(size) * batch), x.dtype)
    pixel = groups * matrices.shape[2] * batch * x.itemsize

    def multiply(start: int, stop: int) -> None:
        for rows, cols, run in blocks(start, stop, size[1], batch, pixel):
            # unnamed, so that the next block lies in the same memory, which the cache still holds
            np.matmul(matrices, _columns(padded, rows, cols, geometry), out=y[..., run])

    split(multiply, math.prod(size), weight.size * y.shape[2] // PRODUCTS)
    return y.reshape(len(weight), *size, batch)


def weight_gradient(x: FloatArray, grad: FloatArray, geometry: Geometry) -> FloatArray:
    """∂L/∂W of `conv2d_backward`: the threads share the columns and add up at the end."""
    groups = geometry.groups
    g, (_, height, width, batch) = by_group(grad, groups), grad.shape
    rows_of_matrix = x.shape[0] // groups * math.prod(geometry.kernel)
    padded = bordered(x, geometry.padding, 0.0)
    pixel = groups * rows_of_matrix * batch * x.itemsize

    def multiply(start: int, stop: int) -> FloatArray:
        # the longer side first is faster by a fifth
        total = np.zeros((groups, rows_of_matrix, g.shape[1]), x.dtype)
        for rows, cols, run in blocks(start, stop, width, batch, pixel):
            total += _columns(padded, rows, cols, geometry) @ g[..., run].swapaxes(1, 2)
        return total

    total = split_sum(multiply, height * width, rows_of_matrix * grad.size // PRODUCTS)
    shape = len(grad), x.shape[0] // groups, *geometry.kernel
    return np.ascontiguousarray(total.swapaxes(1, 2)).reshape(shape)


def _turned(weight: FloatArray, geometry: Geometry) -> tuple[FloatArray, Geometry] | None:
    """The kernels turned by 180°, which take ∂L/∂y to ∂L/∂x by a correlation, and its geometry.

    None where it is not one, where it takes longer, and for infinite kernels: those times zeros of a border
    that only the correlation has are NaN.
    """
    kernel, stride, padding, dilation, groups = geometry
    rest = (kernel[0] - 1) * dilation[0] - padding[0], (kernel[1] - 1) * dilation[1] - padding[1]
    narrows = len(weight) <= groups * weight.shape[1]
    if stride != (1, 1) or min(rest) < 0 or not narrows or not np.isfinite(weight).all():
        return None
    by_input = weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)[..., ::-1, ::-1]
    turned = np.ascontiguousarray(by_input).reshape(-1, len(weight) // groups, *kernel)
    return turned, Geometry(kernel, stride, rest, dilation, groups)


def input_gradient(
    shape: tuple[int, ...], weight: FloatArray, grad: FloatArray, geometry: Geometry
) -> FloatArray:
    """∂L/∂x of `conv2d_backward`, for x of `shape`: a correlation, see `_turned`, or col2im.

    The threads share the groups of channels, or the channels of the only one, so that no two of them add to
    the same pixel.
    """
    (channels, height, width, batch), size, (top, left) = shape, grad.shape[1:3], geometry.padding
    groups, entries = geometry.groups, math.prod(geometry.kernel)
    if turned := _turned(weight, geometry):
        return correlate(grad, *turned)
    g, together = by_group(grad, groups), channels // groups
    matrices = by_group(weight, groups).reshape(groups, -1, together, entries)
    padded = empty((channels, height + 2 * top, width + 2 * left, batch), grad.dtype)

    def multiply(start: int, stop: int) -> None:
        if groups == 1:
            image, matrix, chunk_grad = padded[start:stop], matrices[:, :, start:stop], g
        else:
            image = padded[start * together : stop * together]
            matrix, chunk_grad = matrices[start:stop], g[start:stop]
        image.fill(0)
        transposed = matrix.reshape(*matrix.shape[:2], -1).swapaxes(1, 2)
        pixel = len(image) * entries * batch * grad.itemsize
        for rows, cols, run in blocks(0, math.prod(size), size[1], batch, pixel):
            columns = empty((*transposed.shape[:2], run.stop - run.start), grad.dtype)
            np.matmul(transposed, chunk_grad[..., run], out=columns)
            seen = columns.reshape(len(image), entries, rows.stop - rows.start, -1, batch)
            for entry, (r, s) in enumerate(_windows(rows, cols, geometry)):
                image[:, r, s] += seen[:, entry]
            del columns, seen  # see correlate

    split(multiply, channels if groups == 1 else groups, weight.size * g.shape[2] // PRODUCTS)
    grad_x: FloatArray = unpad(padded, (top, left))
    return grad_x
