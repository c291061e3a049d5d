"""How numba compiles a kernel."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile to machine code that is cached on disk and releases the GIL.

    Without `fastmath`: were a compiler free to reorder sums, two compilations of one kernel could differ in
    the last bits, and with them a run that compiles from one that finds its kernels on disk.
    """
    return cast(_Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
