"""Random crop, flip, colour jitter and rotation of a whole batch, with its own draw for each image.

Given the same draws, an image equals what torchvision's ``pad``, ``crop``, ``hflip``, ``adjust_brightness``,
``adjust_contrast``, ``adjust_saturation`` and ``rotate`` make of it, in this order.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in a pixel's grey, as torchvision has them (ITU-R BT.601)."""


def to_float(images: Tensor) -> Tensor:
    """(N, C, H, W) uint8 pixels to float32 in [0, 1]."""
    return images.to(torch.float32).div_(255)


@dataclass(frozen=True, eq=False)
class Draws:
    """What chance decided for each of N images; a slice of it is that of those images."""

    offsets: Tensor
    """(N, 2) int64: top and left of the crop in the padded image."""
    flipped: Tensor
    """(N,) bool."""
    factors: Tensor
    """(N, 3) float32: of brightness, contrast and saturation."""
    angles: Tensor
    """(N,) float32: degrees, counter-clockwise."""

    def __getitem__(self, images: slice | Tensor) -> "Draws":
        return Draws(self.offsets[images], self.flipped[images], self.factors[images], self.angles[images])


@dataclass(frozen=True)
class Augmentation:
    """Crops, then flips, then jitters colours, then rotates; a knob at zero costs nothing.

    What comes into view from outside an image is black and, where there is an alpha channel, transparent.
    Colours alone are jittered, not alpha; grey images have no saturation to change.

    Args:
        crop_padding: pixels of padding on each side before a random crop to the size there was.
        flip: probability of a horizontal flip.
        jitter: brightness, contrast and saturation are scaled by factors in [1 - jitter, 1 + jitter].
        rotation: largest angle in degrees, either way; nearest neighbour.
        crop_fill: what the padding holds: black, or the image reflected at its edges.
    """

    crop_padding: int = 4
    flip: float = 0.5
    jitter: float = 0.2
    rotation: float = 15.0
    crop_fill: Literal["black", "reflect"] = "black"

    def draw(self, n: int, generator: Generator) -> Draws:
        """Draw for ``n`` images from a CPU ``generator``; a knob's value changes no other knob's draws."""
        return Draws(
            offsets=torch.randint(2 * self.crop_padding + 1, (n, 2), generator=generator),
            flipped=torch.rand(n, generator=generator) < self.flip,
            factors=1 + self.jitter * (2 * torch.rand(n, 3, generator=generator) - 1),
            angles=self.rotation * (2 * torch.rand(n, generator=generator) - 1),
        )

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Augment (N, C, H, W) uint8 images into float32 in [0, 1], on the device they are on."""
        # all that depends on chance alone is worked out where it was drawn: devices cannot disagree about it
        if self.crop_padding or self.flip:
            images = _crop_and_flip(images, self.crop_padding, draws.offsets, draws.flipped, self.crop_fill)
        augmented = to_float(images)
        if self.jitter:
            _jitter(augmented[:, :3], draws.factors.to(images.device))
        return _rotate(augmented, draws.angles) if self.rotation else augmented


IDENTITY = Augmentation(crop_padding=0, flip=0.0, jitter=0.0, rotation=0.0)
"""Changes nothing."""


def _crop_and_flip(images: Tensor, padding: int, offsets: Tensor, flipped: Tensor, fill: str) -> Tensor:
    """One gather of (N, C, H, W) pixels out of the padded images."""
    n, channels, height, width = images.shape
    rows = torch.arange(height) + offsets[:, :1]
    columns = torch.arange(width).expand(n, width)
    columns = torch.where(flipped[:, None], columns.flip(1), columns) + offsets[:, 1:]
    pixels = (rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]).view(n, 1, -1).to(images.device)
    padded = F.pad(images, (padding,) * 4, mode="reflect" if fill == "reflect" else "constant").flatten(2)
    return padded.gather(2, pixels.expand(-1, channels, -1)).view(images.shape)


def _jitter(colours: Tensor, factors: Tensor) -> None:
    """Scale brightness, contrast and saturation of (N, 1 or 3, H, W) float images in place."""
    brightness, contrast, saturation = factors.view(-1, 3, 1, 1, 1).unbind(1)
    colours.mul_(brightness).clamp_(0, 1)
    mean = _grey(colours.mean(dim=(2, 3), keepdim=True))
    colours.mul_(contrast).add_((1 - contrast) * mean).clamp_(0, 1)
    if colours.shape[1] == 3:
        grey = _grey(colours)
        colours.mul_(saturation).add_((1 - saturation) * grey).clamp_(0, 1)


def _grey(colours: Tensor) -> Tensor:
    """(N, 1 or 3, H, W) colours to (N, 1, H, W)."""
    if colours.shape[1] == 1:
        return colours
    red, green, blue = colours.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(1)


def _rotate(images: Tensor, angles: Tensor) -> Tensor:
    """Turn (N, C, H, W) float images about their centres."""
    n, _, height, width = images.shape
    # float64, and the same steps in the same order as torchvision, so that the same pixels are the nearest
    radians = angles.double() * (math.pi / 180)
    cos, sin = radians.cos(), radians.sin()
    matrices = torch.stack([cos, sin, -sin, cos], dim=1).float().view(n, 2, 2)
    matrices /= torch.tensor([0.5 * width, 0.5 * height])
    y, x = torch.meshgrid(
        torch.arange(height) - 0.5 * (height - 1), torch.arange(width) - 0.5 * (width - 1), indexing="ij"
    )
    centred = torch.stack([x, y], dim=-1).view(1, height * width, 2)
    grid = (centred @ matrices).view(n, height, width, 2).to(images.device)
    return F.grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False)
