"""Adam's step compiled by numba: one pass over memory."""

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from custom_backend import optim
from custom_backend.kernels.compiled import compiled
from custom_backend.optim import AdamRule

FloatArray: TypeAlias = npt.NDArray[Any]
Rates: TypeAlias = tuple[float, ...]  # see `adam_step`


@compiled
def _adam_step(
    parameter: FloatArray, grad: FloatArray, exp_avg: FloatArray, exp_avg_sq: FloatArray, rates: Rates
) -> None:
    shrink, decay, rate, beta1, rest1, beta2, rest2, root, eps = rates
    for m in range(parameter.shape[0]):
        p = parameter[m] * shrink
        g = grad[m] + decay * p if decay != 0 else grad[m]  # 0 · ∞ is NaN
        change = g - exp_avg[m]
        exp_avg[m] = exp_avg[m] + rest1 * change if beta1 > 0.5 else g - beta1 * change
        exp_avg_sq[m] = beta2 * exp_avg_sq[m] + rest2 * g * g
        parameter[m] = p - rate * exp_avg[m] / (np.sqrt(exp_avg_sq[m]) * root + eps)


def adam_step(
    parameter: FloatArray,
    grad: FloatArray,
    exp_avg: FloatArray,
    exp_avg_sq: FloatArray,
    step: int,
    rule: AdamRule,
) -> None:
    """See `optim.adam_step`; in one pass where all arrays are contiguous."""
    arrays = (parameter, grad, exp_avg, exp_avg_sq)
    if not all(array.flags.c_contiguous for array in arrays):
        optim.adam_step.__wrapped__(*arrays, step, rule)  # type: ignore[attr-defined]
        return
    lr, (beta1, beta2), eps, weight_decay, decoupled = rule
    rates = (
        1 - lr * weight_decay * decoupled, weight_decay * (not decoupled), lr / (1 - beta1**step),
        beta1, 1 - beta1, beta2, 1 - beta2, 1 / math.sqrt(1 - beta2**step), eps,
    )  # fmt: skip
    number = parameter.dtype.type
    typed = tuple(number(rate) for rate in rates)
    _adam_step(*(array.reshape(-1) for array in arrays), typed)  # type: ignore[call-arg, arg-type]
