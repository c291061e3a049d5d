"""Test-time augmentation: what a network says of an image on the average over its views."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def mean_over_views(classify: Callable[[Tensor], Tensor], images: Tensor, mirrors: bool) -> Tensor:
    """(N, K) logits: half of the image itself, a quarter each of it moved by one pixel either way diagonally.

    Args:
        classify: (N, C, H, W) images to logits.
        images: what is looked at; where it moves away its edge is reflected.
        mirrors: whether each of the three is averaged with its mirror image.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    views = [images, padded[..., :height, :width], padded[..., 2:, 2:]]

    def logits(view: Tensor) -> Tensor:
        return (classify(view) + classify(view.flip(-1))) / 2 if mirrors else classify(view)

    first, second, third = map(logits, views)
    return first / 2 + (second + third) / 4
