"""The MNIST network: blocks of convolution, normalisation, LeakyReLU and pooling, one linear layer."""

from typing import Any, Unpack

from torch.nn import Module

from lightning_modules.networks.blocks import Knobs, Shape, conv_classifier


def mnist(nn: Any, image_shape: Shape, num_classes: int, **knobs: Unpack[Knobs]) -> Module:
    """Build the network of the report's MNIST part; see :func:`conv_classifier`."""
    return conv_classifier(
        nn, image_shape, num_classes, pooled=range(1, len(knobs["widths"])), hidden=(), **knobs
    )
