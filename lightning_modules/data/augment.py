"""Random crop, flip, colour jitter and rotation of a whole batch, with its own draw for each image.

Given the same draws, an image equals what torchvision's ``pad``, ``crop``, ``hflip``, ``adjust_brightness``,
``adjust_contrast``, ``adjust_saturation`` and ``rotate`` make of it, in this order.
"""

import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in a pixel's grey, as torchvision has them (ITU-R BT.601)."""
LARGE = 2**17
"""Values of a batch from which on it pays to import numba, where it is installed."""


def to_float(images: Tensor) -> Tensor:
    """(N, C, H, W) uint8 pixels to float32 in [0, 1]."""
    return images.to(torch.float32).div_(255)


@dataclass(frozen=True, eq=False)
class Draws:
    """What chance decided for each of N images; a part of it is that of those images."""

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

    What a rotation brings into view from outside is black and, where there is an alpha channel, transparent.
    Colours alone are jittered, not alpha; grey images have no saturation to change.

    Args:
        crop_padding: pixels of padding on each side before a random crop to the size there was.
        flip: probability of a horizontal flip.
        jitter: brightness, contrast and saturation are scaled by factors in [1 - jitter, 1 + jitter].
        rotation: largest angle in degrees, either way; nearest neighbour.
        crop_fill: what the padding holds: black (transparent), or the image reflected at its edges.
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
        if self.is_identity:
            return to_float(images)
        height, width = images.shape[2:]
        # all that depends on chance alone is worked out where it was drawn: devices cannot disagree about it
        corners, matrices = draws.offsets - self.crop_padding, _rotations(draws.angles, height, width)
        is_reflected = self.crop_fill == "reflect"
        if images.numel() >= LARGE and images.device.type == "cpu" and find_spec("numba"):
            from lightning_modules.data.augment_numba import augment

            return augment(images, corners, draws.flipped, draws.factors, matrices, is_reflected)
        # two pixels more: what comes into view by the crop, whose colours are jittered, and by the rotation
        pixels = F.pad(images.flatten(2), (0, 2))
        source = _source(corners, draws.flipped, matrices, height, width, is_reflected).to(images.device)
        if self.jitter:
            pixels = to_float(pixels)
            counts = _counts(corners, height, width, is_reflected).to(images.device)
            _jitter(pixels[:, :3], draws.factors.to(images.device), counts)
            pixels[..., -1] = 0
        gathered = pixels.gather(2, source.unsqueeze(1).expand(-1, images.shape[1], -1)).view(images.shape)
        return gathered if self.jitter else to_float(gathered)

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return not (self.crop_padding or self.flip or self.jitter or self.rotation)


IDENTITY = Augmentation(crop_padding=0, flip=0.0, jitter=0.0, rotation=0.0)
"""Changes nothing."""


def _rotations(angles: Tensor, height: int, width: int) -> Tensor:
    """(N, 2, 2) float32: from a pixel's (x, y), counted from the centre, to (x, y) / half of the size."""
    # float64, and the same steps in the same order as torchvision, so that the same pixels are the nearest
    radians = angles.double() * (math.pi / 180)
    cos, sin = radians.cos(), radians.sin()
    matrices = torch.stack([cos, -sin, sin, cos], dim=1).float().view(-1, 2, 2)
    return matrices / torch.tensor([[0.5 * width], [0.5 * height]])


def _source(
    corners: Tensor, flipped: Tensor, matrices: Tensor, height: int, width: int, is_reflected: bool
) -> Tensor:
    """(N, H·W) int64: which pixel of its image comes where; H·W and H·W + 1 are those beyond its edges."""
    y, x = torch.arange(height).view(-1, 1) - 0.5 * (height - 1), torch.arange(width) - 0.5 * (width - 1)
    (a, b), (c, d) = matrices.view(-1, 2, 2, 1, 1).permute(1, 2, 0, 3, 4)
    column = ((x * a + y * b).add_(1).mul_(width / 2).sub_(0.5)).round_().int()
    row = ((x * c + y * d).add_(1).mul_(height / 2).sub_(0.5)).round_().int()
    is_in_view = _is_inside(row, column, height, width)
    column = torch.where(flipped.view(-1, 1, 1), width - 1 - column, column)
    top, left = corners.int().view(-1, 2, 1, 1).unbind(1)
    row, column = row + top, column + left
    if is_reflected:
        row, column = _reflect(row, height), _reflect(column, width)
    source = torch.where(_is_inside(row, column, height, width), row * width + column, height * width)
    return torch.where(is_in_view, source, height * width + 1).flatten(1).long()


def _is_inside(row: Tensor, column: Tensor, height: int, width: int) -> Tensor:
    return (column >= 0) & (column < width) & (row >= 0) & (row < height)


def _reflect(at: Tensor, size: int) -> Tensor:
    return size - 1 - (size - 1 - at.abs()).abs()


def _counts(corners: Tensor, height: int, width: int, is_reflected: bool) -> Tensor:
    """(N, 1, H·W) float32: how many times each pixel is in the crop."""
    counts = []
    for corner, size in zip(corners.unsqueeze(2).unbind(1), (height, width), strict=True):
        at = torch.arange(size)
        if is_reflected:
            count = (_reflect(corner + at, size).unsqueeze(2) == at).sum(1)
        else:
            count = (at >= corner) & (at < corner + size)
        counts.append(count.float())
    rows, columns = counts
    return (rows.unsqueeze(2) * columns.unsqueeze(1)).flatten(1).unsqueeze(1)


def _jitter(colours: Tensor, factors: Tensor, counts: Tensor) -> None:
    """Scale brightness, contrast and saturation of (N, 1 or 3, H·W + 2) colours in place."""
    brightness, contrast, saturation = factors.view(-1, 3, 1, 1).unbind(1)
    colours.mul_(brightness).clamp_(0, 1)
    means = (colours[..., :-2] * counts).sum(dim=2, keepdim=True, dtype=torch.float64) / counts.shape[2]
    colours.mul_(contrast).add_((1 - contrast) * _grey(means).float()).clamp_(0, 1)
    if colours.shape[1] == 3:
        grey = _grey(colours)
        colours.mul_(saturation).add_((1 - saturation) * grey).clamp_(0, 1)


def _grey(colours: Tensor) -> Tensor:
    """(N, 1 or 3, P) colours to (N, 1, P)."""
    if colours.shape[1] == 1:
        return colours
    red, green, blue = colours.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(1)
