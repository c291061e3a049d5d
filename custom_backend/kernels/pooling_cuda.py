"""CuPy kernels of max-pooling."""

from typing import Any

import cupy

from custom_backend.array import Array, Pair
from custom_backend.functional.convolution import output_size
from custom_backend.kernels.elementwise import GEOMETRY, MEETING, elementwise_kernel, sizes

_max_pool = elementwise_kernel(
    "max_pool",
    f"raw T x, int64 height, int64 width, int64 batch, int64 rows, int64 cols, {GEOMETRY}",
    "T y, uint8 index",
    "n:batch s:cols r:rows c",
    """
    bool first = true;
    for (ptrdiff_t k = 0; k < kh * kw; ++k) {
        ptrdiff_t h = r * sh + k / kw - ph, w = s * sw + k % kw - pw;
        if (h < 0 || h >= height || w < 0 || w >= width) continue;
        T seen = x[((c * height + h) * width + w) * batch + n];
        if (first || seen > y || seen != seen) { y = seen; index = k; first = false; }
    }
    """,
)

_max_pool_backward = elementwise_kernel(
    "max_pool_backward",
    "raw T grad, raw uint8 index, int64 height, int64 width, int64 batch, int64 rows, int64 cols, "
    + GEOMETRY,
    "T out",
    "n:batch w:width h:height c",
    MEETING
    % """ptrdiff_t at = ((c * rows + r) * cols + s) * batch + n;
            if (index[at] == ki * kw + kj) sum += grad[at];""",
)


def max_pool2d_forward(x: Array, kernel: Pair, stride: Pair, padding: Pair) -> tuple[Array, Any]:
    """See `functional.pooling.max_pool2d_forward`."""
    size = output_size(x.shape[1:3], kernel, stride, padding)
    y = cupy.empty((x.shape[0], *size, x.shape[3]), x.dtype)
    index = cupy.empty(y.shape, cupy.uint8)
    _max_pool(cupy.ascontiguousarray(x), *sizes(x.shape, size), *kernel, *stride, *padding, 1, 1, y, index)
    return y, (index, x.shape, kernel, stride, padding)


def max_pool2d_backward(saved: Any, grad: Array) -> Array:
    """See `functional.pooling.max_pool2d_backward`."""
    index, shape, kernel, stride, padding = saved
    layout, grad = sizes(shape, grad.shape[1:3]), cupy.ascontiguousarray(grad)
    return _max_pool_backward(
        grad, index, *layout, *kernel, *stride, *padding, 1, 1, cupy.empty(shape, grad.dtype)
    )
