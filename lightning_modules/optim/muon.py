"""Muon: momentum whose updates of matrices are orthogonalised."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from lightning_modules.optim.closure import evaluated
from lightning_modules.optim.groups import HIDDEN

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of x, x³ and x⁵: steep at 0, and near 1 for all x in (0, 1] after a few applications."""


def orthogonalised(matrix: Tensor, steps: int) -> Tensor:
    """(m, n) matrix to about U Vᵀ of its singular value decomposition U S Vᵀ, by Newton–Schulz iterations.

    Computed in the type of ``matrix``: next to the convolutions it costs little, and it is the same on every
    processor. Source: Jordan et al., Muon, 2024.
    """
    a, b, c = QUINTIC
    x: Tensor = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(Optimizer):
    """Orthogonalised momentum for hidden weights, momentum alone for the head, norms and biases.

    A convolution's (filters, channels, height, width) weights are a matrix with a row for each filter. Both
    momenta are Nesterov's. torch.optim.Muon takes matrices only and wants another optimizer for the rest.

    Args:
        params: parameters, or groups of them; a group with a ``kind`` is orthogonalised if that is hidden
            weights, without one whatever has more than one dimension is.
        lr: of the orthogonalised updates, whose singular values are near 1, in (0, inf).
        momentum: part of the last hidden update that is taken again, in [0, 1).
        sgd_momentum: the same for the rest, in [0, 1).
        weight_decay: part by which a step at the full rate shrinks the weights, in [0, inf); whatever
            the rate of a group is.
        steps: Newton–Schulz iterations, in [1, 20].
        normalise: rescale each hidden weight to the norm √filters before each step, in place of its decay:
            right where a normalisation follows, which takes the scale out again.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.02,
        momentum: float = 0.95,
        sgd_momentum: float = 0.9,
        weight_decay: float = 0.0,
        steps: int = 5,
        normalise: bool = False,
    ) -> None:
        defaults = {
            "lr": lr, "momentum": momentum, "sgd_momentum": sgd_momentum, "weight_decay": weight_decay,
            "steps": steps, "normalise": normalise,
        }  # fmt: skip
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; the rate that a group begins with is its full one."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group.setdefault("full_lr", group["lr"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns what ``closure`` returns."""
        value = evaluated(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    is_hidden = group["kind"] == HIDDEN if "kind" in group else parameter.ndim > 1
                    (self._orthogonal_step if is_hidden else self._plain_step)(parameter, group)
        return value

    def _nesterov(self, parameter: Tensor, gradient: Tensor, momentum: float) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"].mul_(momentum).add_(gradient)
        return gradient.add(buffer, alpha=momentum)

    def _orthogonal_step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        lr, rows = group["lr"], len(parameter)
        update = self._nesterov(parameter, parameter.grad, group["momentum"])  # type: ignore[arg-type]
        if group["normalise"]:
            parameter.mul_(rows**0.5 / parameter.norm())
        else:
            parameter.mul_(1 - lr / group["full_lr"] * group["weight_decay"])
        update = orthogonalised(update.reshape(rows, -1), group["steps"])
        parameter.add_(update.view(parameter.shape), alpha=-lr)

    def _plain_step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient: Tensor = parameter.grad  # type: ignore[assignment]
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"] / group["full_lr"])
        update = self._nesterov(parameter, gradient, group["sgd_momentum"])
        parameter.add_(update, alpha=-group["lr"])
