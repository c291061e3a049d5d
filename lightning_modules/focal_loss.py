"""Focal loss for classification with one label an image."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from custom_backend.array import require
from custom_backend.functional.loss import check_loss


class FocalLoss(nn.Module):
    """Cross-entropy that pays less attention to examples the network is already sure of.

    FL = mean(−α_t (1 − p_t)^γ log p_t), where p_t is the softmax probability of the target class.
    Source: Lin et al., Focal Loss for Dense Object Detection, 2017, eq. 5, with softmax for sigmoid. There
    α_t balances the classes, and so does a list here; one number for all of them balances nothing.

    Args:
        alpha: weight of the whole loss, or one for each class, in (0, inf).
        gamma: focusing exponent, in [0, inf); 0 gives ``alpha`` times cross-entropy.
    """

    alpha: float | Tensor

    def __init__(self, alpha: float | Sequence[float] = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        check_loss("FocalLoss", "mean", alpha=alpha, gamma=gamma)
        self.gamma = gamma
        if isinstance(alpha, Sequence):
            self.register_buffer("alpha", torch.tensor(alpha, dtype=torch.float32), persistent=False)
        else:
            self.alpha = alpha

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(N, C) logits and (N,) int64 targets to a scalar."""
        log_p = log_softmax(logits, dim=1).gather(1, targets[:, None]).squeeze(1)
        alpha = self.alpha
        if isinstance(alpha, Tensor):
            classes = logits.shape[1]
            require(len(alpha) == classes, "FocalLoss", f"alpha for {classes} classes", alpha.tolist())
            alpha = alpha[targets]
        # expm1 keeps 1 − p_t exact where p_t is almost 1; the bound keeps the slope of its power finite at 1
        possible = log_p.masked_fill(log_p == -torch.inf, -1.0)
        rest = (-torch.expm1(possible)).clamp_min(torch.finfo(log_p.dtype).tiny)
        focus = (rest**self.gamma).masked_fill(log_p == -torch.inf, 1.0)  # where its slope would be 0 · ∞
        return (alpha * focus * -log_p).mean()
