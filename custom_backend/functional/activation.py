"""Activations, element by element: each forward keeps what its derivative needs and no more."""

from typing import Any

from custom_backend.array import Array, dispatch, namespace

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


@dispatch
def leaky_relu_forward(x: Array, slope: float) -> tuple[Array, Any]:
    """y = x where x > 0, slope · x elsewhere; slope 0 is ReLU.

    Maas, Hannun, Ng: Rectifier nonlinearities improve neural network acoustic models (2013).
    """
    positive = x > 0
    return namespace(x).where(positive, x, slope * x), (positive, slope)


@dispatch
def leaky_relu_backward(saved: Any, grad: Array) -> Array:
    """∂L/∂x = g where x > 0, slope · g elsewhere."""
    positive, slope = saved
    return namespace(grad).where(positive, grad, slope * grad)


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


def selu_forward(x: Array) -> tuple[Array, Any]:
    """y = λ x where x > 0, λ α (eˣ − 1) elsewhere, with the λ, α whose fixed point is mean 0, variance 1.

    Klambauer, Unterthiner, Mayr, Hochreiter: Self-normalizing neural networks (2017).
    """
    xp = namespace(x)
    y = SELU_SCALE * xp.where(x > 0, x, SELU_ALPHA * xp.expm1(xp.minimum(x, 0.0)))
    return y, (y,)


def selu_backward(saved: Any, grad: Array) -> Array:
    """∂L/∂x = g λ where x > 0, g λ α eˣ elsewhere; there y = λ α (eˣ − 1), so λ α eˣ = y + λ α."""
    (y,) = saved
    return grad * namespace(y).where(y > 0, SELU_SCALE, y + SELU_SCALE * SELU_ALPHA)
