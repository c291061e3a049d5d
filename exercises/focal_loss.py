"""Focal loss: cross-entropy that pays less attention to samples the network is sure of.

With p the softmax of the logits z and p_t the probability of the label (the true class) of a sample,

Task 1: L = (1/N) Σ_n − α (1 − p_t)^γ log p_t, a number.

Task 2: ∂L/∂z. With ℓ = log p_t (so that dp_t/dℓ = p_t) and h = 1 at the label, 0 elsewhere,

    dL/dℓ = − α [ (1 − p_t)^γ − γ (1 − p_t)^(γ−1) p_t ℓ ] / N        ∂L/∂z = dL/dℓ · (h − p).

Logits may be large: both must stay finite, also where p_t is rounded to 1 and γ < 1 (∂L/∂z is 0 there).

Shapes (batch last): logits (K, N), labels (N,) integers of 0 … K − 1 → L a number, ∂L/∂z (K, N).

Check: python grade.py exercises/focal_loss.py
Afterwards compare with `focal_loss_forward` and `focal_loss_backward` in custom_backend/functional/loss.py.
"""

import numpy as np


def focal_loss_forward(logits: np.ndarray, labels: np.ndarray, alpha: float, gamma: float) -> float:
    """Return L."""
    raise NotImplementedError


def focal_loss_backward(logits: np.ndarray, labels: np.ndarray, alpha: float, gamma: float) -> np.ndarray:
    """Return ∂L/∂z (K, N)."""
    raise NotImplementedError
