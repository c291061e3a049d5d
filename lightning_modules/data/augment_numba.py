"""Augmentation compiled by numba: an image stays in the cache until it is done. See :mod:`augment`.

The same operations in the same order on the same numbers as there, and so the same bits.
"""

from typing import Any

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
    pixels, source = np.zeros((channels, size + 2), np.float32), np.empty(size, np.int32)
    rows, columns = np.empty(height, np.float32), np.empty(width, np.float32)
    sums = np.empty(width, np.float64)
    for n in range(start, stop):
        top, left = corners[n]
        is_jittered = factors[n, 0] != ONE or factors[n, 1] != ONE or factors[n, 2] != ONE
        for c in range(channels):
            brightness = factors[n, 0] if c < colours else ONE
            image, channel = images[n, c].reshape(size), pixels[c]
            for k in range(size):
                channel[k] = min(np.float32(image[k]) / WHITE * brightness, ONE)
            channel[size] = ZERO
        if is_jittered:
            _count(rows, top, is_reflected)
            _count(columns, left, is_reflected)
            base = (ONE - factors[n, 1]) * np.float32(_mean(pixels, colours, rows, columns, sums))
            _jitter(pixels, colours, factors[n, 1], factors[n, 2], base)
        for c in range(channels):
            pixels[c, size + 1] = ZERO
        sizes, corner = (np.int32(height), np.int32(width)), (np.int32(top), np.int32(left))
        _find(source, *sizes, *corner, flipped[n], matrices[n], is_reflected)
        for c in range(channels):
            channel, to = pixels[c], augmented[n, c].reshape(size)
            for k in range(size):
                to[k] = channel[np.uint32(source[k])]  # unsigned: no place is counted from the end


@compiled
def _reflect(at: Any, size: Any) -> Any:
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
def _mean(pixels: Floats, colours: int, rows: Floats, columns: Floats, sums: NDArray[np.float64]) -> float:
    """Grey of what is in the crop. Sums of 24 bits each are exact in 53, in whatever order."""
    height, width = len(rows), len(columns)
    mean = np.float64(0)
    for c in range(colours):
        sums[:] = 0
        for i in range(height):
            if rows[i] > 0:
                row = pixels[c, i * width : (i + 1) * width]
                for j in range(width):
                    sums[j] += row[j] * (rows[i] * columns[j])
        mean += (LUMA[c] if colours == 3 else 1.0) * (sums.sum() / (height * width))
    return mean


@compiled
def _jitter(
    pixels: Floats, colours: int, contrast: np.float32, saturation: np.float32, base: np.float32
) -> None:
    """Scale contrast and saturation of (C, H·W + 2) pixels, of which one is beyond what is jittered."""
    size = pixels.shape[1] - 1
    for c in range(colours):
        channel = pixels[c]
        for k in range(size):
            channel[k] = min(max(channel[k] * contrast + base, ZERO), ONE)
    if colours == 3:
        rest, red, green, blue = ONE - saturation, pixels[0], pixels[1], pixels[2]
        for k in range(size):
            grey = rest * (RED * red[k] + GREEN * green[k] + BLUE * blue[k])
            red[k] = min(max(red[k] * saturation + grey, ZERO), ONE)
            green[k] = min(max(green[k] * saturation + grey, ZERO), ONE)
            blue[k] = min(max(blue[k] * saturation + grey, ZERO), ONE)


@compiled
def _find(
    source: NDArray[np.int32],
    height: np.int32,
    width: np.int32,
    top: np.int32,
    left: np.int32,
    is_flipped: bool,
    matrix: Floats,
    is_reflected: bool,
) -> None:
    """Which pixels come where. In 32 bits and without branches, so that it is done for eight at a time."""
    half_width, half_height = HALF * np.float32(width), HALF * np.float32(height)
    first, step = (np.int32(left + width - 1), np.int32(-1)) if is_flipped else (left, np.int32(1))
    beside, beyond = np.int32(height * width), np.int32(height * width + 1)
    for i in range(height):
        y = np.float32(i) - HALF * np.float32(height - 1)
        across, down = y * matrix[0, 1], y * matrix[1, 1]
        for j in range(width):
            x = np.float32(np.int32(j)) - HALF * np.float32(width - 1)
            column = np.int32(np.rint((x * matrix[0, 0] + across + ONE) * half_width - HALF))
            row = np.int32(np.rint((x * matrix[1, 0] + down + ONE) * half_height - HALF))
            is_in_view = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            row, column = np.int32(row + top), np.int32(first + step * column)
            if is_reflected:
                row, column = np.int32(_reflect(row, height)), np.int32(_reflect(column, width))
            is_inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            inside = np.int32(row * width + column) if is_inside else beside
            source[i * width + j] = inside if is_in_view else beyond
