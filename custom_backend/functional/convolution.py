"""Convolution as one matrix product."""

import math
from typing import Any, NamedTuple

from custom_backend.array import Array, Pair, by_group, columns_of, dispatch, matmul, namespace, zeros


class Geometry(NamedTuple):
    """The settings of a convolution, along (height, width)."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair = (1, 1)
    groups: int = 1  # of channels, each with a convolution of its own

    @property
    def window(self) -> tuple[Pair, Pair, Pair, Pair]:
        """Where the windows lie: (kernel, stride, padding, dilation)."""
        return self.kernel, self.stride, self.padding, self.dilation


def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1)) -> Pair:
    """How many windows fit: ⌊(size + 2 padding − dilation (kernel − 1) − 1) / stride⌋ + 1 along each axis."""
    height, width = (
        (length + 2 * p - d * (k - 1) - 1) // s + 1
        for length, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    return height, width


def windows(
    size: Pair, kernel: Pair, stride: Pair, dilation: Pair = (1, 1), first: Pair = (0, 0)
) -> list[tuple[slice, slice]]:
    """For each entry (i, j) of the kernel, row by row, the pixels that it meets as the window moves.

    `size` is the number of windows, of which the first begins at pixel `first` of the (padded) image.
    """
    reach = [s * (n - 1) + 1 for s, n in zip(stride, size, strict=True)]
    tops = range(first[0], first[0] + kernel[0] * dilation[0], dilation[0])
    lefts = range(first[1], first[1] + kernel[1] * dilation[1], dilation[1])
    return [
        (slice(top, top + reach[0], stride[0]), slice(left, left + reach[1], stride[1]))
        for top in tops
        for left in lefts
    ]


def pad(x: Array, padding: Pair) -> Array:
    """`x` (channels, height, width, batch) with a border of zeros."""
    if padding == (0, 0):
        return x
    channels, height, width, batch = x.shape
    padded = zeros(x, (channels, height + 2 * padding[0], width + 2 * padding[1], batch))
    unpad(padded, padding)[...] = x
    return padded


def extend(x: Array, count: Pair) -> Array:
    """`x` with `count` rows and columns of zeros at the end."""
    if count == (0, 0):
        return x
    channels, height, width, batch = x.shape
    extended = zeros(x, (channels, height + count[0], width + count[1], batch))
    extended[:, :height, :width, :] = x
    return extended


def unpad(padded: Array, padding: Pair) -> Array:
    """View an image without its border."""
    _, height, width, _ = padded.shape
    return padded[:, padding[0] : height - padding[0], padding[1] : width - padding[1], :]


@dispatch
def im2col(x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1)) -> Array:
    """Write what every window sees into a column.

    Shapes: x (C, H, W, N) → (C·kh·kw, H'·W'·N), rows in the order of a (C, kh, kw) kernel, columns in the
    order of a (H', W', N) output.
    """
    size = output_size(x.shape[1:3], kernel, stride, padding, dilation)
    padded = pad(x, padding)
    seen = [padded[:, rows, cols, :] for rows, cols in windows(size, kernel, stride, dilation)]
    return namespace(x).reshape(
        namespace(x).stack(seen, axis=1), (x.shape[0] * math.prod(kernel), math.prod(size) * x.shape[3])
    )


@dispatch
def col2im(
    columns: Array, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1)
) -> Array:
    """The transpose of `im2col`: each pixel of an image of `shape` sums what the windows hold for it."""
    channels, height, width, batch = shape
    size = output_size((height, width), kernel, stride, padding, dilation)
    seen = namespace(columns).reshape(columns, (channels, math.prod(kernel), *size, batch))
    padded = zeros(columns, (channels, height + 2 * padding[0], width + 2 * padding[1], batch))
    for entry, (rows, cols) in enumerate(windows(size, kernel, stride, dilation)):
        padded[:, rows, cols, :] += seen[:, entry, ...]
    return unpad(padded, padding)


@dispatch
def conv2d_forward(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> tuple[Array, Any]:
    """y[o, r, s] = Σ_{c,i,j} W[o, c, i, j] · x[c, r·stride + i·dilation − padding, …likewise s, j] + b[o].

    With the windows as columns X this is one product, Y = W X: (O, C·kh·kw) @ (C·kh·kw, H'·W'·N). Where the
    channels are in groups, there is one such product for each, of O / groups outputs and C / groups inputs.
    The columns are not kept but made again in backward; kept is x alone.

    Shapes: x (C, H, W, N), weight (O, C / groups, kh, kw), bias (O,) or None → y (O, H', W', N).
    """
    geometry = Geometry(weight.shape[2:], stride, padding, dilation, groups)
    size = output_size(x.shape[1:3], *geometry.window)
    y = matmul(by_group(weight, groups), by_group(im2col(x, *geometry.window), groups))
    y = namespace(x).reshape(y, (weight.shape[0], *size, x.shape[3]))
    if bias is not None:
        y += namespace(x).reshape(bias, (-1, 1, 1, 1))
    return y, (x, weight, bias is not None, geometry)


@dispatch
def conv2d_backward(
    saved: Any, grad: Array, needs_input_grad: bool = True
) -> tuple[Array | None, Array, Array | None]:
    """With X = im2col(x), the forward pass is Y = W X, so ∂L/∂W = G Xᵀ and ∂L/∂X = Wᵀ G.

    im2col copies pixels and is linear; its transpose, col2im, brings ∂L/∂X back to ∂L/∂x. ∂L/∂b sums G
    over windows and batch; it is None where there is no bias.
    """
    x, weight, has_bias, geometry = saved
    xp, groups = namespace(grad), geometry.groups
    g, columns = by_group(grad, groups), by_group(im2col(x, *geometry.window), groups)
    grad_weight = xp.reshape(matmul(g, xp.matrix_transpose(columns)), weight.shape)
    grad_bias = xp.sum(columns_of(grad), axis=1) if has_bias else None
    if not needs_input_grad:
        return None, grad_weight, grad_bias
    grad_columns = matmul(xp.matrix_transpose(by_group(weight, groups)), g)
    return col2im(grad_columns, x.shape, *geometry.window), grad_weight, grad_bias
