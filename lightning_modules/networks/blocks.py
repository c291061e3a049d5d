"""What the architectures are made of: convolutions, a last pooling and fully connected layers."""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, TypedDict, Unpack

from torch import nn as torch_nn

from experiment.errors import UserError

Shape = tuple[int, int, int]
"""(channels, height, width) of one image or feature map."""


class Knobs(TypedDict):
    """What every architecture lets the user choose: the keys of ``model`` in the configuration."""

    widths: Annotated[Sequence[int], "[1, inf)", "output channels of each convolution"]
    pooling: Annotated[
        Literal["adaptive_avg", "fixed_avg", "fixed_max"], "last pooling before the classifier"
    ]
    dropout: Annotated[float, "[0, 1)", "probability of zeroing an activation in the classifier"]
    batch_norm: Annotated[bool, "batch normalisation after every convolution"]
    activation: Annotated[Literal["relu", "leaky_relu", "selu", "sigmoid"], "nonlinearity of every layer"]
    init: Annotated[Literal["torch", "he"], "initial weights: torch's default or He's normal"]


def conv_classifier(
    nn: Any,
    image_shape: Shape,
    num_classes: int,
    *,
    pooled: Collection[int],
    hidden: Sequence[int],
    **knobs: Unpack[Knobs],
) -> torch_nn.Module:
    """3×3 convolutions, the last pooling and fully connected layers in one flat ``Sequential``.

    Dropout precedes each fully connected layer but the first, and an only one.

    Args:
        nn: namespace of layers: ``torch.nn`` or another engine's.
        image_shape: (channels, height, width) of the images.
        num_classes: number of logits.
        pooled: numbers of the convolutions, counted from 1, that a 2×2 max-pooling follows.
        hidden: features of the fully connected layers before the logits.
        **knobs: the user's choices.

    Returns:
        A module that maps (N, *image_shape) images to (N, num_classes) logits.

    Raises:
        UserError: if the images are too small for the poolings.
    """
    layers: OrderedDict[str, torch_nn.Module] = OrderedDict()
    channels, height, width = image_shape
    for number, outputs in enumerate(knobs["widths"], start=1):
        # the normalisation has a bias of its own
        layers[f"conv{number}"] = nn.Conv2d(channels, outputs, 3, padding=1, bias=not knobs["batch_norm"])
        if knobs["batch_norm"]:
            layers[f"norm{number}"] = nn.BatchNorm2d(outputs)
        layers[f"activation{number}"] = activation_layer(nn, knobs["activation"])
        channels = outputs
        if number in pooled:
            if min(height, width) < 2:
                raise UserError(
                    f"the network is too deep for images of {image_shape[1]}×{image_shape[2]} pixels: "
                    f"nothing is left to pool after convolution {number} of {len(knobs['widths'])}. "
                    "Give fewer model.widths or larger images"
                )
            layers[f"pool{number}"] = nn.MaxPool2d(2)
            height, width = height // 2, width // 2

    if knobs["pooling"] == "adaptive_avg":
        layers["pooling"], height, width = nn.AdaptiveAvgPool2d(1), 1, 1
    elif min(height, width) < 2:
        raise UserError(
            f"model.pooling={knobs['pooling']} needs feature maps of at least 2×2, but {height}×{width} is "
            "left. Use model.pooling=adaptive_avg, fewer model.widths or larger images"
        )
    else:
        layers["pooling"] = nn.AvgPool2d(2) if knobs["pooling"] == "fixed_avg" else nn.MaxPool2d(2)
        height, width = height // 2, width // 2
    layers["flatten"] = nn.Flatten()

    sizes = [channels * height * width, *hidden, num_classes]
    for number, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        if number > 1 or not hidden:
            layers[f"dropout{number}"] = nn.Dropout(knobs["dropout"])
        layers[f"fc{number}"] = nn.Linear(inputs, outputs)
        if number <= len(hidden):
            layers[f"fc_activation{number}"] = activation_layer(nn, knobs["activation"])
    network: torch_nn.Module = nn.Sequential(layers)
    initialise(network, knobs["init"])
    return network


def pool_early(depth: int) -> set[int]:
    """Convolutions 1, 2, 4, 6, … of ``depth``, without the last, which has a pooling of its own."""
    return {1, *range(2, depth, 2)} - {depth}


def activation_layer(nn: Any, name: str) -> torch_nn.Module:
    """The activation ``relu``, ``leaky_relu`` (slope 0.01), ``selu`` or ``sigmoid``."""
    layers = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "selu": nn.SELU, "sigmoid": nn.Sigmoid}
    layer: torch_nn.Module = layers[name]()
    return layer


def initialise(network: torch_nn.Module, kind: str) -> None:
    """Set the weights in place: ``torch`` leaves torch's default, ``he`` draws He's normal, biases zero.

    Source: He et al., Delving Deep into Rectifiers, 2015, eq. 10 (fan in).
    """
    if kind == "torch":
        return
    for layer in network.modules():
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        if isinstance(weight, torch_nn.Parameter) and weight.ndim >= 2:
            torch_nn.init.kaiming_normal_(weight, nonlinearity="relu")
            if isinstance(bias, torch_nn.Parameter):
                torch_nn.init.zeros_(bias)
