"""Pooling: by maximum, by mean, and by mean to a given size."""

import math
from typing import Any

from custom_backend.array import Array, Pair, dispatch, namespace, zeros
from custom_backend.functional.convolution import output_size, pad, unpad, windows


@dispatch
def max_pool2d_forward(x: Array, kernel: Pair, stride: Pair, padding: Pair) -> tuple[Array, Any]:
    """y = the greatest value of each window; the border counts as −∞ and a NaN as greatest.

    Of equal values the first, row by row, is taken, and of NaNs the last, as torch does. Its index in the
    window, one byte, is what backward needs. The border never wins, not over pixels of −∞ either:
    a window's first pixel of the image beats whatever came before.

    Shapes: x (C, H, W, N) → y (C, H', W', N).
    """
    xp = namespace(x)
    size = output_size(x.shape[1:3], kernel, stride, padding)
    inside = pad(xp.ones_like(x[:1, :, :, :1]), padding) > 0
    padded = xp.where(inside, pad(x, padding), -math.inf)
    y = zeros(x, (x.shape[0], *size, x.shape[3])) - math.inf
    index, met = xp.zeros_like(y, dtype=xp.uint8), inside[:, : size[0], : size[1], :] & False
    for number, (rows, cols) in enumerate(windows(size, kernel, stride)):
        seen, real = padded[:, rows, cols, :], inside[:, rows, cols, :]
        better = (seen > y) | (seen != seen) | (real & ~met)
        y, index = xp.where(better, seen, y), xp.where(better, xp.full_like(index, number), index)
        met = met | real
    return y, (index, x.shape, kernel, stride, padding)


@dispatch
def max_pool2d_backward(saved: Any, grad: Array) -> Array:
    """∂L/∂x: every output hands its gradient to the one pixel it was copied from."""
    index, (channels, height, width, batch), kernel, stride, padding = saved
    xp = namespace(grad)
    padded = zeros(grad, (channels, height + 2 * padding[0], width + 2 * padding[1], batch))
    for number, (rows, cols) in enumerate(windows(grad.shape[1:3], kernel, stride)):
        padded[:, rows, cols, :] += xp.where(index == number, grad, 0.0)
    return unpad(padded, padding)


def avg_pool2d_forward(x: Array, kernel: Pair, stride: Pair, padding: Pair) -> tuple[Array, Any]:
    """y = the mean of each window; the zeros of the border count, as in torch.

    Shapes: x (C, H, W, N) → y (C, H', W', N).
    """
    size = output_size(x.shape[1:3], kernel, stride, padding)
    padded = pad(x, padding)
    y = zeros(x, (x.shape[0], *size, x.shape[3]))
    for rows, cols in windows(size, kernel, stride):
        y += padded[:, rows, cols, :]
    y /= math.prod(kernel)
    return y, (x.shape, kernel, stride, padding)


def avg_pool2d_backward(saved: Any, grad: Array) -> Array:
    """∂L/∂x: every output hands the same part of its gradient to each pixel of its window."""
    (channels, height, width, batch), kernel, stride, padding = saved
    part = grad / math.prod(kernel)
    padded = zeros(grad, (channels, height + 2 * padding[0], width + 2 * padding[1], batch))
    for rows, cols in windows(grad.shape[1:3], kernel, stride):
        padded[:, rows, cols, :] += part
    return unpad(padded, padding)


def _bins(length: int, count: int) -> list[slice]:
    """Cut `length` pixels into `count` bins as even as possible; neighbours share a pixel where need be."""
    return [slice(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def adaptive_avg_pool2d_forward(x: Array, size: Pair) -> tuple[Array, Any]:
    """y[r, s] = the mean of bin (r, s): pixels ⌊r H / H'⌋ to ⌈(r + 1) H / H'⌉ − 1, and likewise along W.

    Shapes: x (C, H, W, N), size (H', W') → y (C, H', W', N).
    """
    xp = namespace(x)
    y = zeros(x, (x.shape[0], *size, x.shape[3]))
    for r, rows in enumerate(_bins(x.shape[1], size[0])):
        for s, cols in enumerate(_bins(x.shape[2], size[1])):
            y[:, r, s, :] = xp.mean(x[:, rows, cols, :], axis=(1, 2))
    return y, (x.shape,)


def adaptive_avg_pool2d_backward(saved: Any, grad: Array) -> Array:
    """∂L/∂x: every output hands the same part of its gradient to each pixel of its bin."""
    (shape,) = saved
    grad_x = zeros(grad, shape)
    for r, rows in enumerate(_bins(shape[1], grad.shape[1])):
        for s, cols in enumerate(_bins(shape[2], grad.shape[2])):
            area = (rows.stop - rows.start) * (cols.stop - cols.start)
            grad_x[:, rows, cols, :] += grad[:, r : r + 1, s : s + 1, :] / area
    return grad_x
