"""CuPy forms of the hot operations: kernels of one thread an output element, which no two threads share.

Where the plain text scatters, a kernel gathers: each element looks for what belongs to it. Sums have a fixed
order, so results repeat exactly. `KERNELS` lists every kernel; a body is C++ on `i`, the element's place in
the output, that means the same on a CPU.
"""

import math
from typing import Any

import cupy

from custom_backend.array import Array, Pair, column, columns_of
from custom_backend.functional.conv import output_size
from custom_backend.functional.normalization import Norm
from custom_backend.optim import AdamRule

KERNELS: dict[str, cupy.ElementwiseKernel] = {}

GEOMETRY = "int64 kh, int64 kw, int64 sh, int64 sw, int64 ph, int64 pw"
NORM = "raw T mean, raw T inverse_std, raw T weight, raw T bias, T slope"


def _kernel(name: str, inputs: str, outputs: str, axes: str, body: str) -> cupy.ElementwiseKernel:
    """A kernel that takes `i` apart into a coordinate for each of `axes`, "last:size … first"."""
    code = "ptrdiff_t rest = i;\n"
    for axis in axes.split():
        coordinate, _, size = axis.partition(":")
        code += f"ptrdiff_t {coordinate} = rest"
        code += f" % {size}; rest /= {size};\n" if size else ";\n"
    KERNELS[name] = cupy.ElementwiseKernel(inputs, outputs, code + body, f"custom_backend_{name}")
    return KERNELS[name]


_im2col = _kernel(
    "im2col",
    f"raw T x, int64 height, int64 width, int64 batch, int64 rows, int64 cols, {GEOMETRY}",
    "T out",
    "n:batch s:cols r:rows kj:kw ki:kh c",
    """
    ptrdiff_t h = r * sh + ki - ph, w = s * sw + kj - pw;
    bool inside = h >= 0 && h < height && w >= 0 && w < width;
    out = inside ? x[((c * height + h) * width + w) * batch + n] : T(0);
    """,
)

# Of the places (ki, kj) of a window, pixel (h, w) is met at those where row and column divide evenly.
_MEETING = """
    T sum = 0;
    for (ptrdiff_t ki = 0; ki < kh; ++ki) {
        ptrdiff_t r = (h + ph - ki) / sh;
        if (h + ph < ki || r * sh != h + ph - ki || r >= rows) continue;
        for (ptrdiff_t kj = 0; kj < kw; ++kj) {
            ptrdiff_t s = (w + pw - kj) / sw;
            if (w + pw < kj || s * sw != w + pw - kj || s >= cols) continue;
            %s
        }
    }
    out = sum;
    """

_col2im = _kernel(
    "col2im",
    f"raw T columns, int64 height, int64 width, int64 batch, int64 rows, int64 cols, {GEOMETRY}",
    "T out",
    "n:batch w:width h:height c",
    _MEETING % "sum += columns[((((c * kh + ki) * kw + kj) * rows + r) * cols + s) * batch + n];",
)

_max_pool = _kernel(
    "max_pool",
    f"raw T x, int64 height, int64 width, int64 batch, int64 rows, int64 cols, {GEOMETRY}",
    "T y, uint8 place",
    "n:batch s:cols r:rows c",
    """
    bool first = true;
    for (ptrdiff_t k = 0; k < kh * kw; ++k) {
        ptrdiff_t h = r * sh + k / kw - ph, w = s * sw + k % kw - pw;
        if (h < 0 || h >= height || w < 0 || w >= width) continue;
        T seen = x[((c * height + h) * width + w) * batch + n];
        if (first || seen > y || seen != seen) { y = seen; place = k; first = false; }
    }
    """,
)

_max_pool_backward = _kernel(
    "max_pool_backward",
    "raw T grad, raw uint8 place, int64 height, int64 width, int64 batch, int64 rows, int64 cols, "
    + GEOMETRY,
    "T out",
    "n:batch w:width h:height c",
    _MEETING
    % """ptrdiff_t at = ((c * rows + r) * cols + s) * batch + n;
            if (place[at] == ki * kw + kj) sum += grad[at];""",
)

_norm_act_pool = _kernel(
    "norm_act_pool",
    f"raw T x, int64 height, int64 width, int64 batch, int64 rows, int64 cols, int64 window, {NORM}",
    "T y, uint8 place",
    "n:batch s:cols r:rows c",
    """
    for (ptrdiff_t k = 0; k < window * window; ++k) {
        ptrdiff_t h = r * window + k / window, w = s * window + k % window;
        T centred = x[((c * height + h) * width + w) * batch + n] - mean[c];
        T normal = centred * (weight[c] * inverse_std[c]) + bias[c];
        T active = normal > 0 ? normal : slope * normal;
        if (k == 0 || active > y || active != active) { y = active; place = k; }
    }
    """,
)

# One element of the pooled output: the gradient before the activation, and that times the centred value.
_norm_act_pool_gather = _kernel(
    "norm_act_pool_gather",
    "raw T x, raw T grad, raw uint8 place, int64 height, int64 width, int64 batch, int64 rows, int64 cols, "
    f"int64 window, {NORM}",
    "T g, T dot",
    "n:batch s:cols r:rows c",
    """
    ptrdiff_t h = r * window + place[i] / window, w = s * window + place[i] % window;
    T centred = x[((c * height + h) * width + w) * batch + n] - mean[c];
    g = centred * (weight[c] * inverse_std[c]) + bias[c] > 0 ? grad[i] : slope * grad[i];
    dot = g * centred;
    """,
)

_norm_act_pool_spread = _kernel(
    "norm_act_pool_spread",
    "raw T x, raw T g, raw uint8 place, int64 height, int64 width, int64 batch, int64 rows, int64 cols, "
    "int64 window, raw T mean, raw T factor, raw T offset, raw T along",
    "T grad_x",
    "n:batch w:width h:height c",
    """
    ptrdiff_t r = h / window, s = w / window, at = ((c * rows + r) * cols + s) * batch + n;
    bool chosen = r < rows && s < cols && place[at] == (h % window) * window + w % window;
    grad_x = factor[c] * ((chosen ? g[at] : T(0)) - offset[c] - (x[i] - mean[c]) * along[c]);
    """,
)

_adam = _kernel(
    "adam",
    "T grad, T shrink, T decay, T rate, T beta1, T beta2, T root, T eps",
    "T parameter, T exp_avg, T exp_avg_sq",
    "",
    """
    T p = parameter * shrink, g = grad + decay * p;
    exp_avg += (T(1) - beta1) * (g - exp_avg);
    exp_avg_sq = beta2 * exp_avg_sq + (T(1) - beta2) * g * g;
    parameter = p - rate * exp_avg / (sqrt(exp_avg_sq) * root + eps);
    """,
)


def zeros(like: Array, shape: tuple[int, ...]) -> Array:
    """See `array.zeros`."""
    return cupy.zeros(shape, dtype=like.dtype)


def arange(like: Array, count: int) -> Array:
    """See `array.arange`."""
    return cupy.arange(count, dtype=like.dtype)


def uniform(like: Array, shape: tuple[int, ...], seed: int) -> Array:
    """See `array.uniform`; the numbers are the GPU's own."""
    generator = cupy.random.Generator(cupy.random.Philox4x3210(seed))
    return generator.random(shape, dtype=like.dtype)


def _sizes(shape: tuple[int, ...], size: Pair) -> tuple[int, ...]:
    """The kernels' height, width, batch, rows, cols for an image of `shape` and an output of `size`."""
    return *shape[1:], *size


def im2col(x: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """See `functional.conv.im2col`."""
    size = output_size(x.shape[1:3], kernel, stride, padding)
    out = cupy.empty((x.shape[0] * math.prod(kernel), math.prod(size) * x.shape[3]), x.dtype)
    return _im2col(cupy.ascontiguousarray(x), *_sizes(x.shape, size), *kernel, *stride, *padding, out)


def col2im(columns: Array, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """See `functional.conv.col2im`."""
    size = output_size((shape[1], shape[2]), kernel, stride, padding)
    out = cupy.empty(shape, columns.dtype)
    return _col2im(cupy.ascontiguousarray(columns), *_sizes(shape, size), *kernel, *stride, *padding, out)


def max_pool2d_forward(x: Array, kernel: Pair, stride: Pair, padding: Pair) -> tuple[Array, Any]:
    """See `functional.pooling.max_pool2d_forward`."""
    size = output_size(x.shape[1:3], kernel, stride, padding)
    y = cupy.empty((x.shape[0], *size, x.shape[3]), x.dtype)
    place = cupy.empty(y.shape, cupy.uint8)
    _max_pool(cupy.ascontiguousarray(x), *_sizes(x.shape, size), *kernel, *stride, *padding, y, place)
    return y, (place, x.shape, kernel, stride, padding)


def max_pool2d_backward(saved: Any, grad: Array) -> Array:
    """See `functional.pooling.max_pool2d_backward`."""
    place, shape, kernel, stride, padding = saved
    sizes, grad = _sizes(shape, grad.shape[1:3]), cupy.ascontiguousarray(grad)
    return _max_pool_backward(grad, place, *sizes, *kernel, *stride, *padding, cupy.empty(shape, grad.dtype))


def norm_act_pool_forward(x: Array, norm: Norm, slope: float, window: int) -> tuple[Array, Any]:
    """See `functional.normalization.norm_act_pool_forward`."""
    weight, bias, eps, statistics = norm
    x = cupy.ascontiguousarray(x)
    if statistics is None:
        flat = columns_of(x)
        mean = cupy.mean(flat, axis=1)
        variance = cupy.mean((flat - column(mean)) ** 2, axis=1)
    else:
        mean, variance = statistics
    constants = (mean, 1 / cupy.sqrt(variance + eps), weight, bias, slope)
    sizes = _sizes(x.shape, (x.shape[1] // window, x.shape[2] // window))
    y = cupy.empty((x.shape[0], *sizes[3:], x.shape[3]), x.dtype)
    place = cupy.empty(y.shape, cupy.uint8)
    _norm_act_pool(x, *sizes, window, *constants, y, place)
    return y, (mean, variance, x, constants, statistics is None, window, place)


def norm_act_pool_backward(saved: Any, grad: Array) -> tuple[Array, Array, Array]:
    """See `functional.normalization.norm_act_pool_backward`."""
    _, _, x, constants, of_batch, window, place = saved
    mean, inverse_std, weight, *_ = constants
    sizes = _sizes(x.shape, grad.shape[1:3])
    g, dot = cupy.empty(grad.shape, x.dtype), cupy.empty(grad.shape, x.dtype)
    _norm_act_pool_gather(x, cupy.ascontiguousarray(grad), place, *sizes, window, *constants, g, dot)
    grad_weight = cupy.sum(columns_of(dot), axis=1) * inverse_std
    grad_bias = cupy.sum(columns_of(g), axis=1)
    share = 1 / math.prod(x.shape[1:]) if of_batch else 0.0
    lost = (grad_bias * share, grad_weight * inverse_std * share)
    grad_x = cupy.empty(x.shape, x.dtype)
    _norm_act_pool_spread(x, g, place, *sizes, window, mean, weight * inverse_std, *lost, grad_x)
    return grad_x, grad_weight, grad_bias


def adam_step(
    parameter: Array, grad: Array, exp_avg: Array, exp_avg_sq: Array, step: int, rule: AdamRule
) -> None:
    """See `optim.adam_step`."""
    lr, betas, eps, weight_decay, decoupled = rule
    shrink, decay = (1 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    rate, root = lr / (1 - betas[0] ** step), 1 / math.sqrt(1 - betas[1] ** step)
    _adam(grad, shrink, decay, rate, *betas, root, eps, parameter, exp_avg, exp_avg_sq)
