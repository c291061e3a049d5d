"""A decoded data set, and how parts of it are held out."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from experiment.errors import UserError


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and labels of a data set, decoded, in its official training and test parts."""

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

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all pixels, labels and class names in order, however they were stored."""
        content = hashlib.blake2b(json.dumps(self.classes).encode(), digest_size=16)
        for tensor in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            content.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            content.update(tensor.numpy().data.cast("B"))
        return content.hexdigest()


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

    Both are in :func:`stratified_order`.

    Args:
        labels: (N,) int64.
        fraction: of the N images that is held out; 0 = none.
        classes: their names.
        knob: what the user sets ``fraction`` by.

    Raises:
        UserError: naming a class of which nothing would be left or, unless ``fraction`` is 0, held out.
    """
    order = stratified_order(labels)
    held_out, left = order.tensor_split([round(fraction * len(order))])
    for label, name in enumerate(classes):
        counts = [int((labels[part] == label).sum()) for part in (left, held_out)]
        if counts[0] == 0 or (fraction and counts[1] == 0):
            raise UserError(
                f"{knob}={fraction} splits the {sum(counts)} images of class {name!r} into {counts[0]} and "
                f"{counts[1]}: choose a fraction that leaves some on both sides, or add images of that class"
            )
    return left, held_out


def hold_out_test(classes: tuple[str, ...], images: Tensor, labels: Tensor, fraction: float) -> ImageSet:
    """Make a fixed, class-stratified ``fraction`` of (N, C, H, W) images the test set.

    Raises:
        UserError: as :func:`stratified_split` does.
    """
    train, test = (
        part.sort().values for part in stratified_split(labels, fraction, classes, "data.test_fraction")
    )
    return ImageSet(classes, images[train], labels[train], images[test], labels[test])
