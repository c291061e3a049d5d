"""What the classifier of a run says of image files."""

import csv
import io
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from experiment.errors import UserError
from experiment.files import write_atomically
from experiment.plots import run as plots
from experiment.plots.style import save
from experiment.run import Run
from lightning_modules.classifier import Classifier
from lightning_modules.data.appearance import Appearance, Pixels
from lightning_modules.data.augment import to_float
from lightning_modules.data.decoding import read_images
from lightning_modules.data.image_files import describe, list_images, printable
from lightning_modules.loading import load_classifier

log = logging.getLogger(__name__)

AT_ONCE = 256
"""Images read and classified together."""
DIGITS = Appearance((0.131, 0.056), (0.3, 0.06), (0.0, 0.0), box=20, stroke=(3.19, 0.84))
"""MNIST's digits, as :meth:`Appearance.of` measures them in ``mnist_mini``; for runs that did not note it."""
LISTED = 20
"""Rows of the table for a person; ``predictions.csv`` has all."""


class Prediction(NamedTuple):
    """A row of ``predictions.csv``: the two most probable classes with their softmax probabilities."""

    image: str
    predicted: str
    confidence: float
    runner_up: str
    runner_up_confidence: float
    changes: str
    """What was done to the image beyond scaling: ``inverted``, ``centred``, both or nothing."""


class Reader:
    """Reads image files as the classifier of a run needs them, and notes what it did to which.

    Args:
        run: what its training images looked like is in its provenance; less is known of an old run.
        classifier: of that run.
        invert: whether to turn dark and light; None = where that makes an image look like those trained on.
        center: whether to cut out what is drawn and centre it as MNIST does; None = if those trained on are.
    """

    def __init__(self, run: Run, classifier: Classifier, invert: bool | None, center: bool | None) -> None:
        data, self.shape = run.provenance.get("data", {}), classifier.image_shape
        self.background = run.config.data.get("background", "white")
        self.pixel_range = data.get("pixel_range") and tuple(data["pixel_range"])
        self.invert, self.center = invert, center
        if facts := data.get("appearance"):
            self.appearance = Appearance(**facts)
        elif run.config.data.dataset in ("mnist", "mnist_mini"):
            self.appearance = DIGITS
        else:
            # images differ from each other by less than the pixels of one do, in MNIST by a fifth of it
            self.appearance = Appearance((float(classifier.mean.mean()), float(classifier.std.mean()) / 4))
        if center and self.shape[0] != 1:
            raise UserError("center=true: only grey images can be centred, and this run has colours")
        self.changes: dict[str, tuple[str, ...]] = {}
        self.unlike: set[str] = set()

    def read(self, files: Sequence[str]) -> tuple[list[str], Tensor, list[str]]:
        """As :func:`read_images` does."""
        return read_images(files, self.shape, self.pixel_range, self.background, self._prepare)

    def _prepare(self, path: str, pixels: Pixels) -> Pixels:
        prepared = self.appearance.prepare(pixels, self.shape[1:], self.invert, self.center)
        self.changes[path] = prepared.changes
        if prepared.is_unlike:
            self.unlike.add(path)
        return prepared.pixels

    def warn(self, number: int) -> None:
        """Say in one warning what is odd with the ``number`` images that were read."""
        words = {
            "inverted": "inverted, because dark and light are the other way round in the training images "
            "(invert=false leaves them as they are)",
            "centred": "cut out, scaled and centred as the training images are (center=false leaves them)",
        }
        odd = [
            f"{count:,} of {number:,} images were {words[change]}"
            for change, is_asked in (("inverted", self.invert), ("centred", self.center))
            if not is_asked and (count := sum(change in changes for changes in self.changes.values()))
        ]
        if self.unlike:
            odd.append(
                f"{len(self.unlike):,} of {number:,} images are unlike those trained on, such as "
                f"{printable(min(self.unlike))}: do not trust what is said of them"
            )
        if odd:
            log.warning("\n         ".join([f"warning: {odd[0]}", *odd[1:]]))


def predict(
    run: Run,
    checkpoint: Path,
    images: Path,
    folder: Path,
    invert: bool | None = None,
    center: bool | None = None,
) -> tuple[list[Prediction], list[str]]:
    """Classify image files, leaving ``predictions.csv`` and the contact sheet ``predictions.png``.

    Args:
        run: whose classifier it is; it computes in float32.
        checkpoint: with its weights.
        images: a file, or a folder of any depth; of any size and mode, see :func:`read_images`.
        folder: where the two files go.
        invert: as in :class:`Reader`, like the next.
        center: see there.

    Returns:
        A row for each image, in the order of their paths, and what is wrong with each that cannot be read.

    Raises:
        UserError: if no image can be read, or ``folder`` not be written to.
    """
    files, skipped = list_images(images)
    if skipped:
        log.warning(f"warning: {images}: left out {describe(skipped)}")
    classifier = load_classifier(run, checkpoint)
    # numpy computes on the CPU, and so does auto: a GPU may be there without CuPy
    if torch.cuda.is_available() and run.config.model.get("engine", "torch") in ("torch", "cupy"):
        classifier.cuda()
    reader = Reader(run, classifier, invert, center)
    rows: dict[str, Prediction] = {}
    problems: list[str] = []
    for start in range(0, len(files), AT_ONCE):
        paths, pixels, damaged = reader.read(files[start : start + AT_ONCE])
        problems += damaged
        if not paths:
            continue
        with torch.no_grad():
            probabilities = classifier(to_float(pixels.to(classifier.device))).softmax(dim=1)
        top, best = probabilities.double().topk(2)
        values, labels = top.round(decimals=6).tolist(), best.tolist()
        for path, (confidence, rest), (label, other) in zip(paths, values, labels, strict=True):
            predicted, runner_up = classifier.classes[label], classifier.classes[other]
            changes = " ".join(reader.changes[path])
            rows[path] = Prediction(printable(path), predicted, confidence, runner_up, rest, changes)
    if not rows:
        raise UserError("\n       ".join([f"images={images}: none can be read", *problems]))
    reader.warn(len(rows))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Prediction._fields, *rows.values()])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "predictions.csv", text.getvalue())
        title = f"Predictions of {run.folder.name}, {checkpoint.stem} checkpoint"
        _draw(rows, reader, title, folder / "predictions.png")
    except OSError as failure:
        raise UserError(f"out={folder} cannot be written to: {failure.strerror}") from failure
    return [*rows.values()], problems


def _draw(rows: dict[str, Prediction], reader: Reader, title: str, path: Path) -> None:
    """A contact sheet of some images, of all if there are few, as the classifier sees them."""
    paths, number = [*rows], min(len(rows), plots.MAX_PREDICTIONS)
    evenly = torch.linspace(0, len(rows) - 1, number).round().int().tolist()
    shown, pixels, _ = reader.read([paths[index] for index in evenly])
    chosen = [rows[path] for path in shown]
    with warnings.catch_warnings():
        # matplotlib's font has no Chinese: boxes in the sheet do, the table has the names
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        names = [Path(row.image).name for row in chosen]
        labels, confidences = [row.predicted for row in chosen], [row.confidence for row in chosen]
        images = pixels.movedim(1, -1).numpy()
        save(plots.predictions(images, names, labels, confidences, title, len(rows)), path)


def table(rows: Sequence[Prediction], base: Path) -> str:
    """The first rows for a person, with paths from ``base`` on and a count of the rest."""
    cells = [("image", "predicted", "confidence", "runner-up")]
    for row in rows[:LISTED]:
        path = os.path.relpath(row.image, base)
        path = path if len(path) <= 48 else f"…{path[-47:]}"
        runner_up = f"{row.runner_up} {row.runner_up_confidence:.1%}"
        cells.append((path, row.predicted, f"{row.confidence:>10.1%}", runner_up))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    if len(rows) > LISTED:
        lines.append(f"… and {len(rows) - LISTED:,} more")
    return "\n".join(lines)
