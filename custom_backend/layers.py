"""Layers: the hyperparameters, the names of the parameters, and a check of what comes in.

A layer holds no arrays. Parameters and running statistics come with each call as `state`, a mapping under
torch's names; what backward needs goes back to the caller as `saved`. So one layer serves any number of
networks, devices and threads at once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from custom_backend import init
from custom_backend.array import Array, Pair, State, check_input, namespace, pair, require
from custom_backend.functional import activation, convolution, dropout, linear, loss, normalization, pooling

IMAGES = "channels, height, width, batch"
FEATURES = "features, batch"

Initialise: TypeAlias = Callable[[np.random.Generator, tuple[int, ...]], init.Weights]
Backward: TypeAlias = tuple[Array | None, dict[str, Array]]


class Layer:
    """A differentiable function of an array and of a state, whose entries are listed in `names`."""

    @property
    def names(self) -> tuple[str, ...]:
        """The entries of the state, as torch names them."""
        return ()

    def init(self, rng: np.random.Generator, initialise: Initialise = init.torch_default) -> dict[str, Array]:
        """A fresh state of float32 NumPy arrays."""
        return {}

    def forward(
        self, state: State, x: Array, training: bool = False, rng: np.random.Generator | None = None
    ) -> tuple[Array, Any]:
        """(y, saved). Training updates the running statistics in `state` in place."""
        raise NotImplementedError

    def backward(self, saved: Any, grad: Array, needs_input_grad: bool = True) -> Backward:
        """(∂L/∂x, {name: ∂L/∂parameter}). Where `needs_input_grad` is false, ∂L/∂x may be None."""
        raise NotImplementedError


class _Function(Layer):
    """A layer without a state: a pair of functions, and the hyperparameters that the first of them takes."""

    functions: ClassVar[tuple[Callable[..., Any], Callable[..., Any]]]
    layout: ClassVar[str | None] = None  # the axes that x must have; any where None

    @property
    def hyperparameters(self) -> tuple[Any, ...]:
        """What forward takes beside x."""
        return ()

    def check(self, x: Array) -> None:
        """Check the input."""
        if self.layout is not None:
            check_input(self, x, self.layout)

    def forward(
        self, state: State, x: Array, training: bool = False, rng: np.random.Generator | None = None
    ) -> tuple[Array, Any]:
        """See the first of `functions`."""
        self.check(x)
        return self.functions[0](x, *self.hyperparameters)  # type: ignore[no-any-return]

    def backward(self, saved: Any, grad: Array, needs_input_grad: bool = True) -> Backward:
        """See the second of `functions`."""
        return self.functions[1](saved, grad), {}


class _Weighted(Layer):
    """A layer with a weight of `shape` and, where `bias` is true, a bias."""

    bias: bool

    @property
    def shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    @property
    def names(self) -> tuple[str, ...]:
        return ("weight", "bias") if self.bias else ("weight",)

    def init(self, rng: np.random.Generator, initialise: Initialise = init.torch_default) -> dict[str, Array]:
        """The weight as `initialise` draws it, the bias as torch does."""
        state = {"weight": initialise(rng, self.shape)}
        if self.bias:
            state["bias"] = init.bias_default(rng, self.shape)
        return {name: array.astype(np.float32) for name, array in state.items()}

    def _named(self, grad_x: Array | None, *gradients: Array) -> Backward:
        return grad_x, dict(zip(self.names, gradients, strict=False))


@dataclass(frozen=True)
class Linear(_Weighted):
    """y = W x + b: (inputs, batch) → (outputs, batch)."""

    inputs: int
    outputs: int
    bias: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """(outputs, inputs)."""
        return self.outputs, self.inputs

    def forward(
        self, state: State, x: Array, training: bool = False, rng: np.random.Generator | None = None
    ) -> tuple[Array, Any]:
        """See `linear_forward`."""
        check_input(self, x, FEATURES, state)
        require(x.shape[0] == self.inputs, self, f"{self.inputs} features", x.shape[0])
        return linear.linear_forward(x, state["weight"], state.get("bias"))

    def backward(self, saved: Any, grad: Array, needs_input_grad: bool = True) -> Backward:
        """See `linear_backward`."""
        return self._named(*linear.linear_backward(saved, grad, needs_input_grad))


@dataclass(frozen=True)
class Conv2d(_Weighted):
    """A cross-correlation: (inputs, H, W, batch) → (outputs, H', W', batch)."""

    inputs: int
    outputs: int
    kernel_size: int | Pair
    stride: int | Pair = 1
    padding: int | Pair = 0
    bias: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """(outputs, inputs, kernel height, kernel width)."""
        return self.outputs, self.inputs, *pair(self.kernel_size)

    def forward(
        self, state: State, x: Array, training: bool = False, rng: np.random.Generator | None = None
    ) -> tuple[Array, Any]:
        """See `conv2d_forward`."""
        check_input(self, x, IMAGES, state)
        require(x.shape[0] == self.inputs, self, f"{self.inputs} channels", x.shape[0])
        stride, padding = pair(self.stride), pair(self.padding)
        check_fits(self, x, pair(self.kernel_size), padding)
        return convolution.conv2d_forward(x, state["weight"], state.get("bias"), stride, padding)

    def backward(self, saved: Any, grad: Array, needs_input_grad: bool = True) -> Backward:
        """See `conv2d_backward`."""
        return self._named(*convolution.conv2d_backward(saved, grad, needs_input_grad))


@dataclass(frozen=True)
class BatchNorm2d(Layer):
    """Batch normalisation with running statistics, which move by `momentum` towards those of each batch."""

    features: int
    eps: float = 1e-5
    momentum: float = 0.1

    @property
    def names(self) -> tuple[str, ...]:
        """Two parameters, then three running statistics."""
        return "weight", "bias", "running_mean", "running_var", "num_batches_tracked"

    def init(self, rng: np.random.Generator, initialise: Initialise = init.torch_default) -> dict[str, Array]:
        """The identity: weight 1, bias 0, running mean 0, running variance 1."""
        values = zip(self.names[:4], (1, 0, 0, 1), strict=True)
        state: dict[str, Array] = {name: np.full(self.features, x, np.float32) for name, x in values}
        return state | {"num_batches_tracked": np.array(0)}

    def norm(self, state: State, x: Array, training: bool) -> normalization.Norm:
        """Check the input, and choose the statistics; the variance of a single value is no variance."""
        check_input(self, x, IMAGES, state)
        require(x.shape[0] == self.features, self, f"{self.features} channels", x.shape[0])
        several = not training or math.prod(x.shape[1:]) > 1
        require(several, self, "more than one value per channel when training", f"shape {tuple(x.shape)}")
        statistics = None if training else (state["running_mean"], state["running_var"])
        return normalization.Norm(state["weight"], state["bias"], self.eps, statistics)

    def track(self, state: State, mean: Array, variance: Array, count: int) -> None:
        """Move the running statistics towards those of a batch, with its unbiased variance, as torch does."""
        for name, value in (("running_mean", mean), ("running_var", variance * (count / (count - 1)))):
            running = state[name]
            running += self.momentum * (value - running)
        batches = state["num_batches_tracked"]
        batches += 1

    def forward(
        self, state: State, x: Array, training: bool = False, rng: np.random.Generator | None = None
    ) -> tuple[Array, Any]:
        """See `batch_norm_forward`."""
        y, saved = normalization.batch_norm_forward(x, self.norm(state, x, training))
        if training:
            self.track(state, saved.mean, saved.variance, math.prod(x.shape[1:]))
        return y, saved

    def backward(self, saved: Any, grad: Array, needs_input_grad: bool = True) -> Backward:
        """See `batch_norm_backward`."""
        grad_x, grad_weight, grad_bias = normalization.batch_norm_backward(saved, grad)
        return grad_x, {"weight": grad_weight, "bias": grad_bias}


@dataclass(frozen=True)
class _Pool(_Function):
    """A window that moves by `stride`, by its own size if that is None."""

    kernel_size: int | Pair
    stride: int | Pair | None = None
    padding: int | Pair = 0

    layout = IMAGES

    @property
    def hyperparameters(self) -> tuple[Pair, Pair, Pair]:
        """(kernel, stride, padding)."""
        kernel = pair(self.kernel_size)
        return kernel, kernel if self.stride is None else pair(self.stride), pair(self.padding)

    def check(self, x: Array) -> None:
        """Check the input, and that every window meets the image."""
        super().check(x)
        kernel, _, padding = self.hyperparameters
        fits = all(2 * p <= k for p, k in zip(padding, kernel, strict=True))
        require(fits, self, "padding of at most half the kernel", f"{padding} for {kernel}")
        require(math.prod(kernel) <= 256, self, "a window of at most 256 pixels", math.prod(kernel))
        check_fits(self, x, kernel, padding)


class MaxPool2d(_Pool):
    """The greatest value of each window; its index there is kept in one byte."""

    functions = pooling.max_pool2d_forward, pooling.max_pool2d_backward


class AvgPool2d(_Pool):
    """The mean of each window; the border counts as zeros."""

    functions = pooling.avg_pool2d_forward, pooling.avg_pool2d_backward


@dataclass(frozen=True)
class AdaptiveAvgPool2d(_Function):
    """The mean of each of `output_size` bins, whatever the size of the image."""

    output_size: int | Pair

    layout = IMAGES
    functions = pooling.adaptive_avg_pool2d_forward, pooling.adaptive_avg_pool2d_backward

    @property
    def hyperparameters(self) -> tuple[Pair]:
        """(output size,)."""
        return (pair(self.output_size),)


@dataclass(frozen=True)
class LeakyReLU(_Function):
    """x where x > 0, `negative_slope` · x elsewhere."""

    negative_slope: float = 0.01

    functions = activation.leaky_relu_forward, activation.leaky_relu_backward

    @property
    def hyperparameters(self) -> tuple[float]:
        """(slope,)."""
        return (self.negative_slope,)


@dataclass(frozen=True)
class ReLU(LeakyReLU):
    """max(x, 0)."""

    negative_slope: float = 0.0


@dataclass(frozen=True)
class SELU(_Function):
    """The self-normalising activation."""

    functions = activation.selu_forward, activation.selu_backward


@dataclass(frozen=True)
class Sigmoid(_Function):
    """1 / (1 + e⁻ˣ)."""

    functions = activation.sigmoid_forward, activation.sigmoid_backward


@dataclass(frozen=True)
class LogSoftmax(_Function):
    """Logits (classes, batch) → the logarithms of the probabilities."""

    layout = FEATURES
    functions = loss.log_softmax_forward, loss.log_softmax_backward


@dataclass(frozen=True)
class Flatten(Layer):
    """(channels, height, width, batch) → (channels · height · width, batch): a view."""

    def forward(
        self, state: State, x: Array, training: bool = False, rng: np.random.Generator | None = None
    ) -> tuple[Array, Any]:
        """Merge all axes but the batch."""
        return namespace(x).reshape(x, (math.prod(x.shape[:-1]), x.shape[-1])), x.shape

    def backward(self, saved: Any, grad: Array, needs_input_grad: bool = True) -> Backward:
        """Split them again."""
        return namespace(grad).reshape(grad, saved), {}


@dataclass(frozen=True)
class Dropout(Layer):
    """Zeros with probability `p` in training, the identity in evaluation."""

    p: float = 0.5

    def forward(
        self, state: State, x: Array, training: bool = False, rng: np.random.Generator | None = None
    ) -> tuple[Array, Any]:
        """See `dropout_forward`; `rng` gives the seed of the mask."""
        require(0 <= self.p <= 1, self, "a probability p", self.p)
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
    whole = x.shape[1] + 2 * padding[0], x.shape[2] + 2 * padding[1]
    require(kernel[0] <= whole[0] and kernel[1] <= whole[1], layer, f"an image of at least {kernel}", whole)
