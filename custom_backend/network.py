"""Networks: layers one after the other, side by side, and around a shortcut."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from custom_backend import init
from custom_backend.array import Array, Shape, State, namespace, require
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

    @property
    def shapes(self) -> dict[str, Shape]:
        """Those of the normalisation."""
        return self.norm.shapes

    def forward(self, state: State, x: Array, training: bool = False, rng: Rng = None) -> Forward:
        """See `norm_act_pool_forward`."""
        norm = self.norm.norm(state, x, training)
        if self.pool is not None:
            check_fits(self.pool, x, (2, 2), (0, 0))
        y, saved = norm_act_pool_forward(x, norm, self.slope, 1 if self.pool is None else 2)
        if training:
            mean, variance, *_ = saved
            self.norm.track(state, mean, variance, x.shape[1] * x.shape[2] * x.shape[3])
        return y, saved

    def backward(self, saved: tuple[Array, ...], grad: Array, needs_input_grad: bool = True) -> Backward:
        """See `norm_act_pool_backward`."""
        grad_x, grad_weight, grad_bias = norm_act_pool_backward(saved, grad)
        return grad_x, {"weight": grad_weight, "bias": grad_bias}


def fused(layers: Sequence[Layer]) -> list[tuple[int, Layer]]:
    """Number the layers, a normalisation as one with the activation and the 2 × 2 pooling that follow.

    A subclass of theirs may compute anything, and stays by itself.
    """
    stages: list[tuple[int, Layer]] = []
    for number, layer in enumerate(layers):
        number_before, before = stages[-1] if stages else (0, None)
        kind = type(layer)
        if type(before) is BatchNorm2d and isinstance(layer, LeakyReLU) and kind in (LeakyReLU, ReLU):
            stages[-1] = number_before, NormActPool(before, layer.negative_slope)
        elif (
            isinstance(before, NormActPool)
            and isinstance(layer, MaxPool2d)
            and kind is MaxPool2d
            and before.pool is None
            and layer.settings == ((2, 2), (2, 2), (0, 0))
        ):
            stages[-1] = number_before, NormActPool(before.norm, before.slope, layer)
        else:
            stages.append((number, layer))
    return stages


class Container(Layer):
    """Layers with names. Entry `weight` of child `body` is `body.weight` in state and gradients."""

    def __init__(self, children: Mapping[str, Layer]) -> None:
        for name, layer in children.items():
            require(isinstance(layer, Layer), type(self).__name__, f"a layer as {name}", repr(layer))
        self.children = dict(children)

    @property
    def shapes(self) -> dict[str, Shape]:
        """The entries of all children."""
        return {
            f"{child}.{name}": shape
            for child, layer in self.children.items()
            for name, shape in layer.shapes.items()
        }

    def init(self, rng: np.random.Generator, initialise: Initialise = init.torch_default) -> Entries:
        """The entries of every child, drawn in turn."""
        return {
            f"{child}.{name}": array
            for child, layer in self.children.items()
            for name, array in layer.init(rng, initialise).items()
        }

    def entries(self, state: State, prefix: str, layer: Layer) -> Entries:
        """The state of one child; what is missing is left to its check."""
        return {name: state[prefix + name] for name in layer.names if prefix + name in state}

    def __len__(self) -> int:
        return len(self.children)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.children.values())

    def __repr__(self) -> str:
        lines = [f"({name}): {layer!r}" for name, layer in self.children.items()]
        return (
            "\n  ".join([f"{type(self).__name__}(", *(line.replace("\n", "\n  ") for line in lines)]) + "\n)"
        )


class Sequential(Container):
    """Each layer takes what the one before it gives. Entry `name` of layer i is `i.name`."""

    def __init__(self, *layers: Layer) -> None:
        super().__init__({str(number): layer for number, layer in enumerate(layers)})
        self.layers = layers
        self._stages = [(f"{number}.", layer) for number, layer in fused(layers)]

    def __getitem__(self, index: int | slice) -> Layer:
        """One layer, or a network of several."""
        return Sequential(*self.layers[index]) if isinstance(index, slice) else self.layers[index]

    def forward(self, state: State, x: Array, training: bool = False, rng: Rng = None) -> Forward:
        """Through the layers in turn."""
        tape = []
        for prefix, layer in self._stages:
            x, saved = layer.forward(self.entries(state, prefix, layer), x, training, rng)
            tape.append(saved)
        return x, tuple(tape)

    def backward(self, saved: tuple[Array, ...], grad: Array, needs_input_grad: bool = True) -> Backward:
        """The chain rule: through the layers in reverse."""
        gradients: Entries = {}
        for number in reversed(range(len(saved))):
            prefix, layer = self._stages[number]
            grad, parameters = layer.backward(saved[number], grad, needs_input_grad or number > 0)
            gradients |= {prefix + name: array for name, array in parameters.items()}
        return grad, gradients

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


class Concat(Container):
    """Every branch takes x; their outputs lie one after the other along the channels."""

    def __init__(self, *branches: Layer) -> None:
        require(len(branches) > 0, type(self).__name__, "at least one branch", "none")
        super().__init__({str(number): layer for number, layer in enumerate(branches)})

    def forward(self, state: State, x: Array, training: bool = False, rng: Rng = None) -> Forward:
        """Every branch on x, joined."""
        outputs: list[Array] = []
        kept = []
        for name, layer in self.children.items():
            y, saved = layer.forward(self.entries(state, f"{name}.", layer), x, training, rng)
            self.check_alike(y.shape, outputs[0].shape if outputs else y.shape)
            outputs.append(y)
            kept.append(saved)
        return self.join(outputs), (tuple(y.shape[0] for y in outputs), *kept)

    def check_alike(self, shape: Shape, first: Shape) -> None:
        """Check that an output fits to the first."""
        require(shape[1:] == first[1:], "Concat", f"(channels, {', '.join(map(str, first[1:]))})", shape)

    def join(self, outputs: list[Array]) -> Array:
        """One array of all outputs."""
        return namespace(outputs[0]).concat(outputs, axis=0)

    def divide(self, grad: Array, lengths: tuple[int, ...]) -> Iterator[Array]:
        """The gradient of each output."""
        start = 0
        for length in lengths:
            yield grad[start : start + length, ...]
            start += length

    def backward(self, saved: tuple[Array, ...], grad: Array, needs_input_grad: bool = True) -> Backward:
        """x went into every branch, so its gradient is the sum of theirs."""
        lengths, *kept = saved
        gradients: Entries = {}
        grad_x = None
        for (name, layer), saved_y, grad_y in zip(
            self.children.items(), kept, self.divide(grad, lengths), strict=True
        ):
            by_x, parameters = layer.backward(saved_y, grad_y, needs_input_grad)
            gradients |= {f"{name}.{entry}": array for entry, array in parameters.items()}
            grad_x = by_x if grad_x is None or by_x is None else grad_x + by_x
        return grad_x, gradients

    def output_shape(self, shape: Shape) -> Shape:
        """The channels of all branches."""
        shapes = [layer.output_shape(shape) for layer in self]
        return sum(each[0] for each in shapes), *shapes[0][1:]

    def flops(self, shape: Shape) -> int:
        """Those of all branches."""
        return sum(layer.flops(shape) for layer in self)


class Residual(Concat):
    """y = body(x) + shortcut(x); without a shortcut, body(x) + x.

    He, Zhang, Ren, Sun: Deep residual learning for image recognition (2016).
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        Container.__init__(self, {"body": body, "shortcut": shortcut or Identity()})

    def check_alike(self, shape: Shape, first: Shape) -> None:
        """Check that body and shortcut give the same shape."""
        require(shape == first, "Residual", f"a shortcut to {first}, the shape of the body's output", shape)

    def join(self, outputs: list[Array]) -> Array:
        """The sum."""
        return outputs[0] + outputs[1]

    def divide(self, grad: Array, lengths: tuple[int, ...]) -> Iterator[Array]:
        """A sum hands its gradient to all its terms."""
        return iter([grad] * len(lengths))

    def output_shape(self, shape: Shape) -> Shape:
        """That of the body."""
        return self.children["body"].output_shape(shape)
