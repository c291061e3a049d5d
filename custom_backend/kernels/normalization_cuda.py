"""CuPy kernels of normalisation with what follows it."""

import math
from typing import Any

import cupy

from custom_backend.array import Array, column, columns_of
from custom_backend.functional.normalization import Norm
from custom_backend.kernels.elementwise import elementwise_kernel, sizes

NORM = "raw T mean, raw T inverse_std, raw T weight, raw T bias, T slope"

_norm_act_pool = elementwise_kernel(
    "norm_act_pool",
    f"raw T x, int64 height, int64 width, int64 batch, int64 rows, int64 cols, int64 window, {NORM}",
    "T y, uint8 index",
    "n:batch s:cols r:rows c",
    """
    for (ptrdiff_t k = 0; k < window * window; ++k) {
        ptrdiff_t h = r * window + k / window, w = s * window + k % window;
        T centred = x[((c * height + h) * width + w) * batch + n] - mean[c];
        T normal = centred * (weight[c] * inverse_std[c]) + bias[c];
        T active = slope == 0 ? (normal <= 0 ? T(0) : normal) : (normal > 0 ? normal : slope * normal);
        if (k == 0 || active > y || active != active) { y = active; index = k; }
    }
    """,
)

# One element of the pooled output: the gradient before the activation, and that times the centred value.
_norm_act_pool_gather = elementwise_kernel(
    "norm_act_pool_gather",
    "raw T x, raw T grad, raw uint8 index, int64 height, int64 width, int64 batch, int64 rows, int64 cols, "
    f"int64 window, {NORM}",
    "T g, T dot",
    "n:batch s:cols r:rows c",
    """
    ptrdiff_t h = r * window + index[i] / window, w = s * window + index[i] % window;
    T centred = x[((c * height + h) * width + w) * batch + n] - mean[c];
    T normal = centred * (weight[c] * inverse_std[c]) + bias[c];
    g = slope == 0 ? (normal <= 0 ? T(0) : grad[i]) : (normal > 0 ? grad[i] : slope * grad[i]);
    // Of all pixels of the window, the last one's reaching to the edge: elsewhere g is 0, but 0 * inf is NaN.
    T sum = 0;
    ptrdiff_t bottom = r == rows - 1 ? height : (r + 1) * window;
    ptrdiff_t right = s == cols - 1 ? width : (s + 1) * window;
    for (ptrdiff_t a = r * window; a < bottom; ++a)
        for (ptrdiff_t b = s * window; b < right; ++b)
            sum += (a == h && b == w ? g : T(0)) * (x[((c * height + a) * width + b) * batch + n] - mean[c]);
    dot = sum;
    """,
)

_norm_act_pool_spread = elementwise_kernel(
    "norm_act_pool_spread",
    "raw T x, raw T g, raw uint8 index, int64 height, int64 width, int64 batch, int64 rows, int64 cols, "
    "int64 window, int64 of_batch, raw T mean, raw T factor, raw T offset, raw T along",
    "T grad_x",
    "n:batch w:width h:height c",
    """
    ptrdiff_t r = h / window, s = w / window, at = ((c * rows + r) * cols + s) * batch + n;
    bool chosen = r < rows && s < cols && index[at] == (h % window) * window + w % window;
    T kept = chosen ? g[at] : T(0);
    grad_x = factor[c] * (of_batch ? kept - offset[c] - (x[i] - mean[c]) * along[c] : kept);
    """,
)


def norm_act_pool_forward(x: Array, norm: Norm, slope: float, window: int) -> tuple[Array, Any]:
    """See `functional.normalization.norm_act_pool_forward`."""
    weight, bias, eps, statistics = norm
    x = cupy.ascontiguousarray(x)
    if statistics is None:
        flat = columns_of(x)
        mean = cupy.mean(flat, axis=1)
        variance = cupy.mean((flat - column(mean)) ** 2, axis=1)
    else:
        mean, variance = +statistics[0], statistics[1]  # running statistics move on before backward
    constants = (mean, 1 / cupy.sqrt(variance + eps), weight, bias, slope)
    layout = sizes(x.shape, (x.shape[1] // window, x.shape[2] // window))
    y = cupy.empty((x.shape[0], *layout[3:], x.shape[3]), x.dtype)
    index = cupy.empty(y.shape, cupy.uint8)
    _norm_act_pool(x, *layout, window, *constants, y, index)
    return y, (mean, variance, x, constants, statistics is None, window, index)


def norm_act_pool_backward(saved: Any, grad: Array) -> tuple[Array, Array, Array]:
    """See `functional.normalization.norm_act_pool_backward`."""
    _, _, x, constants, of_batch, window, index = saved
    mean, inverse_std, weight, *_ = constants
    layout = sizes(x.shape, grad.shape[1:3])
    g, dot = cupy.empty(grad.shape, x.dtype), cupy.empty(grad.shape, x.dtype)
    _norm_act_pool_gather(x, cupy.ascontiguousarray(grad), index, *layout, window, *constants, g, dot)
    grad_weight = cupy.sum(columns_of(dot), axis=1) * inverse_std
    grad_bias = cupy.sum(columns_of(g), axis=1)
    fraction = 1 / math.prod(x.shape[1:])
    lost = (grad_bias * fraction, grad_weight * inverse_std * fraction)
    grad_x = cupy.empty(x.shape, x.dtype)
    _norm_act_pool_spread(
        x, g, index, *layout, window, int(of_batch), mean, weight * inverse_std, *lost, grad_x
    )
    return grad_x, grad_weight, grad_bias
