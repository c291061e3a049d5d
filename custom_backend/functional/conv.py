"""Convolution as one matrix product."""

import math
from typing import Any

from custom_backend.array import Array, Pair, column, columns_of, matmul, namespace, operation, zeros


def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """How many windows fit: ⌊(size + 2 padding − kernel) / stride⌋ + 1 along each axis."""
    height, width = (
        (length + 2 * p - k) // s + 1 for length, k, s, p in zip(size, kernel, stride, padding, strict=True)
    )
    return height, width


def windows(size: Pair, kernel: Pair, stride: Pair) -> list[tuple[slice, slice]]:
    """For each place (i, j) of the kernel, row by row, the pixels that it meets as the window moves.

    `size` is the number of windows; the slices index the (padded) image.
    """
    return [
        (
            slice(i, i + stride[0] * (size[0] - 1) + 1, stride[0]),
            slice(j, j + stride[1] * (size[1] - 1) + 1, stride[1]),
        )
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]


def pad(x: Array, padding: Pair) -> Array:
    """`x` (channels, height, width, batch) with a border of zeros."""
    if padding == (0, 0):
        return x
    channels, height, width, batch = x.shape
    padded = zeros(x, (channels, height + 2 * padding[0], width + 2 * padding[1], batch))
    padded[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width, :] = x
    return padded


@operation
def im2col(x: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Lay out what every window sees as a column.

    Shapes: x (C, H, W, N) → (C·kh·kw, H'·W'·N), rows in the order of a (C, kh, kw) kernel, columns in the
    order of a (H', W', N) output.
    """
    size = output_size(x.shape[1:3], kernel, stride, padding)
    padded = pad(x, padding)
    seen = [padded[:, rows, cols, :] for rows, cols in windows(size, kernel, stride)]
    return namespace(x).reshape(
        namespace(x).stack(seen, axis=1), (x.shape[0] * math.prod(kernel), math.prod(size) * x.shape[3])
    )


@operation
def col2im(columns: Array, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """The transpose of `im2col`: each pixel of an image of `shape` sums what the windows hold for it."""
    channels, height, width, batch = shape
    size = output_size((height, width), kernel, stride, padding)
    seen = namespace(columns).reshape(columns, (channels, math.prod(kernel), *size, batch))
    padded = zeros(columns, (channels, height + 2 * padding[0], width + 2 * padding[1], batch))
    for place, (rows, cols) in enumerate(windows(size, kernel, stride)):
        padded[:, rows, cols, :] += seen[:, place, ...]
    return padded[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width, :]


@operation
def conv2d_forward(
    x: Array, weight: Array, bias: Array | None, stride: Pair, padding: Pair
) -> tuple[Array, Any]:
    """y[o, r, s] = Σ_{c,i,j} W[o, c, i, j] · x[c, r·stride + i − pad, s·stride + j − pad] + b[o].

    With the windows as columns this is one product, (O, C·kh·kw) @ (C·kh·kw, H'·W'·N). The columns,
    4·C·kh·kw·H'·W' bytes an image in float32, are not kept but laid out again in backward; kept is x alone.

    Shapes: x (C, H, W, N), weight (O, C, kh, kw), bias (O,) or None → y (O, H', W', N).
    """
    kernel = weight.shape[2:]
    size = output_size(x.shape[1:3], kernel, stride, padding)
    y = matmul(columns_of(weight), im2col(x, kernel, stride, padding))
    if bias is not None:
        y += column(bias)
    return namespace(x).reshape(y, (weight.shape[0], *size, x.shape[3])), (x, weight, stride, padding)


@operation
def conv2d_backward(saved: Any, grad: Array, need_x: bool = True) -> tuple[Array | None, Array, Array]:
    """With X = im2col(x), the forward pass is Y = W X, so ∂L/∂W = G Xᵀ and ∂L/∂X = Wᵀ G.

    im2col copies pixels and is linear; its transpose, col2im, brings ∂L/∂X back to ∂L/∂x. ∂L/∂b sums G
    over windows and batch.
    """
    x, weight, stride, padding = saved
    kernel = weight.shape[2:]
    xp, g = namespace(grad), columns_of(grad)
    grad_weight = xp.reshape(matmul(g, im2col(x, kernel, stride, padding).T), weight.shape)
    grad_bias = xp.sum(g, axis=1)
    if not need_x:
        return None, grad_weight, grad_bias
    return col2im(matmul(columns_of(weight).T, g), x.shape, kernel, stride, padding), grad_weight, grad_bias
