"""Learning-rate schedules, all stepped after every optimizer step and laid out over the whole training."""

from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, MultiStepLR, OneCycleLR


def constant(optimizer: Optimizer, total_steps: int) -> LRScheduler:  # noqa: ARG001 – one signature for all
    """Keep the learning rate."""
    return LambdaLR(optimizer, lambda step: 1.0)  # noqa: ARG005


def step(optimizer: Optimizer, total_steps: int, milestones: Sequence[float], gamma: float) -> LRScheduler:
    """Multiply the learning rate by ``gamma`` at each of ``milestones``.

    Args:
        optimizer: its rate is that at the start.
        total_steps: of the whole training.
        milestones: parts of the training after which the rate falls, in (0, 1).
        gamma: factor by which the rate falls at a milestone, in (0, 1].
    """
    return MultiStepLR(optimizer, [round(part * total_steps) for part in milestones], gamma)


def linear(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """Fall to zero along a line, a parameter group with an end of its own (``until``) by then.

    Args:
        optimizer: its rate is that at the start.
        total_steps: of the whole training.
    """

    def factor(until: float) -> Callable[[int], float]:
        return lambda step: max(0.0, 1 - step / (until * total_steps)) if until else 0.0

    return LambdaLR(optimizer, [factor(group.get("until", 1.0)) for group in optimizer.param_groups])


def cosine(optimizer: Optimizer, total_steps: int, final_lr: float) -> LRScheduler:
    """Fall along half a cosine (Loshchilov and Hutter, SGDR, 2017, without restarts).

    Args:
        optimizer: its rate is that at the start.
        total_steps: of the whole training.
        final_lr: learning rate at the end, in [0, inf).
    """
    return CosineAnnealingLR(optimizer, total_steps, final_lr)


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
