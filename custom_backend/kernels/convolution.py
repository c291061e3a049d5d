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


def choose(x_shape: tuple[int, ...], weight: FloatArray, geometry: Geometry) -> ModuleType:
    """The algorithm for images of `x_shape`: `winograd` or `im2col`."""
    is_3x3 = geometry == Geometry((3, 3), (1, 1), geometry.padding)
    is_large = min(weight.shape[:2]) >= FEWEST_CHANNELS and x_shape[3] >= FEWEST_IMAGES
    if is_3x3 and is_large and max(geometry.padding) <= 2 and "_numba" in usable("numpy"):
        from custom_backend.kernels import winograd  # imports numba

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
    y: FloatArray = choose(x.shape, weight, geometry).correlate(x, weight, geometry)
    if bias is not None:
        y += bias.reshape(-1, 1, 1, 1)
    return y, (x, weight, bias is not None, geometry)


def conv2d_backward(
    saved: Any, grad: FloatArray, needs_input_grad: bool = True
) -> tuple[FloatArray | None, FloatArray, FloatArray | None]:
    """See `functional.convolution.conv2d_backward`."""
    x, weight, has_bias, geometry = saved
    algorithm = choose(x.shape, weight, geometry)
    grad_weight = algorithm.weight_gradient(x, grad, geometry)
    grad_bias = columns_of(grad).sum(axis=1) if has_bias else None
    grad_x = algorithm.input_gradient(x.shape, weight, grad, geometry) if needs_input_grad else None
    return grad_x, grad_weight, grad_bias
