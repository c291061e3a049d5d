"""What recipes add to the augmentation: alternating flips, RandAugment, cutout, mixing, growing images.

Everything is drawn by (seed, epoch, step), or by the image where it must be the same in every epoch. Given
the same draws the pixels are those of torchvision.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

MAGNITUDES = 31
"""Strengths of RandAugment that torchvision knows, from nothing to full."""


@dataclass(frozen=True)
class StrongAugmentation:
    """Beyond crops, flips, colours and rotation.

    Args:
        flip_mode: ``random``: every image and epoch anew; ``alternating``: an image that is flipped in one
            epoch is not in the next, and by chance in the first (Jordan 2024).
        randaugment: operations of RandAugment on each image, before all else (Cubuk et al. 2020); 0 = none.
        randaugment_magnitude: their strength, in [0, 30].
        cutout: height and width in pixels of a black square in each image (DeVries, Taylor 2017); 0 = none.
        mix: ``mixup``: blend images and labels of a batch (Zhang et al. 2018), ``cutmix``: paste a part
            of one image into another, and mix the labels by area (Yun et al. 2019); None = neither.
        mix_alpha: the part that is taken of an image has a Beta(alpha, alpha) distribution.
    """

    flip_mode: Literal["random", "alternating"] = "random"
    randaugment: int = 0
    randaugment_magnitude: int = 9
    cutout: int = 0
    mix: Literal["mixup", "cutmix"] | None = None
    mix_alpha: float = 1.0

    def flipped(self, drawn: Tensor, first: Tensor, epoch: int) -> Tensor:
        """Which images are flipped, as (n,) bool: as drawn, or as in the ``first`` epoch, alternating."""
        if self.flip_mode == "random":
            return drawn
        return first ^ (epoch % 2 == 1)

    def before(self, images: Tensor, rows: Tensor, n: int, generator: Generator) -> Tensor:
        """Apply RandAugment to (m, C, H, W) uint8 images, those at ``rows`` of a batch of ``n``."""
        if not self.randaugment:
            return images
        operations = torch.randint(len(OPERATIONS), (n, self.randaugment), generator=generator)[rows]
        is_negative = torch.rand(n, self.randaugment, generator=generator)[rows] < 0.5
        for step in range(self.randaugment):
            images = rand_augment(
                images, operations[:, step], is_negative[:, step], self.randaugment_magnitude
            )
        return images

    def after(self, images: Tensor, rows: Tensor, n: int, generator: Generator) -> Tensor:
        """Cut a square out of each of (m, C, H, W) float images, those at ``rows`` of a batch of ``n``."""
        if not self.cutout:
            return images
        height, width = images.shape[-2:]
        centres = torch.rand(n, 2, generator=generator)[rows] * torch.tensor([height, width])
        return cut_out(images, centres.long(), self.cutout)

    def mixed(
        self, images: Tensor, labels: Tensor, world_size: int, classes: int, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Mix each of (m, C, H, W) float images with the one before it in the batch of all processes.

        Args:
            images: of one process, or of several: its own and then as many to mix them with.
            labels: theirs, (m,) int64.
            world_size: number of processes.
            classes: number of classes K.
            generator: to draw from, the same in all processes.

        Returns:
            The images, and (m, K) probabilities.
        """
        if world_size == 1:
            others, their_labels = images.roll(1, 0), labels.roll(1, 0)
        else:
            (images, others), (labels, their_labels) = images.chunk(2), labels.chunk(2)
        kept = _beta(self.mix_alpha, generator)
        place = torch.rand(2, generator=generator)
        if self.mix == "mixup":
            images = images * kept + others * (1 - kept)
        else:
            images, kept = cut_mix(images, others, kept, place)
        own, foreign = (F.one_hot(each, classes).float() for each in (labels, their_labels))
        return images, own * kept + foreign * (1 - kept)


def _beta(alpha: float, generator: Generator) -> float:
    """A draw from Beta(alpha, alpha), from the generator that is given (torch.distributions takes none)."""
    gammas = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64), generator=generator)
    return float(gammas[0] / gammas.sum())


def cut_out(images: Tensor, centres: Tensor, size: int) -> Tensor:
    """Blacken a square of ``size`` pixels about (n, 2) int64 centres (row, column), where it lies inside."""
    height, width = images.shape[-2:]
    top_left = (centres - size // 2)[:, :, None].to(images.device)
    rows = torch.arange(height, device=images.device) - top_left[:, 0]
    columns = torch.arange(width, device=images.device) - top_left[:, 1]
    rows, columns = ((axis >= 0) & (axis < size) for axis in (rows, columns))
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


def cut_mix(images: Tensor, others: Tensor, kept: float, place: Tensor) -> tuple[Tensor, float]:
    """Paste a rectangle of ``others`` into images, and the part of an image that is left of it.

    Args:
        images: (n, C, H, W).
        others: of the same shape.
        kept: the part of an image to keep, before what lies outside of it is cut off.
        place: (2,) floats in [0, 1): row and column of the rectangle's centre.
    """
    height, width = images.shape[-2:]
    row, column = int(place[0] * height), int(place[1] * width)
    half = 0.5 * (1 - kept) ** 0.5
    half_height, half_width = int(half * height), int(half * width)
    top, bottom = max(row - half_height, 0), min(row + half_height, height)
    left, right = max(column - half_width, 0), min(column + half_width, width)
    images = images.clone()
    images[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return images, 1 - (bottom - top) * (right - left) / (height * width)


OPERATIONS = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
    "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip
"""Of RandAugment, as torchvision names them; those of colours do nothing to images that have none."""
SIGNED = OPERATIONS[1:10]
"""Those that go either way."""


def rand_augment(images: Tensor, operations: Tensor, is_negative: Tensor, magnitude: int) -> Tensor:
    """Apply to each of (n, C, H, W) uint8 images the operation whose number in :data:`OPERATIONS` is given.

    Args:
        images: grey or colour; an alpha channel moves with the rest, and keeps its values.
        operations: (n,) int64.
        is_negative: (n,) bool: whether a signed operation goes the other way.
        magnitude: of all, in [0, 30].
    """
    from torchvision.transforms.autoaugment import RandAugment, _apply_op
    from torchvision.transforms.functional import InterpolationMode

    height, width = images.shape[-2:]
    strengths = RandAugment()._augmentation_space(MAGNITUDES, (height, width))
    augmented = images.clone()
    for number, name in enumerate(OPERATIONS):
        values, _ = strengths[name]
        strength = float(values[magnitude]) if values.ndim else 0.0
        for sign in (1, -1) if name in SIGNED else (1,):
            chosen = operations == number
            if name in SIGNED:
                chosen &= is_negative == (sign < 0)
            if not chosen.any() or name == "Identity":
                continue
            part = augmented[chosen.to(images.device)]
            # torchvision's operations of colours take one or three channels, and a whole batch at once
            is_move = name.startswith(("Shear", "Translate", "Rotate"))
            colours = part if is_move else part[:, :3] if part.shape[1] > 2 else part[:, :1]
            colours = _apply_op(colours, name, sign * strength, InterpolationMode.NEAREST, None)
            part[:, : colours.shape[1]] = colours
            augmented[chosen.to(images.device)] = part
    return augmented


def size_in_epoch(sizes: Sequence[int], epoch: int, epochs: int) -> int:
    """The height of images in an epoch: each of ``sizes`` has an equal part of the training."""
    return sizes[min(epoch * len(sizes) // epochs, len(sizes) - 1)]


def resized(images: Tensor, height: int | None) -> Tensor:
    """(N, C, H, W) float images of another height, their width in proportion, bilinear without aliasing."""
    if height is None or height == images.shape[-2]:
        return images
    width = round(height * images.shape[-1] / images.shape[-2])
    return F.interpolate(images, (height, width), mode="bilinear", antialias=True)
