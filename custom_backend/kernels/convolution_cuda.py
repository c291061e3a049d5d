"""CuPy kernels of im2col and its transpose, which the reference convolution calls."""

import math

import cupy

from custom_backend.array import Array, Pair
from custom_backend.functional.convolution import output_size
from custom_backend.kernels.elementwise import GEOMETRY, MEETING, elementwise_kernel, sizes

_im2col = elementwise_kernel(
    "im2col",
    f"raw T x, int64 height, int64 width, int64 batch, int64 rows, int64 cols, {GEOMETRY}",
    "T out",
    "n:batch s:cols r:rows kj:kw ki:kh c",
    """
    ptrdiff_t h = r * sh + ki * dh - ph, w = s * sw + kj * dw - pw;
    bool inside = h >= 0 && h < height && w >= 0 && w < width;
    out = inside ? x[((c * height + h) * width + w) * batch + n] : T(0);
    """,
)

_col2im = elementwise_kernel(
    "col2im",
    f"raw T columns, int64 height, int64 width, int64 batch, int64 rows, int64 cols, {GEOMETRY}",
    "T out",
    "n:batch w:width h:height c",
    MEETING % "sum += columns[((((c * kh + ki) * kw + kj) * rows + r) * cols + s) * batch + n];",
)


def im2col(x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1)) -> Array:
    """See `functional.convolution.im2col`."""
    size = output_size(x.shape[1:3], kernel, stride, padding, dilation)
    out = cupy.empty((x.shape[0] * math.prod(kernel), math.prod(size) * x.shape[3]), x.dtype)
    return _im2col(
        cupy.ascontiguousarray(x), *sizes(x.shape, size), *kernel, *stride, *padding, *dilation, out
    )


def col2im(
    columns: Array, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1)
) -> Array:
    """See `functional.convolution.col2im`."""
    size = output_size((shape[1], shape[2]), kernel, stride, padding, dilation)
    out = cupy.empty(shape, columns.dtype)
    return _col2im(
        cupy.ascontiguousarray(columns), *sizes(shape, size), *kernel, *stride, *padding, *dilation, out
    )
