"""A caching allocator for NumPy arrays.

A training step makes the same large arrays again and again. The C library hands their pages back to the
system each time, and to fault them in anew costs as much as the arithmetic. Here a block of memory returns
to a pool when the last array on it dies, whoever held it (Python, torch's autograd, a DLPack consumer), so
that nothing is ever overwritten that somebody can still read.
"""

import math
import threading
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt

SMALLEST = 1 << 16  # bytes; below, NumPy's own allocation is as fast
LIMIT = 1 << 30  # bytes kept for reuse at most
ALIGNMENT = 64  # one cache line, one AVX-512 register

_free: defaultdict[int, list[npt.NDArray[np.uint8]]] = defaultdict(list)
_held = 0  # bytes in _free
_lock = threading.RLock()  # the garbage collector may end a loan while this thread holds it


class _Loan:
    """A block of memory that goes back to the pool with the last array that refers to it."""

    def __init__(self, block: npt.NDArray[np.uint8]) -> None:
        self._block = block
        self.__array_interface__ = block.__array_interface__

    def __del__(self) -> None:
        global _held
        with _lock:
            if _held + self._block.nbytes <= LIMIT:
                _held += self._block.nbytes
                _free[self._block.nbytes].append(self._block)


def _take(size: int) -> npt.NDArray[np.uint8]:
    """A block of `size` bytes, an old one if there is one."""
    global _held
    with _lock:
        if blocks := _free[size]:
            _held -= size
            return blocks.pop()
    return np.empty(size, np.uint8)


def held() -> int:
    """The bytes that wait in the pool to be used again."""
    return _held


def release() -> None:
    """Give the waiting memory back to the system."""
    global _held
    with _lock:
        _free.clear()
        _held = 0


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An uninitialised C-contiguous array, as `numpy.empty`, on a block of the pool."""
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < SMALLEST:
        return np.empty(shape, dtype)
    size = -(-nbytes // SMALLEST) * SMALLEST + ALIGNMENT
    memory = np.asarray(_Loan(_take(size)))
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + nbytes].view(dtype).reshape(shape)


def empty_like(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An uninitialised C-contiguous array of the shape and dtype of `x`."""
    return empty(x.shape, x.dtype)
