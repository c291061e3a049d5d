"""How numba compiles a kernel."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile to machine code that is cached on disk and releases the GIL; sums may be reordered."""
    flags = {"reassoc", "contract", "nsz"}
    return cast(_Function, numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=flags)(function))
