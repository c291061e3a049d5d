"""A small residual network: blocks that add to what passes by."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from torch import Tensor
from torch import nn as torch_nn

from lightning_modules.networks.blocks import Shape, initialise


class PreActivation(torch_nn.Module):
    """Normalisation, ReLU and a 3×3 convolution, twice, and a shortcut around them.

    Source: He et al., Identity Mappings in Deep Residual Networks, 2016. Where the shape changes, the
    shortcut is a 1×1 convolution of every second pixel, taken first: with stride 2 on few channels in
    channels_last, torch 2.14 has wrong gradients.
    """

    def __init__(self, nn: Any, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.activate = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.body = nn.Sequential(first, nn.BatchNorm2d(outputs), nn.ReLU(), second)
        changes = stride > 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, ⌈H / stride⌉, ⌈W / stride⌉)."""
        active = self.activate(x)
        y: Tensor = self.body(active)
        return y + (self.shortcut(active[..., :: self.stride, :: self.stride]) if self.shortcut else x)


def resnet(
    nn: Any,
    image_shape: Shape,
    num_classes: int,
    *,
    widths: Annotated[
        Sequence[int], "[1, inf)", "channels of each stage; each but the first halves the image"
    ],
    blocks: Annotated[int, "[1, inf)", "residual blocks of each stage"],
    dropout: Annotated[float, "[0, 1)", "probability of zeroing a feature before the classifier"],
    init: Annotated[Literal["torch", "he"], "initial weights: torch's default or He's normal"],
) -> torch_nn.Module:
    """A 3×3 convolution, stages of residual blocks, global average pooling and a linear classifier."""
    channels = widths[0]
    layers: list[torch_nn.Module] = [nn.Conv2d(image_shape[0], channels, 3, padding=1, bias=False)]
    for stage, width in enumerate(widths):
        for block in range(blocks):
            layers.append(PreActivation(nn, channels, width, stride=2 if stage > 0 and block == 0 else 1))
            channels = width
    layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network: torch_nn.Module = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(channels, num_classes))
    initialise(network, init)
    return network
