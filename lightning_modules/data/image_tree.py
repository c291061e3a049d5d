"""A class-per-folder tree of image files to one uint8 tensor, decoded once."""

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from experiment.errors import UserError
from lightning_modules.data.image_set import ImageSet, hold_out_test

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's pixel mode for a number of channels."""
CACHE_VERSION = 1
"""To be raised whenever the same files would be decoded to something else."""
DECODED_AT_ONCE = 256
"""Images a thread decodes before it reports: enough to make the hand-over cheap."""


class _File(NamedTuple):
    path: str
    size: int
    modified: int
    """Nanoseconds."""


_Classes = dict[str, list[_File]]


def read_tree(
    tree: Path,
    image_size: int | None = None,
    channels: int | None = None,
    test_fraction: float | None = None,
) -> ImageSet:
    """Decode a class-per-folder tree, or take what an earlier start decoded out of ``tree/.cache``.

    There is one cache file for each choice of options. It is used only if every file has the path, size and
    modification time it had, and if its own content is intact.

    Args:
        tree: ``{train,test}/<class>/*`` or ``<class>/*``; classes are sorted by name.
        image_size: pixels a side: the shorter side is scaled to it, the centre cropped; None = as they are.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); None = what the richest image has.
        test_fraction: part of a tree without ``test/`` that becomes the test set; None = there must be one.

    Raises:
        UserError: naming the file or folder that cannot be used.
    """
    parts = _list_tree(tree, may_lack_test=test_fraction is not None)
    listing = [
        [part, name, file.path.removeprefix(str(tree)), file.size, file.modified]
        for part, classes in parts.items()
        for name, files in classes.items()
        for file in files
    ]
    options = f"{image_size or 'any'}px-{channels or 'any'}ch"
    if "test" not in parts:
        options += f"-{test_fraction}test"
    key = hashlib.blake2b(json.dumps([CACHE_VERSION, options, listing]).encode(), digest_size=16).hexdigest()
    cache = tree / ".cache" / f"{options}.pt"
    if (cached := _read_cache(cache, key)) is not None:
        return cached
    decoded = _decode_tree(parts, image_size, channels, test_fraction)
    _write_cache(cache, key, decoded)
    return decoded


def image_files(path: Path) -> list[str]:
    """``path`` itself, or all images below it, sorted; what is hidden is left out.

    Raises:
        UserError: if there is no image.
    """
    if path.is_file():
        return [str(path)]
    try:
        files = sorted(file.path for file in _list_images(str(path)))
    except OSError as failure:
        raise UserError(f"images={path}: {failure.filename} cannot be read ({failure.strerror})") from failure
    if not files:
        raise UserError(f"images={path}: the folder holds no image ({' '.join(IMAGE_SUFFIXES)})")
    return files


def read_images(files: Sequence[str], shape: tuple[int, int, int]) -> tuple[list[str], Tensor, list[str]]:
    """Decode images of any size and mode to ``shape`` = (C, H, W), just as ``data=image_folder`` does.

    Each is turned the way up its camera was held, scaled to cover H×W, its centre cropped. Colours become
    grey by ITU-R BT.601, grey becomes three equal channels, alpha is dropped or, where C is 4, opaque. An
    image that has ``shape`` already keeps its every pixel.

    Returns:
        The n files that could be decoded, their (n, C, H, W) uint8, and for each other file what is wrong.

    Raises:
        UserError: if no kind of image has C channels.
    """
    channels, height, width = shape
    if channels not in MODES:
        raise UserError(f"no image file has {channels} channels, as the images of this run do")

    def attempt(path: str) -> NDArray[np.uint8] | UserError:
        try:
            return _decode(path, (width, height), channels)
        except UserError as damage:
            return damage

    with ThreadPoolExecutor() as threads:
        decoded = dict(zip(files, threads.map(attempt, files), strict=True))
    intact = {path: pixels for path, pixels in decoded.items() if not isinstance(pixels, UserError)}
    images = torch.from_numpy(np.array([*intact.values()], np.uint8).reshape(-1, height, width, channels))
    damaged = [str(damage) for damage in decoded.values() if isinstance(damage, UserError)]
    return [*intact], images.permute(0, 3, 1, 2).contiguous(), damaged


def _list_tree(tree: Path, may_lack_test: bool) -> dict[str, _Classes]:
    """Image files by part and class; parts are ``train`` and ``test``, in a plain tree ``train`` alone."""
    official = [name for name in ("train", "test") if (tree / name).is_dir()]
    if len(official) == 1 or not (official or may_lack_test):
        raise UserError(f"{tree} needs both train/ and test/, with one folder a class")
    try:
        parts = {name: _list_classes(tree / name) for name in official} or {"train": _list_classes(tree)}
    except OSError as failure:
        raise UserError(
            f"{failure.filename} cannot be read ({failure.strerror}): "
            "data.root=PATH needs to be a folder of images, with one folder a class"
        ) from failure
    if official and (odd := sorted(parts["train"].keys() ^ parts["test"].keys())):
        raise UserError(
            f"{tree}: train/ and test/ need the same classes; only one of them has {', '.join(odd)}"
        )
    return parts


def _list_classes(folder: Path) -> _Classes:
    classes = {
        entry.name: sorted(_list_images(entry.path))
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)
        if entry.is_dir() and not entry.name.startswith(".")
    }
    if len(classes) < 2:
        raise UserError(f"{folder} needs one folder a class and at least two, it has {len(classes)}")
    for name, files in classes.items():
        if not files:
            raise UserError(
                f"{folder / name} holds no image ({' '.join(IMAGE_SUFFIXES)}): add some or remove it"
            )
    return classes


def _list_images(folder: str, above: tuple[str, ...] = ()) -> Iterator[_File]:
    real = os.path.realpath(folder)
    if real in above:
        raise UserError(f"{folder} is a link to a folder that contains it: remove the link")
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _list_images(entry.path, (*above, real))
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                status = entry.stat()
                yield _File(entry.path, status.st_size, status.st_mtime_ns)


def _decode_tree(
    parts: dict[str, _Classes], image_size: int | None, channels: int | None, test_fraction: float | None
) -> ImageSet:
    files = [file.path for classes in parts.values() for images in classes.values() for file in images]
    first = _decode(files[0], image_size, channels)
    # twice, because the decoded images are stacked
    needed, memory = 2 * first.nbytes * len(files), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise UserError(
            f"decoding {len(files):,} images like {files[0]} takes {needed / 2**30:.0f} GiB of memory, "
            f"this machine has {memory / 2**30:.0f}: make them smaller, e.g. data.image_size=64"
        )
    pixels = _decode_all(files, image_size, channels)
    richest = max(image.shape[2] for image in pixels)
    if any(image.shape[2] != richest for image in pixels):
        pixels = _decode_all(files, image_size, richest)
    for path, image in zip(files, pixels, strict=True):
        if image.shape != (*first.shape[:2], richest):
            sizes = [f"{width}×{height}" for height, width, _ in (first.shape, image.shape)]
            raise UserError(
                f"images need one size: {files[0]} has {sizes[0]} pixels, {path} has {sizes[1]}. "
                "Have them resized, e.g. data.image_size=32"
            )
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    counts = torch.tensor([[len(of_class) for of_class in classes.values()] for classes in parts.values()])
    labels = torch.arange(counts.shape[1]).repeat(len(parts)).repeat_interleave(counts.flatten())
    names = tuple(parts["train"])
    if "test" not in parts:
        assert test_fraction is not None
        return hold_out_test(names, images, labels, test_fraction)
    train = int(counts[0].sum())
    return ImageSet(names, images[:train], labels[:train], images[train:], labels[train:])


def _decode_all(
    files: Sequence[str], image_size: int | None, channels: int | None
) -> list[NDArray[np.uint8]]:
    """(H, W, C) pixels of every file, several threads at a time."""
    if not sys.stderr.isatty():
        log.info(f"decoding {len(files):,} images")
    chunks = [files[start : start + DECODED_AT_ONCE] for start in range(0, len(files), DECODED_AT_ONCE)]
    pixels: list[NDArray[np.uint8]] = []
    with (
        ThreadPoolExecutor() as threads,
        tqdm(total=len(files), desc="decoding", unit="image", disable=not sys.stderr.isatty()) as progress,
    ):
        for chunk in threads.map(
            lambda paths: [_decode(path, image_size, channels) for path in paths], chunks
        ):
            pixels += chunk
            progress.update(len(chunk))
    return pixels


def _decode(path: str, size: int | tuple[int, int] | None, channels: int | None) -> NDArray[np.uint8]:
    """(H, W, C) pixels of a file, the way up its camera was held; ``channels`` None: C as in the file.

    Of a ``size`` (pixels a side, or width and height) it is scaled to cover it, and its centre cropped.
    """
    try:
        with Image.open(path) as image:
            ImageOps.exif_transpose(image, in_place=True)
            pixels = _to_8_bit(image)
            pixels = pixels.convert(_native_mode(pixels))
            if channels:
                pixels = pixels.convert(MODES[channels])
            if size:
                size = size if isinstance(size, tuple) else (size, size)
                pixels = ImageOps.fit(pixels, size, Image.Resampling.BILINEAR)
            array = np.array(pixels)
    except Exception as damage:  # Pillow's decoders raise a dozen kinds on damaged bytes
        raise UserError(f"{path} is not a readable image ({damage}): mend or remove it") from damage
    return array if array.ndim == 3 else array[:, :, None]


def _to_8_bit(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("32-bit pixels")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _native_mode(image: Image.Image) -> str:
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return "RGBA"
    return "L" if image.mode in ("1", "L") else "RGB"


def _read_cache(path: Path, key: str) -> ImageSet | None:
    """What was cached under ``key``; None if there is nothing, or it is of other files or damaged."""
    if not path.exists():
        return None
    try:
        # mapped, not read: the processes of one machine share the memory
        content = torch.load(path, weights_only=True, mmap=True)
        if content.pop("key") != key:
            return None
        fingerprint = content.pop("fingerprint")
        images = ImageSet(tuple(content.pop("classes")), **content)
        if images.fingerprint != fingerprint:
            raise ValueError("wrong checksum")
    except Exception as damage:  # damaged bytes may be taken for anything
        log.warning(f"{path} is damaged ({damage}) and will be replaced")
        return None
    return images


def _write_cache(path: Path, key: str, images: ImageSet) -> None:
    """Write in one step: other processes see the old file or the whole new one."""
    content = vars(images) | {"classes": list(images.classes), "fingerprint": images.fingerprint, "key": key}
    part = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        path.parent.mkdir(exist_ok=True)
        try:
            torch.save(content, part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, RuntimeError) as failure:  # torch's writer turns a full disk into a RuntimeError
        log.warning(f"{path} cannot be written ({failure}): the next start will decode the images again")
