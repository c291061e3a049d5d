"""A decoded data set, what one pass over its pixels tells, and how parts of it are held out."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiment.errors import UserError
from lightning_modules.data.progress import progress

EXAMPLES = 3
"""Pairs of equal images that a message names."""
CHUNK = 2**22
"""Bytes of pixels that are looked at together."""


class Part(NamedTuple):
    """The training or the test images of a set, whether they are in memory or being decoded."""

    shape: Sequence[int]
    """N, C, H, W."""
    labels: Tensor
    """(N,) int64."""
    chunks: Iterable[NDArray[np.uint8]]
    """The images in order, (n, C, H, W) each."""


class Statistics(NamedTuple):
    """What one pass over the pixels tells."""

    fingerprint: str
    """Hash of all pixels, labels and class names in order, however they were stored."""
    table: Tensor
    """(N, 1 + 2C) int64, training images first: an image's hash, sums and sums of squares by channel."""


def measure(classes: Sequence[str], train: Part, test: Part, val_count: int = 0) -> Statistics:
    """Look at every image once."""
    rows: list[Tensor] = []
    hashed = fingerprint(classes, train, test, val_count, also=lambda images: rows.append(_rows(images)))
    return Statistics(hashed, torch.cat(rows))


def fingerprint(
    classes: Sequence[str],
    train: Part,
    test: Part,
    val_count: int = 0,
    also: Callable[[NDArray[np.uint8]], None] | None = None,
) -> str:
    """As in :class:`Statistics`; ``also`` is called with every chunk."""
    content = hashlib.blake2b(json.dumps(classes).encode(), digest_size=16)
    for shape, labels, chunks in (train, test):
        content.update(f"torch.uint8 {tuple(shape)}".encode())
        for images in chunks:
            content.update(images.data.cast("B"))
            if also:
                also(images)
        content.update(f"{labels.dtype} {tuple(labels.shape)}".encode())
        content.update(labels.numpy().data.cast("B"))
    if val_count:
        content.update(f"val {val_count}".encode())
    return content.hexdigest()


def _rows(images: NDArray[np.uint8]) -> Tensor:
    """Those of :class:`Statistics` for some images."""
    hashes = b"".join(hashlib.blake2b(image.data, digest_size=8).digest() for image in images)
    pixels = images.reshape(*images.shape[:2], -1)
    sums = pixels.sum(2, dtype=np.int64), np.einsum("ncp,ncp->nc", pixels, pixels, dtype=np.int64)
    return torch.from_numpy(np.hstack([np.frombuffer(hashes, np.int64)[:, None], *sums]))


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and labels of a data set, decoded, in its official training and test parts.

    Raises:
        UserError: if these do not go together, as images of two sizes or labels without images.
    """

    classes: tuple[str, ...]
    """Names of the K classes."""
    train_images: Tensor
    """(N, C, H, W) uint8, contiguous."""
    train_labels: Tensor
    """(N,) int64 in [0, K)."""
    test_images: Tensor
    """(M, C, H, W) uint8, contiguous."""
    test_labels: Tensor
    """(M,) int64 in [0, K)."""
    _: KW_ONLY
    val_count: int = 0
    """How many of the training images, the last ones, are a validation set that the data came with."""
    pixel_range: tuple[float, float] | None = None
    """The values of its files that are 0 and 255 here, where the files have more than 8 bits a value."""
    paths: Sequence[str] = ()
    """File of each image, training images first, if each has one."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """How many files of which kind were left out."""
    measured: Statistics | None = None
    """What is known already of its pixels."""

    def __post_init__(self) -> None:
        for part, images, labels in (
            ("train", self.train_images, self.train_labels), ("test", self.test_images, self.test_labels)
        ):  # fmt: skip
            if images.ndim != 4 or images.dtype != torch.uint8 or 0 in images.shape:
                raise UserError(
                    f"the {part} images are {tuple(images.shape)} {images.dtype}, expected some "
                    "(N, C, H, W) uint8"
                )
            if labels.shape != images.shape[:1] or labels.min() < 0 or labels.max() >= len(self.classes):
                raise UserError(
                    f"{len(images):,} {part} images have {tuple(labels.shape)} labels from {labels.min()} to "
                    f"{labels.max()}, expected one each, from 0 to {len(self.classes) - 1}"
                )
        train, test = self.train_images.shape[1:], self.test_images.shape[1:]
        if train != test:
            raise UserError(f"training and test images are of different sizes: {tuple(train)}, {tuple(test)}")

    @cached_property
    def statistics(self) -> Statistics:
        """What all pixels are like."""
        return self.measured or measure(self.classes, *self.parts, self.val_count)

    @property
    def fingerprint(self) -> str:
        """That of :class:`Statistics`."""
        return self.statistics.fingerprint

    @property
    def parts(self) -> tuple[Part, Part]:
        """Training and test images."""
        number = max(1, CHUNK // self.train_images[0].numel())

        def part(images: Tensor, labels: Tensor) -> Part:
            chunks = (chunk.numpy() for chunk in progress(torch.split(images, number), "checking"))
            return Part(images.shape, labels, chunks)

        return part(self.train_images, self.train_labels), part(self.test_images, self.test_labels)

    def path(self, index: int) -> str:
        """What to call an image, counted from the first training image on."""
        if self.paths:
            return self.paths[index]
        rest = index - len(self.train_labels)
        return f"test image {rest}" if rest >= 0 else f"training image {index}"


class Leaks(NamedTuple):
    """Images with equal pixels where there should be none."""

    sentences: list[str]
    """What to tell the user."""
    is_apart: Tensor
    """(N,) bool: images to train or validate with of which a later part has none, nor another class."""


def find_leaks(images: ImageSet) -> Leaks:
    """Compare the pixels of all images by their hashes, across training, validation and test, and classes."""
    labels = torch.cat([images.train_labels, images.test_labels])
    number, held_out = len(images.train_labels), len(images.test_labels) + images.val_count
    part = torch.zeros_like(labels)
    part[len(labels) - held_out :] += 1
    part[number:] += 1
    distinct, group = torch.unique(images.statistics.table[:, 0], return_inverse=True)

    def of_equals(values: Tensor, reduce: str) -> Tensor:
        reduced = torch.zeros_like(distinct).scatter_reduce(0, group, values, reduce, include_self=False)
        return reduced[group]

    first = of_equals(torch.arange(len(labels)), "amin")
    other = "training or validation images" if images.val_count else "training images"
    found = {
        f"of {held_out:,} images to test or validate with are also {other}, and make the accuracy look too "
        "good": part[first] < part,
        "images equal one of another class": labels[first] != labels,
    }
    sentences = []
    for what, is_one in found.items():
        if indices := is_one.nonzero().flatten().tolist():
            pairs = [
                f"{images.path(index)} = {images.path(int(first[index]))}" for index in indices[:EXAMPLES]
            ]
            sentences.append(
                f"{len(indices):,} {what}: {', '.join(pairs)}{', …' * (len(indices) > EXAMPLES)}"
            )
    is_apart = (of_equals(part, "amax") == part) & (of_equals(labels, "amin") == of_equals(labels, "amax"))
    return Leaks(sentences, is_apart[:number])


def stratified_order(labels: Tensor) -> Tensor:
    """A fixed shuffle of N labels, as (N,) indices, any stretch of which has the classes in proportion."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    sizes = labels.bincount()
    first = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    # the k-th of n images of a class comes at (k + ½) / n of the way
    position = (torch.arange(len(labels)) - first + 0.5).double() / sizes.repeat_interleave(sizes)
    return by_class[position.argsort(stable=True)]


def stratified_split(
    labels: Tensor, fraction: float, classes: Sequence[str], knob: str
) -> tuple[Tensor, Tensor]:
    """Indices of what is left and of what is held out: always the same images, of every class alike.

    Both are in :func:`stratified_order`, and have at least one image of every class.

    Args:
        labels: (N,) int64.
        fraction: of the N images that is held out; 0 = none.
        classes: their names.
        knob: what the user sets ``fraction`` by.

    Raises:
        UserError: naming a class with fewer than two images, or none at all.
    """
    counts, needed = labels.bincount(minlength=len(classes)), 2 if fraction else 1
    if few := (counts < needed).nonzero().flatten().tolist():
        number = int(counts[few[0]])
        how = f"; {knob}=0 holds nothing out" if number and knob == "data.val_fraction" else ""
        raise UserError(
            f"{knob}={fraction} splits the images of every class, and class {classes[few[0]]!r} has "
            f"{number}: it needs {needed} for that{f', as {len(few) - 1} more do' if few[1:] else ''}. Add "
            f"images of it, or leave the class out{how}"
        )
    order = stratified_order(labels)
    if not fraction:
        return order, order[:0]
    number = min(max(round(fraction * len(order)), len(classes)), len(order) - len(classes))
    is_held_out = _first_places(labels[order], number, keep_one=True)
    return order[~is_held_out], order[is_held_out]


def stratified_fold(labels: Tensor, fold: int, folds: int, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Indices of all but one and of one of ``folds`` parts of N images; together the parts are all of them.

    Both are in :func:`stratified_order`, and have images of every class.

    Args:
        labels: (N,) int64.
        fold: which part, from 0.
        folds: how many there are.
        classes: their names.

    Raises:
        UserError: for a part that there is not, or a class with fewer images than there are parts.
    """
    if not 0 <= fold < folds:
        raise UserError(f"data.fold={fold}: with data.folds={folds} there are 0 to {folds - 1}")
    counts = labels.bincount(minlength=len(classes))
    if (least := int(counts.min())) < folds:
        name = classes[int(counts.argmin())]
        raise UserError(
            f"data.folds={folds}: class {name!r} has {least} images; choose as many parts at most"
        )
    order = stratified_order(labels)
    start, end = (round(part * len(order) / folds) for part in (fold, fold + 1))
    return torch.cat([order[:start], order[end:]]), order[start:end]


def stratified_part(order: Tensor, labels: Tensor, number: int) -> Tensor:
    """The first ``number`` of indices in :func:`stratified_order`, but at least one of every class."""
    return order[_first_places(labels[order], number)]


def _first_places(labels: Tensor, number: int, keep_one: bool = False) -> Tensor:
    """(N,) bool, true ``number`` times: the first places, among them the first of each class.

    With ``keep_one`` the last of each class is not among them.
    """
    rank = torch.ones_like(labels)
    if keep_one:
        rank[-1 - np.unique(labels.flip(0), return_index=True)[1]] = 2
    rank[np.unique(labels, return_index=True)[1]] = 0
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[rank.argsort(stable=True)[:number]] = True
    return chosen


def hold_out_test(classes: tuple[str, ...], images: Tensor, labels: Tensor, fraction: float) -> ImageSet:
    """Make a fixed, class-stratified ``fraction`` of (N, C, H, W) images the test set.

    Raises:
        UserError: as :func:`stratified_split` does.
    """
    train, test = (
        part.sort().values for part in stratified_split(labels, fraction, classes, "data.test_fraction")
    )
    return ImageSet(classes, images[train], labels[train], images[test], labels[test])
