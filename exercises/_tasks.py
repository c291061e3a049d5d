"""What `grade.py` checks in each exercise: the library's results, inputs to try, and how to make mistakes."""

import inspect
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from custom_backend import optim
from custom_backend.functional import activation, convolution, dropout, loss, normalization, pooling

A = Any  # an array, or what a library function takes
Case = Mapping[str, Any]  # arguments, in the order of the function's


@dataclass(frozen=True)
class Task:
    """A function to fill in.

    `solution` is right, and edits of it and of its `helpers` make the mistakes; students' results are
    compared with the `library`'s. `results` maps the name of each result to its axes ("": a number).
    `cases` are arguments to try, `traps` those at which an otherwise right function may fail, each with
    the reason. `loss(forward, **case)` is a number whose derivatives by the arguments `by` are the
    results; `forward` is the function of the exercise's first task.
    """

    solution: Callable[..., Any]
    library: Callable[..., Any]
    results: Mapping[str, str]
    cases: tuple[Case, ...]
    helpers: tuple[Callable[..., Any], ...] = ()
    traps: tuple[tuple[Case, str], ...] = ()
    loss: Callable[..., Any] | None = None
    by: tuple[str, ...] = ()


class Exercise:
    """What a file is about, the functions to fill in, and where the library solves them."""

    def __init__(self, title: str, file: str, *tasks: Task) -> None:
        names = " and ".join(task.solution.__name__ for task in tasks)
        self.title, self.where, self.tasks = title, f"{names} in custom_backend/{file}.py", tasks


MISTAKES: dict[str, list[list[str]]] = tomllib.loads(
    Path(__file__).with_name("_mistakes.toml").read_text("utf-8")
)

# ---- solutions, written for mistakes to be made in them


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


def inside(x: A, kernel: A, stride: A, padding: A) -> A:
    whole = im2col(np.ones_like(x[:1]), kernel, stride, padding).all(axis=0)
    return whole.reshape(1, places(x.shape, kernel, stride, padding)[0][0].stop // stride[0], -1, x.shape[3])


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
    x: A, weight: A, bias: A, running_mean: A, running_var: A, momentum: A, eps: A, training: A
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
    parameter: A, grad: A, exp_avg: A, exp_avg_sq: A, step: A, lr: A, betas: A, eps: A, weight_decay: A
) -> A:
    g = grad + weight_decay * parameter
    m = betas[0] * exp_avg + (1 - betas[0]) * g
    v = betas[1] * exp_avg_sq + (1 - betas[1]) * g**2
    m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return parameter - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


# ---- the library's results

plain = inspect.unwrap  # the formula, where a call would choose a faster kernel


def first(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The value alone, without what backward needs."""
    return lambda *arguments: plain(forward)(*arguments)[0]


def then(
    forward: Callable[..., Any], backward: Callable[..., Any], place: int | None = None
) -> Callable[..., Any]:
    """The gradient as a function of the arguments of `forward`, with `grad` at this place among them."""

    def gradient(*arguments: A) -> A:
        inputs = [value for number, value in enumerate(arguments) if number != place]
        saved = plain(forward)(*inputs)[1]
        return plain(backward)(saved) if place is None else plain(backward)(saved, arguments[place])

    return gradient


def col2im_loss(forward: A, x: A, columns: A, shape: A, **window: A) -> A:
    """Σ columns · im2col(x)."""
    return (forward(x.reshape(shape), *window.values()) * columns).sum()


def convolve(x: A, weight: A, stride: A, padding: A, bias: A = None) -> A:
    """The library's forward pass, with a bias."""
    bias = np.zeros(len(weight)) if bias is None else bias
    return plain(convolution.conv2d_forward)(x, weight, bias, stride, padding)


def normalise(x: A, weight: A, eps: A, bias: A = None, statistics: A = None) -> A:
    """The library's forward pass in training, or with given statistics."""
    norm = normalization.Norm(weight, 0 * weight if bias is None else bias, eps, statistics)
    return plain(normalization.batch_norm_forward)(x, norm)


def normalise_and_track(
    x: A, weight: A, bias: A, running_mean: A, running_var: A, momentum: A, eps: A, training: A
) -> A:
    """The library's y, and the running statistics as its layer moves them."""
    if not training:
        return normalise(x, weight, eps, bias, (running_mean, running_var))[0], running_mean, running_var
    y, saved = normalise(x, weight, eps, bias)
    var = saved.variance * x[0].size / (x[0].size - 1)
    return (
        y,
        running_mean + momentum * (saved.mean - running_mean),
        running_var + momentum * (var - running_var),
    )


def batch_norm_loss(forward: A, x: A, weight: A, grad: A, eps: A, bias: A = None) -> A:
    """Σ g y."""
    zero = 0 * weight
    return (forward(x, weight, zero if bias is None else bias, zero, zero, 0.1, eps, True)[0] * grad).sum()


def drop(x: A, _: A, p: A, training: A) -> A:
    """The library's y; it draws u itself, from a seed: `UNIFORM`."""
    return dropout.dropout_forward(x, p, SEED)[0] if training else x


def adam(parameter: A, grad: A, exp_avg: A, exp_avg_sq: A, step: A, *rule: A) -> A:
    """The library's step, which works in place."""
    parameter, exp_avg, exp_avg_sq = parameter.copy(), exp_avg.copy(), exp_avg_sq.copy()
    lr, betas, eps, decay = rule
    rule_of_library = optim.AdamRule(lr, betas, eps, decay, False)
    plain(optim.adam_step)(parameter, grad, exp_avg, exp_avg_sq, step, rule_of_library)
    return parameter, exp_avg, exp_avg_sq


# ---- what is tried

rng, SEED = np.random.default_rng(0), 7
normal = rng.standard_normal
X, KERNEL = normal((3, 6, 5, 4)), (3, 2)  # no two axes of equal length, so that a transposition shows
WINDOWS: list[dict[str, Any]] = [
    {"stride": stride, "padding": padding}
    for stride, padding in (((1, 1), (0, 0)), ((1, 1), (1, 1)), ((2, 1), (0, 1)), ((3, 2), (0, 0)))
]


def moved(arrays: Callable[[int, int], dict[str, Any]]) -> tuple[Case, ...]:
    """A case for each way in which the window moves; the arrays depend on how many windows there are."""
    return tuple(arrays(*convolution.output_size((6, 5), KERNEL, **window)) | window for window in WINDOWS)


FLAT, IMAGE = normal((3, 4)), "channel, row, column, sample"
NORM = {
    "x": 1.5 * X + 1,
    "weight": normal(3) + 2,
    "bias": normal(3),
    "running_mean": normal(3),
    "running_var": rng.random(3) + 0.5,
    "momentum": 0.2,
    "eps": 0.1,
}
CLASSES = {"logits": 2 * normal((3, 4)), "labels": np.array([2, 0, 0, 1])}
LARGE = {
    "logits": 1000.0 * np.array([[1, 0, -1, 1], [0, 1, -1, 1], [1, 0, -1, 0]]),
    "labels": np.array([0, 1, 0, 2]),
}
SMOOTHED = tuple({**CLASSES, "label_smoothing": smoothing} for smoothing in (0.0, 0.3))
FOCAL = tuple({**CLASSES, "alpha": alpha, "gamma": gamma} for alpha, gamma in ((0.25, 2.0), (0.7, 0.5)))
OVERFLOW = (
    "for logits of 1000, where e^z is infinite: take the greatest logit of each sample off first, and use "
    "log p = z − max − log Σ e^(z − max), not the log of a p that is rounded to 0"
)
SURE = (
    "for logits of 1000, where p_t is rounded to 1: with γ < 1, (1 − p_t)^(γ−1) is infinite and 0 · ∞ is NaN"
)
WIDE, LOW = np.array([1000.0, 900.0, -900.0]), np.array([-25.0, -30.0, -40.0])
CANCELLED = "for x far below −12, where y + λ α loses its digits, and is 0 at last: take λ α eˣ from x itself"
EXPONENTIAL = (
    "for x = 1000, where eˣ is infinite and 0 · ∞ is NaN: choose with np.where, not by products with 0"
)
UNIFORM = np.random.default_rng(SEED).random((3, 4, 5), np.float32).astype(float)
ACTIVATIONS = normal((3, 4, 5))
ALL_DROPPED = "for p = 1, where 1 / (1 − p) is infinite and 0 · ∞ is NaN: everything is 0 then"
MOMENTS = {
    "parameter": FLAT,
    "grad": normal((3, 4)),
    "exp_avg": normal((3, 4)),
    "exp_avg_sq": rng.random((3, 4)),
}

EXERCISES = {
    "im2col": Exercise(
        "im2col and its transpose, col2im",
        "functional/convolution",
        Task(
            im2col,
            plain(convolution.im2col),
            {"columns": "place in the kernel, window"},
            moved(lambda *_: {"x": X, "kernel": KERNEL}),
        ),
        Task(
            col2im,
            plain(convolution.col2im),
            {"∂L/∂x": IMAGE},
            moved(lambda h, w: {"columns": normal((18, h * w * 4)), "shape": X.shape, "kernel": KERNEL}),
            loss=col2im_loss,
            by=("x",),
        ),
    ),
    "conv": Exercise(
        "convolution, backward",
        "functional/convolution",
        Task(
            conv2d_backward,
            then(convolve, convolution.conv2d_backward, place=2),
            {
                "∂L/∂x": IMAGE,
                "∂L/∂W": "output channel, channel, kernel row, kernel column",
                "∂L/∂b": "output channel",
            },
            moved(lambda h, w: {"x": X, "weight": normal((7, 3, *KERNEL)), "grad": normal((7, h, w, 4))}),
            helpers=(im2col, col2im),
            loss=lambda _, grad, **arguments: (convolve(**arguments)[0] * grad).sum(),
            by=("x", "weight", "bias"),
        ),
    ),
    "batch_norm": Exercise(
        "batch normalisation, forward and backward",
        "functional/normalization",
        Task(
            batch_norm_forward,
            normalise_and_track,
            {"y": IMAGE, "running_mean": "channel", "running_var": "channel"},
            (NORM | {"training": True}, NORM | {"training": False}),
        ),
        Task(
            batch_norm_backward,
            then(normalise, normalization.batch_norm_backward, place=2),
            {"∂L/∂x": IMAGE, "∂L/∂γ": "channel", "∂L/∂β": "channel"},
            ({"x": NORM["x"], "weight": NORM["weight"], "grad": normal(X.shape), "eps": 0.1},),
            loss=batch_norm_loss,
            by=("x", "weight", "bias"),
        ),
    ),
    "max_pool": Exercise(
        "max-pooling, forward and backward",
        "functional/pooling",
        Task(
            max_pool2d_forward,
            first(pooling.max_pool2d_forward),
            {"y": IMAGE},
            moved(lambda *_: {"x": X, "kernel": KERNEL}),
        ),
        Task(
            max_pool2d_backward,
            then(pooling.max_pool2d_forward, pooling.max_pool2d_backward, place=1),
            {"∂L/∂x": IMAGE},
            moved(lambda h, w: {"x": X, "grad": normal((3, h, w, 4)), "kernel": KERNEL}),
            traps=(
                (
                    {"x": np.round(X / 2), "grad": normal((3, 4, 4, 4)), "kernel": KERNEL, **WINDOWS[0]},
                    "where values in a window are equal: the first, row by row, gets the whole gradient",
                ),
            ),
            loss=lambda forward, x, grad, **window: (forward(x, *window.values()) * grad).sum(),
            by=("x",),
        ),
    ),
    "cross_entropy": Exercise(
        "softmax cross-entropy, forward and backward",
        "functional/loss",
        Task(
            cross_entropy_forward,
            first(loss.cross_entropy_forward),
            {"L": ""},
            SMOOTHED,
            helpers=(log_softmax, target),
            traps=(({**LARGE, "label_smoothing": 0.3}, OVERFLOW),),
        ),
        Task(
            cross_entropy_backward,
            then(loss.cross_entropy_forward, loss.cross_entropy_backward),
            {"∂L/∂z": "class, sample"},
            SMOOTHED,
            helpers=(log_softmax, target),
            traps=(({**LARGE, "label_smoothing": 0.3}, OVERFLOW),),
            loss=lambda forward, **arguments: forward(*arguments.values()),
            by=("logits",),
        ),
    ),
    "focal_loss": Exercise(
        "focal loss, forward and backward",
        "functional/loss",
        Task(
            focal_loss_forward,
            first(loss.focal_loss_forward),
            {"L": ""},
            FOCAL,
            helpers=(log_softmax,),
            traps=(({**LARGE, "alpha": 0.7, "gamma": 0.5}, OVERFLOW),),
        ),
        Task(
            focal_loss_backward,
            then(loss.focal_loss_forward, loss.focal_loss_backward),
            {"∂L/∂z": "class, sample"},
            FOCAL,
            helpers=(log_softmax,),
            traps=(({**LARGE, "alpha": 0.7, "gamma": 0.5}, SURE),),
            loss=lambda forward, **arguments: forward(*arguments.values()),
            by=("logits",),
        ),
    ),
    "selu": Exercise(
        "SELU, forward and backward",
        "functional/activation",
        Task(
            selu_forward,
            first(activation.selu_forward),
            {"y": "row, column"},
            ({"x": 2 * FLAT},),
            traps=(({"x": WIDE}, EXPONENTIAL),),
        ),
        Task(
            selu_backward,
            then(activation.selu_forward, activation.selu_backward, place=1),
            {"∂L/∂x": "row, column"},
            ({"x": 2 * FLAT, "grad": normal((3, 4))},),
            traps=(
                ({"x": WIDE, "grad": np.ones(3)}, EXPONENTIAL),
                ({"x": LOW, "grad": np.ones(3)}, CANCELLED),
            ),
            loss=lambda forward, x, grad: (forward(x) * grad).sum(),
            by=("x",),
        ),
    ),
    "dropout": Exercise(
        "dropout, forward and backward",
        "functional/dropout",
        Task(
            dropout_forward,
            drop,
            {"y": "row, column, sample"},
            tuple({"x": ACTIVATIONS, "u": UNIFORM, "p": 0.3, "training": mode} for mode in (True, False)),
            traps=(({"x": ACTIVATIONS, "u": UNIFORM, "p": 1.0, "training": True}, ALL_DROPPED),),
        ),
        Task(
            dropout_backward,
            lambda grad, _, p: dropout.dropout_backward(dropout.dropout_forward(grad, p, SEED)[1], grad),
            {"∂L/∂x": "row, column, sample"},
            ({"grad": ACTIVATIONS, "u": UNIFORM, "p": 0.3},),
            traps=(({"grad": ACTIVATIONS, "u": UNIFORM, "p": 1.0}, ALL_DROPPED),),
            loss=lambda forward, x, grad, **mask: (forward(x, *mask.values(), True) * grad).sum(),
            by=("x",),
        ),
    ),
    "adam": Exercise(
        "a step of Adam",
        "optim",
        Task(
            adam_step,
            adam,
            {"parameter": "row, column", "exp_avg": "row, column", "exp_avg_sq": "row, column"},
            tuple(
                {
                    **MOMENTS,
                    "step": step,
                    "lr": 0.1,
                    "betas": (0.8, 0.95),
                    "eps": 0.1,
                    "weight_decay": decay,
                }
                for step, decay in ((1, 0.0), (5, 0.3))
            ),
        ),
    ),
}
