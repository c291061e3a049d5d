"""One step of Adam.

`exp_avg` m and `exp_avg_sq` v are running averages of the gradient and of its square, 0 before the first
step; t = `step` is 1 in the first step.

Task: with g = `grad` + weight_decay · parameter,

    m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
    m̂ = m / (1 − β₁ᵗ)            v̂ = v / (1 − β₂ᵗ)
    parameter ← parameter − lr · m̂ / (√v̂ + ε).

Return new arrays; change no argument in place. What is returned is m and v, without the hats.

Shapes: parameter, grad, m and v are arrays of any one shape.

Check: python grade.py exercises/adam.py
Afterwards compare with `adam_step` in custom_backend/optim.py.
"""

import numpy as np


def adam_step(
    parameter: np.ndarray,
    grad: np.ndarray,
    exp_avg: np.ndarray,
    exp_avg_sq: np.ndarray,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the new (parameter, exp_avg, exp_avg_sq)."""
    raise NotImplementedError
