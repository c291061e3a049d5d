"""Adam's step as one CuPy kernel."""

import math

from custom_backend.array import Array
from custom_backend.kernels.elementwise import elementwise_kernel
from custom_backend.optim import AdamRule

_adam = elementwise_kernel(
    "adam",
    "T grad, T shrink, T decay, T rate, T beta1, T beta2, T root, T eps",
    "T parameter, T exp_avg, T exp_avg_sq",
    "",
    """
    T p = parameter * shrink, g = decay == T(0) ? grad : grad + decay * p, change = g - exp_avg;
    exp_avg = beta1 > T(0.5) ? exp_avg + (T(1) - beta1) * change : g - beta1 * change;
    exp_avg_sq = beta2 * exp_avg_sq + (T(1) - beta2) * g * g;
    parameter = p - rate * exp_avg / (sqrt(exp_avg_sq) * root + eps);
    """,
)


def adam_step(
    parameter: Array, grad: Array, exp_avg: Array, exp_avg_sq: Array, step: int, rule: AdamRule
) -> None:
    """See `optim.adam_step`."""
    lr, betas, eps, weight_decay, decoupled = rule
    shrink, decay = (1 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    rate, root = lr / (1 - betas[0] ** step), 1 / math.sqrt(1 - betas[1] ** step)
    _adam(grad, shrink, decay, rate, *betas, root, eps, parameter, exp_avg, exp_avg_sq)
