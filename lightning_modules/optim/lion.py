"""Lion: steps of one size, in the direction of the momentum's sign."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from lightning_modules.optim.closure import evaluated


class Lion(Optimizer):
    """w ← w − lr (sign(β₁ m + (1 − β₁) g) + λ w), then m ← β₂ m + (1 − β₂) g.

    Source: Chen et al., Symbolic Discovery of Optimization Algorithms, 2023. Rates are a third to a tenth of
    Adam's, and weight decay as much larger.

    Args:
        params: as torch takes them.
        lr: learning rate, the size of each step, in (0, inf).
        betas: share of the momentum in a step, and in the next momentum, in [0, 1).
        weight_decay: times lr: part by which each step shrinks the weights, in [0, inf).
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns what ``closure`` returns."""
        value = evaluated(closure)
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if (gradient := parameter.grad) is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                momentum = state["exp_avg"]
                direction = torch.lerp(gradient, momentum, beta1).sign_()
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction, alpha=-group["lr"])
                momentum.lerp_(gradient, 1 - beta2)
        return value
