"""Batches as a function of (seed, epoch, step), out of one uint8 tensor on the training device or on disk."""

import hashlib
import inspect
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Generator, Tensor

from experiment.errors import UserError
from experiment.instantiate import load
from lightning_modules.data.appearance import MEASURED, Appearance
from lightning_modules.data.augment import IDENTITY, Augmentation, to_float
from lightning_modules.data.image_set import (
    ImageSet,
    Leaks,
    find_leaks,
    stratified_fold,
    stratified_order,
    stratified_part,
    stratified_split,
)
from lightning_modules.data.memory import memory_limit
from lightning_modules.data.sources import SOURCES
from lightning_modules.data.strong_augment import StrongAugmentation, resized, size_in_epoch

log = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor]
"""(B, C, H, W) float32 images in [0, 1] and (B,) int64 labels, or (B, K) mixed ones."""


def generator(*key: int | str) -> Generator:
    """A CPU generator of its own for each ``key``; no global random state is read or changed."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "little"))


def read_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Have a thread fetch the next batch while this one is worked on."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


@dataclass(frozen=True, eq=False, kw_only=True)
class Batches:
    """Batches that one of ``world_size`` processes, the ``rank``-th, is given of labelled images."""

    images: Tensor
    """(N, C, H, W) uint8, on the device, or on disk if they are too many."""
    labels: Tensor
    """(N,) int64, on the device."""
    indices: Tensor
    """(n,) int64: which of the N images there are for all processes together."""
    batch_size: int
    """Images of a batch of one process."""
    rank: int = 0
    world_size: int = 1

    @property
    def own(self) -> slice:
        """Which of what all processes are given is this one's."""
        return slice(self.rank, None, self.world_size)

    def fetch(self, batches: Iterable[Tensor]) -> Iterator[Batch]:
        """uint8 images and labels on the device, for the indices of each batch."""
        fetched = map(self._fetch, batches)
        is_resident = self.images.device == self.labels.device and self.images.nbytes < memory_limit() / 2
        return fetched if is_resident else read_ahead(fetched)

    def _fetch(self, indices: Tensor) -> Batch:
        device = self.labels.device
        images = self.images.index_select(0, indices.to(self.images.device))  # 15 times as fast as [indices]
        if images.device != device:
            images = images.pin_memory().to(device, non_blocking=True)
        return images, self.labels[indices.to(device)]


@dataclass(frozen=True, eq=False, kw_only=True)
class EvaluationBatches(Batches):
    """Every image once, in a fixed order, whoever of the processes gets it."""

    def __len__(self) -> int:
        return math.ceil(len(self.indices[self.own]) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        own, size = self.indices[self.own], self.batch_size
        for images, labels in self.fetch(own[start : start + size] for start in range(0, len(own), size)):
            yield to_float(images), labels


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingBatches(Batches):
    """Shuffled and augmented batches, a function of (seed, epoch, step).

    Order and augmentation are drawn for the batch of all processes together, of which each takes its part: W
    processes with batches of B see just what one process with batches of W·B sees. A last, incomplete batch
    is left out, unless it is the only one.
    """

    augmentation: Augmentation
    seed: int
    epoch: Callable[[], int]
    """Tells the epoch whenever an iteration begins."""
    start: Callable[[], int] = lambda: 0
    """Tells the step at which it begins: not the first one in an epoch that goes on from a checkpoint."""
    strong: StrongAugmentation = StrongAugmentation()  # noqa: RUF009 – it cannot be changed
    classes: int = 0
    height: Callable[[], int | None] = lambda: None
    """Tells the height of the epoch's images; None = as they are."""

    @property
    def global_batch_size(self) -> int:
        """Images of a step of all processes together."""
        total = len(self.indices)
        return min(self.batch_size * self.world_size, total - total % self.world_size)

    def __len__(self) -> int:
        return len(self.indices) // self.global_batch_size

    def __iter__(self) -> Iterator[Batch]:
        epoch, size, steps = self.epoch(), self.global_batch_size, range(self.start(), len(self))
        order = self.indices[
            torch.randperm(len(self.indices), generator=generator(self.seed, epoch, "order"))
        ]
        by_chance = torch.rand(len(self.labels), generator=generator(self.seed, "first flip"))
        first_flipped, height = by_chance < self.augmentation.flip, self.height()
        rows = torch.arange(size)[self.own]
        if self.strong.mix and self.world_size > 1:  # the images to mix them with are with other processes
            rows = torch.cat([rows, (rows - 1) % size])
        batches = self.fetch(order[step * size + rows] for step in steps)
        for step, (images, labels) in zip(steps, batches, strict=True):

            def chance(what: str, step: int = step) -> Generator:
                return generator(self.seed, epoch, step, what)

            draws = self.augmentation.draw(size, chance("augmentation"))
            first = first_flipped[order[step * size : (step + 1) * size]]
            draws = replace(draws, flipped=self.strong.flipped(draws.flipped, first, epoch))
            images = self.strong.before(images, rows, size, chance("randaugment"))
            images = self.augmentation(images, draws[rows])
            images = self.strong.after(images, rows, size, chance("cutout"))
            if self.strong.mix:
                images, labels = self.strong.mixed(
                    images, labels, self.world_size, self.classes, chance("mix")
                )
            yield resized(images, height), labels


class ImageDataModule(LightningDataModule):
    """Training, validation and test images of any of :data:`SOURCES`.

    The validation set is that of the data, if it has one, else a fixed, class-stratified part of the official
    training set, whatever the seed; the official test set stays what it is. Batches are float32 images in
    [0, 1], *not* normalised, and labels.

    Args:
        dataset: which data set; set by data=…
        root: folder of the data.
        batch_size: images a step and device, in [1, inf).
        val_fraction: part of the training set kept for validation, in [0, 1). Has no effect on data with a
            validation set of its own.
        fold: validate on this one of ``folds`` parts and train on the others, in place of val_fraction, in
            [0, inf).
        folds: parts of the training set, each with the classes in proportion, in [2, inf).
        seed: of order and augmentation.
        augment: augment training images as the four knobs below say.
        crop_padding: random crop: pixels of padding on each side, in [0, inf).
        flip: probability of a horizontal flip, in [0, 1].
        jitter: brightness, contrast and saturation change by up to this factor, in [0, 1].
        rotation: largest random rotation in degrees, in [0, 180].
        download: download the data set if it is not under data.root.
        image_size: resize a folder's images to this many pixels a side, in [1, inf).
        channels: channels of a folder's images: grey, colour, colour with transparency.
        test_fraction: part of a folder without test/ that becomes the test set, in (0, 1).
        train_images: train on so many images only, equally of each class, in [1, inf).
        background: colour behind transparent images.
        cache: folder of decoded images; None = beside the images.
        on_leak: a test image is also a training image, or one image has two classes: warn, stop, or train
            and validate without it.
        crop_fill: what a crop finds beside the image.
        flip_mode: flip each image by chance, or those of one epoch not in the next.
        randaugment: operations of RandAugment on each image, in [0, inf).
        randaugment_magnitude: strength of RandAugment, in [0, 30].
        cutout: pixels of a side of a black square in each image, in [0, inf).
        mix: mix the images of a batch, and their labels.
        mix_alpha: how even the parts of a mix are, in (0, inf): 0.2 little, 1 anything.
        size_schedule: heights of training images, each for an equal part of the epochs, in [1, inf).
    """

    def __init__(
        self,
        dataset: str,
        root: str | None,
        batch_size: int,
        val_fraction: float,
        seed: int,
        augment: bool,
        crop_padding: int,
        flip: float,
        jitter: float,
        rotation: float,
        download: bool = True,
        image_size: int | None = None,
        channels: Literal[1, 3, 4] | None = None,
        test_fraction: float = 0.2,
        train_images: int | None = None,
        background: Literal["white", "black", "grey"] = "white",
        cache: str | None = None,
        on_leak: Literal["warn", "error", "drop"] = "warn",
        fold: int | None = None,
        folds: int = 5,
        crop_fill: Literal["black", "reflect"] = "black",
        flip_mode: Literal["random", "alternating"] = "random",
        randaugment: int = 0,
        randaugment_magnitude: int = 9,
        cutout: int = 0,
        mix: Literal["mixup", "cutmix"] | None = None,
        mix_alpha: float = 1.0,
        size_schedule: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.seed = seed
        self.train_images = train_images
        self.on_leak = on_leak
        self.fold, self.folds = fold, folds
        self.augmentation = Augmentation(crop_padding, flip, jitter, rotation, crop_fill) if augment else None
        strong = StrongAugmentation(flip_mode, randaugment, randaugment_magnitude, cutout, mix, mix_alpha)
        self.strong = strong if augment else StrongAugmentation()
        asked = {"mix": mix, "cutout": cutout, "randaugment": randaugment}
        if unused := [f"data.{name}={value}" for name, value in asked.items() if value and not augment]:
            log.warning(f"warning: no effect of {', '.join(unused)}: data.augment=true turns augmentation on")
        self.size_schedule = size_schedule
        self.options = {
            "root": None if root is None else Path(root).expanduser(),
            "download": download,
            "image_size": image_size,
            "channels": channels,
            "test_fraction": test_fraction,
            "background": background,
            "cache": None if cache is None else Path(cache).expanduser(),
        }
        self._placed: dict[tuple[str, torch.device], Batch] = {}

    def load(self) -> None:
        """Read and split the data, unless that is done; the properties below do so too.

        Raises:
            UserError: if the data is not there or damaged, or cannot be split as asked for.
        """
        _ = self._leaks, self._indices

    def prepare_data(self) -> None:
        """Let one process download and decode before all of them read."""
        self.load()

    def setup(self, stage: str) -> None:
        """Read the data; without a validation set have the trainer skip validation."""
        self.load()
        if self.trainer and not self.sizes["val"]:
            self.trainer.limit_val_batches = 0  # Lightning warns of an empty or missing loader

    @cached_property
    def _data(self) -> ImageSet:
        if self.dataset not in SOURCES and "." not in self.dataset:
            raise UserError(f"data.dataset={self.dataset}: there are {', '.join(SOURCES)}")
        source = SOURCES.get(self.dataset) or load(self.dataset)
        taken = inspect.signature(source).parameters
        options = {name: option for name, option in self.options.items() if name in taken}
        if options.get("root", ...) is None:
            raise UserError(f"{self.dataset} is read from files: set data.root=PATH, or DATA_ROOT")
        return source(**options)

    @cached_property
    def _leaks(self) -> Leaks:
        leaks = find_leaks(self._data)
        if leaks.sentences:
            found = "\n         ".join([f"{self.dataset}: {leaks.sentences[0]}", *leaks.sentences[1:]])
            drop = "data.on_leak=drop leaves these out of the images to train and validate with"
            if self.on_leak == "error":
                raise UserError(f"{found}\n       {drop}, warn goes on")
            if self.on_leak == "drop":
                log.warning(f"warning: not trained or validated with, as data.on_leak=drop says: {found}")
            else:
                log.warning(f"warning: {found}\n         {drop}")
        return leaks

    @cached_property
    def _indices(self) -> dict[str, Tensor]:
        """Indices into the official training images (``train``, ``val``) and test images (``test``)."""
        labels, classes, own = self._data.train_labels, self._data.classes, self._data.val_count
        used = self._leaks.is_apart if self.on_leak == "drop" else torch.ones_like(labels, dtype=torch.bool)
        first = len(labels) - own
        pool = used[:first].nonzero().flatten()
        if not len(pool):
            raise UserError("data.on_leak=drop leaves no training image: every one is also held out")
        if self.fold is not None:
            if own:
                raise UserError(f"data.fold={self.fold}: {self.dataset} has a validation set of its own")
            train, val = stratified_fold(labels[pool], self.fold, self.folds, classes)
        else:
            fraction = 0 if own else self.val_fraction
            train, val = stratified_split(labels[pool], fraction, classes, "data.val_fraction")
        train, val = pool[train], pool[val]
        if own:
            pool = first + used[first:].nonzero().flatten()
            val = pool[stratified_order(labels[pool])]
        if self.train_images is not None:
            if not len(classes) <= self.train_images <= len(train):
                raise UserError(
                    f"data.train_images={self.train_images}: {self.dataset} has {len(classes)} classes and "
                    f"{len(train)} training images; choose a number between"
                )
            train = stratified_part(train, labels, self.train_images)
        return {"train": train, "val": val, "test": stratified_order(self._data.test_labels)}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self._data.train_images.shape[1:]
        return channels, height, width

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return self._data.classes

    @property
    def fingerprint(self) -> str:
        """Hash of everything in the data set, see :class:`Statistics`."""
        return self._data.fingerprint

    @property
    def notes(self) -> dict[str, Any]:
        """What to know of the data beside its fingerprint, as JSON has it, without what does not apply."""
        notes = {
            "own_validation_set": self._data.val_count,
            "pixel_range": self._data.pixel_range,
            "skipped": dict(self._data.skipped),
            "appearance": self._appearance.facts,
            "leaks": self._leaks.sentences,
        }
        return {name: note for name, note in notes.items() if note}

    @cached_property
    def _appearance(self) -> Appearance:
        number = max(1, min(MEASURED, 2**25 // math.prod(self.image_shape)))
        return Appearance.of(self._data.train_images[self._indices["train"][:number]].numpy())

    @property
    def sizes(self) -> dict[str, int]:
        """Images to train on, validate with and test with: ``train``, ``val``, ``test``."""
        return {part: len(indices) for part, indices in self._indices.items()}

    def training_images(self, n: int) -> Tensor:
        """The first ``n`` training images, (n, C, H, W) uint8: a fixed shuffle, each class in proportion.

        Fewer where they are large: they become floats, for which there must be memory, too.
        """
        n = min(n, max(1, 2**24 // math.prod(self.image_shape)))
        return self._data.train_images[self._indices["train"][:n]]

    def test_order(self, sizes: Sequence[int]) -> Tensor:
        """(N,) int64: which official test images the processes tested, the r-th of them ``sizes[r]``."""
        order, world_size = self._indices["test"], len(sizes)
        return torch.cat([order[rank::world_size][:size] for rank, size in enumerate(sizes)])

    def test_images(self, indices: Tensor) -> Tensor:
        """(n, C, H, W) uint8 images of the official test set."""
        return self._data.test_images[indices]

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each channel of the images trained on, in [0, 1]."""
        return tuple(mean for mean, _ in self._moments)

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel of the images trained on; 1 where a channel is constant."""
        return tuple(std or 1.0 for _, std in self._moments)

    @cached_property
    def _moments(self) -> list[tuple[float, float]]:
        channels, height, width = self.image_shape
        number = len(self._indices["train"]) * height * width
        totals = self._data.statistics.table[self._indices["train"], 1:].sum(0).tolist()
        # integers of any size: exact until the last division
        return [
            (total / (255 * number), math.sqrt(number * squares - total**2) / (255 * number))
            for total, squares in zip(totals[:channels], totals[channels:], strict=True)
        ]

    def train_dataloader(self) -> TrainingBatches:
        """Shuffled, augmented batches of the epoch the trainer is in, or of epoch 0 without one."""
        trainer = self.trainer

        def epoch() -> int:
            if trainer is None or trainer.overfit_batches:  # type: ignore[attr-defined]
                return 0
            return trainer.current_epoch

        def start() -> int:
            return trainer.fit_loop.batch_idx + 1 if trainer and trainer.training else 0

        def height() -> int | None:
            if not (self.size_schedule and trainer and trainer.max_epochs):
                return None
            return size_in_epoch(self.size_schedule, epoch(), trainer.max_epochs)

        return TrainingBatches(
            **self._shard("train"),
            augmentation=self.augmentation or IDENTITY,
            seed=self.seed,
            epoch=epoch,
            start=start,
            strong=self.strong,
            classes=len(self.classes),
            height=height,
        )

    def val_dataloader(self) -> EvaluationBatches:
        """Batches of the validation set, which may be none."""
        return EvaluationBatches(**self._shard("val"))

    def test_dataloader(self) -> EvaluationBatches:
        """Batches of the official test set."""
        return EvaluationBatches(**self._shard("test"))

    def _shard(self, part: str) -> dict[str, Any]:
        """The fields of :class:`Batches`."""
        device, rank, world_size = torch.device("cpu"), 0, 1
        if self.trainer:
            device, rank = self.trainer.strategy.root_device, self.trainer.global_rank
            world_size = self.trainer.world_size
        official = "test" if part == "test" else "train"
        if (official, device) not in self._placed:
            images: Tensor = getattr(self._data, f"{official}_images")
            labels: Tensor = getattr(self._data, f"{official}_labels")
            fits = device.type != "cuda" or images.nbytes < torch.cuda.mem_get_info(device)[0] / 2
            self._placed[official, device] = images.to(device) if fits else images, labels.to(device)
        images, labels = self._placed[official, device]
        return {
            "images": images, "labels": labels, "indices": self._indices[part],
            "batch_size": self.batch_size, "rank": rank, "world_size": world_size,
        }  # fmt: skip

    def samples(self, n: int, draws: int) -> tuple[Tensor, Tensor, Tensor]:
        """Some training images and what augmentation makes of them; always the same, of mixed classes.

        Args:
            n: images, if there are as many.
            draws: augmentations of each.

        Returns:
            (n, C, H, W) uint8 originals, (draws, n, C, H, W) float32 in [0, 1], and (n,) int64 labels.
        """
        chosen = self._indices["train"][:n]
        originals = self._data.train_images[chosen]
        augment = self.augmentation or IDENTITY
        augmented = [
            augment(originals, augment.draw(len(chosen), generator(self.seed, draw, "samples")))
            for draw in range(draws)
        ]
        return originals, torch.stack(augmented), self._data.train_labels[chosen]
