"""Threads for the kernels on the CPU that do not fight with those of BLAS and of torch.

BLAS's workers and OpenMP's spin for a while after each piece of work and steal the cores from whoever comes
next. Here one pool of workers, which sleep when there is nothing to do, shares out whole pieces of work,
matrix products included; meanwhile BLAS keeps to the thread that calls it.
"""

import contextlib
import functools
import operator
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

SMALLEST = 1 << 19  # elements; below, waking a thread costs more than it brings
PRODUCTS = 16  # multiplications of a matrix product that take as long as an element of anything else


BLAS_OBEYS = find_spec("threadpoolctl") is not None


@functools.cache
def threads() -> int:
    """How many threads share the work: OMP_NUM_THREADS, or as many as this process has cores.

    One, where BLAS cannot be told to keep to one thread itself: theirs would multiply.
    """
    if not BLAS_OBEYS:
        return 1
    wanted, _, _ = os.environ.get("OMP_NUM_THREADS", "").partition(",")
    if wanted:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@functools.cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads(), thread_name_prefix="custom_backend")


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads
    os.register_at_fork(after_in_child=_workers.cache_clear)


class _SerialBlas:
    """Holds BLAS to one thread while at least one caller is inside."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, [1]

    @functools.cached_property
    def _libraries(self) -> list[Any]:
        if not BLAS_OBEYS:
            return []
        from threadpoolctl import ThreadpoolController

        return list(ThreadpoolController().select(user_api="blas").lib_controllers)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._before = [library.get_num_threads() for library in self._libraries]
                self._set([1] * len(self._libraries))
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._set(self._before)

    def _set(self, counts: list[int]) -> None:
        for library, count in zip(self._libraries, counts, strict=True):
            library.set_num_threads(count)


_serial_blas = _SerialBlas()


def split(kernel: Callable[..., None], length: int, elements: int, *arguments: Any) -> None:
    """Run `kernel(start, stop, *arguments)` on a chunk of range(length) for each thread, this one included.

    `elements` tells how much work there is in all. BLAS keeps to one thread for little work too: its workers,
    once woken, would spin into whatever comes next.
    """
    count = min(threads(), length) if elements >= SMALLEST else 1
    bounds = [length * chunk // count for chunk in range(count + 1)]
    with _serial_blas():
        futures = [_workers().submit(kernel, start, stop, *arguments) for start, stop in pairwise(bounds[1:])]
        try:
            kernel(bounds[0], bounds[1], *arguments)
        finally:
            for future in futures:
                future.result()


def split_sum(kernel: Callable[[int, int], Any], length: int, elements: int) -> Any:
    """As `split`, for a kernel that returns an array: the sum of what the chunks return, in their order."""
    sums: dict[int, Any] = {}

    def keep(start: int, stop: int) -> None:
        sums[start] = kernel(start, stop)

    split(keep, length, elements)
    return functools.reduce(operator.add, (sums[start] for start in sorted(sums)))
