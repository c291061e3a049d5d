"""The baseline: plain convolutions, max-pooling and a classifier of five fully connected layers."""

from typing import Any, Unpack

from torch.nn import Module

from lightning_modules.networks.blocks import Knobs, Shape, conv_classifier, pool_early


def baseline(nn: Any, image_shape: Shape, num_classes: int, **knobs: Unpack[Knobs]) -> Module:
    """Build the network of the report's baseline; see :func:`conv_classifier`."""
    return conv_classifier(
        nn,
        image_shape,
        num_classes,
        pooled=pool_early(len(knobs["widths"])),
        hidden=(512, 256, 128, 64),
        **knobs,
    )
