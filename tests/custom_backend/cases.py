"""Every layer beside its torch reference, in shapes drawn by hypothesis."""

from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

import custom_backend as cb


class Case(NamedTuple):
    layer: cb.Layer
    reference: nn.Module
    shape: tuple[int, ...]  # of the input, batch first


def _window(draw: Any) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]:
    """An image size, and a kernel, stride and padding that fit it."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    size = tuple(draw(st.integers(max(1, k - 2 * p), 9)) for k, p in zip(kernel, padding, strict=True))
    return size, kernel, stride, padding


@st.composite
def conv(draw: Any) -> Case:
    """Strides, borders, dilation, groups, as many as channels too, and "same" with even kernels."""
    size, kernel, stride, padding = _window(draw)
    groups, dilation = (
        draw(st.sampled_from([1, 1, 2, 3])),
        draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (2, 3)])),
    )
    inputs, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    size = tuple(
        max(n, (k - 1) * d + 1 - 2 * p) for n, k, d, p in zip(size, kernel, dilation, padding, strict=True)
    )
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if draw(st.sampled_from([False, False, True])):
        settings |= {"padding": "same", "stride": 1}
    settings["bias"] = draw(st.booleans())
    return Case(
        cb.Conv2d(inputs, outputs, kernel, **settings),
        nn.Conv2d(inputs, outputs, kernel, **settings),
        (draw(st.integers(1, 3)), inputs, *size),
    )


@st.composite
def conv3x3(draw: Any) -> Case:
    """What `kernels.winograd` computes: even and odd sizes, one pixel, padding up to the kernel's reach."""
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    size = tuple(draw(st.integers(max(1, 3 - 2 * p), 8)) for p in padding)
    inputs, outputs, batch = (draw(st.integers(1, 4)) for _ in range(3))
    return Case(
        cb.Conv2d(inputs, outputs, 3, padding=padding), nn.Conv2d(inputs, outputs, 3, padding=padding),
        (batch, inputs, *size),
    )  # fmt: skip


@st.composite
def pool(draw: Any) -> Case:
    size, kernel, stride, padding = _window(draw)
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 3)), *size)
    if draw(st.booleans()):
        return Case(cb.MaxPool2d(kernel, stride, padding), nn.MaxPool2d(kernel, stride, padding), shape)
    return Case(cb.AvgPool2d(kernel, stride, padding), nn.AvgPool2d(kernel, stride, padding), shape)


@st.composite
def images(draw: Any) -> tuple[int, ...]:
    return tuple(draw(st.integers(1, limit)) for limit in (4, 4, 9, 9))


@st.composite
def norm(draw: Any) -> Case:
    shape = draw(images().filter(lambda s: s[0] * s[2] * s[3] > 1))
    momentum, eps = draw(st.sampled_from([0.1, 0.5])), draw(st.sampled_from([1e-5, 1e-2]))
    return Case(cb.BatchNorm2d(shape[1], eps, momentum), nn.BatchNorm2d(shape[1], eps, momentum), shape)


class OnChannels(nn.LayerNorm):
    """torch.nn.LayerNorm over the axis after the batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


@st.composite
def per_sample_norm(draw: Any) -> Case:
    batch, height, width = (draw(st.integers(1, 4)) for _ in range(3))
    groups, each = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    channels, eps = groups * each, draw(st.sampled_from([1e-5, 1e-2]))
    image = draw(st.sampled_from([(height, width), ()]))
    if draw(st.booleans()) and each * height * width > 1 and image:
        layer = cb.GroupNorm(channels, eps, groups), nn.GroupNorm(groups, channels, eps)
    else:
        layer = cb.LayerNorm(channels, eps), OnChannels(channels, eps)
    return Case(*layer, (batch, channels, *image))


class Sum(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + (x if self.shortcut is None else self.shortcut(x))


class Joined(nn.ModuleList):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self], dim=1)


@st.composite
def graph(draw: Any) -> Case:
    """Residual connections with and without a layer on the shortcut, and branches that are joined."""
    batch, channels, height, width = (draw(st.integers(2, 4)) for _ in range(4))

    def body(module: Any) -> Any:
        return module.Sequential(
            module.BatchNorm2d(channels), module.ReLU(), module.Conv2d(channels, channels, 3, padding=1)
        )

    layers = {
        "identity": (cb.Residual(body(cb)), Sum(body(nn))),
        "projection": (
            cb.Residual(body(cb), cb.Conv2d(channels, channels, 1)),
            Sum(body(nn), nn.Conv2d(channels, channels, 1)),
        ),
        "branches": (cb.Concat(cb.Tanh(), body(cb)), Joined([nn.Tanh(), body(nn)])),
    }
    layer, reference = layers[draw(st.sampled_from(sorted(layers)))]
    head = (cb.Flatten(), nn.Flatten())
    network = cb.Sequential(layer, head[0]), nn.Sequential(reference, head[1])
    return Case(*network, (batch, channels, height, width))


@st.composite
def norm_act_pool(draw: Any) -> Case:
    shape = draw(images().filter(lambda s: s[0] * s[2] * s[3] > 1))
    slope = draw(st.sampled_from([0.01, 0.3]))
    layers = [cb.BatchNorm2d(shape[1]), cb.LeakyReLU(slope)]
    references = [nn.BatchNorm2d(shape[1]), nn.LeakyReLU(slope)]
    if min(shape[2:]) >= 2 and draw(st.booleans()):
        layers.append(cb.MaxPool2d(2))
        references.append(nn.MaxPool2d(2))
    return Case(cb.Sequential(*layers), nn.Sequential(*references), shape)


@st.composite
def linear(draw: Any) -> Case:
    batch, inputs, outputs = (draw(st.integers(1, 6)) for _ in range(3))
    bias = draw(st.booleans())
    return Case(cb.Linear(inputs, outputs, bias), nn.Linear(inputs, outputs, bias), (batch, inputs))


@st.composite
def pointwise(draw: Any) -> Case:
    layer, reference = draw(
        st.sampled_from(
            [
                (cb.ReLU(), nn.ReLU()),
                (cb.LeakyReLU(), nn.LeakyReLU()),
                (cb.LeakyReLU(2.0), nn.LeakyReLU(2.0)),
                (cb.SELU(), nn.SELU()),
                (cb.Sigmoid(), nn.Sigmoid()),
                (cb.Tanh(), nn.Tanh()),
                (cb.SiLU(), nn.SiLU()),
                (cb.GELU(), nn.GELU()),
                (cb.Softmax(), nn.Softmax(1)),
                (cb.Identity(), nn.Identity()),
                (cb.Flatten(), nn.Flatten()),
                (cb.Dropout(0.0), nn.Dropout(0.0)),
            ]
        )
    )
    return Case(layer, reference, draw(images()))


@st.composite
def log_softmax(draw: Any) -> Case:
    return Case(cb.LogSoftmax(), nn.LogSoftmax(dim=1), (draw(st.integers(1, 4)), draw(st.integers(1, 6))))


@st.composite
def adaptive(draw: Any) -> Case:
    size = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    return Case(cb.AdaptiveAvgPool2d(size), nn.AdaptiveAvgPool2d(size), draw(images()))


CASES = {
    "conv": conv(),
    "conv3x3": conv3x3(),
    "pool": pool(),
    "norm": norm(),
    "norm_act_pool": norm_act_pool(),
    "per_sample_norm": per_sample_norm(),
    "graph": graph(),
    "linear": linear(),
    "pointwise": pointwise(),
    "log_softmax": log_softmax(),
    "adaptive": adaptive(),
}


def state_of(reference: nn.Module) -> dict[str, np.ndarray]:
    """A copy of the reference's state as arrays."""
    return {name: tensor.detach().clone().numpy() for name, tensor in reference.state_dict().items()}


def randomised(reference: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module in `dtype`, every parameter and statistic away from its special initial value."""
    reference = reference.to(dtype)
    with torch.no_grad():
        for name, tensor in reference.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in name else torch.randn_like(tensor))
    return reference
