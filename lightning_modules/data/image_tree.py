"""A class-per-folder tree of image files to one uint8 tensor, decoded once into a file that stays mapped."""

import hashlib
import logging
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from experiment.errors import UserError
from lightning_modules.data.decoding import (
    Decoding,
    Header,
    Range,
    UnreadableImage,
    quiet_pillow,
    read_bytes,
    read_header,
    value_range,
)
from lightning_modules.data.image_cache import ImageCache, digest
from lightning_modules.data.image_files import ImageFile, describe, list_tree, printable
from lightning_modules.data.image_set import ImageSet, stratified_split
from lightning_modules.data.memory import require_memory

log = logging.getLogger(__name__)

CACHE_VERSION = 2
"""To be raised whenever the same files would be decoded to something else."""
LISTED = 20
"""Damaged files that a message names."""
SMALL = 2**16
"""Bytes of a file, on average, below which threads wait for each other: two take twice as long as one."""
JUST_NOW = 2 * 10**9
"""Nanoseconds in which a file may change and keep its times: the coarsest clock of a file system."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Tree(NamedTuple):
    """The files of a tree in the order in which their images are stored."""

    classes: tuple[str, ...]
    files: list[ImageFile]
    labels: Tensor
    counts: tuple[int, int, int]
    """How many are for training, validation and test; in this order they are stored."""
    skipped: Counter[str]

    @property
    def paths(self) -> list[str]:
        return [file.path for file in self.files]

    @property
    def threads(self) -> int:
        is_small = sum(file.size for file in self.files) < SMALL * len(self.files)
        return 1 if is_small else os.cpu_count() or 1

    def stamp(self) -> str:
        """Digest of what the file system says of the files, without reading them."""
        return digest([file[1:] for file in self.files])

    def content(self) -> str | None:
        """Digest of the content of the files; None if one cannot be read."""
        hashes = list(
            _in_order(_attempt(lambda path: _hash(read_bytes(path))), self.paths, self.threads, "checking")
        )
        return _join([each for each in hashes if isinstance(each, bytes)], len(self.files))


def read_tree(
    tree: Path,
    image_size: int | None = None,
    channels: int | None = None,
    test_fraction: float | None = None,
    cache: Path | None = None,
    background: str = "white",
) -> ImageSet:
    """Decode a class-per-folder tree, or take what an earlier start decoded out of its cache.

    Images are decoded one by one into a file of the cache, which is mapped: a set may be larger than the
    memory. There is one for each choice of options. It is used only if every file has the path and content
    it had, and if its own content is intact. Files are read for that only where the file system does not
    tell that they are the same: it notes when a file was last replaced or changed, whatever time is set.

    Args:
        tree: ``{train,val,test}/<class>/*`` or ``<class>/*``, see :func:`list_tree`.
        image_size: pixels a side: the shorter side is scaled to it, the centre cropped; None = as they are.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); None = what the richest image has.
        test_fraction: part of a tree without ``test/`` that becomes the test set; None = there must be one.
        cache: folder of the cache; None = ``tree/.cache``.
        background: colour behind transparent images, unless ``channels`` is 4.

    Raises:
        UserError: naming the files or the folder that cannot be used, or that memory does not suffice.
    """
    started = time.time_ns()
    found = _list(tree, test_fraction)
    if found.skipped:
        log.warning(f"warning: {tree}: left out {describe(found.skipped)}")
    name = f"{image_size or 'any'}px-{channels or 'any'}ch-{background}"
    if cache:
        name = f"{tree.resolve().name}-{digest(str(tree.resolve()))[:8]}-{name}"
    relative = [printable(os.path.relpath(path, tree)) for path in found.paths]
    recipe = digest(
        [
            CACHE_VERSION,
            image_size,
            channels,
            background,
            found.classes,
            found.counts,
            found.labels.tolist(),
            relative,
        ]
    )
    stored = ImageCache(cache or tree / ".cache", name)

    def image_set(images: Tensor, pixel_range: Range | None) -> ImageSet:
        rest = found.counts[0] + found.counts[1]
        return ImageSet(
            found.classes, images[:rest], found.labels[:rest], images[rest:], found.labels[rest:],
            val_count=found.counts[1], pixel_range=pixel_range, paths=relative, skipped=dict(found.skipped),
        )  # fmt: skip

    stamp = found.stamp()
    # what changes within one tick of the clock would go unnoticed: such files are read again next time
    is_settled = all(max(file.modified, file.changed) < started - JUST_NOW for file in found.files)
    facts, images = stored.read() or ({}, None)
    is_same = facts.get("recipe") == recipe and (
        facts["stamp"] == stamp or facts["content"] == found.content()
    )
    if images is not None and is_same:
        known = image_set(images, facts["pixel_range"])
        if known.fingerprint == facts["fingerprint"]:
            if is_settled and facts["stamp"] != stamp:
                with suppress(OSError):  # nothing but time is lost
                    stored.write_facts(facts | {"stamp": stamp})
            return known
        stored.warn_of_damage("wrong pixels")
    path, images, pixel_range, content = _decode(found, stored, image_size, channels, background)
    fresh = image_set(images, pixel_range)
    if path:
        facts = {
            "recipe": recipe, "stamp": stamp if is_settled else None, "content": content,
            "fingerprint": fresh.fingerprint, "shape": list(images.shape), "pixel_range": pixel_range,
        }  # fmt: skip
        stored.commit(path, facts)
    return fresh


def _list(tree: Path, test_fraction: float | None) -> _Tree:
    parts, skipped = list_tree(tree)
    if test_fraction is None and "test" not in parts:
        raise UserError(f"{tree} needs both train/ and test/, with one folder a class")
    names = tuple(parts["train"])
    found: dict[str, tuple[list[ImageFile], Tensor]] = {"val": ([], torch.tensor([], dtype=torch.int64))}
    for part, classes in parts.items():
        sizes = torch.tensor([len(of_class) for of_class in classes.values()])
        files = [file for of_class in classes.values() for file in of_class]
        found[part] = files, torch.arange(len(sizes)).repeat_interleave(sizes)
    if "test" not in parts:
        assert test_fraction is not None
        files, labels = found["train"]
        split = stratified_split(labels, test_fraction, names, "data.test_fraction")
        for part, indices in zip(("train", "test"), (chosen.sort().values for chosen in split), strict=True):
            found[part] = [files[index] for index in indices.tolist()], labels[indices]
        if "val" in parts:
            log.info(f"{tree} has no test/: {len(found['test'][0]):,} training images are the test set")
    train, val, test = (found[part] for part in ("train", "val", "test"))
    counts = len(train[0]), len(val[0]), len(test[0])
    return _Tree(names, train[0] + val[0] + test[0], torch.cat([train[1], val[1], test[1]]), counts, skipped)


def _decode(
    tree: _Tree, stored: ImageCache, image_size: int | None, channels: int | None, background: str
) -> tuple[Path | None, Tensor, Range | None, str | None]:
    """Where the decoded images are, they, what they were scaled by, and the digest of their files."""
    paths, threads = tree.paths, tree.threads
    if not sys.stderr.isatty():
        log.info(f"decoding {len(paths):,} images")
    with quiet_pillow():
        headers = list(_in_order(_attempt(read_header), paths, threads, "reading headers"))
        size = (image_size, image_size) if image_size else _one_size(paths, headers)
        intact = [header for header in headers if isinstance(header, Header)]
        largest = max((header.height * header.width for header in intact), default=0)
        depth = channels or max((header.channels for header in intact), default=1)
        # a decoded image, one of another mode or size made of it, and what the decoder needs beside
        require_memory(3 * threads * 4 * largest, f"images of {largest:,} pixels")
        decoding = Decoding(depth, (image_size, image_size) if image_size else None, background)
        trained_on = zip(paths[: tree.counts[0]], headers, strict=False)
        wide = [path for path, header in trained_on if isinstance(header, Header) and header.is_wide]
        if wide:
            found = _in_order(_attempt(decoding.extremes), wide, threads, "measuring")
            if ends := [each for each in found if isinstance(each, tuple)]:
                pixel_range = value_range(min(low for low, _ in ends), max(high for _, high in ends))
                decoding = replace(decoding, pixel_range=pixel_range)

        def attempt(
            item: tuple[str, Header | UnreadableImage],
        ) -> tuple[NDArray[np.uint8], bytes] | UnreadableImage:
            path, header = item
            if isinstance(header, UnreadableImage):
                return header
            try:
                content = read_bytes(path)
                pixels = decoding(path, content)
            except UnreadableImage as damage:
                return damage
            if pixels.shape[:2] != size:
                return UnreadableImage(
                    f"{printable(path)} is not of the size its header says: mend or remove it"
                )
            return pixels.transpose(2, 0, 1), _hash(content)

        problems: list[str] = []
        hashes: list[bytes] = []

        def rows() -> Iterator[NDArray[np.uint8]]:
            for each in _in_order(attempt, list(zip(paths, headers, strict=True)), threads, "decoding"):
                if isinstance(each, UnreadableImage):
                    problems.append(str(each))
                else:
                    hashes.append(each[1])
                    yield each[0]
            if problems:
                raise UserError(
                    listed(problems, f"{len(problems):,} of {len(paths):,} images cannot be used:")
                )

        path, images = stored.store(rows(), (len(paths), depth, *size))
    return path, images, decoding.pixel_range, _join(hashes, len(paths))


def listed(problems: Sequence[str], title: str) -> str:
    """A message of several lines, of which too many are counted."""
    more = [f"… and {len(problems) - LISTED:,} more"] if len(problems) > LISTED else []
    return "\n       ".join([title, *problems[:LISTED], *more])


def _one_size(paths: Sequence[str], headers: Sequence[Header | UnreadableImage]) -> tuple[int, int]:
    """Height and width that all images have."""
    first: dict[tuple[int, int], str] = {}
    counts: Counter[tuple[int, int]] = Counter()
    for path, header in zip(paths, headers, strict=True):
        if isinstance(header, Header):
            first.setdefault((header.height, header.width), path)
            counts[header.height, header.width] += 1
    if len(first) > 1:
        (one, _), (other, _) = counts.most_common(2)
        path, odd = first[one], first[other]
        raise UserError(
            f"images need one size: {printable(path)} has {one[1]}×{one[0]} pixels, {printable(odd)} has "
            f"{other[1]}×{other[0]} ({counts[one]:,} and {counts[other]:,} images; {len(first)} sizes). "
            f"Have them resized, e.g. data.image_size=32"
        )
    return next(iter(first), (1, 1))


def _attempt(function: Callable[[Item], Result]) -> Callable[[Item], Result | UnreadableImage]:
    def attempt(item: Item) -> Result | UnreadableImage:
        try:
            return function(item)
        except UnreadableImage as damage:
            return damage

    return attempt


def _in_order(
    function: Callable[[Item], Result], items: Sequence[Item], threads: int, title: str
) -> Iterator[Result]:
    """``map`` with a progress bar, of which no more results wait than there are threads, twice."""
    with tqdm(items, desc=title, unit="image", disable=not sys.stderr.isatty(), leave=False) as progress:
        if threads == 1:
            yield from map(function, progress)
            return
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[Future[Result]] = deque()
            for item in progress:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            yield from (future.result() for future in waiting)


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _join(hashes: Sequence[bytes], expected: int) -> str | None:
    return hashlib.blake2b(b"".join(hashes), digest_size=16).hexdigest() if len(hashes) == expected else None
