"""Learning-rate schedules, all stepped after every optimizer step and laid out over the whole training."""

import math
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, MultiStepLR, OneCycleLR


def constant(optimizer: Optimizer, total_steps: int, warmup: float = 0.0) -> LRScheduler:
    """Keep the learning rate.

    Args:
        optimizer: its rate is the full one.
        total_steps: of the whole training.
        warmup: part of the training in which the rate rises to the full one, in [0, 1).
    """
    return _rising(optimizer, total_steps, warmup, [lambda step: 1.0 for _ in optimizer.param_groups])  # noqa: ARG005


def step(
    optimizer: Optimizer, total_steps: int, milestones: Sequence[float], gamma: float, warmup: float = 0.0
) -> LRScheduler:
    """Multiply the learning rate by ``gamma`` at each of ``milestones``.

    Args:
        optimizer: its rate is that at the start.
        total_steps: of the whole training.
        milestones: parts of the training after which the rate falls, in (0, 1).
        gamma: factor by which the rate falls at a milestone, in (0, 1].
        warmup: part of the training in which the rate rises to the full one, in [0, 1).
    """
    steps = [round(part * total_steps) for part in milestones]
    if not warmup:
        return MultiStepLR(optimizer, steps, gamma)

    def factor(step: int) -> float:
        return gamma ** sum(step >= milestone for milestone in steps)

    return _rising(optimizer, total_steps, warmup, [factor for _ in optimizer.param_groups])


def linear(optimizer: Optimizer, total_steps: int, warmup: float = 0.0) -> LRScheduler:
    """Fall to zero along a line, a parameter group with an end of its own (``until``) by then.

    Args:
        optimizer: its rate is the full one.
        total_steps: of the whole training.
        warmup: part of the training in which the rate rises to the full one, in [0, 1).
    """
    first = round(warmup * total_steps)

    def factor(until: float) -> Callable[[int], float]:
        length = until * total_steps - first
        return lambda step: max(0.0, 1 - (step - first) / length) if length > 0 else 0.0

    factors = [factor(group.get("until", 1.0)) for group in optimizer.param_groups]
    return _rising(optimizer, total_steps, warmup, factors)


def cosine(optimizer: Optimizer, total_steps: int, final_lr: float, warmup: float = 0.0) -> LRScheduler:
    """Fall along half a cosine (Loshchilov and Hutter, SGDR, 2017, without restarts).

    Args:
        optimizer: its rate is the full one.
        total_steps: of the whole training.
        final_lr: learning rate at the end, in [0, inf).
        warmup: part of the training in which the rate rises to the full one, in [0, 1).
    """
    if not warmup:
        return CosineAnnealingLR(optimizer, total_steps, final_lr)
    first = round(warmup * total_steps)

    def factor(final: float) -> Callable[[int], float]:
        def fall(step: int) -> float:
            part = (step - first) / max(1, total_steps - first)
            return final + (1 - final) * (1 + math.cos(math.pi * part)) / 2

        return fall

    factors = [factor(final_lr / group["lr"]) for group in optimizer.param_groups]
    return _rising(optimizer, total_steps, warmup, factors)


def _rising(
    optimizer: Optimizer, total_steps: int, warmup: float, factors: Sequence[Callable[[int], float]]
) -> LRScheduler:
    """Rise along a line to the full rate, of which each group then has what its factor gives."""
    first = round(warmup * total_steps)

    def risen(factor: Callable[[int], float]) -> Callable[[int], float]:
        return lambda step: (step + 1) / (first + 1) if step < first else factor(step)

    return LambdaLR(optimizer, [risen(factor) for factor in factors])


def onecycle(optimizer: Optimizer, total_steps: int, warmup: float) -> LRScheduler:
    """Rise to the optimizer's rate, then fall (Smith, 2018).

    Args:
        optimizer: its rate is that at the peak.
        total_steps: of the whole training.
        warmup: part of the training in which the rate rises, in (0, 1).
    """
    return OneCycleLR(
        optimizer, [group["lr"] for group in optimizer.param_groups], total_steps, pct_start=warmup
    )
