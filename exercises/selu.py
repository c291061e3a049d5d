"""SELU, the activation that keeps mean 0 and variance 1 by itself.

Task 1: y = λ x where x > 0, and λ α (eˣ − 1) elsewhere, element by element. Write no loop. Inputs may be as
large as 1000, where eˣ is infinite.

Task 2: given g = ∂L/∂y, return ∂L/∂x = g · dy/dx, where dy/dx = λ for x > 0 and λ α eˣ elsewhere. It
is to be right at x = −40, too.

Shapes: x, y, g and ∂L/∂x are arrays of any one shape.

Check: python grade.py exercises/selu.py
Afterwards compare with `selu_forward` and `selu_backward` in custom_backend/functional/activation.py.
"""

import numpy as np

ALPHA = 1.6732632423543772
SCALE = 1.0507009873554805  # λ


def selu_forward(x: np.ndarray) -> np.ndarray:
    """Return y."""
    raise NotImplementedError


def selu_backward(x: np.ndarray, grad: np.ndarray) -> np.ndarray:
    """Return ∂L/∂x, where `grad` is ∂L/∂y."""
    raise NotImplementedError
