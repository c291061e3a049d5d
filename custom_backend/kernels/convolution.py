"""NumPy kernels of the convolution: here, and only here, its algorithm is chosen.

`im2col` computes every convolution; `winograd`, where numba is installed to compile its transforms, those by
3 × 3 kernels in less time. Both have the three products of a convolution: `correlate`, `weight_gradient`
and `input_gradient`.
"""

from types import ModuleType
from typing import Any

import numpy.typing as npt

from custom_backend.array import Pair, columns_of, usable
from custom_backend.functional.convolution import Geometry
from custom_backend.kernels import im2col

FloatArray = npt.NDArray[Any]

FEWEST_CHANNELS = 16  # in and out, and
FEWEST_IMAGES = 8  # below, Winograd's transforms cost more than they save


def choose(x: FloatArray, weight: FloatArray, geometry: Geometry) -> ModuleType:
    """The algorithm: `winograd` or `im2col`."""
    is_3x3 = geometry == Geometry((3, 3), (1, 1), geometry.padding)
    is_large = min(weight.shape[:2]) >= FEWEST_CHANNELS and x.shape[3] >= FEWEST_IMAGES
    if is_3x3 and is_large and max(geometry.padding) <= 2 and "_numba" in usable("numpy"):
        from custom_backend.kernels import winograd  # imports numba

        if winograd.suits(x, winograd.FORWARD) and winograd.suits(
            weight.reshape(len(weight), -1), winograd.FORWARD
        ):
            return winograd
    return im2col


def conv2d_forward(
    x: FloatArray,
    weight: FloatArray,
    bias: FloatArray | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> tuple[FloatArray, Any]:
    """See `functional.convolution.conv2d_forward`."""
    geometry = Geometry(weight.shape[2:], stride, padding, dilation, groups)
    algorithm = choose(x, weight, geometry)
    y: FloatArray = algorithm.correlate(x, weight, geometry)
    if bias is not None:
        y += bias.reshape(-1, 1, 1, 1)
    return y, (x, weight, bias is not None, geometry, algorithm)


def conv2d_backward(
    saved: Any, grad: FloatArray, needs_input_grad: bool = True
) -> tuple[FloatArray | None, FloatArray, FloatArray | None]:
    """See `functional.convolution.conv2d_backward`."""
    x, weight, has_bias, geometry, algorithm = saved
    if algorithm is not im2col and not algorithm.suits(grad, algorithm.BACKWARD):
        algorithm = im2col
    grad_weight = algorithm.weight_gradient(x, grad, geometry)
    grad_bias = columns_of(grad).sum(axis=1) if has_bias else None
    grad_x = algorithm.input_gradient(x.shape, weight, grad, geometry) if needs_input_grad else None
    return grad_x, grad_weight, grad_bias
