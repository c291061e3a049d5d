"""NumPy kernels of batch normalisation: by channels, every result and temporary on pooled memory."""

from typing import Any

import numpy as np
import numpy.typing as npt

from custom_backend.array import column, columns_of
from custom_backend.functional.normalization import Norm, Normalised
from custom_backend.kernels.memory import empty_like
from custom_backend.kernels.parallel import split

FloatArray = npt.NDArray[Any]


def batch_norm_forward(x: FloatArray, norm: Norm) -> tuple[FloatArray, Normalised]:
    """See `functional.normalization.batch_norm_forward`."""
    weight, bias, eps, statistics = norm
    flat = columns_of(x)
    centred, y = empty_like(flat), empty_like(flat)
    mean, variance = statistics or (np.empty_like(weight), np.empty_like(weight))
    inverse_std = np.empty_like(weight)

    def apply(start: int, stop: int) -> None:
        chunk = slice(start, stop)
        if statistics is None:
            np.mean(flat[chunk], axis=1, out=mean[chunk])
        np.subtract(flat[chunk], column(mean[chunk]), out=centred[chunk])
        if statistics is None:
            np.divide(np.vecdot(centred[chunk], centred[chunk]), flat.shape[1], out=variance[chunk])
        np.divide(1, np.sqrt(variance[chunk] + eps), out=inverse_std[chunk])
        np.multiply(centred[chunk], column(weight[chunk] * inverse_std[chunk]), out=y[chunk])
        y[chunk] += column(bias[chunk])

    split(apply, len(x), x.size)
    saved = Normalised(mean, variance, centred.reshape(x.shape), weight, inverse_std, statistics is None)
    return y.reshape(x.shape), saved


def batch_norm_backward(saved: Normalised, grad: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """See `functional.normalization.batch_norm_backward`."""
    g, centred = columns_of(grad), columns_of(saved.centred)
    grad_x, grad_weight, grad_bias = empty_like(g), np.empty_like(saved.mean), np.empty_like(saved.mean)

    def apply(start: int, stop: int) -> None:
        chunk = slice(start, stop)
        inverse_std, out = saved.inverse_std[chunk], grad_x[chunk]
        np.multiply(np.vecdot(g[chunk], centred[chunk]), inverse_std, out=grad_weight[chunk])
        np.sum(g[chunk], axis=1, out=grad_bias[chunk])
        if saved.of_batch:
            np.multiply(centred[chunk], column(grad_weight[chunk] * inverse_std / -g.shape[1]), out=out)
            out -= column(grad_bias[chunk] / g.shape[1])
            out += g[chunk]
        else:
            np.copyto(out, g[chunk])
        out *= column(saved.weight[chunk] * inverse_std)

    split(apply, len(g), g.size)
    return grad_x.reshape(grad.shape), grad_weight, grad_bias
