"""What a network said of every test image, kept so that new questions can be asked of old runs."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiment.errors import UserError
from experiment.files import write_atomically
from experiment.metrics.logits import centred
from experiment.metrics.table import TABLE, Labels, Logits, Metric


class Predictions(NamedTuple):
    """Of N images of K classes, in the order of their set."""

    logits: Logits
    """(N, K) floats."""
    labels: Labels
    """(N,) integers."""
    indices: NDArray[np.integer]
    """(N,) integers: which image of the official set each is."""


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write an ``.npz`` file, whole or not at all, of some 25 bytes an image of ten classes.

    Logits are kept as float16 less the largest of their row, where float16 is finest: that changes no
    probability, and hardly ever a ranking.
    """
    order = np.argsort(predictions.indices)
    logits, labels, indices = predictions.logits[order], predictions.labels[order], predictions.indices[order]
    content = io.BytesIO()
    with np.errstate(over="ignore"):  # a class that is 65,504 below is impossible
        small = centred(logits).astype(np.float16)
    kind = np.min_scalar_type(logits.shape[1])
    np.savez_compressed(content, logits=small, labels=labels.astype(kind), indices=indices.astype(np.int32))
    write_atomically(path, content.getvalue())


def read_predictions(path: Path) -> Predictions:
    """What :func:`write_predictions` wrote, in the order of the images' set; logits as float32.

    Raises:
        UserError: if there is no such file or it is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            read = Predictions(
                content["logits"].astype(np.float32), content["labels"].astype(np.int64), content["indices"]
            )
    except FileNotFoundError as missing:
        raise UserError(f"no predictions {path}: python evaluate.py run=FOLDER makes them") from missing
    except Exception as damage:  # the readers of zip and NumPy trip over damaged bytes in any way
        raise UserError(f"{path} does not hold predictions: {damage}") from damage
    n, classes = read.logits.shape if read.logits.ndim == 2 else (-1, -1)
    fits = read.labels.shape == read.indices.shape == (n,) and np.isin(read.labels, np.arange(classes)).all()
    if n < 1 or not fits:
        raise UserError(f"{path} does not hold predictions: its arrays do not go together")
    order = np.argsort(read.indices, kind="stable")
    return Predictions(read.logits[order], read.labels[order], read.indices[order])


def of_predictions(path: Path, metrics: Iterable[str | Metric]) -> dict[str, float]:
    """Ask a run's predictions for metrics that it may not have been tested with; no torch, no data set.

    Args:
        path: ``predictions.npz`` of a run folder.
        metrics: keys of the table, or rows.

    Returns:
        ``test_<key>`` → value, as a test gives it but for the rounding to float16.

    Raises:
        UserError: if the file does not hold predictions, or there is no such metric.
    """
    logits, labels, _ = read_predictions(path)
    values = {}
    for metric in metrics:
        row = TABLE.get(metric) if isinstance(metric, str) else metric
        if row is None or row.function is None or row.views:  # views of an image are not kept
            known = ", ".join(key for key, other in TABLE.items() if other.function and not other.views)
            raise UserError(f"{metric} is no metric of predictions; there are {known}")
        values[f"test_{row.key}"] = row(logits, labels)
    return values
