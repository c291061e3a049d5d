"""Keep freed memory in the process, where a training takes the same large blocks at every step."""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
"""Numbers of glibc's malloc.h."""


def keep_large_blocks() -> bool:
    """Have glibc's malloc give no memory back to the system, unless the user set it up; whether it does.

    It gives back every block over some megabytes when that is freed, and the next one is zeroed page by page:
    at a batch of 1,000 images a first layer's step took 0.88 s of CPU time so, and 0.21 s with this.
    """
    is_set = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"} & os.environ.keys()
    if platform.libc_ver()[0] != "glibc" or is_set:
        return False
    libc = ctypes.CDLL(None)
    has_threshold = libc.mallopt(M_MMAP_THRESHOLD, 2**30) or libc.mallopt(M_MMAP_MAX, 0)  # before glibc 2.36
    return bool(
        has_threshold and libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1) and libc.mallopt(M_TOP_PAD, 2**24)
    )
