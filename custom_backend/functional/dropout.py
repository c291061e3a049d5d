"""Dropout."""

from typing import Any

from custom_backend.array import Array, namespace, uniform


def dropout_forward(x: Array, p: float, seed: int) -> tuple[Array, Any]:
    """y = m x / (1 − p), each element of m being 0 with probability p and else 1: the mean of y is x.

    The mask is a function of `seed` alone. Srivastava et al.: Dropout (2014).
    """
    kept = namespace(x).astype(uniform(x, x.shape, seed) >= p, x.dtype)
    mask = kept * (1 / (1 - p) if p < 1 else 0.0)
    return x * mask, (mask,)


def dropout_backward(saved: Any, grad: Array) -> Array:
    """∂L/∂x = g m / (1 − p)."""
    (mask,) = saved
    return grad * mask
