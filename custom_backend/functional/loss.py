"""Log-softmax and the losses on it. Logits are (classes, batch), labels (batch,)."""

from typing import Any

from custom_backend.array import Array, arange, namespace, require


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
    require(logits.ndim == 2, where, "logits (classes, batch)", f"shape {tuple(logits.shape)}")
    classes, batch = logits.shape
    require(tuple(labels.shape) == (batch,), where, f"labels ({batch},)", f"shape {tuple(labels.shape)}")
    require("int" in str(labels.dtype), where, "integer labels", labels.dtype)
    valid = bool(xp.all((labels >= 0) & (labels < classes)))
    if not valid:
        require(valid, where, f"labels in [0, {classes})", f"[{int(xp.min(labels))}, {int(xp.max(labels))}]")
    return xp.astype(arange(labels, classes)[:, None] == labels[None, :], logits.dtype)


def cross_entropy_forward(logits: Array, labels: Array, label_smoothing: float = 0.0) -> tuple[Array, Any]:
    """L = −mean over the batch of Σₖ qₖ log pₖ, where q = (1 − ε) one-hot + ε / classes.

    Label smoothing ε: Szegedy et al., Rethinking the inception architecture (2016).
    """
    xp = namespace(logits)
    q = one_hot(labels, logits, "CrossEntropyLoss")
    q = (1 - label_smoothing) * q + label_smoothing / logits.shape[0]
    log_p, _ = log_softmax_forward(logits)
    return -xp.sum(q * log_p) / logits.shape[1], (log_p, q)


def cross_entropy_backward(saved: Any, grad: Array | float = 1.0) -> Array:
    """∂L/∂z = (p − q) / batch: log-softmax's backward of −q / batch, as q sums to 1."""
    log_p, q = saved
    return (namespace(log_p).exp(log_p) - q) * (grad / log_p.shape[1])


def focal_loss_forward(
    logits: Array, labels: Array, alpha: float = 0.25, gamma: float = 2.0
) -> tuple[Array, Any]:
    """L = mean of −α (1 − pₜ)^γ log pₜ, pₜ being the probability of the true class.

    1 − pₜ is computed as −expm1(log pₜ), which keeps its digits as pₜ → 1.
    Lin et al.: Focal loss for dense object detection (2017).
    """
    xp = namespace(logits)
    hot = one_hot(labels, logits, "FocalLoss")
    log_p, _ = log_softmax_forward(logits)
    log_pt = xp.sum(hot * log_p, axis=0)
    loss = -alpha * (-xp.expm1(log_pt)) ** gamma * log_pt
    return xp.mean(loss), (log_p, log_pt, hot, alpha, gamma)


def focal_loss_backward(saved: Any, grad: Array | float = 1.0) -> Array:
    """With ℓ = log pₜ and u = 1 − pₜ, dL/dℓ = −α u^γ (1 − γ pₜ ℓ / u), and ∂ℓ/∂z = one-hot − p.

    (dpₜ/dℓ = pₜ, so d(u^γ)/dℓ = −γ u^(γ−1) pₜ.) As pₜ → 1, ℓ / u → −1.
    """
    log_p, log_pt, hot, alpha, gamma = saved
    xp = namespace(log_p)
    u = -xp.expm1(log_pt)
    ratio = xp.where(u > 0, log_pt / xp.where(u > 0, u, 1.0), -1.0)
    slope = -alpha * u**gamma * (1 - gamma * xp.exp(log_pt) * ratio)
    return (hot - xp.exp(log_p)) * (slope * (grad / log_p.shape[1]))[None, :]
