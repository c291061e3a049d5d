"""Normalisation with what follows it, compiled by numba: memory traffic, not arithmetic, makes it slow.

A kernel works on the channels [start, stop), so that threads share the work without sharing a result. The
innermost loop runs over contiguous memory and becomes vector instructions. Long sums are taken in short
pieces in the dtype of the array, and the pieces added up in float64.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from custom_backend.array import Pair
from custom_backend.functional.normalization import Norm
from custom_backend.kernels.compiled import compiled
from custom_backend.kernels.memory import empty, empty_like
from custom_backend.kernels.parallel import split

FloatArray: TypeAlias = npt.NDArray[Any]
Constants: TypeAlias = tuple[FloatArray, FloatArray, FloatArray, FloatArray, float]  # mean, 1/σ, γ, β, slope
Results: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]  # the gradients by x, γ and β
Scalars: TypeAlias = tuple[float, float, float, float]  # mean, γ/σ, β and slope
Sums: TypeAlias = tuple[float, float]

PIECE = 2048  # elements of a sum in the dtype of the array


# A sum becomes vector instructions only as a function of its own, on one-dimensional arrays.


@compiled
def _sum(x: FloatArray) -> float:
    total = x.dtype.type(0)
    for m in range(x.shape[0]):
        total += x[m]
    return total  # type: ignore[no-any-return]


@compiled
def _sum_of_squares(x: FloatArray, middle: float) -> float:
    total = x.dtype.type(0)
    for m in range(x.shape[0]):
        total += (x[m] - middle) ** 2
    return total  # type: ignore[no-any-return]


@compiled
def _sums(x: FloatArray, grad: FloatArray, constants: Scalars) -> Sums:
    """The sums of g and g (x − mean), with g the gradient before the activation."""
    middle, factor, shift, slope = constants
    total = total_dot = x.dtype.type(0)
    for m in range(x.shape[0]):
        centred = x[m] - middle
        g = grad[m] if centred * factor + shift > 0 else slope * grad[m]
        total += g
        total_dot += g * centred
    return total, total_dot


@compiled
def _sums_at(x: FloatArray, index: FloatArray, here: Pair, grad: FloatArray, constants: Scalars) -> Sums:
    """As `_sums`, for those pixels of a row of windows at offset `here` that were chosen."""
    middle, factor, shift, slope = constants
    at, zero = np.uint8(2 * here[0] + here[1]), x.dtype.type(0)
    total = total_dot = 0.0
    for s in range(grad.shape[0]):
        w = 2 * s + here[1]
        partial = partial_dot = zero
        for n in range(grad.shape[1]):
            centred = x[w, n] - middle
            g = grad[s, n] if centred * factor + shift > 0 else slope * grad[s, n]
            g = g if index[s, n] == at else zero
            partial += g
            partial_dot += g * centred
        total += partial
        total_dot += partial_dot
    return total, total_dot


@compiled
def _spread(
    x: FloatArray,
    index: FloatArray,
    here: Pair,
    grad: FloatArray,
    constants: Scalars,
    lost: Sums,
    grad_x: FloatArray,
) -> None:
    """The gradient of the pixels of a row of windows at offset `here`."""
    middle, factor, shift, slope = constants
    offset, along = lost
    at, zero = np.uint8(2 * here[0] + here[1]), x.dtype.type(0)
    for s in range(grad.shape[0]):
        w = 2 * s + here[1]
        for n in range(grad.shape[1]):
            centred = x[w, n] - middle
            g = grad[s, n] if centred * factor + shift > 0 else slope * grad[s, n]
            g = g if index[s, n] == at else zero
            grad_x[w, n] = factor * (g - offset - centred * along)


@compiled
def _moments(start: int, stop: int, x: FloatArray, mean: FloatArray, variance: FloatArray) -> None:
    """The mean and the biased variance of each row of x (channels, elements), in two passes."""
    length = x.shape[1]
    for c in range(start, stop):
        total = 0.0
        for piece in range(0, length, PIECE):
            total += _sum(x[c, piece : piece + PIECE])
        mean[c] = total / length
        total = 0.0
        for piece in range(0, length, PIECE):
            total += _sum_of_squares(x[c, piece : piece + PIECE], mean[c])
        variance[c] = total / length


@compiled
def _norm_act(start: int, stop: int, x: FloatArray, constants: Constants, y: FloatArray) -> None:
    """y = leaky(γ (x − mean) / σ + β), for x (channels, elements)."""
    mean, inverse_std, weight, bias, slope = constants
    slope = x.dtype.type(slope)
    for c in range(start, stop):
        middle, factor, shift = mean[c], weight[c] * inverse_std[c], bias[c]
        for m in range(x.shape[1]):
            normal = (x[c, m] - middle) * factor + shift
            y[c, m] = normal if normal > 0 else slope * normal


@compiled
def _norm_act_backward(
    start: int,
    stop: int,
    x: FloatArray,
    constants: Constants,
    of_batch: bool,
    grad: FloatArray,
    results: Results,
) -> None:
    """Backward of `_norm_act`: the sums that need the whole channel, then the gradient."""
    mean, inverse_std, weight, bias, slope = constants
    grad_x, grad_weight, grad_bias = results
    number, length = x.dtype.type, x.shape[1]
    slope = number(slope)
    for c in range(start, stop):
        middle, factor, shift = mean[c], weight[c] * inverse_std[c], bias[c]
        total = total_dot = 0.0
        for piece in range(0, length, PIECE):
            run = slice(piece, piece + PIECE)
            partial, partial_dot = _sums(x[c, run], grad[c, run], (middle, factor, shift, slope))
            total += partial
            total_dot += partial_dot
        grad_bias[c] = total
        grad_weight[c] = total_dot * inverse_std[c]
        offset = number(total / length if of_batch else 0)
        along = number(total_dot * inverse_std[c] ** 2 / length if of_batch else 0)
        for m in range(length):
            centred = x[c, m] - middle
            g = grad[c, m] if centred * factor + shift > 0 else slope * grad[c, m]
            grad_x[c, m] = factor * (g - offset - centred * along)


@compiled
def _norm_act_pool(
    start: int, stop: int, x: FloatArray, constants: Constants, y: FloatArray, index: FloatArray
) -> None:
    """As `_norm_act`, then the greatest of each 2 × 2 window and its index there, for x (C, H, W, N)."""
    mean, inverse_std, weight, bias, slope = constants
    slope = x.dtype.type(slope)
    _, height, width, batch = y.shape
    for c in range(start, stop):
        middle, factor, shift = mean[c], weight[c] * inverse_std[c], bias[c]
        for r in range(height):
            for s in range(width):
                for n in range(batch):
                    best = (x[c, 2 * r, 2 * s, n] - middle) * factor + shift
                    best = best if best > 0 else slope * best
                    at = np.uint8(0)
                    for k in range(1, 4):
                        rival = (x[c, 2 * r + k // 2, 2 * s + k % 2, n] - middle) * factor + shift
                        rival = rival if rival > 0 else slope * rival
                        better = rival > best or rival != rival
                        best = rival if better else best
                        at = np.uint8(k) if better else at
                    y[c, r, s, n] = best
                    index[c, r, s, n] = at


@compiled
def _norm_act_pool_backward(
    start: int,
    stop: int,
    x: FloatArray,
    constants: Constants,
    of_batch: bool,
    index: FloatArray,
    grad: FloatArray,
    results: Results,
) -> None:
    """Backward of `_norm_act_pool`: only one pixel of each window has a gradient from above."""
    mean, inverse_std, weight, bias, slope = constants
    grad_x, grad_weight, grad_bias = results
    number = x.dtype.type
    slope = number(slope)
    _, height, width, batch = grad.shape
    length = x.shape[1] * x.shape[2] * batch
    for c in range(start, stop):
        middle, factor, shift = mean[c], weight[c] * inverse_std[c], bias[c]
        total = total_dot = 0.0
        scalars = (middle, factor, shift, slope)
        for r in range(height):
            for k in range(4):
                row, here = x[c, 2 * r + k // 2], (k // 2, k % 2)
                partial, partial_dot = _sums_at(row, index[c, r], here, grad[c, r], scalars)
                total += partial
                total_dot += partial_dot
        grad_bias[c] = total
        grad_weight[c] = total_dot * inverse_std[c]
        offset = number(total / length if of_batch else 0)
        along = number(total_dot * inverse_std[c] ** 2 / length if of_batch else 0)
        lost = (offset, along)
        for r in range(height):
            for k in range(4):
                h, here = 2 * r + k // 2, (k // 2, k % 2)
                _spread(x[c, h], index[c, r], here, grad[c, r], scalars, lost, grad_x[c, h])
        # The last of an odd number of rows or columns is in no window.
        for h in range(2 * height, x.shape[1]):
            grad_x[c, h] = -factor * (offset + (x[c, h] - middle) * along)
        for w in range(2 * width, x.shape[2]):
            for h in range(2 * height):
                grad_x[c, h, w] = -factor * (offset + (x[c, h, w] - middle) * along)


def norm_act_pool_forward(x: FloatArray, norm: Norm, slope: float, window: int) -> tuple[FloatArray, Any]:
    """See `functional.normalization.norm_act_pool_forward`; `window` is 1 or 2."""
    weight, bias, eps, statistics = norm
    x = np.ascontiguousarray(x)
    channels, height, width, batch = x.shape
    flat, inverse_std = x.reshape(channels, -1), np.empty_like(weight)
    mean, variance = statistics or (np.empty_like(weight), np.empty_like(weight))
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
    if index is None:
        flat, flat_grad, flat_grad_x = (array.reshape(channels, -1) for array in (x, grad, grad_x))
        results = (flat_grad_x, grad_weight, grad_bias)
        split(_norm_act_backward, channels, x.size, flat, constants, of_batch, flat_grad, results)
    else:
        results = (grad_x, grad_weight, grad_bias)
        split(_norm_act_pool_backward, channels, x.size, x, constants, of_batch, index, grad, results)
    return grad_x, grad_weight, grad_bias
