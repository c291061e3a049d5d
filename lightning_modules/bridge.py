"""custom_backend's layers and losses as torch citizens: an engine is a namespace with torch.nn's names.

`nn = namespace(engine)` offers Conv2d, BatchNorm2d, Sequential, … with torch.nn's signatures, so that a
network written as a function of `nn` is torch's or the library's. Each class is torch's own with another
`forward`: parameters, their names and initial values are torch's, and what works on parameters (optimizers,
`state_dict`, `.to()`, `deepcopy`, clipping, DDP) works. Tensors pass to the library and back without a copy:
parameters are viewed as arrays anew at each call, and images keep their batch-last memory behind torch's
(batch, channels, height, width). `Sequential` runs neighbours of the library as one autograd node.

Under autocast the arithmetic is in float32. Double backward is an error. Dropout draws its seed from torch.
"""

import functools
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from types import SimpleNamespace
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

import custom_backend as cb
from custom_backend.array import Array, library, pair, require
from custom_backend.functional import loss

ENGINES = ("auto", "numpy", "cupy")


@functools.cache
def _cupy() -> Any:
    """CuPy, on the memory of torch's allocator.

    Raises:
        RuntimeError: if CuPy is not installed, lacks a CUDA library or finds no GPU.
    """
    try:
        import cupy
        from cupy.cuda import cublas
    except ImportError as error:
        raise RuntimeError(f"engine cupy: expected CuPy and its CUDA libraries, got: {error}") from error
    if not cupy.is_available():
        raise RuntimeError("engine cupy: expected a CUDA device, got none that CuPy can use")
    cublas.getVersion(cupy.cuda.device.get_cublas_handle())
    torch_memory = cupy.cuda.memory.PythonFunctionAllocator(
        lambda size, device: torch.cuda.caching_allocator_alloc(size, device),
        lambda pointer, _: torch.cuda.caching_allocator_delete(pointer),  # type: ignore[no-untyped-call]
    )
    cupy.cuda.set_allocator(torch_memory.malloc)
    return cupy


def on_device(device: torch.device) -> AbstractContextManager[Any]:
    """Where arrays of `device` are computed: on a GPU, torch's current stream."""
    stack = ExitStack()
    if device.type == "cuda":
        cuda = _cupy().cuda
        stack.enter_context(cuda.Device(device.index))
        stack.enter_context(cuda.ExternalStream(torch.cuda.current_stream(device).cuda_stream))
    return stack


def to_array(tensor: Tensor) -> Array:
    """View a tensor as an array of its engine: NumPy's on the CPU, CuPy's on a GPU."""
    tensor = tensor.detach()
    return tensor.numpy() if tensor.device.type == "cpu" else _cupy().from_dlpack(tensor)


def to_tensor(array: Array) -> Tensor:
    """View an array as a tensor."""
    if library(array) == "cupy":
        return torch.utils.dlpack.from_dlpack(array)
    return torch.from_numpy(np.asarray(array))


def _batch_last(tensor: Tensor) -> Array:
    """(batch, …) → (…, batch), a view."""
    return to_array(tensor.detach().movedim(0, -1))


def _batch_first(array: Array) -> Tensor:
    """(…, batch) → (batch, …), a view."""
    return to_tensor(array).movedim(-1, 0)


def _map_arrays(function: Callable[[Any], Any], saved: Any) -> Any:
    """`saved` with every array or tensor in its nested tuples replaced by its image."""
    if isinstance(saved, tuple):
        images = [_map_arrays(function, entry) for entry in saved]
        return type(saved)(*images) if hasattr(saved, "_fields") else tuple(images)
    return function(saved) if isinstance(saved, _Index) or hasattr(saved, "__dlpack__") else saved


class _Index(int):
    """The index of an array in the list of those that torch keeps."""


def _save(ctx: Any, saved: Any, inputs: Iterable[Tensor]) -> None:
    """Keep `saved` for backward in torch's hands, which free it and notice if `inputs` change meanwhile."""
    kept: list[Tensor] = []

    def put(array: Array) -> _Index:
        kept.append(to_tensor(array))
        return _Index(len(kept) - 1)

    ctx.saved = _map_arrays(put, saved)
    ctx.save_for_backward(*kept, *inputs)


def _load(ctx: Any) -> Any:
    """What `_save` kept."""
    kept = ctx.saved_tensors
    return _map_arrays(lambda index: to_array(kept[index]), ctx.saved)


class _Network(torch.autograd.Function):
    """Layers of the library as one node of torch's graph: inputs x and the entries of the state."""

    @staticmethod
    def forward(
        ctx: Any,
        layer: cb.Layer,
        training: bool,
        rng: np.random.Generator | None,
        x: Tensor,
        *entries: Tensor,
    ) -> Tensor:
        with on_device(x.device):
            state = dict(zip(layer.names, map(to_array, entries), strict=True))
            y, saved = layer.forward(state, _batch_last(x), training, rng)
            ctx.layer = layer
            _save(ctx, saved, [x, *(entry for entry in entries if isinstance(entry, nn.Parameter))])
            return _batch_first(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needs_input_grad = ctx.needs_input_grad[3]
        with on_device(grad.device):
            grad_x, gradients = ctx.layer.backward(_load(ctx), _batch_last(grad), needs_input_grad)
            by_entry = [to_tensor(gradients[n]) if n in gradients else None for n in ctx.layer.names]
            return None, None, None, _batch_first(grad_x) if needs_input_grad else None, *by_entry


class _Loss(torch.autograd.Function):
    """A loss of the library on logits (batch, classes) and labels (batch,)."""

    @staticmethod
    def forward(
        ctx: Any,
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        logits: Tensor,
        labels: Tensor,
        *settings: float,
    ) -> Tensor:
        with on_device(logits.device):
            value, saved = forward(_batch_last(logits), to_array(labels), *settings)
            ctx.backward_function = backward
            _save(ctx, saved, [logits])
            return to_tensor(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with on_device(grad.device):
            grad_logits = _batch_first(ctx.backward_function(_load(ctx), to_array(grad)))
        return None, None, grad_logits, *[None] * (len(ctx.needs_input_grad) - 3)


class _Engine(nn.Module):
    """Comes before a class of torch.nn, whose parameters it keeps and whose arithmetic the library does."""

    def __init__(self, *args: Any, engine: str = "auto", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.engine = engine
        self._layer()  # settings that the library does not have are an error at once

    def _layer(self) -> cb.Layer:  # of the settings as they are now
        raise NotImplementedError

    @property
    def idle(self) -> bool:
        """Whether this module is the identity at present."""
        return False

    def forward(self, x: Tensor) -> Tensor:
        """As torch's module of the same name."""
        return x if self.idle else _run([self], x)

    def _require(self, **settings: Any) -> None:  # the only values that the library knows
        for name, value in settings.items():
            require(getattr(self, name) == value, self, f"{name}={value!r}", repr(getattr(self, name)))


def _run(modules: list[_Engine], x: Tensor) -> Tensor:
    """Apply modules of equal `training` one after the other, as one node of torch's graph."""
    layers = [module._layer() for module in modules]
    layer = layers[0] if len(layers) == 1 else cb.Sequential(*layers)
    entries: list[Tensor] = []
    for module, each in zip(modules, layers, strict=True):
        state = [getattr(module, name) for name in each.names]
        _check_device(module, module.engine, x, state)
        entries += state
    if torch.is_autocast_enabled(x.device.type) and x.is_floating_point():
        x = x.float()
    kinds = (torch.float32, torch.float64)
    require(x.dtype in kinds, modules[0], "float32 or float64", x.dtype)
    training = modules[0].training
    draws = training and any(isinstance(module, nn.Dropout) for module in modules)
    rng = np.random.default_rng(int(torch.randint(2**62, ()))) if draws else None
    return _Network.apply(layer, training, rng, x, *entries)  # type: ignore[no-any-return]


def _check_device(where: object, engine: str, x: Tensor, others: Iterable[Tensor]) -> None:
    """Check that `engine` can compute on the device of `x`, and that everything else is there too."""
    device = x.device
    devices = {"auto": ("cpu", "cuda"), "numpy": ("cpu",), "cupy": ("cuda",)}[engine]
    require(device.type in devices, where, f"a tensor on {' or '.join(devices)} for engine {engine}", device)
    for other in others:
        require(other.device == device, where, f"everything on {device}", other.device)


class Conv2d(_Engine, nn.Conv2d):
    """torch.nn.Conv2d without dilation and groups, padded with zeros."""

    def _layer(self) -> cb.Layer:
        self._require(dilation=(1, 1), groups=1, padding_mode="zeros")
        if isinstance(self.padding, str):
            raise ValueError(f"{self}: expected padding in pixels, got {self.padding!r}")
        geometry = pair(self.kernel_size), pair(self.stride), pair(self.padding)
        return cb.Conv2d(self.in_channels, self.out_channels, *geometry, self.bias is not None)


class Linear(_Engine, nn.Linear):
    """torch.nn.Linear on (batch, features)."""

    def _layer(self) -> cb.Layer:
        return cb.Linear(self.in_features, self.out_features, self.bias is not None)


class BatchNorm2d(_Engine, nn.BatchNorm2d):
    """torch.nn.BatchNorm2d with weight, bias and running statistics of fixed momentum."""

    def _layer(self) -> cb.Layer:
        self._require(affine=True, track_running_stats=True)
        if self.momentum is None:
            raise ValueError(f"{self}: expected a momentum, got None")
        return cb.BatchNorm2d(self.num_features, self.eps, self.momentum)


class MaxPool2d(_Engine, nn.MaxPool2d):
    """torch.nn.MaxPool2d without dilation, rounding sizes down."""

    def _layer(self) -> cb.Layer:
        self._require(dilation=1, ceil_mode=False, return_indices=False)
        return cb.MaxPool2d(self.kernel_size, self.stride, self.padding)


class AvgPool2d(_Engine, nn.AvgPool2d):
    """torch.nn.AvgPool2d, counting the border, rounding sizes down."""

    def _layer(self) -> cb.Layer:
        self._require(ceil_mode=False, count_include_pad=True, divisor_override=None)
        return cb.AvgPool2d(self.kernel_size, self.stride, self.padding)


class AdaptiveAvgPool2d(_Engine, nn.AdaptiveAvgPool2d):
    """torch.nn.AdaptiveAvgPool2d to a fixed size."""

    def _layer(self) -> cb.Layer:
        sizes = self.output_size if isinstance(self.output_size, tuple) else (self.output_size,) * 2
        height, width = sizes
        if height is None or width is None:
            raise ValueError(f"{self}: expected an output size in pixels, got {self.output_size}")
        return cb.AdaptiveAvgPool2d((height, width))


class Dropout(_Engine, nn.Dropout):
    """torch.nn.Dropout; the seed of each mask comes from torch's generator."""

    def _layer(self) -> cb.Layer:
        return cb.Dropout(self.p)

    @property
    def idle(self) -> bool:
        """In evaluation, and where p is 0."""
        return not self.training or self.p == 0


class LeakyReLU(_Engine, nn.LeakyReLU):
    """torch.nn.LeakyReLU, never in place."""

    def _layer(self) -> cb.Layer:
        return cb.LeakyReLU(self.negative_slope)


class ReLU(_Engine, nn.ReLU):
    """torch.nn.ReLU, never in place."""

    def _layer(self) -> cb.Layer:
        return cb.ReLU()


class SELU(_Engine, nn.SELU):
    """torch.nn.SELU, never in place."""

    def _layer(self) -> cb.Layer:
        return cb.SELU()


class Sigmoid(_Engine, nn.Sigmoid):
    """torch.nn.Sigmoid."""

    def _layer(self) -> cb.Layer:
        return cb.Sigmoid()


class Sequential(nn.Sequential):
    """torch.nn.Sequential; neighbours of the library that nobody watches run as one."""

    def forward(self, input: Tensor) -> Tensor:
        """Through the modules in turn."""
        x, run = input, []  # type: tuple[Tensor, list[_Engine]]
        for module in self:
            if run and not (_joins(module) and module.training == run[0].training):
                x, run = _run(run, x), []
            if not _joins(module):
                x = module(x)
            elif not module.idle:
                run.append(module)
        return _run(run, x) if run else x


def _joins(module: nn.Module) -> TypeGuard[_Engine]:
    """Whether a module may run together with its neighbours: hooks want to see what passes between."""
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return isinstance(module, _Engine) and not any(hooks)


class CustomCrossEntropyLoss(nn.Module):
    """The library's cross-entropy with label smoothing, for logits (batch, classes) of any engine.

    Args:
        label_smoothing: probability mass moved from the target to all classes, in [0, 1).
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over the batch."""
        pair = (loss.cross_entropy_forward, loss.cross_entropy_backward)
        return _apply_loss("CrossEntropyLoss", *pair, logits, labels, self.label_smoothing)


class CustomFocalLoss(nn.Module):
    """The library's focal loss, for logits (batch, classes) of any engine.

    Args:
        alpha: weight of the whole loss, in (0, inf).
        gamma: focusing exponent, in [0, inf); 0 gives ``alpha`` times cross-entropy.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over the batch."""
        pair = (loss.focal_loss_forward, loss.focal_loss_backward)
        return _apply_loss("FocalLoss", *pair, logits, labels, self.alpha, self.gamma)


def _apply_loss(
    where: str,
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    logits: Tensor,
    labels: Tensor,
    *settings: float,
) -> Tensor:
    _check_device(where, "auto", logits, [labels])
    if torch.is_autocast_enabled(logits.device.type):
        logits = logits.float()
    require(logits.dtype in (torch.float32, torch.float64), where, "float32 or float64 logits", logits.dtype)
    return _Loss.apply(forward, backward, logits, labels, *settings)  # type: ignore[no-any-return]


def namespace(engine: str) -> Any:
    """torch.nn's names, computed by `engine`: "auto" (by the device of the tensors), "numpy" or "cupy".

    Raises:
        ValueError: if there is no such engine.
        RuntimeError: for "cupy", if CuPy is not installed, lacks a CUDA library or finds no GPU.
    """
    require(engine in ENGINES, "engine", f"one of {', '.join(ENGINES)}", repr(engine))
    if engine == "cupy":
        _cupy()
    layers = (Conv2d, Linear, BatchNorm2d, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, Dropout)
    activations = (LeakyReLU, ReLU, SELU, Sigmoid)
    return SimpleNamespace(
        **{layer.__name__: functools.partial(layer, engine=engine) for layer in layers + activations},
        Module=nn.Module,
        Identity=nn.Identity,
        Flatten=nn.Flatten,  # a view, of batch-last memory too
        Sequential=Sequential,
        CrossEntropyLoss=CustomCrossEntropyLoss,
        FocalLoss=CustomFocalLoss,
    )
