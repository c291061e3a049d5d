"""Optimizers for torch's parameters that custom_backend computes."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import ParamsT

from custom_backend.optim import AdamRule, adam_step
from lightning_modules.bridge import on_device, to_array


class CustomAdam(torch.optim.Adam):
    """torch.optim.Adam with the library's step; the state of either can be loaded into the other.

    Args:
        params: as torch takes them.
        lr: learning rate, in (0, inf).
        betas: decay rates of the two moments, in [0, 1).
        eps: added to the denominator, in (0, inf).
        weight_decay: multiple of the weights that is added to their gradient, in [0, inf).

    Example:
        >>> layer = torch.nn.Linear(2, 1)
        >>> optimizer = CustomAdam(layer.parameters(), lr=1e-4)
        >>> layer(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns what `closure` returns."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return value

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        rule = AdamRule(float(group["lr"]), group["betas"], group["eps"], group["weight_decay"], False)
        tensors = (parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"])
        with on_device(parameter.device):
            array, grad, exp_avg, exp_avg_sq = map(to_array, tensors)
            adam_step(array, grad, exp_avg, exp_avg_sq, int(state["step"]), rule)
        torch.autograd.graph.increment_version(parameter)
