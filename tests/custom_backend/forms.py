"""Run the library with a chosen set of forms, its work cut into small pieces so that every cut is met."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest

from custom_backend import array
from custom_backend.kernels import im2col, parallel, winograd

FORMS = {
    "plain": (),
    "numpy": (("custom_backend.kernels.numpy_forms", "numpy"),),
    "numba": array.FORMS["numpy"],
}


@contextmanager
def using(forms: str) -> Iterator[None]:
    """NumPy arrays are computed by the plain text, by the NumPy forms, or by the numba forms."""
    if forms == "numba":
        pytest.importorskip("numba")
    with (
        mock.patch.dict(array.FORMS, numpy=FORMS[forms]),
        mock.patch.object(parallel, "SMALLEST", 64),
        mock.patch.object(parallel, "threads", return_value=3),
        mock.patch.object(im2col, "CACHE", 1 << 11),
        mock.patch.multiple(winograd, FEWEST=1, BATCH=1),
    ):
        array.fastest.cache_clear()
        try:
            yield
        finally:
            array.fastest.cache_clear()
