"""Threads for compiled kernels that do not fight with those of BLAS and of torch.

OpenMP's workers spin for a while after each piece of work and so steal the cores from BLAS's, which do the
same. The workers here sleep when there is nothing to do, and a kernel holds no lock of the interpreter.
"""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SMALLEST = 1 << 15  # elements; below, waking a thread costs more than it brings


@functools.cache
def threads() -> int:
    """How many threads a kernel runs on: OMP_NUM_THREADS, or as many as this process has cores."""
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))


@functools.cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads(), thread_name_prefix="custom_backend")


os.register_at_fork(after_in_child=_workers.cache_clear)  # a forked child has none of its parent's threads


def split(kernel: Callable[..., None], length: int, elements: int, *arguments: Any) -> None:
    """Run `kernel(start, stop, *arguments)` on every thread's share of range(length); this thread has one.

    `elements` tells how much work there is in all.
    """
    count = min(threads(), length) if elements >= SMALLEST else 1
    bounds = [length * share // count for share in range(count + 1)]
    futures = [_workers().submit(kernel, bounds[i], bounds[i + 1], *arguments) for i in range(1, count)]
    kernel(bounds[0], bounds[1], *arguments)
    for future in futures:
        future.result()
