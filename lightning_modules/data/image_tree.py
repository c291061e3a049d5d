"""A class-per-folder tree of image files to one uint8 tensor, decoded once into a file that stays mapped."""

import hashlib
import logging
import math
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiment.errors import UserError
from lightning_modules.data.decoding import (
    Decoding,
    Range,
    UnreadableImage,
    quiet_pillow,
    read_bytes,
    read_header,
    value_range,
)
from lightning_modules.data.image_cache import ImageCache, digest
from lightning_modules.data.image_files import ImageFile, describe, list_tree, printable
from lightning_modules.data.image_set import (
    CHUNK,
    ImageSet,
    Part,
    Statistics,
    fingerprint,
    measure,
    stratified_split,
)
from lightning_modules.data.memory import require_memory
from lightning_modules.data.progress import progress

log = logging.getLogger(__name__)

CACHE_VERSION = 3
"""To be raised whenever the same files would be decoded to something else."""
LISTED = 20
"""Damaged files that a message names."""
SMALL = 2**16
"""Bytes of a file, on average, below which threads wait for each other: two take twice as long as one."""
JUST_NOW = 2 * 10**9
"""Nanoseconds in which a file may change and keep its times: the coarsest clock of a file system."""

Pixels = NDArray[np.uint8]
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
    def rest(self) -> int:
        """How many are not for the test."""
        return self.counts[0] + self.counts[1]

    def stamp(self, started: int) -> str | None:
        """Digest of what the file system says of the files, without reading them.

        None if one changed so shortly before ``started`` (ns) that another change might go unnoticed.
        """
        number, of_all = len(self.files), chain.from_iterable(file[1:] for file in self.files)
        facts = np.fromiter(of_all, np.int64, 4 * number).reshape(number, 4)
        is_settled = facts[:, 1:3].max() < started - JUST_NOW  # when modified and when changed
        return digest(facts.tobytes()) if is_settled else None

    def content(self) -> str | None:
        """Digest of the content of the files; None if one cannot be read."""
        content = hashlib.blake2b(digest_size=16)
        for _, each in self.each(lambda file: read_bytes(file.path), "checking files"):
            if isinstance(each, UnreadableImage):
                return None
            content.update(_hash(each))
        return content.hexdigest()

    def each(
        self, function: Callable[[ImageFile], Result], title: str
    ) -> Iterator[tuple[ImageFile, Result | UnreadableImage]]:
        """What a function makes of every file in order, or what is wrong with it.

        No more results wait than there are threads, twice.
        """

        def attempt(file: ImageFile) -> tuple[ImageFile, Result | UnreadableImage]:
            try:
                return file, function(file)
            except UnreadableImage as damage:
                return file, damage

        files, number = progress(self.files, title), self.threads
        if number == 1:
            yield from map(attempt, files)
            return
        with ThreadPoolExecutor(number) as pool:
            waiting: deque[Future[tuple[ImageFile, Result | UnreadableImage]]] = deque()
            for file in files:
                waiting.append(pool.submit(attempt, file))
                if len(waiting) > 2 * number:
                    yield waiting.popleft().result()
            yield from (future.result() for future in waiting)

    @property
    def threads(self) -> int:
        """How many decode."""
        is_small = sum(file.size for file in self.files) < SMALL * len(self.files)
        return 1 if is_small else os.cpu_count() or 1


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
        UserError: naming the files or the folder that cannot be used, or that memory or disk do not suffice.
    """
    started = time.time_ns()
    found = _list(tree, test_fraction)
    if found.skipped:
        log.warning(f"warning: {tree}: left out {describe(found.skipped)}")
    name = f"{image_size or 'any'}px-{channels or 'any'}ch-{background}"
    if cache:
        name = f"{tree.resolve().name}-{digest(str(tree.resolve()))[:8]}-{name}"
    stored = ImageCache((cache or tree / ".cache") / f"{name}.images")
    folder = f"{tree}{os.sep}"
    relative = [printable(file.path.removeprefix(folder)) for file in found.files]
    options = [CACHE_VERSION, image_size, channels, background, found.classes, found.counts]
    names = digest("\0".join(relative).encode())
    recipe = digest([options, digest(found.labels.numpy().tobytes()), names])

    def image_set(images: Tensor, measured: Statistics, pixel_range: Range | None) -> ImageSet:
        return ImageSet(
            found.classes, images[: found.rest], found.labels[: found.rest], images[found.rest :],
            found.labels[found.rest :], val_count=found.counts[1], pixel_range=pixel_range, paths=relative,
            skipped=dict(found.skipped), measured=measured,
        )  # fmt: skip

    stamp = found.stamp(started)
    if (cached := stored.read()) and cached[0].get("recipe") == recipe:
        facts, images, measured = cached
        if (stamp and facts.get("stamp") == stamp) or facts.get("content") == found.content():
            known = image_set(images, measured, facts["pixel_range"])
            if fingerprint(known.classes, *known.parts, known.val_count) == measured.fingerprint:
                if stamp and facts.get("stamp") != stamp:
                    stored.update(facts | {"stamp": stamp})
                return known
            stored.warn_of_damage("wrong pixels")
    if not sys.stderr.isatty():
        log.info(f"decoding {len(found.files):,} images")
    with quiet_pillow():
        decoding, shape = _prepare(found, image_size, channels, background)
        facts = {"recipe": recipe, "stamp": stamp, "pixel_range": decoding.pixel_range}
        images, measured = stored.store(
            (len(found.files), *shape), facts, lambda file: _decode(found, decoding, shape, file)
        )
    return image_set(images, measured, decoding.pixel_range)


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


def _prepare(
    tree: _Tree, image_size: int | None, channels: int | None, background: str
) -> tuple[Decoding, tuple[int, int, int]]:
    """How to decode, and (C, H, W) of what comes out, from no more than the headers of most files."""
    counts: Counter[tuple[int, int]] = Counter()
    first: dict[tuple[int, int], str] = {}
    depths, wide, several = {1}, set(), []
    for file, header in tree.each(lambda file: read_header(file.path), "reading headers"):
        if isinstance(header, UnreadableImage):
            continue  # it will be named with all others
        counts[header.height, header.width] += 1
        first.setdefault((header.height, header.width), file.path)
        depths.add(header.channels)
        if header.is_wide:
            wide.add(file.path)
        if header.has_more:
            several.append(file.path)
    if len(counts) > 1 and not image_size:
        (one, _), (other, _) = counts.most_common(2)
        raise UserError(
            f"images need one size: {printable(first[one])} has {one[1]}×{one[0]} pixels, "
            f"{printable(first[other])} has {other[1]}×{other[0]} ({counts[one]:,} and {counts[other]:,} "
            f"images; {len(counts)} sizes). Have them resized, e.g. data.image_size=32"
        )
    if several:
        log.warning(
            f"warning: {len(several):,} files hold more than one image, of which the first is read, such as "
            f"{printable(several[0])}"
        )
    largest = max((height * width for height, width in counts), default=0)
    # a decoded image, one of another mode or size made of it, and what the decoder needs beside
    require_memory(3 * tree.threads * 4 * largest, f"images of {largest:,} pixels")
    size = (image_size, image_size) if image_size else next(iter(counts), (1, 1))
    depth = channels or max(depths)
    decoding = Decoding(depth, (image_size, image_size) if image_size else None, background)
    if wide:
        chosen = tree._replace(files=[file for file in tree.files[: tree.counts[0]] if file.path in wide])
        ends = [
            each
            for _, each in chosen.each(lambda file: decoding.extremes(file.path), "measuring")
            if isinstance(each, tuple)
        ]
        if ends:
            pixel_range = value_range(min(low for low, _ in ends), max(high for _, high in ends))
            decoding = replace(decoding, pixel_range=pixel_range)
    return decoding, (depth, *size)


def _decode(
    tree: _Tree, decoding: Decoding, shape: tuple[int, int, int], file: IO[bytes]
) -> tuple[Statistics, dict[str, str]]:
    """Write the pixels of all images to ``file`` and measure them; a digest of the content of their files."""
    problems: list[str] = []
    content = hashlib.blake2b(digest_size=16)

    def decode(image: ImageFile) -> tuple[Pixels, bytes]:
        encoded = read_bytes(image.path)
        pixels = decoding(image.path, encoded)
        if pixels.shape[:2] != shape[1:]:
            name = printable(image.path)
            raise UnreadableImage(f"{name} is not of the size its header says: mend or remove it")
        return pixels, _hash(encoded)

    def rows() -> Iterator[Pixels]:
        for _, each in tree.each(decode, "decoding"):
            if isinstance(each, UnreadableImage):
                problems.append(str(each))
            elif not problems:
                content.update(each[1])
                yield each[0].transpose(2, 0, 1)
        if problems:
            title = f"{len(problems):,} of {len(tree.files):,} images cannot be used:"
            more = [f"… and {len(problems) - LISTED:,} more"] if len(problems) > LISTED else []
            raise UserError("\n       ".join([title, *problems[:LISTED], *more]))

    images = rows()

    def part(labels: Tensor) -> Part:
        def chunks() -> Iterator[Pixels]:
            number, left = max(1, CHUNK // math.prod(shape)), len(labels)
            while left:
                chunk = np.array([*islice(images, min(number, left))])  # unlike np.stack, in C order
                file.write(chunk.data)
                left -= len(chunk)
                yield chunk

        return Part((len(labels), *shape), labels, chunks())

    rest = tree.rest
    measured = measure(tree.classes, part(tree.labels[:rest]), part(tree.labels[rest:]), tree.counts[1])
    return measured, {"content": content.hexdigest()}


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
