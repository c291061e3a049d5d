"""A decoded data set, how parts of it are held out, and which of its images are in it twice."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from experiment.errors import UserError

log = logging.getLogger(__name__)

EXAMPLES = 3
"""Pairs of equal images that a message names."""


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

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
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
    def fingerprint(self) -> str:
        """Hash of all pixels, labels and class names in order, however they were stored."""
        content = hashlib.blake2b(json.dumps(self.classes).encode(), digest_size=16)
        for tensor in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            content.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            content.update(tensor.numpy().data.cast("B"))
        if self.val_count:
            content.update(f"val {self.val_count}".encode())
        return content.hexdigest()

    def path(self, index: int) -> str:
        """What to call an image, counted from the first training image on."""
        if self.paths:
            return self.paths[index]
        rest = index - len(self.train_labels)
        return f"test image {rest}" if rest >= 0 else f"training image {index}"


class Duplicates(NamedTuple):
    """Images with equal pixels where there should be none, as pairs of indices, training images first."""

    across_parts: list[tuple[int, int]]
    """A test image (or one of the data's own validation set) and the training image it equals."""
    across_classes: list[tuple[int, int]]
    """An image, and an earlier one of another class that it equals."""

    def describe(self, images: ImageSet) -> list[str]:
        """A sentence on each of the two that there are."""
        held_out = len(images.test_labels) + images.val_count
        sentences = {
            f"{len(self.across_parts):,} of {held_out:,} images to test or validate with are also training "
            "images, and make the accuracy look too good": self.across_parts,
            f"{len(self.across_classes):,} images equal one of another class": self.across_classes,
        }
        return [
            f"{sentence}: "
            + ", ".join(f"{images.path(one)} = {images.path(other)}" for one, other in pairs[:EXAMPLES])
            + (", …" if len(pairs) > EXAMPLES else "")
            for sentence, pairs in sentences.items()
            if pairs
        ]


def find_duplicates(images: ImageSet) -> Duplicates:
    """Compare the pixels of all images, by their hashes."""
    trained_on = len(images.train_labels) - images.val_count
    labels = torch.cat([images.train_labels, images.test_labels]).tolist()
    seen: dict[bytes, int] = {}
    found = Duplicates([], [])
    for index, key in enumerate(_hashes(images.train_images, images.test_images)):
        first = seen.setdefault(key, index)
        if first < trained_on <= index:
            found.across_parts.append((index, first))
        if labels[first] != labels[index]:
            found.across_classes.append((index, first))
    return found


def without_duplicates(images: ImageSet) -> ImageSet:
    """Leave out training images that are held out, too, and all of two classes; the test set stays."""
    trained_on, number = len(images.train_labels) - images.val_count, len(images.train_labels)
    hashes = list(_hashes(images.train_images, images.test_images))
    labels = torch.cat([images.train_labels, images.test_labels]).tolist()
    of_test, held_out = set(hashes[number:]), set(hashes[trained_on:])
    classes: dict[bytes, set[int]] = {}
    for key, label in zip(hashes, labels, strict=True):
        classes.setdefault(key, set()).add(label)
    keep = [
        key not in (held_out if index < trained_on else of_test) and len(classes[key]) == 1
        for index, key in enumerate(hashes[:number])
    ]
    kept = torch.tensor(keep)
    if not kept[:trained_on].any():
        raise UserError("data.on_leak=drop leaves no training image: every one is also held out")
    paths = [
        path
        for path, stays in zip(
            images.paths, keep + [True] * len(images.test_labels), strict=bool(images.paths)
        )
        if stays
    ]
    return replace(
        images, train_images=images.train_images[kept], train_labels=images.train_labels[kept],
        val_count=int(kept[trained_on:].sum()), paths=paths,
    )  # fmt: skip


def _hashes(*parts: Tensor) -> Iterable[bytes]:
    for images in parts:
        for image in images.flatten(1).numpy():
            yield hashlib.blake2b(image.data, digest_size=16).digest()


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
    by_class = labels.argsort(stable=True)
    ends = labels.bincount().cumsum(0)
    starts = ends - labels.bincount()
    is_there = ends > starts
    rank = torch.ones(len(labels), dtype=torch.int64)
    if keep_one:
        rank[by_class[ends[is_there] - 1]] = 2
    rank[by_class[starts[is_there]]] = 0
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
