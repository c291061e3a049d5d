"""Layers one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from custom_backend import init
from custom_backend.array import Array, State
from custom_backend.functional.normalization import norm_act_pool_backward, norm_act_pool_forward
from custom_backend.layers import Backward, BatchNorm2d, Initialise, Layer, LeakyReLU, MaxPool2d


@dataclass(frozen=True)
class NormActPool(Layer):
    """BatchNorm2d, LeakyReLU and max-pooling by `window` (1: none) as one operation with one name."""

    norm: BatchNorm2d
    slope: float
    window: int

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the normalisation."""
        return self.norm.names

    def forward(
        self, state: State, x: Array, training: bool = False, rng: np.random.Generator | None = None
    ) -> tuple[Array, Any]:
        """See `norm_act_pool_forward`."""
        y, saved = norm_act_pool_forward(x, self.norm.norm(state, x, training), self.slope, self.window)
        if training:
            mean, variance, *_ = saved
            self.norm.track(state, mean, variance, x.shape[1] * x.shape[2] * x.shape[3])
        return y, saved

    def backward(self, saved: Any, grad: Array, needs_input_grad: bool = True) -> Backward:
        """See `norm_act_pool_backward`."""
        grad_x, grad_weight, grad_bias = norm_act_pool_backward(saved, grad)
        return grad_x, {"weight": grad_weight, "bias": grad_bias}


def fused(layers: Sequence[Layer]) -> list[tuple[int, Layer]]:
    """Number the layers, a normalisation as one with the activation and the 2 × 2 pooling that follow."""
    stages: list[tuple[int, Layer]] = []
    for number, layer in enumerate(layers):
        number_before, before = stages[-1] if stages else (0, None)
        match before, layer:
            case BatchNorm2d(), LeakyReLU():
                stages[-1] = number_before, NormActPool(before, layer.negative_slope, 1)
            case NormActPool(window=1), MaxPool2d(hyperparameters=((2, 2), (2, 2), (0, 0))):
                stages[-1] = number_before, NormActPool(before.norm, before.slope, 2)
            case _:
                stages.append((number, layer))
    return stages


class Sequential(Layer):
    """A network: each layer takes what the one before it gives. Entry `name` of layer i is `i.name`."""

    def __init__(self, *layers: Layer) -> None:
        self.layers = layers
        self._stages = [(f"{number}.", layer) for number, layer in fused(layers)]

    @property
    def names(self) -> tuple[str, ...]:
        """The entries of all layers."""
        return tuple(f"{number}.{name}" for number, layer in enumerate(self.layers) for name in layer.names)

    def init(self, rng: np.random.Generator, initialise: Initialise = init.torch_default) -> dict[str, Array]:
        """The entries of every layer, drawn in turn."""
        return {
            f"{number}.{name}": array
            for number, layer in enumerate(self.layers)
            for name, array in layer.init(rng, initialise).items()
        }

    def forward(
        self, state: State, x: Array, training: bool = False, rng: np.random.Generator | None = None
    ) -> tuple[Array, Any]:
        """Through the layers in turn."""
        tape = []
        for prefix, layer in self._stages:
            entries = {name: state[prefix + name] for name in layer.names}
            x, saved = layer.forward(entries, x, training, rng)
            tape.append(saved)
        return x, tuple(tape)

    def backward(self, saved: Any, grad: Array, needs_input_grad: bool = True) -> Backward:
        """The chain rule: through the layers in reverse."""
        gradients: dict[str, Array] = {}
        for (prefix, layer), kept in zip(reversed(self._stages), reversed(saved), strict=True):
            needed = needs_input_grad or layer is not self._stages[0][1]
            grad, parameters = layer.backward(kept, grad, needed)
            gradients |= {prefix + name: array for name, array in parameters.items()}
        return grad, gradients
