"""A strict fake of CuPy on the CPU.

Its arrays refuse to meet NumPy's and to become them; it has only the names that the real CuPy has, where that
is installed; its kernels are the real kernels' bodies, compiled by g++.
"""

import ctypes
import functools
import importlib
import importlib.machinery
import subprocess
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
from kernel_sets import forget

from custom_backend import array

KERNELS = Path(array.__file__).parent / "kernels"
CUDA_FILES = [*KERNELS.glob("*_cuda.py"), KERNELS / "elementwise.py"]
CUDA_MODULES = [f"custom_backend.kernels.{file.stem}" for file in CUDA_FILES]


class ndarray:
    """Wraps a NumPy array and lets nobody see it."""

    __module__ = "cupy"
    __array_ufunc__ = None
    device = "gpu"

    def __init__(self, hidden):
        self.hidden = np.asarray(hidden)

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __getattr__(self, name):
        if name in ("shape", "ndim", "size", "dtype", "itemsize"):
            return getattr(self.hidden, name)
        if name in ("T", "real"):
            return wrap(getattr(self.hidden, name))
        return lambda *args, **kwargs: wrap(getattr(self.hidden, name)(*map(unwrap, args), **kwargs))

    def __getitem__(self, key):
        return wrap(self.hidden[unwrap(key)])

    def __setitem__(self, key, value):
        self.hidden[unwrap(key)] = unwrap(value)

    def __bool__(self):
        return bool(self.hidden)

    def __int__(self):
        return int(self.hidden)

    def __float__(self):
        return float(self.hidden)


def _operator(name):
    def call(self, *others):
        result = getattr(self.hidden, name)(*map(unwrap, others))
        if name.startswith("__i") and name != "__invert__":
            self.hidden = result
            return self
        return wrap(result)

    return call


for _name in ["add", "sub", "mul", "truediv", "floordiv", "pow", "mod", "and", "or"]:
    for _prefix in ("", "r", "i"):
        setattr(ndarray, f"__{_prefix}{_name}__", _operator(f"__{_prefix}{_name}__"))
for _name in ["lt", "le", "gt", "ge", "eq", "ne", "neg", "pos", "abs", "invert"]:
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))


def wrap(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return ndarray(value)
    return type(value)(map(wrap, value)) if type(value) in (tuple, list) else value


def unwrap(value):
    if isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, ndarray):
        return value.hidden
    return type(value)(map(unwrap, value)) if type(value) in (tuple, list) else value


def parameters(declared: str) -> list[tuple[str, str, bool]]:
    """(name, type, raw) for each parameter of an ElementwiseKernel."""
    words = [parameter.split() for parameter in declared.split(",")]
    return [(word[-1], word[-2], word[0] == "raw") for word in words]


class ElementwiseKernel:
    """Runs the body for each element in turn. Inputs that are neither raw nor numbers are arrays too."""

    folder: Path

    def __init__(self, inputs, outputs, body, name):
        self.inputs, self.outputs, self.body, self.name = parameters(inputs), parameters(outputs), body, name

    def source(self, number: str, arrays: frozenset[str]) -> str:
        ctype = {"T": number, "int64": "long long", "uint8": "unsigned char"}
        signature, bound = [], []
        for name, kind, raw in self.inputs + self.outputs:
            out = (name, kind, raw) in self.outputs
            if raw:
                signature.append(f"const {ctype[kind]}* {name}")
            elif out or name in arrays:
                signature.append(f"{ctype[kind]}* all_{name}")
                bound.append(f"{'' if out else 'const '}{ctype[kind]}& {name} = all_{name}[i];")
            else:
                signature.append(f"const {ctype[kind]} {name}")
        return (
            f"#include <cmath>\n#include <cstddef>\nusing std::sqrt; typedef {number} T;\n"
            f'extern "C" void run(ptrdiff_t count, {", ".join(signature)}) {{\n'
            f"for (ptrdiff_t i = 0; i < count; ++i) {{ {' '.join(bound)}\n{self.body} }} }}\n"
        )

    @functools.cache  # noqa: B019
    def compiled(self, number: str, arrays: frozenset[str]):
        stem = self.folder / f"{self.name}_{number}"
        stem.with_suffix(".cpp").write_text(self.source(number, arrays))
        command = ["g++", "-O1", "-shared", "-fPIC", stem.with_suffix(".cpp"), "-o", stem.with_suffix(".so")]
        subprocess.run(command, check=True)
        return ctypes.CDLL(str(stem.with_suffix(".so"))).run

    def __call__(self, *arguments):
        pairs = list(zip(self.inputs + self.outputs, map(unwrap, arguments), strict=True))
        numbers = {
            value.dtype for (_, kind, _), value in pairs if kind == "T" and isinstance(value, np.ndarray)
        }
        assert len(numbers) == 1, f"{self.name}: arrays of {numbers}"
        number = "float" if numbers == {np.dtype(np.float32)} else "double"
        scalar = {"T": getattr(ctypes, f"c_{number}"), "int64": ctypes.c_int64}
        passed = []
        for (name, kind, _), value in pairs:
            if isinstance(value, np.ndarray):
                assert value.flags.c_contiguous, name
                assert kind == "T" or value.dtype == kind, name
                passed.append(ctypes.c_void_p(value.ctypes.data))
            else:
                passed.append(scalar[kind](value))
        arrays = frozenset(name for (name, *_), value in pairs if isinstance(value, np.ndarray))
        self.compiled(number, arrays)(ctypes.c_ssize_t(pairs[-1][1].size), *passed)
        return arguments[-1]


class _Generator:
    def __init__(self, bits):
        self.numpy = np.random.default_rng(bits)

    def random(self, shape, dtype):
        return wrap(self.numpy.random(shape, dtype=dtype))


def asarray(value):
    """The one way in from NumPy."""
    return ndarray(np.array(value))


class _Module(types.ModuleType):
    real = None  # the real CuPy

    def __getattr__(self, name):
        if self.real is not None and not hasattr(self.real, name):
            raise AttributeError(f"the real CuPy has no {name}")
        value = getattr(np, name)
        if isinstance(value, type) or not callable(value):
            return value

        def call(*args, **kwargs):
            if "device" in kwargs:
                raise TypeError(f"{name}() got an unexpected keyword argument 'device'")
            return wrap(value(*map(unwrap, args), **{k: unwrap(v) for k, v in kwargs.items()}))

        return call


@contextmanager
def installed(folder: Path) -> Iterator[types.ModuleType]:
    """As CuPy, while the context lasts."""
    module = _Module("cupy")
    try:
        module.real = importlib.import_module("cupy")
    except ImportError:
        module.real = None
    module.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    ElementwiseKernel.folder = folder
    module.ndarray, module.ElementwiseKernel, module.asarray = ndarray, ElementwiseKernel, asarray
    module.random = SimpleNamespace(Generator=_Generator, Philox4x3210=lambda seed: seed)
    with mock.patch.dict(sys.modules, cupy=module):
        for name in CUDA_MODULES:
            sys.modules.pop(name, None)
        forget()
        try:
            yield module
        finally:
            forget()
