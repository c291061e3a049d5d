"""Softmax, its logarithm, and the losses. Logits are (classes, batch), labels (batch,).

A loss is the mean over the batch, or with `reduction` "sum" their sum, or with "none" one value a sample.
"""

import math
from typing import Any

from custom_backend.array import Array, arange, check_array, check_input, namespace, require

REDUCTIONS = ("mean", "sum", "none")


def softmax_forward(logits: Array) -> tuple[Array, Any]:
    """pₖ = e^zₖ / Σⱼ e^zⱼ, with the greatest logit taken off first so that nothing overflows."""
    xp = namespace(logits)
    powers = xp.exp(logits - xp.max(logits, axis=0, keepdims=True))
    p = powers / xp.sum(powers, axis=0, keepdims=True)
    return p, (p,)


def softmax_backward(saved: Any, grad: Array) -> Array:
    """∂L/∂zₖ = pₖ (gₖ − Σⱼ gⱼ pⱼ), from ∂pⱼ / ∂zₖ = pⱼ (δⱼₖ − pₖ)."""
    (p,) = saved
    return p * (grad - namespace(grad).sum(grad * p, axis=0, keepdims=True))


def log_softmax_forward(logits: Array) -> tuple[Array, Any]:
    """log pₖ = zₖ − log Σⱼ e^zⱼ, with the greatest logit taken off first so that nothing overflows."""
    xp = namespace(logits)
    shifted = logits - xp.max(logits, axis=0, keepdims=True)
    log_p = shifted - xp.log(xp.sum(xp.exp(shifted), axis=0, keepdims=True))
    return log_p, (log_p,)


def log_softmax_backward(saved: Any, grad: Array) -> Array:
    """∂L/∂zₖ = gₖ − pₖ Σⱼ gⱼ, from ∂ log pⱼ / ∂zₖ = δⱼₖ − pₖ."""
    (log_p,) = saved
    xp = namespace(grad)
    return grad - xp.exp(log_p) * xp.sum(grad, axis=0, keepdims=True)


def one_hot(labels: Array, logits: Array, where: str) -> Array:
    """1 at each sample's class, 0 elsewhere, in the shape, dtype and on the device of `logits`.

    Raises:
        ValueError: if logits are not (classes, batch), labels not (batch,) integers of [0, classes).
    """
    xp = namespace(logits)
    check_input(where, logits, "classes, batch")
    check_array(where, "of labels", labels)
    classes, batch = logits.shape
    require(tuple(labels.shape) == (batch,), where, f"labels ({batch},)", f"shape {tuple(labels.shape)}")
    require("int" in str(labels.dtype), where, "integer labels", labels.dtype)
    if not bool(xp.all((labels >= 0) & (labels < classes))):
        require(False, where, f"labels in [0, {classes})", f"[{int(xp.min(labels))}, {int(xp.max(labels))}]")
    labels = xp.astype(labels, xp.int64)  # uint8 could not count to 300 classes
    return xp.astype(arange(labels, classes)[:, None] == labels[None, :], logits.dtype)


def check_loss(where: str, reduction: str, **settings: Any) -> None:
    """Check the settings of a loss: numbers, or lists of them, that are finite and not negative."""
    require(reduction in REDUCTIONS, where, f"reduction one of {', '.join(REDUCTIONS)}", repr(reduction))
    for name, value in settings.items():
        if value is None or hasattr(value, "shape"):
            continue
        most = 1 if name == "label_smoothing" else math.inf
        limits = "in [0, 1]" if most == 1 else "of at least 0"
        for each in value if isinstance(value, list | tuple) else [value]:
            right = isinstance(each, int | float) and not isinstance(each, bool) and 0 <= each <= most
            require(right and math.isfinite(each), where, f"a number {name} {limits}", repr(each))


def _class_weights(where: str, name: str, weight: Array, logits: Array) -> Array:
    """A weight for each class as a column beside the logits, checked."""
    check_array(where, name, weight)
    xp, classes = namespace(logits), logits.shape[0]
    right = tuple(weight.shape) == (classes,) and bool(xp.all(weight >= 0) & xp.all(weight < math.inf))
    require(right, where, f"{name} of ({classes},) finite numbers of at least 0", weight)
    return xp.astype(weight, logits.dtype)[:, None]


def _reduced(losses: Array, reduction: str, weights: Array) -> tuple[Array, Array | float]:
    """The value of a loss, and by what its gradient is divided; a mean is weighted by `weights`."""
    xp = namespace(losses)
    if reduction == "none":
        return losses, 1.0
    total = xp.sum(weights) if reduction == "mean" else 1.0
    return xp.sum(losses) / total, total


def cross_entropy_forward(
    logits: Array,
    labels: Array,
    label_smoothing: float = 0.0,
    weight: Array | None = None,
    reduction: str = "mean",
) -> tuple[Array, Any]:
    """L = −mean over the batch of Σₖ wₖ qₖ log pₖ, where q = (1 − ε) one-hot + ε / classes.

    `weight` w has one number a class (1, if None); the mean is then weighted, too, with that of each label,
    as torch's is. Where wₖ qₖ is 0, so is the product, log pₖ being −∞ for a logit of −∞, but not NaN.

    Label smoothing ε: Szegedy et al., Rethinking the inception architecture (2016).
    """
    xp, where = namespace(logits), "CrossEntropyLoss"
    check_loss(where, reduction, label_smoothing=label_smoothing)
    hot = one_hot(labels, logits, where)
    q, weights = (1 - label_smoothing) * hot + label_smoothing / logits.shape[0], hot
    if weight is not None:
        column = _class_weights(where, "weight", weight, logits)
        q, weights = q * column, weights * column
    log_p, _ = log_softmax_forward(logits)
    losses = -xp.sum(q * xp.where((q > 0) | (log_p != log_p), log_p, 0.0), axis=0)
    value, divisor = _reduced(losses, reduction, weights)
    return value, (log_p, q, divisor)


def cross_entropy_backward(saved: Any, grad: Array | float = 1.0) -> Array:
    """∂L/∂z = (p Σⱼ qⱼ − q) / batch: log-softmax's backward of −q / batch; without weights Σⱼ qⱼ is 1."""
    log_p, q, divisor = saved
    xp = namespace(log_p)
    return (xp.exp(log_p) * xp.sum(q, axis=0, keepdims=True) - q) * (grad / divisor)


def focal_loss_forward(
    logits: Array,
    labels: Array,
    alpha: float | Array = 0.25,
    gamma: float = 2.0,
    reduction: str = "mean",
) -> tuple[Array, Any]:
    """L = mean of −αₜ (1 − pₜ)^γ log pₜ, pₜ being the probability of the true class.

    `alpha` is one number a class, αₜ that of the label: the paper's balance of classes (eq. 5). Or it is one
    number for all classes, which scales the loss and balances nothing.
    1 − pₜ is computed as −expm1(log pₜ), which keeps its digits as pₜ → 1.
    Lin et al.: Focal loss for dense object detection (2017).
    """
    xp, where = namespace(logits), "FocalLoss"
    check_loss(where, reduction, alpha=alpha, gamma=gamma)
    hot = one_hot(labels, logits, where)
    if not isinstance(alpha, int | float):
        alpha = xp.sum(hot * _class_weights(where, "alpha", alpha, logits), axis=0)
    log_p, _ = log_softmax_forward(logits)
    log_pt = xp.sum(xp.where(hot > 0, log_p, 0.0), axis=0)
    losses = -alpha * (-xp.expm1(log_pt)) ** gamma * log_pt
    value, divisor = _reduced(losses, reduction, hot)
    return value, (log_p, log_pt, hot, alpha, gamma, divisor)


def focal_loss_backward(saved: Any, grad: Array | float = 1.0) -> Array:
    """With ℓ = log pₜ and u = 1 − pₜ, dL/dℓ = −α u^γ (1 − γ pₜ ℓ / u), and ∂ℓ/∂z = one-hot − p.

    (dpₜ/dℓ = pₜ, so d(u^γ)/dℓ = −γ u^(γ−1) pₜ.) As pₜ → 1, ℓ / u → −1; as pₜ → 0, pₜ ℓ → 0.
    """
    log_p, log_pt, hot, alpha, gamma, divisor = saved
    xp = namespace(log_p)
    u, pt = -xp.expm1(log_pt), xp.exp(log_pt)
    ratio = xp.where(u > 0, log_pt / xp.where(u > 0, u, 1.0), -1.0)
    slope = -alpha * u**gamma * (1 - gamma * pt * xp.where(pt > 0, ratio, 0.0))
    return (hot - xp.exp(log_p)) * slope * (grad / divisor)


def mse_loss_forward(x: Array, target: Array, reduction: str = "mean") -> tuple[Array, Any]:
    """L = the mean of (x − target)² over all entries; "none" gives one value an entry."""
    check_loss("MSELoss", reduction)
    check_input("MSELoss", x)
    check_array("MSELoss", "as target", target)
    require(x.shape == target.shape, "MSELoss", f"a target {tuple(x.shape)}", tuple(target.shape))
    require(x.dtype == target.dtype, "MSELoss", f"a target of {x.dtype}", target.dtype)
    difference, xp = x - target, namespace(x)
    value, divisor = _reduced(difference * difference, reduction, xp.ones_like(x))
    return value, (difference, divisor)


def mse_loss_backward(saved: Any, grad: Array | float = 1.0) -> Array:
    """∂L/∂x = 2 (x − target) / entries."""
    difference, divisor = saved
    return 2 * difference * (grad / divisor)
