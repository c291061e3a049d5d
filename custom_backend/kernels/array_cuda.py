"""CuPy kernels of the operations of `array`."""

import cupy

from custom_backend.array import Array


def zeros(like: Array, shape: tuple[int, ...]) -> Array:
    """See `array.zeros`."""
    return cupy.zeros(shape, dtype=like.dtype)


def arange(like: Array, count: int) -> Array:
    """See `array.arange`."""
    return cupy.arange(count, dtype=like.dtype)


def uniform(like: Array, shape: tuple[int, ...], seed: int) -> Array:
    """See `array.uniform`; the numbers are the GPU's own."""
    generator = cupy.random.Generator(cupy.random.Philox4x3210(seed))
    return generator.random(shape, dtype=like.dtype)
