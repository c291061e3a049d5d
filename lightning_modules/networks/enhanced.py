"""The enhanced network: batch normalisation, adaptive pooling and a classifier of two layers."""

from typing import Any, Unpack

from torch.nn import Module

from lightning_modules.networks.blocks import Knobs, Shape, conv_classifier, pool_early


def enhanced(nn: Any, image_shape: Shape, num_classes: int, **knobs: Unpack[Knobs]) -> Module:
    """Build the network of the report's enhanced recipe; see :func:`conv_classifier`."""
    return conv_classifier(
        nn, image_shape, num_classes, pooled=pool_early(len(knobs["widths"])), hidden=(128,), **knobs
    )
