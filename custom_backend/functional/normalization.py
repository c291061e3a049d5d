"""Batch normalisation, alone and together with the activation and the pooling that follow it."""

import math
from typing import Any, NamedTuple

from custom_backend.array import Array, column, columns_of, dispatch, namespace
from custom_backend.functional.activation import leaky_relu_backward, leaky_relu_forward
from custom_backend.functional.pooling import max_pool2d_backward, max_pool2d_forward


class Norm(NamedTuple):
    """y = weight · (x − μ) / √(σ² + eps) + bias, with given statistics (μ, σ²), or the batch's if None."""

    weight: Array
    bias: Array
    eps: float
    statistics: tuple[Array, Array] | None


class Normalised(NamedTuple):
    """What `batch_norm_backward` needs; `mean` and `variance` (biased) also feed the running statistics."""

    mean: Array
    variance: Array
    centred: Array  # x − mean, (C, H, W, N)
    weight: Array
    inverse_std: Array
    of_batch: bool  # whether mean and variance are those of this batch, and so depend on x


@dispatch
def batch_norm_forward(x: Array, norm: Norm) -> tuple[Array, Normalised]:
    """y = γ x̂ + β with x̂ = (x − μ) / √(σ² + ε), for each channel.

    μ and σ² are taken over height, width and batch (training), or given (evaluation). The variance
    is that of the centred values: E[x²] − E[x]² would lose half the digits.
    Ioffe, Szegedy: Batch normalization (2015).

    Shapes: x (C, H, W, N); weight γ, bias β, μ, σ² (C,) → y as x.
    """
    weight, bias, eps, statistics = norm
    xp, flat = namespace(x), columns_of(x)
    mean = xp.mean(flat, axis=1) if statistics is None else statistics[0]
    centred = flat - column(mean)
    variance = xp.mean(centred * centred, axis=1) if statistics is None else statistics[1]
    inverse_std = 1 / xp.sqrt(variance + eps)
    y = centred * column(weight * inverse_std) + column(bias)
    centred = xp.reshape(centred, x.shape)
    return xp.reshape(y, x.shape), Normalised(
        mean, variance, centred, weight, inverse_std, statistics is None
    )


@dispatch
def batch_norm_backward(saved: Normalised, grad: Array) -> tuple[Array, Array, Array]:
    """∂L/∂γ = Σ g x̂, ∂L/∂β = Σ g and ∂L/∂x = γ/σ (g − mean(g) − x̂ mean(g x̂)), over each channel.

    x̂ has mean 0 and mean square 1 whatever x is, so what of g lies along 1 and along x̂ cannot be followed:
    the gradient loses its projections on both. With given statistics nothing is lost: ∂L/∂x = γ/σ g.

    Returns (∂L/∂x, ∂L/∂γ, ∂L/∂β).
    """
    xp, g, centred = namespace(grad), columns_of(grad), columns_of(saved.centred)
    grad_weight = xp.sum(g * centred, axis=1) * saved.inverse_std
    grad_bias = xp.sum(g, axis=1)
    if saved.of_batch:
        along = column(grad_weight * saved.inverse_std / g.shape[1])
        g = g - column(grad_bias / g.shape[1]) - centred * along
    grad_x = xp.reshape(g * column(saved.weight * saved.inverse_std), grad.shape)
    return grad_x, grad_weight, grad_bias


def group_norm_forward(
    x: Array, weight: Array, bias: Array, eps: float, groups: int = 1
) -> tuple[Array, Any]:
    """y = γ x̂ + β, x̂ having mean 0 and variance 1 over each group of channels of each image.

    Wu, He: Group normalization (2018).

    Shapes: x (C, H, W, N); weight γ, bias β (C,) → y as x.
    """
    xp = namespace(x)
    grouped = xp.reshape(x, (groups, math.prod(x.shape[:-1]) // groups, x.shape[-1]))
    centred = grouped - xp.mean(grouped, axis=1, keepdims=True)
    inverse_std = 1 / xp.sqrt(xp.mean(centred * centred, axis=1, keepdims=True) + eps)
    normal = centred * inverse_std
    y = xp.reshape(normal, (x.shape[0], -1)) * column(weight) + column(bias)
    return xp.reshape(y, x.shape), (normal, inverse_std, weight)


def group_norm_backward(saved: Any, grad: Array) -> tuple[Array, Array, Array]:
    """As `batch_norm_backward`, but the projections are those of γ g, as γ is no constant of a group.

    Returns (∂L/∂x, ∂L/∂γ, ∂L/∂β).
    """
    normal, inverse_std, weight = saved
    xp, g = namespace(grad), columns_of(grad)
    grad_weight = xp.sum(g * xp.reshape(normal, g.shape), axis=1)
    scaled = xp.reshape(g * column(weight), normal.shape)
    along = xp.mean(scaled * normal, axis=1, keepdims=True)
    grad_x = (scaled - xp.mean(scaled, axis=1, keepdims=True) - normal * along) * inverse_std
    return xp.reshape(grad_x, grad.shape), grad_weight, xp.sum(g, axis=1)


def layer_norm_forward(x: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, Any]:
    """y = γ x̂ + β, x̂ having mean 0 and variance 1 over the channels of each pixel, or of each sample.

    That is group normalisation of one group where every pixel counts as an image of its own.
    Ba, Kiros, Hinton: Layer normalization (2016).

    Shapes: x (C, …, N); weight γ, bias β (C,) → y as x.
    """
    y, saved = group_norm_forward(columns_of(x), weight, bias, eps)
    return namespace(x).reshape(y, x.shape), saved


def layer_norm_backward(saved: Any, grad: Array) -> tuple[Array, Array, Array]:
    """See `group_norm_backward`."""
    grad_x, *gradients = group_norm_backward(saved, columns_of(grad))
    return namespace(grad).reshape(grad_x, grad.shape), *gradients


@dispatch
def norm_act_pool_forward(x: Array, norm: Norm, slope: float, window: int) -> tuple[Array, tuple[Any, ...]]:
    """Batch normalisation, then LeakyReLU, then max-pooling by `window` × `window` (1: none).

    The three in one are worth kernels: one pass over memory in place of six. What is saved begins with
    (mean, variance) of the batch, for the running statistics.
    """
    normal, saved_norm = batch_norm_forward(x, norm)
    active, saved_act = leaky_relu_forward(normal, slope)
    size = (window, window)
    y, saved_pool = max_pool2d_forward(active, size, size, (0, 0))
    return y, (saved_norm.mean, saved_norm.variance, saved_norm, saved_act, saved_pool)


@dispatch
def norm_act_pool_backward(saved: tuple[Any, ...], grad: Array) -> tuple[Array, Array, Array]:
    """The three backward passes in reverse: (∂L/∂x, ∂L/∂γ, ∂L/∂β)."""
    _, _, saved_norm, saved_act, saved_pool = saved
    grad = leaky_relu_backward(saved_act, max_pool2d_backward(saved_pool, grad))
    return batch_norm_backward(saved_norm, grad)
