"""Activations, element by element: each forward keeps what its derivative needs and no more."""

import functools
import math
from typing import Any

import numpy as np

from custom_backend.array import Array, dispatch, namespace

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


@dispatch
def leaky_relu_forward(x: Array, slope: float) -> tuple[Array, Any]:
    """y = x where x > 0, slope · x elsewhere; slope 0 is ReLU, max(x, 0).

    Kept is where the derivative is 1. Of a NaN that is ReLU's and not LeakyReLU's, as in torch.
    Maas, Hannun, Ng: Rectifier nonlinearities improve neural network acoustic models (2013).
    """
    xp = namespace(x)
    if slope == 0:  # 0 · −∞ would be NaN, and 0 · −1 a negative zero
        rises = ~(x <= 0)
        return xp.where(rises, x, 0.0), (rises, slope)
    rises = x > 0
    return xp.where(rises, x, slope * x), (rises, slope)


@dispatch
def leaky_relu_backward(saved: Any, grad: Array) -> Array:
    """∂L/∂x = g where x > 0, slope · g elsewhere."""
    rises, slope = saved
    return namespace(grad).where(rises, grad, slope * grad if slope else 0.0)


def sigmoid_forward(x: Array) -> tuple[Array, Any]:
    """y = 1 / (1 + e⁻ˣ), from z = e^−|x| ≤ 1 alone, so that nothing overflows.

    For x ≥ 0 that is 1 / (1 + z); for x < 0, multiplying through by eˣ, it is z / (1 + z).
    """
    xp = namespace(x)
    z = xp.exp(-xp.abs(x))
    y = xp.where(x >= 0, 1 / (1 + z), z / (1 + z))
    return y, (y,)


def sigmoid_backward(saved: Any, grad: Array) -> Array:
    """∂L/∂x = g y (1 − y): the derivative of the sigmoid in terms of its value."""
    (y,) = saved
    return grad * y * (1 - y)


def tanh_forward(x: Array) -> tuple[Array, Any]:
    """y = tanh x."""
    y = namespace(x).tanh(x)
    return y, (y,)


def tanh_backward(saved: Any, grad: Array) -> Array:
    """∂L/∂x = g (1 − y²): the derivative of tanh in terms of its value."""
    (y,) = saved
    return grad * (1 - y * y)


def silu_forward(x: Array) -> tuple[Array, Any]:
    """y = x σ(x), σ being the sigmoid. Elfwing, Uchibe, Doya: Sigmoid-weighted linear units (2018)."""
    y, _ = sigmoid_forward(x)
    return x * y, (x, y)


def silu_backward(saved: Any, grad: Array) -> Array:
    """∂L/∂x = g (σ + x σ (1 − σ)), the product rule with σ' = σ (1 − σ)."""
    x, y = saved
    return grad * y * (1 + x * (1 - y))


@functools.cache
def _chebyshev() -> tuple[float, ...]:
    """Φ on [0, 9] as a polynomial in Chebyshev's form; beyond, 1 − Φ is less than float64 tells from 0."""
    cumulative = np.vectorize(lambda t: 0.5 + 0.5 * math.erf((t + 1) * 4.5 / math.sqrt(2)))
    return tuple(np.polynomial.chebyshev.chebinterpolate(cumulative, 60).tolist())


@dispatch
def normal_cdf(x: Array) -> Array:
    """Φ(x), the probability that a standard normal number is at most x, by Clenshaw's sum."""
    xp = namespace(x)
    t = xp.minimum(xp.abs(x), 9.0) * (2 / 9) - 1
    b, before = 0 * t, 0 * t
    for coefficient in _chebyshev()[:0:-1]:
        b, before = 2 * t * b - before + coefficient, b
    upper = xp.where(xp.abs(x) >= 9, 1.0, t * b - before + _chebyshev()[0])
    return xp.where(x >= 0, upper, 1 - upper)


def gelu_forward(x: Array) -> tuple[Array, Any]:
    """y = x Φ(x). Hendrycks, Gimpel: Gaussian error linear units (2016)."""
    probability = normal_cdf(x)
    return x * probability, (x, probability)


def gelu_backward(saved: Any, grad: Array) -> Array:
    """∂L/∂x = g (Φ(x) + x φ(x)), the density φ(x) = e^(−x²/2) / √(2π) being the derivative of Φ."""
    x, probability = saved
    density = namespace(x).exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))
    return grad * (probability + x * density)


def selu_forward(x: Array) -> tuple[Array, Any]:
    """y = λ x where x > 0, λ α (eˣ − 1) elsewhere, with the λ, α whose fixed point is mean 0, variance 1.

    Klambauer, Unterthiner, Mayr, Hochreiter: Self-normalizing neural networks (2017).
    """
    xp = namespace(x)
    return SELU_SCALE * xp.where(x > 0, x, SELU_ALPHA * xp.expm1(xp.minimum(x, 0.0))), (x,)


def selu_backward(saved: Any, grad: Array) -> Array:
    """∂L/∂x = g λ where x > 0, g λ α eˣ elsewhere.

    In terms of y that would be y + λ α, which loses all digits where y is close to −λ α.
    """
    (x,) = saved
    xp = namespace(x)
    return grad * SELU_SCALE * xp.where(x > 0, 1.0, SELU_ALPHA * xp.exp(xp.minimum(x, 0.0)))
