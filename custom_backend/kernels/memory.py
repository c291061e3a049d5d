"""A caching allocator for NumPy arrays.

A training step makes the same large arrays again and again. The C library hands their pages back to the
system each time, and to fault them in anew costs as much as the arithmetic. Here a block of memory returns
to a pool when the last array on it dies, whoever held it (Python, torch's autograd, a DLPack consumer), so
that nothing is ever overwritten that somebody can still read.

The pool never keeps much more than was lately in use at one time: what exceeds that goes back to the system,
the sizes first that were not asked for longest.
"""

import math
import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt

SMALLEST = 1 << 16  # bytes; below, NumPy's own allocation is as fast
ALIGNMENT = 64  # one cache line, one AVX-512 register
SLACK = 1.5  # times the peak use are kept: not all sizes are in use when most is
FORGET = 1 / (1 << 14)  # of the peak use, with every block that returns


class _Pool:
    """Blocks that wait to be used again, by size, those first whose size was not asked for longest."""

    def __init__(self) -> None:
        self.free: OrderedDict[int, list[npt.NDArray[np.uint8]]] = OrderedDict()
        self.held = 0  # bytes in `free`
        self.lent = 0  # bytes in use
        self.peak = 0.0  # bytes lately in use at one time
        self.lock = threading.RLock()  # the garbage collector may end a loan while this thread holds it

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """A block of `size` bytes, an old one if there is one."""
        with self.lock:
            self.lent += size
            self.peak = max(self.peak, self.lent)
            if blocks := self.free.get(size):
                self.free.move_to_end(size)
                self.held -= size
                return blocks.pop()
        return np.empty(size, np.uint8)

    def give_back(self, block: npt.NDArray[np.uint8]) -> None:
        """Keep a block, and let go of what is too much."""
        with self.lock:
            self.lent -= block.nbytes
            self.free.setdefault(block.nbytes, []).append(block)
            self.free.move_to_end(block.nbytes)
            self.held += block.nbytes
            self.peak = max(self.lent, self.peak * (1 - FORGET))
            while self.held > SLACK * self.peak:
                size, blocks = next(iter(self.free.items()))
                if blocks:
                    blocks.pop()
                    self.held -= size
                else:
                    del self.free[size]


_pool = _Pool()


class _Loan:
    """A block of memory that goes back to the pool with the last array that refers to it."""

    def __init__(self, block: npt.NDArray[np.uint8]) -> None:
        self._block = block
        self.__array_interface__ = block.__array_interface__

    def __del__(self) -> None:
        _pool.give_back(self._block)


def held() -> int:
    """The bytes that wait in the pool to be used again."""
    return _pool.held


def release() -> None:
    """Give the waiting memory back to the system."""
    with _pool.lock:
        _pool.free.clear()
        _pool.held = 0
        _pool.peak = _pool.lent


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An uninitialised C-contiguous array, as `numpy.empty`, on a block of the pool."""
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < SMALLEST:
        return np.empty(shape, dtype)
    size = -(-nbytes // SMALLEST) * SMALLEST + ALIGNMENT
    memory = np.asarray(_Loan(_pool.take(size)))
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + nbytes].view(dtype).reshape(shape)


def empty_like(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An uninitialised C-contiguous array of the shape and dtype of `x`."""
    return empty(x.shape, x.dtype)
