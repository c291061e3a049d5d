"""Normalisation with what follows it, compiled by numba: memory traffic, not arithmetic, makes it slow.

A kernel works on the channels [start, stop), so that threads share the work without sharing a result. The
innermost loop runs over contiguous memory and becomes vector instructions; a sum does so as many sums side by
side, its lanes. A slope of 0 is ReLU, see `functional.activation.leaky_relu_forward`.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from custom_backend.functional.normalization import Norm
from custom_backend.kernels.compiled import compiled
from custom_backend.kernels.memory import empty, empty_like
from custom_backend.kernels.parallel import split

FloatArray: TypeAlias = npt.NDArray[Any]
Constants: TypeAlias = tuple[FloatArray, FloatArray, FloatArray, FloatArray, float]  # mean, 1/σ, γ, β, slope
Results: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]  # the gradients by x, γ and β
Scalars: TypeAlias = tuple[float, float, float, float]  # mean, γ/σ, β and slope
Lanes: TypeAlias = tuple[FloatArray, FloatArray]
Lost: TypeAlias = tuple[bool, float, float]  # of the batch?, and what the gradient loses to mean and x − mean

LANES = 1024
PIECE = 64 * LANES  # elements of a sum in the dtype of the array; pieces add up in float64


@compiled
def _add(x: FloatArray, lanes: FloatArray) -> None:
    for m in range(x.shape[0]):
        lanes[m] += x[m]


@compiled
def _add_squares(x: FloatArray, middle: float, lanes: FloatArray) -> None:
    for m in range(x.shape[0]):
        lanes[m] += (x[m] - middle) * (x[m] - middle)


@compiled
def _fold(lanes: FloatArray) -> float:
    """The sum of the lanes, one half added to the other until one is left; leaves zeros."""
    count = lanes.shape[0]
    while count > 1:
        half = (count + 1) // 2
        _add(lanes[half:count], lanes)
        count = half
    total = np.float64(lanes[0])
    lanes[:] = 0
    return total


@compiled
def _activate(normal: float, slope: float) -> float:
    low = slope * normal if slope != 0 else slope
    return low if normal <= 0 else normal


@compiled
def _before_activation(centred: float, grad: float, scalars: Scalars) -> float:
    """The gradient before the activation."""
    _, factor, shift, slope = scalars
    normal = centred * factor + shift
    if slope == 0:
        return slope if normal <= 0 else grad
    return grad if normal > 0 else slope * grad


@compiled
def _add_gradients(x: FloatArray, grad: FloatArray, scalars: Scalars, lanes: Lanes) -> None:
    """Add g and g (x − mean) to the lanes, g being the gradient before the activation."""
    g_lanes, dot_lanes = lanes
    for m in range(x.shape[0]):
        centred = x[m] - scalars[0]
        g = _before_activation(centred, grad[m], scalars)
        g_lanes[m] += g
        dot_lanes[m] += g * centred


@compiled
def _spread(x: FloatArray, grad: FloatArray, scalars: Scalars, lost: Lost, grad_x: FloatArray) -> None:
    """The gradient by x, less what it loses."""
    of_batch, mean, along = lost
    for m in range(x.shape[0]):
        centred = x[m] - scalars[0]
        g = _before_activation(centred, grad[m], scalars)
        grad_x[m] = scalars[1] * (g - mean - centred * along if of_batch else g)


@compiled
def _moments(start: int, stop: int, x: FloatArray, mean: FloatArray, variance: FloatArray) -> None:
    """The mean and the biased variance of each row of x (channels, elements), in two passes."""
    length, lanes = x.shape[1], np.zeros(LANES, x.dtype)
    for c in range(start, stop):
        total = 0.0
        for piece in range(0, length, PIECE):
            for run in range(piece, min(piece + PIECE, length), LANES):
                _add(x[c, run : run + LANES], lanes)
            total += _fold(lanes)
        mean[c] = total / length
        total = 0.0
        for piece in range(0, length, PIECE):
            for run in range(piece, min(piece + PIECE, length), LANES):
                _add_squares(x[c, run : run + LANES], mean[c], lanes)
            total += _fold(lanes)
        variance[c] = total / length


@compiled
def _norm_act(start: int, stop: int, x: FloatArray, constants: Constants, y: FloatArray) -> None:
    """y = leaky(γ (x − mean) / σ + β), for x (channels, elements)."""
    mean, inverse_std, weight, bias, slope = constants
    slope = x.dtype.type(slope)
    for c in range(start, stop):
        middle, factor, shift = mean[c], weight[c] * inverse_std[c], bias[c]
        for m in range(x.shape[1]):
            y[c, m] = _activate((x[c, m] - middle) * factor + shift, slope)


@compiled
def _greater(best: float, index: np.uint8, rival: float, number: int) -> tuple[float, np.uint8]:
    """The greater value and its index: of equals the first, of NaNs the last."""
    better = rival > best or rival != rival
    return (rival if better else best), (np.uint8(number) if better else index)


@compiled
def _norm_act_pool_row(
    upper: FloatArray, lower: FloatArray, scalars: Scalars, y: FloatArray, index: FloatArray
) -> None:
    """As `_norm_act`, then the greatest of each 2 × 2 window and its index there, for two rows of pixels."""
    mean, factor, shift, slope = scalars
    for s in range(y.shape[0]):
        for n in range(y.shape[1]):
            best, at = _activate((upper[2 * s, n] - mean) * factor + shift, slope), np.uint8(0)
            best, at = _greater(best, at, _activate((upper[2 * s + 1, n] - mean) * factor + shift, slope), 1)
            best, at = _greater(best, at, _activate((lower[2 * s, n] - mean) * factor + shift, slope), 2)
            best, at = _greater(best, at, _activate((lower[2 * s + 1, n] - mean) * factor + shift, slope), 3)
            y[s, n], index[s, n] = best, at


@compiled
def _norm_act_pool(
    start: int, stop: int, x: FloatArray, constants: Constants, y: FloatArray, index: FloatArray
) -> None:
    """`_norm_act_pool_row` for all rows of x (C, H, W, N)."""
    mean, inverse_std, weight, bias, slope = constants
    for c in range(start, stop):
        scalars = (mean[c], weight[c] * inverse_std[c], bias[c], x.dtype.type(slope))
        for r in range(y.shape[1]):
            _norm_act_pool_row(x[c, 2 * r], x[c, 2 * r + 1], scalars, y[c, r], index[c, r])


@compiled
def _unpool(index: FloatArray, grad: FloatArray, full: FloatArray) -> None:
    """Write each gradient to the pixel that was chosen in its 2 × 2 window, and 0 everywhere else."""
    rows, cols, batch = grad.shape
    zero = full.dtype.type(0)
    for h in range(full.shape[0]):
        for w in range(full.shape[1]):
            r, s, number = h // 2, w // 2, np.uint8(h % 2 * 2 + w % 2)
            if r >= rows or s >= cols:  # the last of an odd number is in no window
                full[h, w] = zero
                continue
            for n in range(batch):
                full[h, w, n] = grad[r, s, n] if index[r, s, n] == number else zero


@compiled
def _backward(
    start: int,
    stop: int,
    x: FloatArray,
    constants: Constants,
    of_batch: bool,
    index: FloatArray | None,
    grad: FloatArray,
    results: Results,
) -> None:
    """Backward of `_norm_act`, and of `_norm_act_pool` where there is an index.

    First the sums that need the whole channel, then the gradient. A product with 0 counts: 0 · ∞ is NaN.
    """
    mean, inverse_std, weight, bias, slope = constants
    grad_x, grad_weight, grad_bias = results
    number, length = x.dtype.type, x[0].size
    lanes = np.zeros(LANES, x.dtype), np.zeros(LANES, x.dtype)
    unpooled = np.empty(x.shape[1:], x.dtype)
    for c in range(start, stop):
        pixels, g, out = x[c].reshape(-1), grad[c].reshape(-1), grad_x[c].reshape(-1)
        if index is not None:
            _unpool(index[c], grad[c], unpooled)
            g = unpooled.reshape(-1)
        scalars = (mean[c], weight[c] * inverse_std[c], bias[c], number(slope))
        total = total_dot = 0.0
        for piece in range(0, length, PIECE):
            for run in range(piece, min(piece + PIECE, length), LANES):
                _add_gradients(pixels[run : run + LANES], g[run : run + LANES], scalars, lanes)
            total += _fold(lanes[0])
            total_dot += _fold(lanes[1])
        grad_bias[c] = total
        grad_weight[c] = total_dot * inverse_std[c]
        lost = (of_batch, number(total / length), number(total_dot * inverse_std[c] ** 2 / length))
        _spread(pixels, g, scalars, lost, out)


def norm_act_pool_forward(x: FloatArray, norm: Norm, slope: float, window: int) -> tuple[FloatArray, Any]:
    """See `functional.normalization.norm_act_pool_forward`; `window` is 1 or 2."""
    weight, bias, eps, statistics = norm
    x = np.ascontiguousarray(x)
    channels, height, width, batch = x.shape
    flat, inverse_std = x.reshape(channels, -1), np.empty_like(weight)
    mean, variance = (np.empty_like(weight), np.empty_like(weight)) if statistics is None else statistics
    mean = mean if statistics is None else mean.copy()  # running statistics move on before backward
    constants = (mean, inverse_std, weight, bias, float(slope))
    size = (height, width) if window == 1 else (height // 2, width // 2)
    y = empty((channels, *size, batch), x.dtype)
    index = None if window == 1 else empty(y.shape, np.uint8)

    def apply(start: int, stop: int) -> None:
        chunk = slice(start, stop)
        if statistics is None:
            _moments(start, stop, flat, mean, variance)  # what it has read is still in the cache below
        np.divide(1, np.sqrt(variance[chunk] + eps), out=inverse_std[chunk])
        if index is None:
            _norm_act(start, stop, flat, constants, y.reshape(channels, -1))
        else:
            _norm_act_pool(start, stop, x, constants, y, index)

    split(apply, channels, x.size)
    return y, (mean, variance, x, constants, statistics is None, index)


def norm_act_pool_backward(saved: Any, grad: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """See `functional.normalization.norm_act_pool_backward`."""
    _, _, x, constants, of_batch, index = saved
    grad, channels = np.ascontiguousarray(grad), x.shape[0]
    grad_x, grad_weight, grad_bias = empty_like(x), np.empty(channels, x.dtype), np.empty(channels, x.dtype)
    results = (grad_x, grad_weight, grad_bias)
    split(_backward, channels, x.size, x, constants, of_batch, index, grad, results)
    return results
