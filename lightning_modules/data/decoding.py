"""One image file to pixels: what its header says, and its content as an array of the mode that is wanted."""

import errno
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from experiment.errors import UserError
from lightning_modules.data.image_files import formats, printable

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's pixel mode for a number of channels."""
ORIENTATION = 0x0112
"""EXIF's tag; from 5 on height and width change places."""

OPAQUE = 1e30
"""Alpha among values whose scale is not known yet."""

Range = tuple[float, float]
"""The values of a set of wide images that become 0 and 255."""


class UnreadableImage(UserError):
    """A file that cannot be decoded: the others of its folder may."""


class Header(NamedTuple):
    """What is known of an image before its pixels are decoded."""

    height: int
    width: int
    channels: int
    is_wide: bool
    """Whether a value has more than 8 bits, which have no meaning without the others of its set."""
    has_more: bool
    """Whether the file holds further images: pages or frames."""


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Leave out Pillow's warnings of odd metadata; to be entered by one thread for all."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def read_header(path: str) -> Header:
    """Read no more of an image than its header.

    Raises:
        UnreadableImage: if it is not an image in one of the :data:`FORMATS`.
        UserError: if memory runs out.
    """
    with reading(path), Image.open(path, formats=formats()) as image:
        height, width = image.height, image.width
        # Pillow decodes a whole PNG to look for EXIF data behind the pixels
        may_be_turned = image.format != "PNG" or "exif" in image.info
        if may_be_turned and image.getexif().get(ORIENTATION, 1) >= 5:
            height, width = width, height
        # a second picture in a phone's photo is a preview of the first
        has_more = image.format != "MPO" and getattr(image, "n_frames", 1) > 1
        return Header(height, width, _channels(image), _is_wide(image), has_more)


@dataclass(frozen=True)
class Decoding:
    """How the files of a set become arrays.

    Args:
        channels: 1 (grey, by ITU-R BT.601), 3 (RGB) or 4 (RGBA).
        size: height and width: images are scaled to cover them, and their centre cropped. None = as they are.
        background: colour that transparent images are laid on unless ``channels`` is 4.
        pixel_range: what becomes 0 and 255 in images of more than 8 bits a value; None = what each of them
            suggests.
    """

    channels: int
    size: tuple[int, int] | None = None
    background: str = "white"
    pixel_range: Range | None = None

    def __call__(self, path: str, content: bytes) -> NDArray[np.uint8]:
        """(H, W, C) pixels of the ``content`` of a file, the way up its camera was held.

        Raises:
            UnreadableImage: if it is damaged.
            UserError: if memory runs out.
        """
        pixels = self._decode(path, content)
        if pixels.dtype == np.uint8:
            return pixels
        low, high = self.pixel_range or value_range(*_extremes(pixels))
        with np.errstate(over="ignore"):
            scaled = (pixels - np.float32(low)) * np.float32(255 / (high - low) if high > low else 0)
        return np.asarray(np.rint(scaled.clip(0, 255)), np.uint8)

    def extremes(self, path: str) -> Range:
        """The least and the largest value of an image as it is in its file; errors as those of a call."""
        return _extremes(self._decode(path, read_bytes(path)))

    def _decode(self, path: str, content: bytes) -> NDArray[Any]:
        """uint8, or float32 where the file has more than 8 bits a value."""
        with reading(path), Image.open(io.BytesIO(content), formats=formats()) as image:
            if _is_wide(image):
                planes = _wide_planes(image, content, self.channels)
            else:
                ImageOps.exif_transpose(image, in_place=True)
                planes = [_to_mode(image, MODES[self.channels], self.background)]
            return np.dstack([np.asarray(self._fit(plane)) for plane in planes])

    def _fit(self, image: Image.Image) -> Image.Image:
        if self.size is None:
            return image
        return ImageOps.fit(image, (self.size[1], self.size[0]), Image.Resampling.BILINEAR)


def _to_mode(image: Image.Image, mode: str, background: str) -> Image.Image:
    """An image of 8 bits a value in another mode, on a background where it loses its transparency."""
    pixels = image.convert(MODES[_channels(image)])
    if pixels.mode == "RGBA" and mode != "RGBA":
        canvas = Image.new("RGBA", pixels.size, background)
        canvas.alpha_composite(pixels)
        pixels = canvas
    return pixels.convert(mode)


def value_range(low: float, high: float) -> Range:
    """What becomes 0 and 255 where a set of wide images holds values from ``low`` to ``high``.

    The range of their type or number of bits (1, 255, 1023, 4095, …), so that black stays black, unless they
    fill less than a quarter of it; then what they fill.
    """
    top = 1.0 if high <= 1 else 2.0 ** max(8, int(high).bit_length()) - 1
    return (0.0, top) if low >= 0 and high - low >= top / 4 else (low, high)


def _extremes(pixels: NDArray[Any]) -> Range:
    """The least and the largest value of (H, W, C) pixels, alpha left out."""
    return float(pixels[..., :3].min()), float(pixels[..., :3].max())


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn whatever goes wrong with a file into one of the two errors of this module."""
    name = printable(path)
    try:
        yield
    except UserError:
        raise
    except Exception as failure:  # Pillow's decoders raise a dozen kinds on damaged bytes
        code = getattr(failure, "errno", None)
        if isinstance(failure, MemoryError) or code == errno.ENOMEM or "out of memory" in str(failure):
            raise UserError(
                f"memory ran out while {name} was read: nothing says that the file is damaged. Free memory, "
                "or make the images smaller, e.g. data.image_size=64"
            ) from failure
        if code is not None:
            raise UnreadableImage(f"{name} cannot be read ({os.strerror(code)})") from failure
        why = "its content is none" if isinstance(failure, UnidentifiedImageError) else failure
        raise UnreadableImage(f"{name} is not a readable image ({why}): mend or remove it") from failure


def read_bytes(path: str) -> bytes:
    """The content of a file.

    Raises:
        UnreadableImage: if the system says no.
        UserError: if memory runs out.
    """
    with reading(path), Path(path).open("rb") as file:
        return file.read()


def _channels(image: Image.Image) -> int:
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return 4 if not _is_wide(image) else 1 if _is_grey(image) else 3
    return 1 if image.mode == "1" or _is_grey(image) else 3


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("L", "F") or image.mode.startswith("I")


def _is_wide(image: Image.Image) -> bool:
    return image.mode == "F" or image.mode.startswith("I") or (image.mode == "RGB" and _has_16_bits(image))


def _has_16_bits(image: Image.Image) -> bool:
    """Whether the file has 16 bits of which Pillow would drop the lower 8, though they may be all there is.

    Transparent images are left to Pillow: programs write these in the full range.
    """
    return any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))


def _turn_bytes(arguments: Any) -> Any:
    """The arguments of a decoder with the two bytes of 16 bits in the other order: little, big, native."""
    if isinstance(arguments, tuple):
        return tuple(_turn_bytes(each) if isinstance(each, str) else each for each in arguments)
    other = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
    return re.sub(";16([LBN])$", lambda order: f";16{other[order[1]]}", arguments)


def _wide_planes(image: Image.Image, content: bytes, channels: int) -> list[Image.Image]:
    """Planes in mode F of an image with more than 8 bits, as many as ``channels``."""
    if image.mode == "RGB":
        # Pillow keeps one byte of two, which one depends on their order: with the order turned, the other
        with Image.open(io.BytesIO(content), formats=formats()) as turned:
            turned.tile = [tile._replace(args=_turn_bytes(tile.args)) for tile in turned.tile]
            low = np.asarray(turned, np.float32)
        values = np.moveaxis(256 * np.asarray(image, np.float32) + low, -1, 0)
    else:
        values = np.asarray(image).astype(np.float32)[None]
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite")
    if channels == 1 and len(values) == 3:
        values = np.tensordot(np.array((0.299, 0.587, 0.114), np.float32), values, 1)[None]
    elif len(values) < channels:
        opaque = [np.full_like(values[:1], OPAQUE)] if channels == 4 else []
        values = np.concatenate([np.broadcast_to(values, (3, *values.shape[1:])), *opaque])
    planes = []
    for plane in values:
        upright = Image.fromarray(plane)
        upright.info = {"exif": image.info["exif"]} if "exif" in image.info else {}
        planes.append(ImageOps.exif_transpose(upright))
    return planes


def read_images(
    files: Sequence[str],
    shape: tuple[int, int, int],
    pixel_range: Range | None = None,
    background: str = "white",
    prepare: Callable[[str, NDArray[np.uint8]], NDArray[np.uint8]] | None = None,
) -> tuple[list[str], Tensor, list[str]]:
    """Decode images of any size and mode to ``shape`` = (C, H, W), just as ``data=image_folder`` does.

    An image that has ``shape`` already keeps its every pixel. ``pixel_range`` and ``background`` are those of
    :class:`Decoding`. With ``prepare`` it is that which makes (H, W, C) of a path and its pixels of any size.

    Returns:
        The n files that could be decoded, their (n, C, H, W) uint8, and for each other file what is wrong.

    Raises:
        UserError: if no kind of image has C channels, or memory runs out.
    """
    channels, height, width = shape
    if channels not in MODES:
        raise UserError(f"no image file has {channels} channels, as the images of this run do")
    decoding = Decoding(channels, None if prepare else (height, width), background, pixel_range)

    def attempt(path: str) -> NDArray[np.uint8] | UnreadableImage:
        try:
            pixels = decoding(path, read_bytes(path))
            return prepare(path, pixels) if prepare else pixels
        except UnreadableImage as damage:
            return damage

    with quiet_pillow(), ThreadPoolExecutor() as threads:
        decoded = dict(zip(files, threads.map(attempt, files), strict=True))
    intact = {path: pixels for path, pixels in decoded.items() if not isinstance(pixels, UnreadableImage)}
    images = torch.from_numpy(np.array([*intact.values()], np.uint8).reshape(-1, height, width, channels))
    damaged = [str(damage) for damage in decoded.values() if isinstance(damage, UnreadableImage)]
    return [*intact], images.permute(0, 3, 1, 2).contiguous(), damaged
