"""What `grade.py` knows of each exercise: where the right answer is, what to try, and common mistakes by name.

A mistake is an edit of a short solution, which stands here for this purpose; what is right the library says.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from custom_backend import optim
from custom_backend.functional import activation, conv, dropout, loss, normalization, pooling

A = Any  # an array, or what a library function takes


# The results that it changes (a regular expression), old, new, what to say, and perhaps more pairs of old and
# new. An edit replaces old by new in the solution or in its helpers; where old is "", new is a new first line.
Mistake = tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """A function to fill in.

    `results` maps the name of each result to its axes; mistakes edit `solution` or its `helpers`. `cases` are arguments to try, `traps` those at which an
    otherwise right solution may fail, each with the reason. `loss(forward, **arguments)` is a number whose
    derivatives by the arguments `by` are the results; `forward` is the function of the task before this one.
    """

    solution: Callable[..., Any]
    results: Mapping[str, str]
    library: Callable[..., Any]
    cases: tuple[dict[str, Any], ...]
    mistakes: tuple[Mistake, ...]
    helpers: tuple[Callable[..., Any], ...] = ()
    traps: tuple[tuple[dict[str, Any], str], ...] = ()
    loss: Callable[..., Any] | None = None
    by: tuple[str, ...] = ()


class Exercise(NamedTuple):
    """What a file is about, where the library solves it, and the functions to fill in."""

    title: str
    where: str
    tasks: tuple[Task, ...]


# -------------------------------------------------------------- the solutions that the mistakes are edits of


def places(shape: A, kernel: A, stride: A, padding: A) -> A:
    height, width = (
        (n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape[1:3], kernel, stride, padding, strict=True)
    )
    return [
        (slice(i, i + stride[0] * height, stride[0]), slice(j, j + stride[1] * width, stride[1]))
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]


def pad(x: A, padding: A, value: float = 0.0) -> A:
    return np.pad(x, [(0, 0), *((p, p) for p in padding), (0, 0)], constant_values=value)


def only(grad: A, *place: A) -> A:
    kept = np.zeros_like(grad)
    kept[(slice(None), *place)] = grad[(slice(None), *place)]
    return kept


def im2col(x: A, kernel: A, stride: A, padding: A) -> A:
    padded = pad(x, padding)
    columns = np.stack([padded[:, r, s] for r, s in places(x.shape, kernel, stride, padding)], axis=1)
    return columns.reshape(x.shape[0] * kernel[0] * kernel[1], -1)


def col2im(columns: A, shape: A, kernel: A, stride: A, padding: A) -> A:
    (channels, height, width, batch), (top, left) = shape, padding
    padded = np.zeros((channels, height + 2 * top, width + 2 * left, batch))
    slices = list(enumerate(places(shape, kernel, stride, padding)))
    seen = columns.reshape(channels, len(slices), -1)
    for n, (r, s) in slices:
        padded[:, r, s] += seen[:, n].reshape(padded[:, r, s].shape)
    return padded[:, top : top + height, left : left + width]


def conv2d_backward(x: A, weight: A, grad: A, stride: A, padding: A) -> A:
    kernel, g = weight.shape[2:], grad.reshape(len(grad), -1)
    grad_weight = g @ im2col(x, kernel, stride, padding).T
    grad_x = col2im(weight.reshape(len(g), -1).T @ g, x.shape, kernel, stride, padding)
    return grad_x, grad_weight.reshape(weight.shape), g.sum(axis=1)


def max_pool2d_forward(x: A, kernel: A, stride: A, padding: A) -> A:
    padded = pad(x, padding, -np.inf)
    return np.max([padded[:, r, s] for r, s in places(x.shape, kernel, stride, padding)], axis=0)


def max_pool2d_backward(x: A, grad: A, kernel: A, stride: A, padding: A) -> A:
    (_, height, width, _), (top, left), value = x.shape, padding, pad(x, padding, -np.inf)
    padded, slices = np.zeros_like(value), list(enumerate(places(x.shape, kernel, stride, padding)))
    chosen = np.argmax([value[:, r, s] for _, (r, s) in slices], axis=0)
    for n, (r, s) in slices:
        padded[:, r, s] += np.where(chosen == n, grad, 0)
    return padded[:, top : top + height, left : left + width]


def channels(vector: A) -> A:
    return vector.reshape(-1, 1, 1, 1)


def batch_norm_forward(
    x: A, weight: A, bias: A, running_mean: A, running_var: A, momentum: float, eps: float, training: bool
) -> A:
    axes, m, mean, var = (1, 2, 3), x[0].size, running_mean, running_var
    if training:
        mean, var = x.mean(axes), x.var(axes)
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * var * m / (m - 1)
    x_hat = (x - channels(mean)) / np.sqrt(channels(var) + eps)
    return channels(weight) * x_hat + channels(bias), running_mean, running_var


def batch_norm_backward(x: A, weight: A, grad: A, eps: float) -> A:
    axes = (1, 2, 3)
    std = np.sqrt(x.var(axes, keepdims=True) + eps)
    x_hat = (x - x.mean(axes, keepdims=True)) / std
    mean_g, mean_gx = grad.mean(axes, keepdims=True), (grad * x_hat).mean(axes, keepdims=True)
    grad_x = channels(weight) / std * (grad - mean_g - x_hat * mean_gx)
    return grad_x, (grad * x_hat).sum(axes), grad.sum(axes)


def log_softmax(logits: A) -> A:
    z = logits - logits.max(axis=0, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=0, keepdims=True))


def target(logits: A, labels: A, smoothing: float) -> A:
    classes = len(logits)
    hot = np.eye(classes)[:, labels]
    return (1 - smoothing) * hot + smoothing / classes


def cross_entropy_forward(logits: A, labels: A, label_smoothing: float) -> A:
    return -(target(logits, labels, label_smoothing) * log_softmax(logits)).sum() / len(labels)


def cross_entropy_backward(logits: A, labels: A, label_smoothing: float) -> A:
    return (np.exp(log_softmax(logits)) - target(logits, labels, label_smoothing)) / len(labels)


def focal_loss_forward(logits: A, labels: A, alpha: float, gamma: float) -> A:
    log_pt = log_softmax(logits)[labels, range(len(labels))]
    return np.mean(-alpha * (-np.expm1(log_pt)) ** gamma * log_pt)


def focal_loss_backward(logits: A, labels: A, alpha: float, gamma: float) -> A:
    log_p, hot = log_softmax(logits), target(logits, labels, 0.0)
    log_pt = (hot * log_p).sum(axis=0)
    u, pt = -np.expm1(log_pt), np.exp(log_pt)
    ratio = np.where(u > 0, log_pt / np.where(u > 0, u, 1), -1)
    slope = -alpha * u**gamma * (1 - gamma * pt * ratio)
    return (hot - np.exp(log_p)) * slope / len(labels)


SCALE, ALPHA = activation.SELU_SCALE, activation.SELU_ALPHA


def selu_forward(x: A) -> A:
    return SCALE * np.where(x > 0, x, ALPHA * np.expm1(np.minimum(x, 0)))


def selu_backward(x: A, grad: A) -> A:
    return grad * SCALE * np.where(x > 0, 1, ALPHA * np.exp(np.minimum(x, 0)))


def dropout_forward(x: A, u: A, p: float, training: bool) -> A:
    return x * (u >= p) / max(1 - p, 1e-300) if training else x


def dropout_backward(grad: A, u: A, p: float) -> A:
    return grad * (u >= p) / max(1 - p, 1e-300)


def adam_step(
    parameter: A, grad: A, exp_avg: A, exp_avg_sq: A, step: int, lr: float, betas: A, eps: float, weight_decay: float
) -> A:
    g = grad + weight_decay * parameter
    m = betas[0] * exp_avg + (1 - betas[0]) * g
    v = betas[1] * exp_avg_sq + (1 - betas[1]) * g**2
    m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return parameter - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


# ------------------------------------------------------------------------------ the library, and what is tried

plain = inspect.unwrap  # the formula, where a call would choose a faster kernel
rng = np.random.default_rng(0)
normal = rng.standard_normal
IMAGE = "channel, row, column, sample"
X, KERNEL = normal((3, 6, 5, 4)), (3, 2)  # no two axes of equal length, so that a transposition shows
GEOMETRIES = tuple(
    {"stride": stride, "padding": padding}
    for stride, padding in (((1, 1), (0, 0)), ((1, 1), (1, 1)), ((2, 1), (0, 1)))
)
SIZES = [conv.output_size((6, 5), KERNEL, **geometry) for geometry in GEOMETRIES]
LOGITS, LABELS = 2 * normal((3, 4)), np.array([2, 0, 0, 1])
LARGE = 1000.0 * np.array([[1, 0, -1, 1], [0, 1, 0, 1], [-1, 0, 1, 0]])
OVERFLOW = (
    "for logits of 1000, where e^z is infinite: take the greatest logit of each sample off first, and use "
    "log p = z − max − log Σ e^(z − max), not the log of a p that is rounded to 0"
)
SURE = {"logits": np.abs(LARGE), "labels": np.array([0, 1, 0, 0]), "alpha": 0.7, "gamma": 0.5}


def library_conv(x: A, weight: A, grad: A, stride: A, padding: A) -> A:
    """(∂L/∂x, ∂L/∂W, ∂L/∂b)."""
    return conv.conv2d_backward(conv.conv2d_forward(x, weight, np.zeros(2), stride, padding)[1], grad)


def conv_loss(_: A, x: A, weight: A, grad: A, stride: A, padding: A, bias: A = None) -> A:
    """Σ g y."""
    return (conv.conv2d_forward(x, weight, bias, stride, padding)[0] * grad).sum()


def library_norm(
    x: A, weight: A, bias: A, running_mean: A, running_var: A, momentum: float, eps: float, training: bool
) -> A:
    """(y, running_mean, running_var)."""
    norm = normalization.Norm(weight, bias, eps, None if training else (running_mean, running_var))
    y, saved = plain(normalization.batch_norm_forward)(x, norm)
    moved = momentum if training else 0.0
    var = saved.variance * x[0].size / (x[0].size - 1)
    return y, running_mean + moved * (saved.mean - running_mean), running_var + moved * (var - running_var)


def library_norm_backward(x: A, weight: A, grad: A, eps: float) -> A:
    """(∂L/∂x, ∂L/∂γ, ∂L/∂β)."""
    norm = normalization.Norm(weight, 0 * weight, eps, None)
    return plain(normalization.batch_norm_backward)(plain(normalization.batch_norm_forward)(x, norm)[1], grad)


def norm_loss(forward: A, x: A, weight: A, grad: A, eps: float, bias: A = None) -> A:
    """Σ g y."""
    zero = 0 * weight
    return (forward(x, weight, zero if bias is None else bias, zero, zero, 0.1, eps, True)[0] * grad).sum()


SEED = 7


def library_dropout(x: A, u: A, p: float, training: bool) -> A:
    """The library draws u itself, from its seed: `UNIFORM`."""
    return dropout.dropout_forward(x, p, SEED)[0] if training else x


def library_adam(
    parameter: A, grad: A, exp_avg: A, exp_avg_sq: A, step: int, lr: float, betas: A, eps: float, weight_decay: float
) -> A:
    """The library's step works in place."""
    arrays = parameter.copy(), grad, exp_avg.copy(), exp_avg_sq.copy()
    plain(optim.adam_step)(*arrays, step, optim.AdamRule(lr, betas, eps, weight_decay, False))
    return arrays[0], *arrays[2:]


def first(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The value alone, without what backward needs."""
    return lambda *arguments: plain(forward)(*arguments)[0]


def then(forward: Callable[..., Any], backward: Callable[..., Any], *grad: A) -> Callable[..., Any]:
    """The gradient as a function of the arguments of `forward`."""
    return lambda *arguments: plain(backward)(plain(forward)(*arguments)[1], *grad)


# fmt: off
OVERWRITE = "lets overlapping windows overwrite one another: a pixel gets the sum of all of them (+=, not =)"
OVERWRITTEN = (
    ("] += ", "] = ", OVERWRITE),
    ("in slices:\n        padded[:, r, s] += ", "in slices[::-1]:\n        padded[:, r, s] = ", OVERWRITE),
)
LAST_TERM, ALL = "keeps only the last term of the sum: += in place of =", slice(None)
CUT = "[:, top : top + height, left : left + width]"
CROP: tuple[Mistake, ...] = (
    ("∂L/∂x", CUT, "[:, :height, :width]", "is shifted: the image begins at `padding` in the padded one, not at 0"),
    ("∂L/∂x", CUT, "", "still has the padding: cut the border off at the end"),
)
OUTSIDE = "np.ones_like(x[:1]), weight.shape[2:], stride, padding).all(axis=0).reshape(grad.shape[1:])"
NO_SUM = "has the right size but is missing the sum over the batch: it is that of the {} sample alone"
TOTAL = ".sum(axis=0, keepdims=True)"
AXIS: tuple[Mistake, ...] = (
    ("", "axis=0, k", "axis=1, k", "takes the softmax over the batch: the classes are the first axis"),
    ("", TOTAL, ".sum(axis=1, keepdims=True)", "takes the softmax over the batch: the classes are the first axis"),
    ("", TOTAL, ".sum()", "divides by the sum over all samples together: p sums to 1 for each sample (axis 0)"),
)
PAD_END = "np.pad(x, [(0, 0), *((0, 2 * p) for p in padding), (0, 0)])"
PAD_EDGE = "np.pad(x, [(0, 0), *((p, p) for p in padding), (0, 0)], mode='edge')"
OVER = "(x - x.mean({0}, keepdims=True)) / np.sqrt(x.var({0}, keepdims=True) + eps)"
ADAM = {"parameter": normal((3, 4)), "grad": normal((3, 4)), "exp_avg": normal((3, 4)),
        "exp_avg_sq": rng.random((3, 4))}
NORM = {"x": 1.5 * X + 1, "weight": normal(3) + 2, "bias": normal(3), "running_mean": normal(3),
        "running_var": rng.random(3) + 0.5, "momentum": 0.2, "eps": 0.1}

IM2COL = Exercise("im2col and its transpose, col2im", "im2col and col2im in custom_backend/functional/conv.py", (
    Task(
        im2col,
        {"columns": "place in the kernel, window"},
        plain(conv.im2col),
        tuple({"x": X, "kernel": KERNEL, **geometry} for geometry in GEOMETRIES),
        (
            ("", "columns.reshape", "columns.swapaxes(0, 1).reshape",
             "has its rows in the order (kh, kw, C): expected is (C, kh, kw)"),
            ("", "columns.reshape", "np.moveaxis(columns, -1, 2).reshape",
             "has its columns in the order (N, H', W'): expected is (H', W', N), the batch last"),
            ("", "columns.reshape", "columns.swapaxes(2, 3).reshape",
             "has its columns in the order (W', H', N): expected is (H', W', N)"),
            ("", "", "padding = (0, 0)", "ignores the padding"),
            ("", "", "stride = (1, 1)", "ignores the stride"),
            ("", "", "stride = stride[::-1]", "takes the stride as (width, height): it is (height, width)"),
            ("", "", "padding = padding[::-1]", "takes the padding as (width, height): it is (height, width)"),
            ("", "pad(x, padding)", PAD_EDGE, "repeats the outermost pixels in the border: it is 0 there"),
            ("", "pad(x, padding)", PAD_END, "is shifted: the padding is missing at the beginning (top and left)"),
        ),
    ),
    Task(
        col2im,
        {"∂L/∂x": IMAGE},
        plain(conv.col2im),
        tuple({"columns": normal((18, h * w * 4)), "shape": X.shape, "kernel": KERNEL, **geometry}
              for geometry, (h, w) in zip(GEOMETRIES, SIZES, strict=True)),
        (
            *CROP,
            *(("", *overwritten) for overwritten in OVERWRITTEN),
        ),
        loss=lambda im2col, columns, shape, kernel, stride, padding, x:
            (im2col(x, kernel, stride, padding) * columns).sum(),
        by=("x",),
    ),
))

CONV = Exercise("convolution, backward", "conv2d_backward in custom_backend/functional/conv.py", (
    Task(
        conv2d_backward,
        {"∂L/∂x": IMAGE, "∂L/∂W": "output channel, channel, kernel row, kernel column", "∂L/∂b": "output channel"},
        library_conv,
        tuple({"x": X, "weight": normal((2, 3, *KERNEL)), "grad": normal((2, *size, 4)), **geometry}
              for geometry, size in zip(GEOMETRIES, SIZES, strict=True)),
        (
            *CROP,
            ("∂L/∂x", *OVERWRITTEN[0]),
            ("∂L/∂x", *OVERWRITTEN[1]),
            ("∂L/∂x", "", "weight, grad = weight[-1:], grad[-1:]", LAST_TERM),
            ("∂L/∂x", "", "weight, grad = weight[-1:], grad[-1:]", LAST_TERM, *OVERWRITTEN[0][:2]),
            ("∂L/∂x", "", "weight, grad = weight[-1:], grad[-1:]", LAST_TERM, *OVERWRITTEN[1][:2]),
            ("∂L/∂x", "", "weight = weight[:, :, ::-1, ::-1]", "uses the kernel mirrored: y does not mirror it"),
            ("∂L/∂[Wb]", "", "grad = only(grad, ALL, ALL, 0)", NO_SUM.format("first")),
            ("∂L/∂[Wb]", "", "grad = only(grad, ALL, ALL, -1)", NO_SUM.format("last")),
            ("∂L/∂[Wb]", "", "grad = only(grad, -1, -1)", LAST_TERM),
            ("∂L/∂[Wb]", "", "grad = only(grad, -1, -1, -1)", LAST_TERM),
            ("", "", "grad = only(grad, slice(1, -1), slice(1, -1))",
             "has the right size but the border is lost: the outermost windows are left out"),
            ("", "", "grad = only(grad, slice(-1), slice(-1))",
             "has the right size but the last row and column of windows are left out"),
            ("", "", f"grad = grad * im2col({OUTSIDE}",
             "has the right size but the border is lost: windows that reach into the padding are left out"),
            ("∂L/∂W", "", "x = only(x, slice(1, -1), slice(1, -1))",
             "has the right size but the border is lost: the outermost pixels of x are left out"),
            ("∂L/∂W", "pad(x, padding)", PAD_END, "uses x without the padding at the beginning (top and left)"),
        ),
        helpers=(im2col, col2im),
        loss=conv_loss,
        by=("x", "weight", "bias"),
    ),
))

BATCH_NORM = Exercise(
    "batch normalisation, forward and backward",
    "batch_norm_forward and batch_norm_backward in custom_backend/functional/normalization.py", (
    Task(
        batch_norm_forward,
        {"y": IMAGE, "running_mean": "channel", "running_var": "channel"},
        library_norm,
        (NORM | {"training": True}, NORM | {"training": False}),
        (
            ("y", "np.sqrt(channels(var) + eps)", "(np.sqrt(channels(var)) + eps)",
             "adds ε outside the root: the denominator is √(σ² + ε)"),
            ("y", " + eps", "", "is missing ε in the denominator, √(σ² + ε)"),
            ("y", "np.sqrt(channels(var) + eps)", "(channels(var) + eps)",
             "is divided by the variance: the root is missing"),
            ("y", "x.var(axes)", "x.var(axes, ddof=1)",
             "is normalised by the unbiased variance: only the running variance takes that one"),
            ("y", "if training", "if True", "uses the statistics of the batch in evaluation: use the running ones"),
            ("y", "    x_hat", "    mean, var = running_mean, running_var\n    x_hat",
             "uses the running statistics in training: use those of the batch"),
            ("y", "    return", f"    if training:\n        x_hat = {OVER.format('-1')}\n    return",
             "has statistics of each pixel: they go over rows and columns too, axes (1, 2, 3)"),
            ("y", "    return", f"    if training:\n        x_hat = {OVER.format('None')}\n    return",
             "has statistics over all channels together: each channel has its own, axes (1, 2, 3)"),
            ("y", "channels(weight) * ", "", "is missing the factor γ (weight)"),
            ("y", " + channels(bias)", "", "is missing the shift β (bias)"),
            ("running_var", " * m / (m - 1)", "", "is biased: it takes σ² m / (m − 1) of the batch, m = H·W·N"),
            ("running_var", "* m / (m - 1)", "* x.shape[-1] / (x.shape[-1] - 1)",
             "corrects with the batch size N: m is the number of values of a channel, H·W·N"),
            ("running_var", "momentum * var", "momentum * np.sqrt(var)", "tracks the standard deviation, not the variance"),
            ("running_", "", "momentum = 1 - momentum", "has momentum the wrong way round: (1 − momentum) · running + momentum · batch"),
            ("running_var", "momentum) * running_var + momentum * var * m / (m - 1)",
             "(1 - momentum)) * running_var + (1 - momentum) * var",
             "has momentum the wrong way round, and is biased besides"),
            ("running_", "if training", "if True", "moves in evaluation too: it moves in training only"),
            ("running_", "", "momentum = 0", "does not move in training"),
        ),
    ),
    Task(
        batch_norm_backward,
        {"∂L/∂x": IMAGE, "∂L/∂γ": "channel", "∂L/∂β": "channel"},
        library_norm_backward,
        ({"x": NORM["x"], "weight": NORM["weight"], "grad": normal(X.shape), "eps": 0.1},),
        (
            ("∂L/∂x", " - mean_g - x_hat * mean_gx", "", "treats μ and σ as constants: they depend on x too, which gives "
             "the terms − mean(g) − x̂ · mean(g x̂)"),
            ("∂L/∂x", " - mean_g -", " -", "is missing the term − mean(g), the way through μ"),
            ("∂L/∂x", " - x_hat * mean_gx", "", "is missing the term − x̂ · mean(g x̂), the way through σ²"),
            ("∂L/∂x", "channels(weight) /", "1 /", "is missing the factor γ"),
            ("∂L/∂x", "channels(weight) / std", "channels(weight)", "is missing the factor 1 / √(σ² + ε)"),
            ("∂L/∂x", "grad.mean(axes, keepdims=True), (grad * x_hat).mean(axes, keepdims=True)",
             "grad.mean(-1, keepdims=True), (grad * x_hat).mean(-1, keepdims=True)",
             "takes its means over the batch alone: they go over rows and columns too, axes (1, 2, 3)"),
            ("∂L/∂x", "grad.mean(axes, keepdims=True), (grad * x_hat).mean(axes, keepdims=True)",
             "grad.sum(axes, keepdims=True), (grad * x_hat).sum(axes, keepdims=True)",
             "has sums of g and g x̂ in place of their means"),
            ("", " + eps", "", "is missing ε in √(σ² + ε)"),
            ("∂L/∂γ", "(grad * x_hat).sum", "(grad * x).sum", "is Σ g x: expected is Σ g x̂, with the normalised x"),
            ("∂L/∂γ", "(grad * x_hat).sum", "(grad * x_hat * std).sum", "is Σ g (x − μ): the division by √(σ² + ε) is missing"),
        ),
        loss=norm_loss,
        by=("x", "weight", "bias"),
    ),
))

COPY = "np.copyto(padded[:, r, s], grad, where=chosen == n)"
MAX_POOL = Exercise(
    "max-pooling, forward and backward",
    "max_pool2d_forward and max_pool2d_backward in custom_backend/functional/pooling.py", (
    Task(
        max_pool2d_forward,
        {"y": IMAGE},
        first(pooling.max_pool2d_forward),
        IM2COL.tasks[0].cases,
        (
            ("", "-np.inf", "0", "takes the padding for 0: it counts as −∞ and never wins"),
            ("", "-np.inf)\n    return np.max", "np.inf)\n    return np.min", "is the smallest value of each window, not the greatest"),
            ("", "-np.inf)\n    return np.max", "0)\n    return np.mean", "is the mean of each window, not its greatest value"),
            ("", "", "padding = (0, 0)", "ignores the padding"),
            ("", "", "stride = (1, 1)", "ignores the stride"),
            ("", "", "stride = kernel", "moves by the size of the window, not by the stride"),
            ("", "", "stride = stride[::-1]", "takes the stride as (width, height): it is (height, width)"),
        ),
    ),
    Task(
        max_pool2d_backward,
        {"∂L/∂x": IMAGE},
        lambda x, grad, *window: then(pooling.max_pool2d_forward, pooling.max_pool2d_backward, grad)(x, *window),
        tuple({"x": X, "grad": normal((3, *size, 4)), "kernel": KERNEL, **geometry}
              for geometry, size in zip(GEOMETRIES, SIZES, strict=True)),
        (
            *CROP,
            ("", *OVERWRITTEN[0]),
            ("", "padded[:, r, s] += np.where(chosen == n, grad, 0)", COPY, OVERWRITE),
            ("", "in slices:\n        padded[:, r, s] += np.where(chosen == n, grad, 0)",
             f"in slices[::-1]:\n        {COPY}", OVERWRITE),
            ("", "np.where(chosen == n, grad, 0)", "grad", "goes to every pixel of a window: only its greatest one gets it"),
            ("", "np.where(chosen == n, grad, 0)", "grad / len(slices)",
             "is shared by all pixels of a window, as in average pooling: the greatest one gets it all"),
            ("", "pad(x, padding, -np.inf)", "pad(x, padding)",
             "has lost gradient to the padding: the border counts as −∞ and never wins"),
            ("", "np.argmax", "np.argmin", "goes to the smallest pixel of each window, not to the greatest"),
            ("", "np.where(chosen == n, grad, 0)", "(chosen == n)", "is missing the factor g: each winner gets 1"),
        ),
        traps=(({"x": np.round(X / 2), "grad": normal((3, 4, 4, 4)), "kernel": KERNEL, **GEOMETRIES[0]},
                "where values in a window are equal: the first of them, row by row, gets the whole gradient"),),
        loss=lambda forward, x, grad, *_, **window: (forward(x, *window.values()) * grad).sum(),
        by=("x",),
    ),
))

SMOOTHING: tuple[Mistake, ...] = (
    *AXIS,
    ("", "", "label_smoothing = 0.0", "ignores the label smoothing"),
    ("", "+ smoothing / classes", "+ smoothing / (classes - 1) * (1 - hot)",
     "spreads ε over the wrong classes only: every class gets ε / K, the label's too"),
    ("", " + smoothing / classes", "", "is missing the ε / K of every class: q = (1 − ε) h + ε / K"),
    ("", "(1 - smoothing) * hot", "hot", "is missing the factor 1 − ε of the label: q = (1 − ε) h + ε / K"),
)
SMOOTH = tuple({"logits": LOGITS, "labels": LABELS, "label_smoothing": smoothing} for smoothing in (0.0, 0.3))
LARGE_SMOOTH = {"logits": LARGE, "labels": LABELS, "label_smoothing": 0.3}
CROSS_ENTROPY = Exercise(
    "softmax cross-entropy", "cross_entropy_forward and cross_entropy_backward in custom_backend/functional/loss.py", (
    Task(
        cross_entropy_forward,
        {"L": ""},
        first(loss.cross_entropy_forward),
        SMOOTH,
        (
            *SMOOTHING,
            ("", " / len(labels)", "", "is the sum over the batch: expected is the mean"),
            ("", " / len(labels)", " / logits.size", "is divided by K · N: expected is the mean over the N samples"),
            ("", "return -", "return ", "has the wrong sign: the minus of − Σ q log p"),
        ),
        helpers=(log_softmax, target),
        traps=((LARGE_SMOOTH, OVERFLOW),),
    ),
    Task(
        cross_entropy_backward,
        {"∂L/∂z": "class, sample"},
        then(loss.cross_entropy_forward, loss.cross_entropy_backward),
        SMOOTH,
        (
            *SMOOTHING,
            ("", " / len(labels)", "", "is missing the factor 1 / N: L is the mean over the batch"),
            ("", " / len(labels)", " / logits.size", "is divided by K · N: expected is 1 / N"),
            ("", " - target(logits, labels, label_smoothing)", "", "is p / N: the target q must be taken off"),
        ),
        helpers=(log_softmax, target),
        traps=((LARGE_SMOOTH, OVERFLOW),),
        loss=lambda forward, *_, **arguments: forward(*arguments.values()),
        by=("logits",),
    ),
))

FOCAL = tuple({"logits": LOGITS, "labels": LABELS, "alpha": a, "gamma": g} for a, g in ((0.25, 2.0), (0.7, 0.5)))
FOCAL_LOSS = Exercise(
    "focal loss", "focal_loss_forward and focal_loss_backward in custom_backend/functional/loss.py", (
    Task(
        focal_loss_forward,
        {"L": ""},
        first(loss.focal_loss_forward),
        FOCAL,
        (
            *AXIS,
            ("", "(-np.expm1(log_pt)) ** gamma", "np.exp(log_pt) ** gamma",
             "weights by p_t^γ: expected is (1 − p_t)^γ, so that sure samples count less"),
            ("", "(-np.expm1(log_pt)) ** gamma", "1", "is missing the factor (1 − p_t)^γ: this is α · cross-entropy"),
            ("", "(-np.expm1(log_pt)) ** gamma", "(-np.expm1(log_pt)) * gamma", "multiplies by γ: it is an exponent"),
            ("", "-alpha * ", "-", "is missing the factor α"),
            ("", "np.mean", "np.sum", "is the sum over the batch: expected is the mean"),
            ("", "-alpha", "alpha", "has the wrong sign: the minus of − α (1 − p_t)^γ log p_t"),
        ),
        helpers=(log_softmax,),
        traps=((SURE, OVERFLOW),),
    ),
    Task(
        focal_loss_backward,
        {"∂L/∂z": "class, sample"},
        then(loss.focal_loss_forward, loss.focal_loss_backward),
        FOCAL,
        (
            *AXIS,
            ("", "(1 - gamma * pt * ratio)", "1",
             "treats (1 − p_t)^γ as a constant: it depends on z too, which gives the second term of dL/dℓ"),
            ("", "u**gamma * (1 - gamma * pt * ratio)", "-(u**gamma) * gamma * pt * ratio",
             "is missing the first term of dL/dℓ, (1 − p_t)^γ"),
            ("", "gamma * pt * ratio", "gamma * ratio", "is missing p_t in the second term of dL/dℓ: dp_t/dℓ = p_t"),
            ("", "1 - gamma", "1 + gamma", "has the wrong sign in the second term of dL/dℓ"),
            ("", "-alpha * ", "-", "is missing the factor α"),
            ("", " / len(labels)", "", "is missing the factor 1 / N: L is the mean over the batch"),
        ),
        helpers=(log_softmax,),
        traps=((SURE, "where p_t is rounded to 1 or logits are 1000: with γ < 1, (1 − p_t)^(γ−1) is infinite there, and "
                "0 · ∞ is NaN; the gradient is 0"),),
        loss=lambda forward, *_, **arguments: forward(*arguments.values()),
        by=("logits",),
    ),
))

SELU_BRANCH = "ALPHA * np.expm1(np.minimum(x, 0))"
SELU = Exercise("SELU, forward and backward", "selu_forward and selu_backward in custom_backend/functional/activation.py", (
    Task(
        selu_forward,
        {"y": "row, column"},
        first(activation.selu_forward),
        ({"x": LOGITS},),
        (
            ("", "SCALE * ", "", "is missing the factor λ: this is ELU"),
            ("", "ALPHA * ", "", "is missing the factor α where x ≤ 0"),
            ("", "np.expm1", "np.exp", "is missing the − 1 of eˣ − 1 where x ≤ 0"),
            ("", f"SCALE * np.where(x > 0, x, {SELU_BRANCH}", f"np.where(x > 0, SCALE * x, {SELU_BRANCH}",
             "is missing the factor λ where x ≤ 0: it multiplies both sides"),
            ("", f"SCALE * np.where(x > 0, x, {SELU_BRANCH}", f"np.where(x > 0, x, SCALE * {SELU_BRANCH}",
             "is missing the factor λ where x > 0: it multiplies both sides"),
            ("", f"x, {SELU_BRANCH}", "ALPHA * np.expm1(x), x", "has its two sides swapped: y = λ x is for x > 0"),
        ),
        traps=(({"x": np.array([1000.0, 900.0, -900.0])},
                "for x = 1000, where eˣ is infinite (and 0 · ∞ is NaN): take e^min(x, 0) and choose with np.where"),),
    ),
    Task(
        selu_backward,
        {"∂L/∂x": "row, column"},
        lambda x, grad: then(activation.selu_forward, activation.selu_backward, grad)(x),
        ({"x": LOGITS, "grad": normal((3, 4))},),
        (
            ("", "SCALE * ", "", "is missing the factor λ"),
            ("", "ALPHA * ", "", "is missing the factor α where x ≤ 0"),
            ("", "np.exp", "np.expm1", "has y itself where x ≤ 0: the derivative of eˣ − 1 is eˣ"),
            ("", " * np.exp(np.minimum(x, 0))", "", "is missing the factor eˣ where x ≤ 0"),
            ("", "ALPHA * np.exp(np.minimum(x, 0))", "0", "is 0 where x ≤ 0, as ReLU's: it is g λ α eˣ there"),
            ("", "x > 0, 1,", "x > 0, x,", "has x where x > 0: the derivative of λ x is λ"),
            ("", "grad * ", "", "is missing the factor g: this is dy/dx"),
        ),
        traps=(({"x": np.array([1000.0, 900.0, -900.0]), "grad": np.ones(3)},
                "for x = 1000, where eˣ is infinite (and 0 · ∞ is NaN): take e^min(x, 0) and choose with np.where"),),
        loss=lambda forward, x, grad: (forward(x) * grad).sum(),
        by=("x",),
    ),
))

SCALED = " / max(1 - p, 1e-300)"
MASK: tuple[Mistake, ...] = (
    ("", SCALED, "", "is missing the factor 1 / (1 − p) of what is kept"),
    ("", SCALED, " / p", "is divided by p: expected is 1 − p, the part that is kept"),
    ("", SCALED, " * (1 - p)", "is multiplied by 1 − p: expected is a division"),
    ("", "(u >= p)", "(u < p)", "keeps what should be dropped: an element is dropped where u < p"),
    ("", "(u >= p)", "(u[..., :1] >= p)", "drops the same elements in every sample: each element has its own u"),
    ("", " * (u >= p)", "", "is missing the mask: what is dropped is 0"),
)
UNIFORM = np.random.default_rng(SEED).random((3, 4, 5), np.float32).astype(float)
DROPOUT_X = normal((3, 4, 5))
DROPOUT = Exercise("dropout", "dropout_forward and dropout_backward in custom_backend/functional/dropout.py", (
    Task(
        dropout_forward,
        {"y": "row, column, sample"},
        library_dropout,
        tuple({"x": DROPOUT_X, "u": UNIFORM, "p": 0.3, "training": training} for training in (True, False)),
        (
            *MASK,
            ("", "else x", "else x * (1 - p)", "is scaled in evaluation: inverted dropout does nothing there"),
            ("", f"{SCALED} if training else x", " if training else x * (1 - p)",
             "is scaled by 1 − p in evaluation: inverted dropout divides by 1 − p in training in place of that"),
            ("", " if training else x", "", "is dropped in evaluation too: y = x there"),
        ),
        traps=(({"x": DROPOUT_X, "u": UNIFORM, "p": 1.0, "training": True},
                "for p = 1, where 1 / (1 − p) is infinite (and 0 · ∞ is NaN): y is 0 then"),),
    ),
    Task(
        dropout_backward,
        {"∂L/∂x": "row, column, sample"},
        lambda grad, u, p: dropout.dropout_backward(dropout.dropout_forward(grad, p, SEED)[1], grad),
        ({"grad": normal((3, 4, 5)), "u": UNIFORM, "p": 0.3},),
        MASK,
        traps=(({"grad": normal((3, 4, 5)), "u": UNIFORM, "p": 1.0},
                "for p = 1, where 1 / (1 − p) is infinite (and 0 · ∞ is NaN): ∂L/∂x is 0 then"),),
        loss=lambda forward, grad, u, p, x: (forward(x, u, p, True) * grad).sum(),
        by=("x",),
    ),
))

ADAM_EXERCISE = Exercise("a step of Adam", "adam_step in custom_backend/optim.py", (
    Task(
        adam_step,
        {"parameter": "row, column", "exp_avg": "row, column", "exp_avg_sq": "row, column"},
        library_adam,
        tuple(ADAM | {"step": step, "lr": 0.1, "betas": (0.8, 0.95), "eps": 0.1, "weight_decay": decay}
              for step, decay in ((1, 0.0), (5, 0.3))),
        (
            ("parameter", "m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)", "m, v",
             "is missing the bias correction: m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ)"),
            ("parameter", "m / (1 - betas[0] ** step)", "m", "is missing the bias correction of m: m̂ = m / (1 − β₁ᵗ)"),
            ("parameter", "v / (1 - betas[1] ** step)", "v", "is missing the bias correction of v: v̂ = v / (1 − β₂ᵗ)"),
            ("parameter", "** step", "** (step + 1)", "corrects the bias with t + 1: t is 1 in the first step already"),
            ("parameter", "** step", "** (step - 1)", "corrects the bias with t − 1: t is 1 in the first step already"),
            ("parameter", "** step", "* step", "corrects the bias with β t: expected is the power βᵗ"),
            ("parameter", "(np.sqrt(v_hat) + eps)", "np.sqrt(v_hat + eps)", "has ε inside the root: it is √v̂ + ε"),
            ("parameter", " + eps", "", "is missing ε in the denominator"),
            ("parameter", "np.sqrt(v_hat)", "v_hat", "is missing the root of v̂"),
            ("parameter", "parameter - lr", "parameter + lr", "walks uphill: the step is taken off"),
            ("parameter", "lr * m_hat", "lr * g", "steps along the gradient g: expected is its average m̂"),
            ("parameter", "g = grad + weight_decay * parameter",
             "g = grad\n    parameter = (1 - lr * weight_decay) * parameter",
             "has decoupled weight decay, which is AdamW: here it is added to the gradient"),
            ("", " + weight_decay * parameter", "", "does not see the weight decay: g = grad + weight_decay · parameter"),
            ("", "+ eps), m, v", "+ eps), m_hat, v_hat", "is returned with the bias correction: return it without the hat"),
            ("", "betas[0] * exp_avg + (1 - betas[0]) * g", "(1 - betas[0]) * exp_avg + betas[0] * g",
             "has β₁ and 1 − β₁ swapped"),
            ("", "betas[1] * exp_avg_sq + (1 - betas[1]) * g", "(1 - betas[1]) * exp_avg_sq + betas[1] * g",
             "has β₂ and 1 − β₂ swapped"),
            ("", "(1 - betas[0]) * g\n", "g\n", "is missing the factor 1 − β₁ of g"),
            ("", "(1 - betas[1]) * g", "g", "is missing the factor 1 − β₂ of g²"),
            ("", "g**2", "g", "averages g where it should average g²"),
            ("", "", "betas = betas[::-1]", "has β₁ and β₂ in the wrong order"),
        ),
    ),
))
# fmt: on

EXERCISES = {
    "im2col": IM2COL,
    "conv": CONV,
    "batch_norm": BATCH_NORM,
    "max_pool": MAX_POOL,
    "cross_entropy": CROSS_ENTROPY,
    "focal_loss": FOCAL_LOSS,
    "selu": SELU,
    "dropout": DROPOUT,
    "adam": ADAM_EXERCISE,
}
