"""custom_backend's layers and losses as torch citizens: an engine is a namespace with torch.nn's names.

`nn = namespace(engine)` offers Conv2d, BatchNorm2d, Sequential, … with torch.nn's signatures, so that a
network written as a function of `nn` is torch's or the library's. Each class is torch's own with another
`forward`: parameters, their names and initial values are torch's, and what works on parameters (optimizers,
`state_dict`, `.to()`, `deepcopy`, clipping, DDP) works. Tensors pass to the library and back without a copy:
parameters are viewed as arrays anew at each call, and images keep their batch-last memory behind torch's
(batch, channels, height, width). `Sequential` runs neighbours of the library as one autograd node.

Under autocast the arithmetic is in float32. Second derivatives are an error. Dropout's seed comes from torch.
"""

import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from difflib import get_close_matches
from types import SimpleNamespace
from typing import Any, ClassVar, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

import custom_backend as cb
from custom_backend.array import Array, library, require
from custom_backend.array import namespace as array_module
from custom_backend.functional import loss
from custom_backend.layers import FEATURES
from lightning_modules.focal_loss import FocalLoss

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
    if tensor.device.type != "cpu":
        return _cupy().from_dlpack(tensor)
    return tensor.numpy(force=True)  # a copy of what has no memory of its own, as -x may have none


def to_tensor(array: Array) -> Tensor:
    """View an array as a tensor."""
    if library(array) == "cupy":
        return torch.utils.dlpack.from_dlpack(array)
    return torch.from_numpy(np.asarray(array))


def _batch_last(tensor: Tensor) -> Array:
    """(batch, …) → (…, batch), a view."""
    return to_array(tensor.detach().movedim(0, -1)) if tensor.ndim else to_array(tensor)


def _batch_first(array: Array) -> Tensor:
    """(…, batch) → (batch, …), on the same memory, but no view to torch: it may be changed in place."""
    return to_tensor(array_module(array).moveaxis(array, -1, 0) if array.ndim else array)


def _map_arrays(function: Callable[[Any], Any], saved: Any) -> Any:
    """`saved` with every array or tensor in its nested tuples replaced by its image."""
    if isinstance(saved, tuple):
        images = [_map_arrays(function, entry) for entry in saved]
        return type(saved)(*images) if hasattr(saved, "_fields") else tuple(images)
    return function(saved) if isinstance(saved, _Index) or hasattr(saved, "__dlpack__") else saved


class _Index(int):
    """The index of an array in the list of those that torch keeps."""


def _save(
    ctx: Any, saved: Any, parameters: Iterable[Tensor], arguments: Sequence[tuple[Tensor, Array]]
) -> None:
    """Keep `saved` for backward in torch's hands, which free it and notice what changes meanwhile.

    Watched are the parameters, and input and output where they lie in the memory of what was saved.
    """
    arrays: list[Array] = []

    def put(array: Array) -> _Index:
        arrays.append(array)
        return _Index(len(arrays) - 1)

    ctx.saved = _map_arrays(put, saved)
    watched = [
        tensor
        for tensor, own in arguments
        if any(array_module(own).may_share_memory(own, array) for array in arrays)
    ]
    ctx.save_for_backward(*map(to_tensor, arrays), *parameters, *watched)


def _load(ctx: Any) -> Any:
    """What `_save` kept."""
    if torch.is_grad_enabled():  # of a backward pass: with create_graph=True
        raise RuntimeError(
            "custom_backend: expected a first derivative, got create_graph=True: the library's backward pass "
            "has no derivative, so a second one would silently be wrong. Use torch's own layers for it"
        )
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
            state, array = dict(zip(layer.shapes, map(to_array, entries), strict=True)), _batch_last(x)
            result, saved = layer.forward(state, array, training, rng)
            y = _batch_first(result)
            ctx.layer = layer
            named = zip(layer.shapes, entries, strict=True)
            parameters = [entry for name, entry in named if name.endswith(("weight", "bias"))]
            _save(ctx, saved, parameters, [(x, array), (y, result)])
            return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needs_input_grad = ctx.needs_input_grad[3]
        with on_device(grad.device):
            grad_x, gradients = ctx.layer.backward(_load(ctx), _batch_last(grad), needs_input_grad)
            by_entry = [to_tensor(gradients[n]) if n in gradients else None for n in ctx.layer.shapes]
            return None, None, None, _batch_first(grad_x) if needs_input_grad else None, *by_entry


class _Loss(torch.autograd.Function):
    """A loss of the library on predictions (batch, …) and targets (batch, …)."""

    @staticmethod
    def forward(
        ctx: Any,
        functions: tuple[Callable[..., Any], Callable[..., Any]],
        predicted: Tensor,
        target: Tensor,
        *settings: Any,
    ) -> Tensor:
        with on_device(predicted.device):
            arrays = [to_array(s) if isinstance(s, Tensor) else s for s in settings]
            array = _batch_last(predicted)
            result, saved = functions[0](array, _batch_last(target), *arrays)
            ctx.backward_function = functions[1]
            value = _batch_first(array_module(array).asarray(result))
            _save(ctx, saved, [], [(predicted, array), (value, result)])
            return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with on_device(grad.device):
            grad_predicted = _batch_first(ctx.backward_function(_load(ctx), _batch_last(grad)))
        return None, grad_predicted, *[None] * (len(ctx.needs_input_grad) - 2)


@functools.lru_cache(maxsize=1024, typed=True)
def _build(layer: Any, *settings: Any) -> cb.Layer:
    return layer(*settings)  # type: ignore[no-any-return]


class _Engine(nn.Module):
    """Comes before a class of torch.nn, whose parameters it keeps and whose arithmetic the library does."""

    engine: str
    layer: ClassVar[type[cb.Layer]]
    settings: ClassVar[list[str]]  # see LAYERS
    only: ClassVar[dict[str, Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        name = type(self).__name__
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Initializing zero-element tensors")
                super().__init__(*args, **kwargs)
        except RuntimeError as error:  # of a tensor with a negative size
            got = f"{args} {kwargs}: {error}"
            raise ValueError(f"{name}: expected settings of torch.nn.{name}, got {got}") from error
        self._entries(self._layer())  # settings that the library does not have are an error at once

    def _layer(self) -> cb.Layer:
        """The layer for the settings as they are now."""
        for name, value in self.only.items():
            require(getattr(self, name) == value, self, f"{name}={value!r}", repr(getattr(self, name)))
        settings, kind = (getattr(self, name) for name in self.settings), self.layer  # type: Any, Any
        return _build(kind, *(tuple(s) if isinstance(s, list) else s for s in settings))

    def _entries(self, layer: cb.Layer) -> list[Tensor]:
        """The state of the layer."""
        entries = [getattr(self, name) for name in layer.shapes]
        for name, entry in zip(layer.shapes, entries, strict=True):
            require(entry is not None, self, f"a {name}", "None")
        return entries

    @property
    def has_bias(self) -> bool:
        """Whether there is a bias."""
        return self.bias is not None

    @property
    def layout(self) -> str:
        """The axes of the input in the library's order."""
        return self.layer.layout

    @property
    def idle(self) -> bool:
        """Whether this module is the identity at present."""
        return False

    def forward(self, input: Tensor) -> Tensor:
        """As torch's module of the same name."""
        return input if self.idle else _run([self], input)


def _run(modules: list[_Engine], x: Tensor) -> Tensor:
    """Apply modules of equal `training` one after the other, as one node of torch's graph."""
    layers = [module._layer() for module in modules]
    layer = layers[0] if len(layers) == 1 else _build(cb.Sequential, *layers)
    entries: list[Tensor] = []
    for module, each in zip(modules, layers, strict=True):
        state = module._entries(each)
        _check_device(module, module.engine, x, state)
        _check_axes(module, module.layout, x)
        entries += state
    x = _single_or_double(modules[0], x)
    training = modules[0].training
    draws = training and any(isinstance(module, _Random) for module in modules)
    rng = np.random.default_rng(int(torch.randint(2**62, ()))) if draws else None
    return _Network.apply(layer, training, rng, x, *entries)  # type: ignore[no-any-return]


def _single_or_double(where: object, x: Tensor) -> Tensor:
    """`x` in a dtype that the library knows; under autocast that is float32."""
    if torch.is_autocast_enabled(x.device.type) and x.is_floating_point():
        x = x.float()
    require(x.dtype in (torch.float32, torch.float64), where, "float32 or float64", x.dtype)
    require(x.layout == torch.strided, where, "a dense tensor", x.layout)
    traced = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None
    require(not traced, where, "a call", "a trace, in which the result would be a constant")
    return x


def _check_axes(where: object, layout: str, x: Tensor) -> None:
    """Check the axes of `x`, named as torch orders them; no layer in a run changes how many there are."""
    *axes, batch = (layout or "…, batch").split(", ")
    right = x.ndim == len(axes) + 1 if layout else x.ndim >= 1
    require(right, where, f"a tensor ({', '.join([batch, *axes])})", f"shape {tuple(x.shape)}")
    require(x.numel() > 0, where, "at least one entry along every axis", f"shape {tuple(x.shape)}")


def _check_device(where: object, engine: str, x: Tensor, others: Iterable[Tensor]) -> None:
    """Check that `engine` can compute on the device of `x`, and that everything else is there too."""
    device = x.device
    devices = {"auto": ("cpu", "cuda"), "numpy": ("cpu",), "cupy": ("cuda",)}[engine]
    require(device.type in devices, where, f"a tensor on {' or '.join(devices)} for engine {engine}", device)
    for other in others:
        require(other.device == device, where, f"everything on {device}", other.device)


class _LastAxis(_Engine):
    """A normalisation over the last axis, the channels of (batch, …, channels)."""

    normalized_shape: tuple[int, ...]

    @property
    def features(self) -> int:
        """The length of the last axis."""
        shape = self.normalized_shape
        require(len(shape) == 1, self, "a normalized_shape of one number", tuple(shape))
        return shape[0]

    def forward(self, input: Tensor) -> Tensor:
        """With the channels where the library has them."""
        require(input.ndim >= 2, self, "a tensor (batch, …, channels)", f"shape {tuple(input.shape)}")
        return super().forward(input.movedim(-1, 1)).movedim(1, -1)


class _Random(_Engine):
    """Dropout; the seed of each mask comes from torch's generator."""

    p: float

    @property
    def idle(self) -> bool:
        """In evaluation, and where p is 0."""
        return not self.training or self.p == 0


class _OverClasses(_Engine):
    """A softmax over the axis after the batch."""

    dim: int | None

    def _layer(self) -> cb.Layer:
        require(self.dim in (1, -1), self, "dim=1, the classes of (batch, classes, …)", repr(self.dim))
        return super()._layer()

    @property
    def layout(self) -> str:
        """The last axis is that after the batch only if there are two."""
        return FEATURES if self.dim == -1 else ""


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


_CALL, _FORWARD = nn.Module.__call__, _Engine.forward


def _joins(module: nn.Module) -> TypeGuard[_Engine]:
    """Whether a module may run together with its neighbours.

    Not where hooks want to see what passes between, nor where a call is not the library's alone: a subclass,
    or whoever replaced `forward` or `__call__`, computes something of its own.
    """
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
        torch_module._global_forward_hooks,
        torch_module._global_forward_pre_hooks,
        torch_module._global_backward_hooks,
        torch_module._global_backward_pre_hooks,
    )
    kind = type(module)
    is_own = "forward" in vars(module) or kind.forward is not _FORWARD or kind.__call__ is not _CALL
    is_compiled = getattr(module, "_compiled_call_impl", None) is not None
    return isinstance(module, _Engine) and not (is_own or is_compiled or any(hooks))


class CustomCrossEntropyLoss(nn.CrossEntropyLoss):
    """torch.nn.CrossEntropyLoss computed by the library, for logits (batch, classes) of any engine."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._check()

    def _check(self) -> None:
        """Check the settings, as they are now."""
        require(self.ignore_index == -100, "CrossEntropyLoss", "ignore_index=-100", self.ignore_index)
        loss.check_loss("CrossEntropyLoss", self.reduction, label_smoothing=self.label_smoothing)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(N, C) logits and (N,) integer targets to the mean, the sum or (N,) values."""
        self._check()
        functions = (loss.cross_entropy_forward, loss.cross_entropy_backward)
        settings = (self.label_smoothing, self.weight, self.reduction)
        return _apply_loss("CrossEntropyLoss", functions, input, target, *settings)


class CustomFocalLoss(FocalLoss):
    """The library's focal loss, for logits (batch, classes) of any engine.

    Args:
        alpha: a weight for each class, the paper's α_t; or one number, by which the whole loss is multiplied.
        gamma: focusing exponent; 0 gives cross-entropy, weighted with alpha.
        reduction: "mean" over the batch (not weighted), "sum" or "none".
    """

    def __init__(
        self, alpha: float | Sequence[float] = 0.25, gamma: float = 2.0, reduction: str = "mean"
    ) -> None:
        super().__init__(alpha, gamma)
        loss.check_loss("FocalLoss", reduction)
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(N, C) logits and (N,) integer targets to the mean, the sum or (N,) values."""
        functions = (loss.focal_loss_forward, loss.focal_loss_backward)
        return _apply_loss("FocalLoss", functions, input, target, self.alpha, self.gamma, self.reduction)


class CustomMSELoss(nn.MSELoss):
    """torch.nn.MSELoss computed by the library."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape to the mean, the sum or the square of each difference."""
        require(input.shape == target.shape, "MSELoss", f"a target {tuple(input.shape)}", tuple(target.shape))
        if target.requires_grad:  # the library knows the gradient by the first alone
            input, target = input - target, torch.zeros_like(target)
        functions = (loss.mse_loss_forward, loss.mse_loss_backward)
        return _apply_loss("MSELoss", functions, input, target, self.reduction, layout="")


def _apply_loss(
    where: str,
    functions: tuple[Callable[..., Any], Callable[..., Any]],
    predicted: Tensor,
    target: Tensor,
    *settings: Any,
    layout: str = "classes, batch",
) -> Tensor:
    _check_axes(where, layout, predicted)
    others = [target, *(s for s in settings if isinstance(s, Tensor))]
    _check_device(where, "auto", predicted, others)
    derived = torch.is_grad_enabled() and any(other.requires_grad for other in others)
    require(not derived, where, "targets and weights without a gradient", "one that requires it")
    predicted = _single_or_double(where, predicted)
    return _Loss.apply(functions, predicted, target, *settings)  # type: ignore[no-any-return]


class _UnknownName(AttributeError, ValueError):
    """A name of torch.nn that an engine does not have."""


class _Namespace(SimpleNamespace):
    """torch.nn's names, as far as an engine has them."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        known = [each for each in vars(self) if each != "engine"]
        close = get_close_matches(name, known, 3) or known
        raise _UnknownName(f"engine {self.engine}: expected a layer such as {', '.join(close)}, got {name!r}")


# fmt: off
# Classes of torch.nn: the attributes that the library's layer is built from, and the one value of others.
LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Conv2d": ("in_channels out_channels kernel_size stride padding has_bias dilation groups",
               {"padding_mode": "zeros"}),
    "Linear": ("in_features out_features has_bias", {}),
    "BatchNorm2d": ("num_features eps momentum", {"affine": True, "track_running_stats": True}),
    "GroupNorm": ("num_channels eps num_groups", {"affine": True}),
    "LayerNorm": ("features eps", {"elementwise_affine": True}),
    "MaxPool2d": ("kernel_size stride padding", {"dilation": 1, "ceil_mode": False, "return_indices": False}),
    "AvgPool2d": ("kernel_size stride padding",
                  {"ceil_mode": False, "count_include_pad": True, "divisor_override": None}),
    "AdaptiveAvgPool2d": ("output_size", {}),
    "Dropout": ("p", {}),
    "LeakyReLU": ("negative_slope", {}),
    "GELU": ("", {"approximate": "none"}),
    **dict.fromkeys(("ReLU", "SELU", "SiLU", "Sigmoid", "Tanh", "Softmax", "LogSoftmax"), ("", {})),
}
# fmt: on
SPECIAL = {"LayerNorm": _LastAxis, "Dropout": _Random, "Softmax": _OverClasses, "LogSoftmax": _OverClasses}
PLAIN = ("Module", "ModuleList", "ModuleDict", "Parameter", "Identity", "Flatten", "Unflatten", "init")


def _namespace(engine: str) -> SimpleNamespace:
    """The classes of an engine, each also a global of this module, where pickle finds it."""
    classes: dict[str, type] = {}
    for name, (settings, only) in LAYERS.items():
        body = {"engine": engine, "layer": getattr(cb, name), "settings": settings.split(), "only": only}
        body |= {"__module__": __name__, "__qualname__": name if engine == "auto" else f"{engine}_{name}"}
        body["__doc__"] = f"torch.nn.{name} computed by custom_backend, never in place."
        classes[name] = type(name, (SPECIAL.get(name, _Engine), getattr(nn, name)), body)
        globals()[classes[name].__qualname__] = classes[name]
    return _Namespace(
        engine=engine,
        **classes,
        **{name: getattr(nn, name) for name in PLAIN},  # Flatten is a view, of batch-last memory too
        Sequential=Sequential,
        CrossEntropyLoss=CustomCrossEntropyLoss,
        FocalLoss=CustomFocalLoss,
        MSELoss=CustomMSELoss,
    )


NAMESPACES = {engine: _namespace(engine) for engine in ENGINES}


def namespace(engine: str) -> Any:
    """torch.nn's names, computed by `engine`: "auto" (by the device of the tensors), "numpy" or "cupy".

    Raises:
        ValueError: if there is no such engine.
        RuntimeError: for "cupy", if CuPy is not installed, lacks a CUDA library or finds no GPU.
    """
    require(engine in ENGINES, "engine", f"one of {', '.join(ENGINES)}", repr(engine))
    if engine == "cupy":
        _cupy()
    return NAMESPACES[engine]
