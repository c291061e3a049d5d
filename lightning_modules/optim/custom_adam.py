"""Adam for torch's parameters, computed by custom_backend."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import ParamsT

from custom_backend.array import require
from custom_backend.optim import AdamRule, adam_step
from lightning_modules.bridge import on_device, to_array
from lightning_modules.optim.closure import evaluated

STATE = {"step", "exp_avg", "exp_avg_sq"}


class CustomAdam(torch.optim.Adam):
    """torch.optim.Adam with the library's step; the state of either can be loaded into the other.

    Args:
        params: as in torch: parameters, or groups of them with settings of their own.
        lr: learning rate, in (0, inf).
        betas: decay rates of the two moments, in [0, 1).
        eps: added to the denominator, in (0, inf).
        weight_decay: multiple of the weights that is added to their gradient, in [0, inf).
        maximize: whether to climb in place of descending.
        decoupled_weight_decay: whether the decay shrinks the parameter directly, as AdamW's.

    Example:
        >>> layer = torch.nn.Linear(2, 1)
        >>> optimizer = CustomAdam(layer.parameters(), lr=1e-4)
        >>> layer(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()

    Raises:
        ValueError: for a setting or a state that the library's step does not have, when it is given.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> None:
        decoupled = {"decoupled_weight_decay": True} if decoupled_weight_decay else {}  # torch 2.6 has it not
        super().__init__(params, lr, betas, eps, weight_decay, maximize=maximize, **decoupled)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch, checked."""
        super().add_param_group(param_group)
        _check_group(self.param_groups[-1])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, checked first: another optimizer's state is an error, and nothing is loaded."""
        for group in state_dict["param_groups"]:
            _check_group(group)
        for state in state_dict["state"].values():
            require(set(state) == STATE, "CustomAdam", f"a state of {sorted(STATE)}", sorted(state))
        super().load_state_dict(state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns what `closure` returns."""
        value = evaluated(closure)
        updates = []
        for group in self.param_groups:
            _check_group(group)
            updates += [(parameter, group) for parameter in group["params"] if parameter.grad is not None]
        for parameter, _ in updates:  # all, before the first is changed
            _check_parameter(parameter)
        for parameter, group in updates:
            self._update(parameter, group)
        return value

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        beta1, beta2 = map(float, group["betas"])
        decoupled = bool(group.get("decoupled_weight_decay", False))
        settings = float(group["lr"]), (beta1, beta2), float(group["eps"]), float(group["weight_decay"])
        tensors = (parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"])
        with on_device(parameter.device):
            array, grad, exp_avg, exp_avg_sq = map(to_array, tensors)
            grad = -grad if group["maximize"] else grad
            adam_step(array, grad, exp_avg, exp_avg_sq, int(state["step"]), AdamRule(*settings, decoupled))
        torch.autograd.graph.increment_version(parameter)


def _check_group(group: dict[str, Any]) -> None:
    """Check that a parameter group is one of Adam's, with settings that the library's step knows."""
    for name in ("lr", "betas", "eps", "weight_decay", "amsgrad"):
        require(name in group, "CustomAdam", f"Adam's parameter groups, with {name}", f"only {sorted(group)}")
    for name in ("amsgrad", "differentiable"):
        require(not group.get(name), "CustomAdam", f"{name}=False", group.get(name))


def _check_parameter(parameter: torch.Tensor) -> None:
    """Check that the library can view a parameter and its gradient as arrays."""
    assert parameter.grad is not None
    kinds = (torch.float32, torch.float64)
    require(parameter.dtype in kinds, "CustomAdam", "parameters of float32 or float64", parameter.dtype)
    require(not parameter.grad.is_sparse, "CustomAdam", "a dense gradient", "a sparse one")
