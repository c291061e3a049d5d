"""Dropout, "inverted": what is kept is scaled up in training, so that evaluation has nothing to do.

`u` holds a random number of [0, 1) for every element of x. An element is dropped, with probability p, where
u < p; m is 0 there and 1 where u ≥ p.

Task 1: in training y = m x / (1 − p), whose mean is x; in evaluation y = x. For p = 1 everything is dropped
and y = 0.

Task 2: given g = ∂L/∂y, return ∂L/∂x in training.

Shapes: x, u, y, g and ∂L/∂x are arrays of any one shape.

Check: python grade.py exercises/dropout.py
Afterwards compare with `dropout_forward` and `dropout_backward` in custom_backend/functional/dropout.py.
"""

import numpy as np


def dropout_forward(x: np.ndarray, u: np.ndarray, p: float, training: bool) -> np.ndarray:
    """Return y."""
    raise NotImplementedError


def dropout_backward(grad: np.ndarray, u: np.ndarray, p: float) -> np.ndarray:
    """Return ∂L/∂x in training, where `grad` is ∂L/∂y."""
    raise NotImplementedError
