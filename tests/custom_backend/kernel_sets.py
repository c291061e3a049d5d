"""Run the library with a chosen set of kernels, its work cut into small chunks so that every cut is met."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest

from custom_backend import array
from custom_backend.kernels import convolution, im2col, parallel

KERNEL_SETS = {"reference": (), "numpy": array.KERNELS["numpy"][1:], "numba": array.KERNELS["numpy"]}


def forget() -> None:
    """Have every kernel resolved anew."""
    array.usable.cache_clear()
    array.resolve_kernel.cache_clear()


@contextmanager
def using(kernels: str) -> Iterator[None]:
    """NumPy arrays are computed by the reference implementations, by NumPy kernels, or by numba's too."""
    if kernels == "numba":
        pytest.importorskip("numba")
    with (
        mock.patch.dict(array.KERNELS, numpy=KERNEL_SETS[kernels]),
        mock.patch.object(parallel, "SMALLEST", 64),
        mock.patch.object(parallel, "threads", return_value=3),
        mock.patch.object(im2col, "CACHE", 1 << 11),
        mock.patch.multiple(convolution, FEWEST_CHANNELS=1, FEWEST_IMAGES=1),
    ):
        forget()
        try:
            yield
        finally:
            forget()
