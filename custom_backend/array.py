"""What the library asks of an array, and the one table of faster forms.

Every operation is written once, in the names of the Python array API standard, and so runs on NumPy, CuPy,
array_api_strict and any other array module that follows it. Where a hot operation has a faster form for
one of them, `FORMS` says in which module to find it, under the same name and with the same result.

Layout: the batch is the last axis. Images are (channels, height, width, batch), features (features, batch).
A dense layer is then `W @ x`, a convolution one matrix product without a transposition, a channel one
contiguous block, and every slice that im2col or pooling takes a run of contiguous memory.
"""

import functools
import importlib
import math
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np

Array: TypeAlias = Any  # an array of any module that follows the standard
Pair: TypeAlias = tuple[int, int]
State: TypeAlias = Mapping[str, Array]

_Function = TypeVar("_Function", bound=Callable[..., Any])

# The array module → where its faster forms are, best first, and the package that each of them needs.
FORMS: dict[str, tuple[tuple[str, str], ...]] = {
    "numpy": (
        ("custom_backend.kernels.numba_forms", "numba"),
        ("custom_backend.kernels.numpy_forms", "numpy"),
    ),
    "cupy": (("custom_backend.kernels.cuda_forms", "cupy"),),
}


def library(x: Array) -> str:
    """The name of the array module that `x` belongs to: "numpy", "cupy", …"""
    return type(x).__module__.partition(".")[0]


def namespace(x: Array) -> Any:
    """The array module that `x` belongs to (CuPy's arrays have no `__array_namespace__`)."""
    return sys.modules[library(x)]


@functools.cache
def fastest(plain: Callable[..., Any], module: str) -> Callable[..., Any]:
    """The best form of the operation `plain` for arrays of `module`: `plain` itself where none is listed."""
    for place, package in FORMS.get(module, ()):
        if find_spec(package) is not None:
            form = getattr(importlib.import_module(place), plain.__name__, None)
            if form is not None:
                return cast(Callable[..., Any], form)
    return plain


def operation(plain: _Function) -> _Function:
    """Decorate the plain text of an operation so that a call runs its fastest form for the given array.

    The array that decides is the first argument that is not a tuple: `x` in `f_forward(x, …)`, `grad` in
    `f_backward(saved, grad)`. The plain text stays within reach as `f.__wrapped__`.
    """

    @functools.wraps(plain)
    def call(*arguments: Any) -> Any:
        decisive = next(argument for argument in arguments if not isinstance(argument, tuple))
        return fastest(plain, library(decisive))(*arguments)

    return cast(_Function, call)


@operation
def zeros(like: Array, shape: tuple[int, ...]) -> Array:
    """Zeros of `shape` with the dtype and on the device of `like`."""
    return namespace(like).zeros(shape, dtype=like.dtype, device=like.device)


@operation
def arange(like: Array, count: int) -> Array:
    """0, 1, …, count − 1 with the dtype and on the device of `like`."""
    return namespace(like).arange(count, dtype=like.dtype, device=like.device)


@operation
def matmul(a: Array, b: Array) -> Array:
    """The matrix product (m, k) @ (k, n) → (m, n)."""
    return namespace(a).matmul(a, b)


@operation
def uniform(like: Array, shape: tuple[int, ...], seed: int) -> Array:
    """Numbers of U[0, 1) with the dtype and on the device of `like`, a function of `seed` alone."""
    draws = np.random.default_rng(seed).random(shape, dtype=np.float32)
    xp = namespace(like)
    return xp.asarray(draws, dtype=like.dtype, device=like.device)


def pair(value: int | tuple[int, ...]) -> Pair:
    """`3` and `(3, 3)` both mean (3, 3)."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def columns_of(x: Array) -> Array:
    """View a (channels, …) array as the matrix (channels, everything else)."""
    return namespace(x).reshape(x, (x.shape[0], math.prod(x.shape[1:])))


def column(vector: Array) -> Array:
    """View a vector (n,) as (n, 1), to act on every column of a matrix."""
    return namespace(vector).reshape(vector, (-1, 1))


def expect(holds: bool, where: object, expected: str, got: object) -> None:
    """Raise the library's one error for wrong input: ValueError "where: expected …, got …".

    `where` becomes text only then: it is often a layer, whose text takes longer than the check.
    """
    if not holds:
        raise ValueError(f"{where}: expected {expected}, got {got}")


def check_input(where: object, x: Array, layout: str, state: State | None = None) -> None:
    """Check an array at the door of a layer: axes as in `layout`, floating point, one module and device.

    Raises:
        ValueError: naming the layer, what it expected and what it got.
    """
    expect(x.ndim == len(layout.split(", ")), where, f"an array ({layout})", f"shape {tuple(x.shape)}")
    kind = str(x.dtype).rpartition(".")[2]
    expect(kind in ("float32", "float64"), where, "float32 or float64", kind)
    for name, array in (state or {}).items():
        expect(library(array) == library(x), where, f"{name} of {library(x)} like the input", library(array))
        expect(array.device == x.device, where, f"{name} on {x.device} like the input", array.device)
        if name != "num_batches_tracked":
            expect(array.dtype == x.dtype, where, f"{name} of {x.dtype} like the input", array.dtype)
