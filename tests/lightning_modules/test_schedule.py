"""Schedules are laid out over the whole training, whatever its length."""

import pytest
import torch

from lightning_modules import schedule


def rates(make, total_steps: int, **options) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    scheduler = make(optimizer, total_steps, **options)
    seen = []
    for _ in range(total_steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_constant():
    assert rates(schedule.constant, 5) == [0.1] * 5


def test_step_falls_at_parts_of_the_training():
    seen = rates(schedule.step, 8, milestones=[0.5, 0.75], gamma=0.1)
    assert seen == pytest.approx([0.1] * 4 + [0.01] * 2 + [0.001] * 2)


def test_cosine_goes_from_the_peak_to_the_end():
    seen = rates(schedule.cosine, 100, final_lr=0.01)
    assert seen[0] == 0.1
    assert seen[50] == pytest.approx(0.055)
    assert seen[-1] == pytest.approx(0.01, abs=1e-4)


@pytest.mark.parametrize("total_steps", [2, 3, 100])
def test_onecycle_peaks_after_its_warmup(total_steps):
    seen = rates(schedule.onecycle, total_steps, warmup=0.3)
    assert max(seen) <= 0.1 + 1e-9
    if total_steps == 100:
        assert max(range(100), key=seen.__getitem__) == 29
