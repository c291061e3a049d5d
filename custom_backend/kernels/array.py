"""NumPy kernels of the operations of `array`: results on pooled memory, products shared out among threads."""

from typing import Any

import numpy as np
import numpy.typing as npt

from custom_backend.kernels.memory import empty, empty_like
from custom_backend.kernels.parallel import PRODUCTS, split

FloatArray = npt.NDArray[Any]


def zeros(like: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """See `array.zeros`."""
    out = empty(shape, like.dtype)
    out.fill(0)
    return out


def add(a: FloatArray, b: FloatArray) -> FloatArray:
    """See `array.add`."""
    out = empty_like(a)
    split(lambda start, stop: np.add(a[start:stop], b[start:stop], out=out[start:stop]), len(a), a.size)
    return out


def matmul(a: FloatArray, b: FloatArray) -> FloatArray:
    """See `array.matmul`."""
    out = empty((*a.shape[:-1], b.shape[-1]), a.dtype)

    def multiply(start: int, stop: int) -> None:
        np.matmul(a, b[..., start:stop], out=out[..., start:stop])

    split(multiply, b.shape[-1], (a.size // PRODUCTS + out.size // b.shape[-1]) * b.shape[-1])
    return out
