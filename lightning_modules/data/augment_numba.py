"""Augmentation compiled by numba: an image stays in the cache until it is done. See :mod:`augment`.

The same operations in the same order on the same numbers as there, and so the same bits.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from custom_backend.kernels.compiled import compiled
from custom_backend.kernels.parallel import split
from lightning_modules.data.augment import LUMA

Floats = NDArray[np.float32]

RED, GREEN, BLUE = (np.float32(weight) for weight in LUMA)
ZERO, HALF, ONE, WHITE = np.float32(0), np.float32(0.5), np.float32(1), np.float32(255)


def augment(
    images: Tensor, corners: Tensor, flipped: Tensor, factors: Tensor, matrices: Tensor, is_reflected: bool
) -> Tensor:
    """As :meth:`Augmentation.__call__` does on a CPU.

    Args:
        images: (N, C, H, W) uint8.
        corners: (N, 2) int64: top and left of the crop.
        flipped: (N,) bool.
        factors: (N, 3) float32: of brightness, contrast and saturation.
        matrices: (N, 2, 2) float32: the rotations.
        is_reflected: whether images are reflected at their edges.
    """
    augmented = torch.empty(images.shape)
    arrays = (tensor.contiguous().numpy() for tensor in (images, corners, flipped, factors, matrices))
    split(_augment, len(images), images.numel(), *arrays, is_reflected, augmented.numpy())
    return augmented


@compiled
def _augment(
    start: int,
    stop: int,
    images: NDArray[np.uint8],
    corners: NDArray[np.int64],
    flipped: NDArray[np.bool_],
    factors: Floats,
    matrices: Floats,
    is_reflected: bool,
    augmented: Floats,
) -> None:
    _, channels, height, width = images.shape
    size, colours = height * width, min(channels, 3)
    # two pixels more: what comes into view by the crop, whose colours are jittered, and by the rotation
    pixels = np.zeros((channels, size + 2), np.float32)
    source, rows, columns = (
        np.empty(width, np.int64),
        np.empty(height, np.float32),
        np.empty(width, np.float32),
    )
    for n in range(start, stop):
        top, left = corners[n]
        for c in range(channels):
            image = images[n, c].reshape(size)
            for k in range(size):
                pixels[c, k] = np.float32(image[k]) / WHITE
            pixels[c, size] = ZERO
        if factors[n, 0] != ONE or factors[n, 1] != ONE or factors[n, 2] != ONE:
            _count(rows, top, is_reflected)
            _count(columns, left, is_reflected)
            _jitter(pixels[:colours], factors[n], rows, columns)
        for c in range(channels):
            pixels[c, size + 1] = ZERO
        for i in range(height):
            _find(source, i, height, top, left, flipped[n], matrices[n], is_reflected)
            for c in range(channels):
                for j in range(width):
                    augmented[n, c, i, j] = pixels[c, source[j]]


@compiled
def _reflect(at: int, size: int) -> int:
    return size - 1 - abs(size - 1 - abs(at))


@compiled
def _count(counts: Floats, start: int, is_reflected: bool) -> None:
    """How many times each row (or column) is in the crop."""
    counts[:] = 0
    for k in range(len(counts)):
        at = _reflect(start + k, len(counts)) if is_reflected else start + k
        if 0 <= at < len(counts):
            counts[at] += ONE


@compiled
def _jitter(pixels: Floats, factors: Floats, rows: Floats, columns: Floats) -> None:
    brightness, contrast, saturation = factors
    colours, height, width = pixels.shape[0], len(rows), len(columns)
    size = height * width
    mean, sums = np.float64(0), np.empty(width, np.float64)
    for c in range(colours):
        for k in range(size):
            pixels[c, k] = min(pixels[c, k] * brightness, ONE)
        sums[:] = 0
        for i in range(height):
            if rows[i] > 0:
                for j in range(width):
                    sums[j] += pixels[c, i * width + j] * (rows[i] * columns[j])
        mean += (LUMA[c] if colours == 3 else 1.0) * (sums.sum() / size)
    base = (ONE - contrast) * np.float32(mean)
    for c in range(colours):
        for k in range(size + 1):
            pixels[c, k] = min(max(pixels[c, k] * contrast + base, ZERO), ONE)
    if colours == 3:
        rest = ONE - saturation
        red, green, blue = pixels
        for k in range(size + 1):
            grey = rest * (RED * red[k] + GREEN * green[k] + BLUE * blue[k])
            red[k] = min(max(red[k] * saturation + grey, ZERO), ONE)
            green[k] = min(max(green[k] * saturation + grey, ZERO), ONE)
            blue[k] = min(max(blue[k] * saturation + grey, ZERO), ONE)


@compiled
def _find(
    source: NDArray[np.int64],
    i: int,
    height: int,
    top: int,
    left: int,
    is_flipped: bool,
    matrix: Floats,
    is_reflected: bool,
) -> None:
    """Which pixels come into row ``i``."""
    width = len(source)
    y = np.float32(i) - HALF * np.float32(height - 1)
    half_width, half_height = HALF * np.float32(width), HALF * np.float32(height)
    for j in range(width):
        x = np.float32(j) - HALF * np.float32(width - 1)
        column = int(np.rint((x * matrix[0, 0] + y * matrix[0, 1] + ONE) * half_width - HALF))
        row = int(np.rint((x * matrix[1, 0] + y * matrix[1, 1] + ONE) * half_height - HALF))
        is_in_view = 0 <= column < width and 0 <= row < height
        row, column = row + top, left + (width - 1 - column if is_flipped else column)
        if is_reflected:
            row, column = _reflect(row, height), _reflect(column, width)
        is_inside = 0 <= column < width and 0 <= row < height
        inside = row * width + column if is_inside else height * width
        source[j] = inside if is_in_view else height * width + 1
