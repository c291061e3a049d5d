"""Batch normalisation, forward and backward.

Task 1: y = γ x̂ + β with x̂ = (x − μ) / √(σ² + ε), for each channel. In training μ and σ² are the mean and the
(biased) variance of the batch, over all m = H·W·N values of the channel; in evaluation they are the running
statistics. Training also moves the running statistics, evaluation returns them as they are:

    running ← (1 − momentum) · running + momentum · (that of the batch),

where the running VARIANCE takes the unbiased one of the batch, σ² m / (m − 1).

Task 2: the gradients in training, given g = ∂L/∂y. As μ and σ² depend on x too,

    ∂L/∂γ = Σ g x̂        ∂L/∂β = Σ g        ∂L/∂x = γ / √(σ² + ε) · (g − mean(g) − x̂ · mean(g x̂)),

sums and means over the m values of a channel.

Shapes (batch last): x, y, g (C, H, W, N); γ (`weight`), β (`bias`) and the statistics (C,).

Check: python grade.py exercises/batch_norm.py
Afterwards compare with `batch_norm_forward` and `batch_norm_backward` in
custom_backend/functional/normalization.py, and for the running statistics with `BatchNorm2d` in
custom_backend/layers.py.
"""

import numpy as np


def batch_norm_forward(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    running_mean: np.ndarray,
    running_var: np.ndarray,
    momentum: float,
    eps: float,
    training: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (y, new running_mean, new running_var); change no argument in place."""
    raise NotImplementedError


def batch_norm_backward(
    x: np.ndarray, weight: np.ndarray, grad: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (∂L/∂x, ∂L/∂γ, ∂L/∂β) in training, where `grad` is ∂L/∂y."""
    raise NotImplementedError
