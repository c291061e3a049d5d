"""The affine map."""

from typing import Any

from custom_backend.array import Array, column, matmul, namespace


def linear_forward(x: Array, weight: Array, bias: Array | None) -> tuple[Array, Any]:
    """y = W x + b, for every column of x.

    Shapes: x (in, batch), weight (out, in), bias (out,) or None → y (out, batch).
    """
    y = matmul(weight, x)
    if bias is not None:
        y += column(bias)
    return y, (x, weight)


def linear_backward(
    saved: Any, grad: Array, needs_input_grad: bool = True
) -> tuple[Array | None, Array, Array]:
    """∂L/∂x = Wᵀ g, ∂L/∂W = g xᵀ, ∂L/∂b = the sum of g over the batch (g = ∂L/∂y).

    Since yᵢ = Σⱼ Wᵢⱼ xⱼ + bᵢ for each sample, ∂L/∂Wᵢⱼ = gᵢ xⱼ and ∂L/∂xⱼ = Σᵢ Wᵢⱼ gᵢ; a batch adds up.
    """
    x, weight = saved
    grad_x = matmul(weight.T, grad) if needs_input_grad else None
    return grad_x, matmul(grad, x.T), namespace(grad).sum(grad, axis=1)
