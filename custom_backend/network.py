"""Networks: layers one after the other, side by side, and around a shortcut."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from custom_backend import init
from custom_backend.array import Array, Shape, State, add, namespace, require
from custom_backend.functional.normalization import norm_act_pool_backward, norm_act_pool_forward
from custom_backend.layers import (
    Backward,
    BatchNorm2d,
    Entries,
    Forward,
    Identity,
    Initialise,
    Layer,
    LeakyReLU,
    MaxPool2d,
    ReLU,
    Rng,
    check_fits,
)


@dataclass(frozen=True)
class NormActPool(Layer):
    """BatchNorm2d, LeakyReLU or ReLU and, unless None, a 2 × 2 max-pooling as one operation."""

    norm: BatchNorm2d
    slope: float
    pool: MaxPool2d | None = None

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Those of the normalisation."""
        return self.norm.shapes

    def forward(self, state: State, x: Array, training: bool = False, rng: Rng = None) -> Forward:
        """See `norm_act_pool_forward`."""
        if self.pool is not None and x.ndim == 4:
            check_fits(self.pool, x, (2, 2), (0, 0))
        window = 1 if self.pool is None else 2
        return self.norm.normalise(norm_act_pool_forward, state, x, training, self.slope, window)

    def backward(self, saved: tuple[Array, ...], grad: Array, needs_input_grad: bool = True) -> Backward:
        """See `norm_act_pool_backward`."""
        grad_x, grad_weight, grad_bias = norm_act_pool_backward(saved, grad)
        return grad_x, {"weight": grad_weight, "bias": grad_bias}


def fused(layers: Sequence[Layer]) -> list[tuple[str, Layer]]:
    """(name, layer) for each, a normalisation as one with the activation and the 2 × 2 pooling that follow.

    A subclass of theirs may compute anything, and stays by itself.
    """
    stages: list[tuple[str, Layer]] = []
    for number, layer in enumerate(layers):
        name, before = stages[-1] if stages else ("", None)
        if type(before) is BatchNorm2d and type(layer) in (LeakyReLU, ReLU):
            stages[-1] = name, NormActPool(before, layer.negative_slope)  # type: ignore[attr-defined]
        elif isinstance(before, NormActPool) and before.pool is None and _is_2x2(layer):
            stages[-1] = name, NormActPool(before.norm, before.slope, layer)  # type: ignore[arg-type]
        else:
            stages.append((str(number), layer))
    return stages


def _is_2x2(layer: Layer) -> bool:
    return type(layer) is MaxPool2d and layer.settings == ((2, 2), (2, 2), (0, 0))


class Container(Layer):
    """Layers with names. Entry `weight` of child `body` is `body.weight` in state and gradients."""

    def __init__(self, children: Mapping[str, Layer]) -> None:
        for name, layer in children.items():
            require(isinstance(layer, Layer), type(self).__name__, f"a layer as {name}", repr(layer))
        self.children = dict(children)

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The entries of all children."""
        return _joined({child: layer.shapes for child, layer in self.children.items()})

    def init(self, rng: np.random.Generator, initialise: Initialise = init.torch_default) -> Entries:
        """The entries of every child, drawn in turn."""
        return _joined({child: layer.init(rng, initialise) for child, layer in self.children.items()})

    def __len__(self) -> int:
        return len(self.children)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.children.values())

    def __repr__(self) -> str:
        lines = [f"({name}): {layer!r}".replace("\n", "\n  ") for name, layer in self.children.items()]
        return "\n  ".join([f"{type(self).__name__}(", *lines]) + "\n)"


def _joined(children: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """{child: {name: value}} → {child.name: value}."""
    return {f"{child}.{name}": value for child, own in children.items() for name, value in own.items()}


def _entries(state: State, child: str, layer: Layer) -> Entries:
    """The state of one child; what is missing is left to its check."""
    return {name: state[f"{child}.{name}"] for name in layer.shapes if f"{child}.{name}" in state}


class Sequential(Container):
    """Each layer takes what the one before it gives. Entry `name` of layer i is `i.name`."""

    def __init__(self, *layers: Layer) -> None:
        super().__init__({str(number): layer for number, layer in enumerate(layers)})
        self.layers = layers
        self._stages = fused(layers)

    def __getitem__(self, index: int | slice) -> Layer:
        """One layer, or a network of several."""
        return Sequential(*self.layers[index]) if isinstance(index, slice) else self.layers[index]

    def forward(self, state: State, x: Array, training: bool = False, rng: Rng = None) -> Forward:
        """Through the layers in turn."""
        tape = []
        for name, layer in self._stages:
            x, saved = layer.forward(_entries(state, name, layer), x, training, rng)
            tape.append(saved)
        return x, tuple(tape)

    def backward(self, saved: tuple[Array, ...], grad: Array, needs_input_grad: bool = True) -> Backward:
        """The chain rule: through the layers in reverse."""
        gradients: dict[str, Entries] = {}
        for number in reversed(range(len(saved))):
            name, layer = self._stages[number]
            grad, gradients[name] = layer.backward(saved[number], grad, needs_input_grad or number > 0)
        return grad, _joined(gradients)

    def output_shape(self, shape: Shape) -> Shape:
        """That of the last layer."""
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return shape

    def flops(self, shape: Shape) -> int:
        """Those of all layers."""
        total = 0
        for layer in self.layers:
            total, shape = total + layer.flops(shape), layer.output_shape(shape)
        return total


class Branches(Container):
    """Every child takes x, so that the gradient by x is the sum of theirs."""

    def outputs(
        self, state: State, x: Array, training: bool, rng: Rng
    ) -> tuple[list[Array], tuple[Any, ...]]:
        """What each child gives, and what each keeps."""
        results = [
            layer.forward(_entries(state, name, layer), x, training, rng)
            for name, layer in self.children.items()
        ]
        return [y for y, _ in results], tuple(saved for _, saved in results)

    def gradients(self, saved: tuple[Any, ...], grads: list[Array], needs_input_grad: bool) -> Backward:
        """The chain rule, for the gradient of each child's output."""
        grad_x, gradients = None, {}
        for (name, layer), kept, grad in zip(self.children.items(), saved, grads, strict=True):
            by_x, gradients[name] = layer.backward(kept, grad, needs_input_grad)
            grad_x = by_x if grad_x is None or by_x is None else add(grad_x, by_x)
        return grad_x, _joined(gradients)

    def flops(self, shape: Shape) -> int:
        """Those of all children."""
        return sum(layer.flops(shape) for layer in self)


class Concat(Branches):
    """The outputs of the branches, one after the other along the channels."""

    def __init__(self, *branches: Layer) -> None:
        require(len(branches) > 0, type(self).__name__, "at least one branch", "none")
        super().__init__({str(number): layer for number, layer in enumerate(branches)})

    def forward(self, state: State, x: Array, training: bool = False, rng: Rng = None) -> Forward:
        """Every branch on x, joined."""
        outputs, saved = self.outputs(state, x, training, rng)
        for y in outputs:
            rest = outputs[0].shape[1:]
            require(y.shape[1:] == rest, "Concat", f"(channels, {', '.join(map(str, rest))})", y.shape)
        return namespace(x).concat(outputs, axis=0), (tuple(y.shape[0] for y in outputs), saved)

    def backward(self, saved: tuple[Any, ...], grad: Array, needs_input_grad: bool = True) -> Backward:
        """Each branch takes its channels of the gradient."""
        (lengths, kept), start, grads = saved, 0, []
        for length in lengths:
            grads.append(grad[start : start + length, ...])
            start += length
        return self.gradients(kept, grads, needs_input_grad)

    def output_shape(self, shape: Shape) -> Shape:
        """The channels of all branches."""
        shapes = [layer.output_shape(shape) for layer in self]
        return sum(each[0] for each in shapes), *shapes[0][1:]


class Residual(Branches):
    """y = body(x) + shortcut(x); without a shortcut, body(x) + x.

    He, Zhang, Ren, Sun: Deep residual learning for image recognition (2016).
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        super().__init__({"body": body, "shortcut": shortcut or Identity()})

    def forward(self, state: State, x: Array, training: bool = False, rng: Rng = None) -> Forward:
        """The sum of both."""
        (y, shortcut), saved = self.outputs(state, x, training, rng)
        wanted = f"a shortcut to {y.shape}, the shape of the body's output"
        require(shortcut.shape == y.shape, "Residual", wanted, shortcut.shape)
        return add(y, shortcut), saved

    def backward(self, saved: tuple[Any, ...], grad: Array, needs_input_grad: bool = True) -> Backward:
        """A sum hands its gradient to both terms."""
        return self.gradients(saved, [grad, grad], needs_input_grad)

    def output_shape(self, shape: Shape) -> Shape:
        """That of the body."""
        return self.children["body"].output_shape(shape)
