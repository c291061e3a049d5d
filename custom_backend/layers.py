"""Layers: the hyperparameters, the names and shapes of the parameters, and a check of what comes in.

A layer holds no arrays. Parameters and running statistics come with each call as `state`, a mapping under
torch's names; what backward needs goes back to the caller as `saved`. So one layer serves any number of
networks, devices and threads at once.

Every layer raises ValueError "layer: expected …, got …": for wrong hyperparameters when it is built, for a
wrong input or state when it is called.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

import numpy as np

from custom_backend import init
from custom_backend.array import Array, Pair, Shape, State, check_input, check_state, namespace, require
from custom_backend.functional import activation, convolution, dropout, linear, loss, normalization, pooling

IMAGES = "channels, height, width, batch"
FEATURES = "features, batch"

Entries: TypeAlias = dict[str, Array]
Initialise: TypeAlias = Callable[[np.random.Generator, Shape], init.Weights]
Rng: TypeAlias = np.random.Generator | None
Forward: TypeAlias = tuple[Array, Any]
Backward: TypeAlias = tuple[Array | None, Entries]


def is_whole(value: object, least: int) -> bool:
    """Whether `value` is an integer of at least `least`."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)


def whole(layer: object, name: str, least: int = 1) -> int:
    """The integer hyperparameter `name` of a layer, checked."""
    value = getattr(layer, name)
    require(is_whole(value, least), layer, f"{name} of at least {least}, an integer", repr(value))
    return int(value)


def pair(layer: object, name: str, least: int = 1) -> Pair:
    """The hyperparameter `name` along (height, width), checked: `3` and `(3, 3)` both mean (3, 3)."""
    value = getattr(layer, name)
    values = value if isinstance(value, tuple | list) else (value, value)
    right = len(values) == 2 and all(is_whole(each, least) for each in values)
    require(right, layer, f"{name} of at least {least}, one integer or two", repr(value))
    return int(values[0]), int(values[1])


def number(layer: object, name: str, least: float = -math.inf, most: float = math.inf) -> float:
    """The real hyperparameter `name` of a layer, checked."""
    value = getattr(layer, name)
    right = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    right = right and math.isfinite(value) and bool(least <= value <= most)
    limits = f" in [{least:g}, {most:g}]" if math.isfinite(least) else ""
    require(right, layer, f"a number {name}{limits}", repr(value))
    return float(value)


class Layer:
    """A differentiable function of an array and of a state.

    A layer that is a pair of `functions` says what they take beside x: parameters (`shapes`) and `settings`.
    """

    functions: ClassVar[tuple[Callable[..., Any], Callable[..., Any]]]
    layout: ClassVar[str] = ""  # the axes that x must have; any where empty
    channels: ClassVar[str] = ""  # the field that tells how long the first of them is

    def __post_init__(self) -> None:
        _ = self.settings, self.shapes  # wrong hyperparameters are an error at once

    @cached_property
    def settings(self) -> tuple[Any, ...]:
        """What forward takes after x and the parameters."""
        return ()

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The shape of each entry of the state, under torch's names."""
        return {}

    def init(self, rng: np.random.Generator, initialise: Initialise = init.torch_default) -> Entries:
        """A fresh state of float32 NumPy arrays: weights as `initialise` draws them, biases as torch does."""
        state = {"weight": initialise(rng, self.shapes["weight"])} if self.shapes else {}
        if "bias" in self.shapes:
            state["bias"] = init.torch_bias(rng, self.shapes["weight"])
        return {name: array.astype(np.float32) for name, array in state.items()}

    def check(self, state: State, x: Array) -> None:
        """Check input and state."""
        check_input(self, x, self.layout, getattr(self, self.channels) if self.channels else None)
        check_state(self, state, x, self.shapes)

    def forward(self, state: State, x: Array, training: bool = False, rng: Rng = None) -> Forward:
        """(y, saved). Training updates the running statistics in `state` in place."""
        self.check(state, x)
        parameters = (state["weight"], state.get("bias")) if self.shapes else ()
        return self.functions[0](x, *parameters, *self.settings)  # type: ignore[no-any-return]

    def backward(self, saved: Any, grad: Array, needs_input_grad: bool = True) -> Backward:
        """(∂L/∂x, {name: ∂L/∂parameter}). Where `needs_input_grad` is false, ∂L/∂x may be None."""
        if not self.shapes:
            return self.functions[1](saved, grad), {}
        grad_x, *gradients = self.functions[1](saved, grad, needs_input_grad)
        return grad_x, dict(zip(self.shapes, gradients, strict=False))

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for one sample of `shape`."""
        return shape

    def flops(self, shape: Shape) -> int:
        """Floating-point operations of a forward pass for one sample of `shape`, matrix products alone.

        A multiplication and an addition for each weight at each pixel of the output.
        """
        weight = self.shapes.get("weight", ())
        return 2 * math.prod(weight) * math.prod(self.output_shape(shape)[1:]) if len(weight) > 1 else 0


@dataclass(frozen=True)
class Linear(Layer):
    """y = W x + b: (inputs, batch) → (outputs, batch)."""

    inputs: int
    outputs: int
    bias: bool = True

    layout, channels = FEATURES, "inputs"
    functions = linear.linear_forward, linear.linear_backward

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """(outputs, inputs) and (outputs,)."""
        weight = whole(self, "outputs"), whole(self, "inputs")
        return {"weight": weight, "bias": weight[:1]} if self.bias else {"weight": weight}

    def output_shape(self, shape: Shape) -> Shape:
        """(outputs,)."""
        return (self.outputs,)


@dataclass(frozen=True)
class Conv2d(Layer):
    """A cross-correlation: (inputs, H, W, batch) → (outputs, H', W', batch).

    Args:
        inputs: channels in, a multiple of `groups`.
        outputs: channels out, likewise; as many groups as inputs make a depthwise convolution.
        kernel_size: pixels along (height, width), or along both, as all that follow but `bias`.
        stride: pixels from window to window.
        padding: pixels of zeros on all sides; "same": as many as make H' = H and W' = W; "valid": none.
        dilation: pixels from entry to entry of the kernel.
        groups: of channels, each with a convolution of its own.
        bias: whether b is added.
    """

    inputs: int
    outputs: int
    kernel_size: int | Pair
    stride: int | Pair = 1
    padding: int | Pair | str = 0
    bias: bool = True
    dilation: int | Pair = 1
    groups: int = 1

    layout, channels = IMAGES, "inputs"
    functions = convolution.conv2d_forward, convolution.conv2d_backward

    @cached_property
    def settings(self) -> tuple[Pair, Pair, Pair, int]:
        """(stride, padding, dilation, groups)."""
        groups, stride, dilation = whole(self, "groups"), pair(self, "stride"), pair(self, "dilation")
        for name in ("inputs", "outputs"):
            count = whole(self, name)
            require(count % groups == 0, self, f"{name} divisible by groups={groups}", count)
        if not isinstance(self.padding, str):
            return stride, pair(self, "padding", 0), dilation, groups
        require(self.padding in ("same", "valid"), self, "padding 'same', 'valid' or pixels", self.padding)
        if self.padding == "valid":
            return stride, (0, 0), dilation, groups
        require(stride == (1, 1), self, "stride 1 for padding 'same'", stride)
        return stride, (self.reach[0] // 2, self.reach[1] // 2), dilation, groups

    @cached_property
    def reach(self) -> Pair:
        """How many pixels lie between the first and the last that a window sees."""
        kernel, dilation = pair(self, "kernel_size"), pair(self, "dilation")
        return (kernel[0] - 1) * dilation[0], (kernel[1] - 1) * dilation[1]

    @cached_property
    def uneven(self) -> Pair:
        """The rows and columns of zeros that "same" needs at the end alone: 1 where the reach is odd."""
        return (self.reach[0] % 2, self.reach[1] % 2) if self.padding == "same" else (0, 0)

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """(outputs, inputs / groups, kernel height, kernel width) and (outputs,)."""
        weight = (self.outputs, self.inputs // self.groups, *pair(self, "kernel_size"))
        return {"weight": weight, "bias": weight[:1]} if self.bias else {"weight": weight}

    def check(self, state: State, x: Array) -> None:
        """Check input and state, and that the kernel is no larger than the padded image."""
        super().check(state, x)
        (_, padding, *_), reach = self.settings, self.reach
        check_fits(self, x, (reach[0] + 1 - self.uneven[0], reach[1] + 1 - self.uneven[1]), padding)

    def forward(self, state: State, x: Array, training: bool = False, rng: Rng = None) -> Forward:
        """See `conv2d_forward`."""
        self.check(state, x)
        padded = convolution.extend(x, self.uneven)
        return convolution.conv2d_forward(padded, state["weight"], state.get("bias"), *self.settings)

    def backward(self, saved: Any, grad: Array, needs_input_grad: bool = True) -> Backward:
        """See `conv2d_backward`."""
        grad_x, gradients = super().backward(saved, grad, needs_input_grad)
        if grad_x is not None and self.uneven != (0, 0):
            grad_x = grad_x[:, : grad_x.shape[1] - self.uneven[0], : grad_x.shape[2] - self.uneven[1], :]
        return grad_x, gradients

    def output_shape(self, shape: Shape) -> Shape:
        """(outputs, H', W')."""
        stride, padding, dilation, _ = self.settings
        size = shape[1] + self.uneven[0], shape[2] + self.uneven[1]
        kernel = pair(self, "kernel_size")
        return self.outputs, *convolution.output_size(size, kernel, stride, padding, dilation)


@dataclass(frozen=True)
class _Affine(Layer):
    """A normalisation that multiplies each channel by a weight and adds a bias."""

    features: int
    eps: float = 1e-5

    channels = "features"

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """(features,), each."""
        return dict.fromkeys(("weight", "bias"), (whole(self, "features"),))

    @cached_property
    def settings(self) -> tuple[Any, ...]:
        """(eps,)."""
        return (number(self, "eps", 0),)

    def init(self, rng: np.random.Generator, initialise: Initialise = init.torch_default) -> Entries:
        """The identity: weight 1, bias 0."""
        return {"weight": np.ones(self.features, np.float32), "bias": np.zeros(self.features, np.float32)}

    def backward(self, saved: Any, grad: Array, needs_input_grad: bool = True) -> Backward:
        """(∂L/∂x, those of weight and bias)."""
        grad_x, grad_weight, grad_bias = self.functions[1](saved, grad)
        return grad_x, {"weight": grad_weight, "bias": grad_bias}


@dataclass(frozen=True)
class BatchNorm2d(_Affine):
    """Batch normalisation with running statistics.

    They move by `momentum` towards those of each batch; None: they are the mean over all batches.
    """

    momentum: float | None = 0.1

    layout = IMAGES
    functions = normalization.batch_norm_forward, normalization.batch_norm_backward

    @cached_property
    def settings(self) -> tuple[Any, ...]:
        """(eps,)."""
        if self.momentum is not None:
            number(self, "momentum")
        return super().settings

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Two parameters, then three running statistics."""
        statistics = dict.fromkeys(("running_mean", "running_var"), (self.features,))
        return super().shapes | statistics | {"num_batches_tracked": ()}

    def init(self, rng: np.random.Generator, initialise: Initialise = init.torch_default) -> Entries:
        """The identity: weight 1, bias 0, running mean 0, running variance 1."""
        identity = super().init(rng, initialise)
        statistics = {"running_mean": identity["bias"].copy(), "running_var": identity["weight"].copy()}
        return identity | statistics | {"num_batches_tracked": np.array(0)}

    def forward(self, state: State, x: Array, training: bool = False, rng: Rng = None) -> Forward:
        """See `batch_norm_forward`."""
        return self.normalise(self.functions[0], state, x, training)

    def normalise(
        self, function: Callable[..., Any], state: State, x: Array, training: bool, *settings: Any
    ) -> Forward:
        """(y, saved) of `function`; in training the running statistics move towards those of the batch.

        As torch does, they move towards the unbiased variance.
        """
        self.check(state, x)
        count = math.prod(x.shape[1:])
        require(count > 1 or not training, self, "more than one value per channel when training", count)
        statistics = None if training else (state["running_mean"], state["running_var"])
        norm = normalization.Norm(state["weight"], state["bias"], self.eps, statistics)
        y, saved = function(x, norm, *settings)
        if training:
            mean, variance, *_ = saved
            batches = state["num_batches_tracked"]
            batches += 1
            momentum = 1 / int(batches) if self.momentum is None else self.momentum
            for name, value in (("running_mean", mean), ("running_var", variance * (count / (count - 1)))):
                running = state[name]
                running += momentum * (value - running)
        return y, saved


@dataclass(frozen=True)
class GroupNorm(_Affine):
    """Normalisation of each of `groups` equal groups of channels of each sample, whatever the batch."""

    groups: int = 1

    functions = normalization.group_norm_forward, normalization.group_norm_backward

    @cached_property
    def settings(self) -> tuple[Any, ...]:
        """(eps, groups)."""
        groups = whole(self, "groups")
        require(self.features % groups == 0, self, f"features divisible by groups={groups}", self.features)
        return *super().settings, groups


@dataclass(frozen=True)
class LayerNorm(_Affine):
    """Normalisation over the channels of each pixel, or over the features of each sample."""

    functions = normalization.layer_norm_forward, normalization.layer_norm_backward


@dataclass(frozen=True)
class _Pool(Layer):
    """A window that moves by `stride`, by its own size if that is None."""

    kernel_size: int | Pair
    stride: int | Pair | None = None
    padding: int | Pair = 0

    layout = IMAGES

    @cached_property
    def settings(self) -> tuple[Pair, Pair, Pair]:
        """(kernel, stride, padding)."""
        kernel, padding = pair(self, "kernel_size"), pair(self, "padding", 0)
        fits = all(2 * p <= k for p, k in zip(padding, kernel, strict=True))
        require(fits, self, "padding of at most half the kernel", f"{padding} for {kernel}")
        require(math.prod(kernel) <= 256, self, "a window of at most 256 pixels", math.prod(kernel))
        return kernel, kernel if self.stride is None else pair(self, "stride"), padding

    def check(self, state: State, x: Array) -> None:
        """Check the input, and that a window fits into it."""
        super().check(state, x)
        kernel, _, padding = self.settings
        check_fits(self, x, kernel, padding)

    def output_shape(self, shape: Shape) -> Shape:
        """(C, H', W')."""
        return shape[0], *convolution.output_size((shape[1], shape[2]), *self.settings)


class MaxPool2d(_Pool):
    """The greatest value of each window; its index there is kept in one byte."""

    functions = pooling.max_pool2d_forward, pooling.max_pool2d_backward


class AvgPool2d(_Pool):
    """The mean of each window; the border counts as zeros."""

    functions = pooling.avg_pool2d_forward, pooling.avg_pool2d_backward


@dataclass(frozen=True)
class AdaptiveAvgPool2d(Layer):
    """The mean of each of `output_size` bins, whatever the size of the image; 1: global average pooling."""

    output_size: int | Pair

    layout = IMAGES
    functions = pooling.adaptive_avg_pool2d_forward, pooling.adaptive_avg_pool2d_backward

    @cached_property
    def settings(self) -> tuple[Pair]:
        """(output size,)."""
        return (pair(self, "output_size"),)

    def output_shape(self, shape: Shape) -> Shape:
        """(C, H', W')."""
        return shape[0], *self.settings[0]


@dataclass(frozen=True)
class LeakyReLU(Layer):
    """x where x > 0, `negative_slope` · x elsewhere."""

    negative_slope: float = 0.01

    functions = activation.leaky_relu_forward, activation.leaky_relu_backward

    @cached_property
    def settings(self) -> tuple[float]:
        """(slope,)."""
        return (number(self, "negative_slope"),)


@dataclass(frozen=True)
class ReLU(LeakyReLU):
    """max(x, 0)."""

    negative_slope: float = 0.0


@dataclass(frozen=True)
class SELU(Layer):
    """The self-normalising activation."""

    functions = activation.selu_forward, activation.selu_backward


@dataclass(frozen=True)
class Sigmoid(Layer):
    """1 / (1 + e⁻ˣ)."""

    functions = activation.sigmoid_forward, activation.sigmoid_backward


@dataclass(frozen=True)
class Tanh(Layer):
    """The hyperbolic tangent."""

    functions = activation.tanh_forward, activation.tanh_backward


@dataclass(frozen=True)
class SiLU(Layer):
    """x / (1 + e⁻ˣ), also called Swish."""

    functions = activation.silu_forward, activation.silu_backward


@dataclass(frozen=True)
class GELU(Layer):
    """x Φ(x), Φ being the normal distribution's cumulative probability."""

    functions = activation.gelu_forward, activation.gelu_backward


@dataclass(frozen=True)
class Softmax(Layer):
    """Logits (classes, …, batch) → probabilities."""

    functions = loss.softmax_forward, loss.softmax_backward


@dataclass(frozen=True)
class LogSoftmax(Layer):
    """Logits (classes, …, batch) → the logarithms of the probabilities."""

    functions = loss.log_softmax_forward, loss.log_softmax_backward


@dataclass(frozen=True)
class Identity(Layer):
    """x itself."""

    def forward(self, state: State, x: Array, training: bool = False, rng: Rng = None) -> Forward:
        """(x, nothing)."""
        return x, None

    def backward(self, saved: Any, grad: Array, needs_input_grad: bool = True) -> Backward:
        """The gradient itself."""
        return grad, {}


@dataclass(frozen=True)
class Flatten(Layer):
    """(channels, height, width, batch) → (channels · height · width, batch): a view."""

    def forward(self, state: State, x: Array, training: bool = False, rng: Rng = None) -> Forward:
        """Merge all axes but the batch."""
        return namespace(x).reshape(x, (math.prod(x.shape[:-1]), x.shape[-1])), x.shape

    def backward(self, saved: Any, grad: Array, needs_input_grad: bool = True) -> Backward:
        """Split them again."""
        return namespace(grad).reshape(grad, saved), {}

    def output_shape(self, shape: Shape) -> Shape:
        """(C · H · W,)."""
        return (math.prod(shape),)


@dataclass(frozen=True)
class Dropout(Layer):
    """Zeros with probability `p` in training, the identity in evaluation."""

    p: float = 0.5

    @cached_property
    def settings(self) -> tuple[float]:
        """(p,)."""
        return (number(self, "p", 0, 1),)

    def forward(self, state: State, x: Array, training: bool = False, rng: Rng = None) -> Forward:
        """See `dropout_forward`; `rng` gives the seed of the mask."""
        self.check(state, x)
        if not training or self.p == 0:
            return x, None
        if rng is None:
            raise ValueError(f"{self}: expected a random generator `rng` when training, got None")
        return dropout.dropout_forward(x, self.p, int(rng.integers(2**63)))

    def backward(self, saved: Any, grad: Array, needs_input_grad: bool = True) -> Backward:
        """See `dropout_backward`."""
        return grad if saved is None else dropout.dropout_backward(saved, grad), {}


def check_fits(layer: Layer, x: Array, kernel: Pair, padding: Pair) -> None:
    """Check that the kernel is no larger than the padded image."""
    size = x.shape[1] + 2 * padding[0], x.shape[2] + 2 * padding[1]
    require(kernel[0] <= size[0] and kernel[1] <= size[1], layer, f"an image of at least {kernel}", size)
