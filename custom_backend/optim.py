"""Optimizers: pure updates of arrays in place, and classes that hold hyperparameters and state."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from custom_backend.array import Array, dispatch, namespace, require, zeros
from custom_backend.layers import number


def sgd_step(
    parameter: Array, grad: Array, velocity: Array | None, lr: float, momentum: float, weight_decay: float
) -> Array:
    """v ← momentum · v + g (v ← g at first), θ ← θ − lr · v, with g = ∂L/∂θ + weight_decay · θ.

    Returns v. Momentum: Polyak (1964); this is torch's form, in which lr scales the whole step.
    """
    if weight_decay:
        grad = grad + weight_decay * parameter
    velocity = +grad if velocity is None else momentum * velocity + grad
    parameter -= lr * velocity
    return velocity


class AdamRule(NamedTuple):
    """The hyperparameters of `adam_step`."""

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    decoupled: bool


@dispatch
def adam_step(
    parameter: Array, grad: Array, exp_avg: Array, exp_avg_sq: Array, step: int, rule: AdamRule
) -> None:
    """m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g², θ ← θ − lr m̂ / (√v̂ + ε), all three in place.

    Both averages start at 0; after `step` steps their weights sum to 1 − βᵗ, so m̂ = m / (1 − β₁ᵗ) and
    v̂ = v / (1 − β₂ᵗ) are unbiased. Weight decay adds weight_decay · θ to g (Adam: Kingma, Ba, 2015) or,
    `decoupled`, shrinks θ by lr · weight_decay (AdamW: Loshchilov, Hutter, 2019).
    """
    lr, betas, eps, weight_decay, decoupled = rule
    if decoupled:
        parameter *= 1 - lr * weight_decay
    elif weight_decay:
        grad = grad + weight_decay * parameter
    change = grad - exp_avg
    if betas[0] > 0.5:  # of the two ways to say it, the one that keeps the digits of the smaller part
        exp_avg += (1 - betas[0]) * change
    else:
        exp_avg[...] = grad - betas[0] * change
    exp_avg_sq *= betas[1]
    exp_avg_sq += (1 - betas[1]) * grad * grad
    root = namespace(parameter).sqrt(exp_avg_sq) / math.sqrt(1 - betas[1] ** step) + eps
    parameter -= (lr / (1 - betas[0] ** step)) * exp_avg / root


@dataclass
class SGD:
    """Stochastic gradient descent with momentum."""

    lr: float = 1e-2
    momentum: float = 0.0
    weight_decay: float = 0.0
    state: dict[str, Array] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            number(self, name, 0)

    def step(self, parameters: Mapping[str, Array], gradients: Mapping[str, Array]) -> None:
        """Update, in place, every parameter that has a gradient."""
        for name, grad in gradients.items():
            velocity = self.state.get(name)
            self.state[name] = sgd_step(
                parameters[name], grad, velocity, self.lr, self.momentum, self.weight_decay
            )


@dataclass
class Adam:
    """Adam; its state is {parameter: {step, exp_avg, exp_avg_sq}}."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = field(default=False, init=False, repr=False)
    state: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in ("lr", "eps", "weight_decay"):
            number(self, name, 0)
        betas = self.betas if isinstance(self.betas, tuple | list) else ()
        right = len(betas) == 2 and all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in betas)
        require(right, self, "betas, two numbers in [0, 1)", self.betas)

    def step(self, parameters: Mapping[str, Array], gradients: Mapping[str, Array]) -> None:
        """Update, in place, every parameter that has a gradient."""
        rule = AdamRule(self.lr, self.betas, self.eps, self.weight_decay, self.decoupled)
        for name, grad in gradients.items():
            parameter = parameters[name]
            if name not in self.state:
                averages = {key: zeros(parameter, parameter.shape) for key in ("exp_avg", "exp_avg_sq")}
                self.state[name] = {"step": 0, **averages}
            state = self.state[name]
            state["step"] += 1
            adam_step(parameter, grad, state["exp_avg"], state["exp_avg_sq"], state["step"], rule)


@dataclass
class AdamW(Adam):
    """Adam with decoupled weight decay."""

    weight_decay: float = 1e-2
    decoupled: bool = field(default=True, init=False, repr=False)
