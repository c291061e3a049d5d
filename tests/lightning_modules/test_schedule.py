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


@pytest.mark.parametrize(
    ("make", "options"),
    [
        ("constant", {}),
        ("linear", {}),
        ("cosine", {"final_lr": 0.01}),
        ("step", {"milestones": [0.5], "gamma": 0.1}),
    ],
)
def test_a_warm_up_rises_along_a_line_and_then_falls_as_the_schedule_does(make, options):
    seen = rates(getattr(schedule, make), 100, warmup=0.2, **options)
    assert seen[:21] == pytest.approx([0.1 * (step + 1) / 21 for step in range(21)])
    without = rates(getattr(schedule, make), 80, **options)
    if make == "step":
        assert seen[49:51] == pytest.approx([0.1, 0.01])
    else:
        assert seen[20:] == pytest.approx(without)


def test_a_group_with_an_end_of_its_own_has_no_rate_after_it():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "until": until} for until in (1.0, 0.5)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    scheduler, seen = schedule.linear(optimizer, 4), []
    for _ in range(4):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    assert seen == [[1.0, 1.0], [0.75, 0.5], [0.5, 0.0], [0.25, 0.0]]
