"""Focal loss for classification with one label an image."""

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax


class FocalLoss(nn.Module):
    """Cross-entropy that pays less attention to examples the network is already sure of.

    FL = mean(−α (1 − p_t)^γ log p_t), where p_t is the softmax probability of the target class.
    Source: Lin et al., Focal Loss for Dense Object Detection, 2017, eq. 5, with softmax for sigmoid.

    Args:
        alpha: weight of the whole loss, in (0, inf).
        gamma: focusing exponent, in [0, inf); 0 gives ``alpha`` times cross-entropy.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(N, C) logits and (N,) int64 targets to a scalar."""
        log_p = log_softmax(logits, dim=1).gather(1, targets[:, None]).squeeze(1)
        # expm1 keeps 1 − p_t exact where p_t is almost 1; the bound keeps the slope of its power finite at 1
        rest = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        return (self.alpha * rest**self.gamma * -log_p).mean()
