"""Focal loss against its definition."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from lightning_modules.focal_loss import FocalLoss


def test_it_is_the_formula():
    logits, targets = torch.randn(16, 5, dtype=torch.float64), torch.randint(5, (16,))
    p = logits.softmax(1)[torch.arange(16), targets]
    expected = (-0.25 * (1 - p) ** 2 * p.log()).mean()
    torch.testing.assert_close(FocalLoss(0.25, 2.0)(logits, targets), expected)


def test_without_focus_it_is_cross_entropy():
    logits, targets = torch.randn(16, 5), torch.randint(5, (16,))
    torch.testing.assert_close(FocalLoss(0.5, 0.0)(logits, targets), 0.5 * cross_entropy(logits, targets))


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e4])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_value_and_gradient_are_finite(scale, gamma):
    logits = (scale * torch.tensor([[1.0, -1.0], [-1.0, 1.0]])).requires_grad_()
    loss = FocalLoss(gamma=gamma)(logits, torch.tensor([0, 0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_gradient():
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: FocalLoss()(x, torch.tensor([0, 1, 2, 0])), logits)
