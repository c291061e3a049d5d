"""Initial weights: draws whose variance keeps the signal's size from layer to layer.

Weights have the shape (fan out, fan in) or (channels out, channels in, kh, kw), as in torch.
"""

import math

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.floating]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan in, fan out): how many inputs an output sums, and how many outputs an input feeds."""
    area = math.prod(shape[2:])
    return shape[1] * area, shape[0] * area


def torch_default(rng: np.random.Generator, shape: tuple[int, ...]) -> Weights:
    """U(−b, b) with b = 1/√fan_in: what torch.nn does, He's uniform with a = √5."""
    bound = 1 / math.sqrt(fans(shape)[0])
    return rng.uniform(-bound, bound, shape)


def torch_bias(rng: np.random.Generator, weight_shape: tuple[int, ...]) -> Weights:
    """U(−b, b) with the b of the weight beside it."""
    bound = 1 / math.sqrt(fans(weight_shape)[0])
    return rng.uniform(-bound, bound, weight_shape[:1])


def he_fan_in(rng: np.random.Generator, shape: tuple[int, ...]) -> Weights:
    """N(0, 2 / fan_in): ReLU halves the variance going forward, the 2 restores it.

    He, Zhang, Ren, Sun: Delving deep into rectifiers (2015).
    """
    return rng.normal(0, math.sqrt(2 / fans(shape)[0]), shape)


def he_fan_out(rng: np.random.Generator, shape: tuple[int, ...]) -> Weights:
    """N(0, 2 / fan_out): the same for the gradient going backward."""
    return rng.normal(0, math.sqrt(2 / fans(shape)[1]), shape)


def lecun_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Weights:
    """N(0, 1 / fan_in), which SELU asks for. LeCun, Bottou, Orr, Müller: Efficient backprop (1998)."""
    return rng.normal(0, math.sqrt(1 / fans(shape)[0]), shape)
