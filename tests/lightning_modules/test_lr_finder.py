"""The learning rate that a range test finds."""

import math

import pytest

from experiment.errors import UserError
from lightning_modules.callbacks import LearningRateFinder
from lightning_modules.callbacks.lr_finder import suggest


def test_the_rate_is_a_fifth_of_that_with_the_lowest_loss():
    assert suggest([0.001, 0.01, 0.1, 1.0], [2.3, 2.0, 1.0, 4.0]) == 0.02
    assert suggest([0.001, 0.01, 0.1, 1.0], [2.3, 2.0, 1.0, math.nan]) == 0.02


@pytest.mark.parametrize("losses", [[2.3, 2.4, 2.5], [math.nan, 1.0, 0.5]])
def test_a_loss_that_does_not_fall_is_said(losses):
    with pytest.raises(UserError, match=r"falls at no rate from 0\.001 to 0\.1"):
        suggest([0.001, 0.01, 0.1], losses)


def test_a_range_of_rates_grows():
    rates = LearningRateFinder(1e-4, 1.0, 5).rates
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 0.1, 1.0])
