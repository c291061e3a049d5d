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

from experiment.errors import UserError
from experiment.plots import run as plots
from experiment.plots.style import save
from experiment.run import Run, write_atomically
from lightning_modules.classifier import Classifier
from lightning_modules.data.augment import to_float
from lightning_modules.data.decoding import read_images
from lightning_modules.data.image_files import describe, list_images
from lightning_modules.loading import load_classifier

log = logging.getLogger(__name__)

AT_ONCE = 256
"""Images read and classified together."""
LISTED = 20
"""Rows of the table for a person; ``predictions.csv`` has all."""


class Prediction(NamedTuple):
    """A row of ``predictions.csv``: the two most probable classes with their softmax probabilities."""

    image: str
    predicted: str
    confidence: float
    runner_up: str
    runner_up_confidence: float


def predict(run: Run, checkpoint: Path, images: Path, folder: Path) -> tuple[list[Prediction], list[str]]:
    """Classify image files, leaving ``predictions.csv`` and the contact sheet ``predictions.png``.

    Args:
        run: whose classifier it is; it computes in float32.
        checkpoint: with its weights.
        images: a file, or a folder of any depth; of any size and mode, see :func:`read_images`.
        folder: where the two files go.

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
    rows: dict[str, Prediction] = {}
    problems: list[str] = []
    for start in range(0, len(files), AT_ONCE):
        found, damaged = _classify(classifier, files[start : start + AT_ONCE])
        rows |= found
        problems += damaged
    if not rows:
        raise UserError("\n       ".join([f"images={images}: none can be read", *problems]))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Prediction._fields, *rows.values()])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "predictions.csv", text.getvalue())
        title = f"Predictions of {run.folder.name}, {checkpoint.stem} checkpoint"
        _draw(rows, classifier, title, folder / "predictions.png")
    except OSError as failure:
        raise UserError(f"out={folder} cannot be written to: {failure.strerror}") from failure
    return [*rows.values()], problems


@torch.no_grad()
def _classify(classifier: Classifier, files: Sequence[str]) -> tuple[dict[str, Prediction], list[str]]:
    """A prediction for each file that can be read, and what is wrong with each other."""
    paths, pixels, damaged = read_images(files, classifier.image_shape)
    if not paths:
        return {}, damaged
    probabilities = classifier(to_float(pixels.to(classifier.device))).softmax(dim=1)
    top, best = probabilities.double().topk(2)
    values, labels = top.round(decimals=6).tolist(), best.tolist()
    rows = {}
    for path, (confidence, rest), (label, other) in zip(paths, values, labels, strict=True):
        printable = os.fsencode(path).decode(errors="replace")  # a file's name need not be text
        predicted, runner_up = classifier.classes[label], classifier.classes[other]
        rows[path] = Prediction(printable, predicted, confidence, runner_up, rest)
    return rows, damaged


def _draw(rows: dict[str, Prediction], classifier: Classifier, title: str, path: Path) -> None:
    """A contact sheet of some images, of all if there are few, as the classifier sees them."""
    paths, number = [*rows], min(len(rows), plots.MAX_PREDICTIONS)
    shown = [paths[round(place)] for place in torch.linspace(0, len(rows) - 1, number).tolist()]
    shown, pixels, _ = read_images(shown, classifier.image_shape)
    chosen = [rows[path] for path in shown]
    with warnings.catch_warnings():
        # matplotlib's font has no Chinese: boxes in the sheet do, the table has the names
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        sheet = plots.predictions(
            pixels.movedim(1, -1).numpy(),
            [Path(row.image).name for row in chosen],
            [row.predicted for row in chosen],
            [row.confidence for row in chosen],
            title,
            len(rows),
        )
        save(sheet, path)


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
