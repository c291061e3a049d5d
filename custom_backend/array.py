"""What the library asks of an array, and how a call finds its kernel.

Every operation is written once as a reference implementation, in the names of the Python array API standard,
and so runs on NumPy, CuPy, array_api_strict and any other array module that follows it. Where a hot operation
has a faster kernel with the same result, that is found by name: the function `f` of `functional/subject.py`
is the function `f` of `kernels/subject.py` for NumPy, of `kernels/subject_numba.py` where numba is installed,
and of `kernels/subject_cuda.py` for CuPy.

Layout: the batch is the last axis. Images are (channels, height, width, batch), features (features, batch).
A dense layer is then `W @ x`, a convolution one matrix product without a transposition, a channel one
contiguous block, and every slice that im2col or pooling takes a run of contiguous memory.
"""

import functools
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np

Array: TypeAlias = Any  # an array of any module that follows the standard
Pair: TypeAlias = tuple[int, int]
Shape: TypeAlias = tuple[int, ...]
State: TypeAlias = Mapping[str, Array]

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Array module → how the names of the files with its kernels end, best first, and the package that each needs.
KERNELS: dict[str, tuple[tuple[str, str], ...]] = {
    "numpy": (("_numba", "numba"), ("", "numpy")),
    "cupy": (("_cuda", "cupy"),),
}


def library(x: Array) -> str:
    """The name of the array module that `x` belongs to: "numpy", "cupy", …"""
    return type(x).__module__.partition(".")[0]


def namespace(x: Array) -> Any:
    """The array module that `x` belongs to (CuPy's arrays have no `__array_namespace__`)."""
    return sys.modules[library(x)]


@functools.cache
def usable(module: str) -> tuple[str, ...]:
    """The endings of `KERNELS` for arrays of `module` whose package is installed, best first."""
    return tuple(ending for ending, package in KERNELS.get(module, ()) if find_spec(package) is not None)


@functools.cache
def resolve_kernel(reference: Callable[..., Any], module: str) -> Callable[..., Any]:
    """The best kernel of an operation for arrays of `module`: `reference` itself where there is none."""
    for ending in usable(module):
        place = f"custom_backend.kernels.{reference.__module__.rpartition('.')[2]}{ending}"
        if find_spec(place) is not None:
            kernel = vars(import_module(place)).get(reference.__name__)
            if inspect.isfunction(kernel) and kernel.__module__ == place:  # defined there, not imported
                return kernel
    return reference


def dispatch(reference: _Function) -> _Function:
    """Decorate a reference implementation so that a call runs its best kernel for the given array.

    The array that decides is the first argument that is not a tuple: `x` in `f_forward(x, …)`, `grad` in
    `f_backward(saved, grad)`. The reference implementation stays within reach as `f.__wrapped__`.
    """

    @functools.wraps(reference)
    def call(*arguments: Any, **settings: Any) -> Any:
        array = arguments[1] if isinstance(arguments[0], tuple) else arguments[0]
        return resolve_kernel(reference, library(array))(*arguments, **settings)

    return cast(_Function, call)


@dispatch
def zeros(like: Array, shape: tuple[int, ...]) -> Array:
    """Zeros of `shape` with the dtype and on the device of `like`."""
    return namespace(like).zeros(shape, dtype=like.dtype, device=like.device)


@dispatch
def arange(like: Array, count: int) -> Array:
    """0, 1, …, count − 1 with the dtype and on the device of `like`."""
    return namespace(like).arange(count, dtype=like.dtype, device=like.device)


@dispatch
def add(a: Array, b: Array) -> Array:
    """a + b, of one shape."""
    return a + b


@dispatch
def matmul(a: Array, b: Array) -> Array:
    """The matrix product (…, m, k) @ (…, k, n) → (…, m, n)."""
    return namespace(a).matmul(a, b)


@dispatch
def uniform(like: Array, shape: tuple[int, ...], seed: int) -> Array:
    """Numbers of U[0, 1) with the dtype and on the device of `like`, a function of `seed` alone."""
    draws = np.random.default_rng(seed).random(shape, dtype=np.float32)
    xp = namespace(like)
    return xp.asarray(draws, dtype=like.dtype, device=like.device)


def columns_of(x: Array) -> Array:
    """View a (channels, …) array as the matrix (channels, everything else)."""
    return namespace(x).reshape(x, (x.shape[0], math.prod(x.shape[1:])))


def by_group(x: Array, groups: int) -> Array:
    """View a (channels, …) array as a matrix for each of `groups` equal groups of channels."""
    return namespace(x).reshape(x, (groups, x.shape[0] // groups, math.prod(x.shape[1:])))


def column(vector: Array) -> Array:
    """View a vector (n,) as (n, 1), to act on every column of a matrix."""
    return namespace(vector).reshape(vector, (-1, 1))


def require(holds: bool, where: object, expected: str, got: object) -> None:
    """Raise the library's one error for wrong input: ValueError "where: expected …, got …".

    `where` becomes text only then: it is often a layer, whose text takes longer than the check.
    """
    if not holds:
        raise ValueError(f"{where}: expected {expected}, got {got}")


def check_array(where: object, name: str, value: object) -> None:
    """Check that `value` is an array of some module: a list or None is none."""
    right = hasattr(value, "shape") and hasattr(value, "dtype")
    require(right, where, f"an array {name}".rstrip(), type(value).__name__)


def check_input(where: object, x: Array, layout: str = "", channels: int | None = None) -> None:
    """Check what a layer is given: axes as in `layout` (any if empty), none of them empty, floating point.

    Raises:
        ValueError: naming the layer, what it expected and what it got.
    """
    check_array(where, "", x)
    kind = str(x.dtype).rpartition(".")[2]
    require(kind in ("float32", "float64"), where, "float32 or float64", kind)
    right = x.ndim == layout.count(",") + 1 if layout else x.ndim >= 1
    require(right, where, f"an array ({layout or '…, batch'})", f"shape {tuple(x.shape)}")
    if 0 in x.shape:
        axes = zip(layout.split(", ") if layout else range(x.ndim), x.shape, strict=True)
        require(False, where, "at least one entry along every axis", dict(axes))
    if channels is not None and x.shape[0] != channels:
        require(False, where, f"{channels} {layout.partition(',')[0] or 'channels'}", x.shape[0])


def check_state(where: object, state: State, x: Array, shapes: Mapping[str, Shape]) -> None:
    """Check that `state` has the entries `shapes`, floating point ones as `x` is: module, device and dtype.

    Raises:
        ValueError: naming the layer, what it expected and what it got.
    """
    for name, shape in shapes.items():
        require(name in state, where, f"an entry {name} in the state", ", ".join(state) or "none")
        array, counts = state[name], name == "num_batches_tracked"
        same = library(array) == library(x) and array.device == x.device
        if same and tuple(array.shape) == shape and (counts or array.dtype == x.dtype):
            continue
        require(library(array) == library(x), where, f"{name} of {library(x)} like the input", library(array))
        require(array.device == x.device, where, f"{name} on {x.device} like the input", array.device)
        require(tuple(array.shape) == shape, where, f"{name} of shape {shape}", tuple(array.shape))
        require(False, where, f"{name} of {x.dtype} like the input", array.dtype)
