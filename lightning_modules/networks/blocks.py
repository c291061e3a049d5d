"""What the architectures are made of: convolutions, the last pooling, fully connected layers."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, TypedDict, Unpack

from torch import nn as torch_nn

from experiment.errors import UserError

Layers = OrderedDict[str, torch_nn.Module]
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
    pooled: Iterable[int],
    hidden: Sequence[int],
    **knobs: Unpack[Knobs],
) -> torch_nn.Module:
    """Convolutions, the last pooling and fully connected layers in one flat ``Sequential``.

    Args:
        nn: namespace of layers: ``torch.nn`` or another engine's.
        image_shape: (channels, height, width) of the images.
        num_classes: number of logits.
        pooled: numbers of the convolutions, counted from 1, that a 2×2 max-pooling follows.
        hidden: features of the fully connected layers before the logits.
        **knobs: the user's choices.

    Returns:
        A module that maps (N, *image_shape) images to (N, num_classes) logits.
    """
    activation = knobs["activation"]
    layers, shape = convolutions(
        nn, image_shape, knobs["widths"], pooled, batch_norm=knobs["batch_norm"], activation=activation
    )
    pool, features = last_pooling(nn, knobs["pooling"], shape)
    sizes = [features, *hidden, num_classes]
    classifier = fully_connected(nn, sizes, dropout=knobs["dropout"], activation=activation)
    network: torch_nn.Module = nn.Sequential(layers | pool | classifier)
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


def convolutions(
    nn: Any,
    shape: Shape,
    widths: Sequence[int],
    pooled: Iterable[int],
    *,
    batch_norm: bool,
    activation: str,
) -> tuple[Layers, Shape]:
    """3×3 convolutions (padding 1), each with its activation, some followed by a 2×2 max-pooling.

    Args:
        nn: namespace of layers.
        shape: of the input.
        widths: output channels of each convolution.
        pooled: numbers of the convolutions, counted from 1, that a max-pooling follows.
        batch_norm: normalise between convolution and activation (the convolution then has no bias).
        activation: name as in :func:`activation_layer`.

    Returns:
        The layers and the shape of their output.

    Raises:
        UserError: if there are more poolings than the image has halvings.
    """
    layers: Layers = OrderedDict()
    channels, height, width = shape
    for number, out_channels in enumerate(widths, start=1):
        layers[f"conv{number}"] = nn.Conv2d(channels, out_channels, 3, padding=1, bias=not batch_norm)
        if batch_norm:
            layers[f"norm{number}"] = nn.BatchNorm2d(out_channels)
        layers[f"activation{number}"] = activation_layer(nn, activation)
        channels = out_channels
        if number in pooled:
            if min(height, width) < 2:
                raise UserError(
                    f"the network is too deep for images of {shape[1]}×{shape[2]} pixels: nothing is left to "
                    f"pool after convolution {number} of {len(widths)}. "
                    "Give fewer model.widths or larger images"
                )
            layers[f"pool{number}"] = nn.MaxPool2d(2)
            height, width = height // 2, width // 2
    return layers, (channels, height, width)


def last_pooling(nn: Any, kind: str, shape: Shape) -> tuple[Layers, int]:
    """The pooling before the classifier and the number of features that it leaves.

    ``adaptive_avg`` averages each channel over all positions, whatever the size of the image;
    ``fixed_avg`` and ``fixed_max`` pool 2×2 windows, so that the classifier grows with the image.

    Raises:
        UserError: if a fixed pooling does not fit the feature map.
    """
    channels, height, width = shape
    if kind == "adaptive_avg":
        layer, features = nn.AdaptiveAvgPool2d(1), channels
    else:
        if min(height, width) < 2:
            raise UserError(
                f"model.pooling={kind} needs feature maps of at least 2×2, but {height}×{width} is left. "
                "Use model.pooling=adaptive_avg, fewer model.widths or larger images"
            )
        layer = nn.AvgPool2d(2) if kind == "fixed_avg" else nn.MaxPool2d(2)
        features = channels * (height // 2) * (width // 2)
    return OrderedDict(pooling=layer, flatten=nn.Flatten()), features


def fully_connected(nn: Any, sizes: Sequence[int], *, dropout: float, activation: str) -> Layers:
    """Linear layers from ``sizes[0]`` features to ``sizes[-1]`` logits.

    An activation follows each but the last; dropout precedes each but the first, and an only one.
    """
    layers: Layers = OrderedDict()
    for number, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        if number > 1 or len(sizes) == 2:
            layers[f"dropout{number}"] = nn.Dropout(dropout)
        layers[f"fc{number}"] = nn.Linear(inputs, outputs)
        if number < len(sizes) - 1:
            layers[f"fc_activation{number}"] = activation_layer(nn, activation)
    return layers


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
