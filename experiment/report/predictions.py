"""What predictions tell beyond their accuracy: calibration, ensembles, two runs image by image."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from experiment.errors import UserError
from experiment.metrics import Predictions, read_predictions
from experiment.metrics.acc import acc
from experiment.metrics.ece import ece
from experiment.metrics.logits import log_probabilities, predicted
from experiment.metrics.nll import nll
from experiment.report.runs import Record


class Calibration(NamedTuple):
    """How far confidence and accuracy agree on the test set; the mean of several runs."""

    ece: float
    nll: float
    temperature: float
    """By which dividing the logits makes the negative log-likelihood smallest; above 1: overconfident."""
    scaled_ece: float
    scaled_nll: float
    """With the temperature of one half of the images applied to the other."""


class Agreement(NamedTuple):
    """How many images two runs got right."""

    both: int
    first: int
    second: int
    neither: int
    p: float
    """Of McNemar's exact test whether one is right more often; of these runs, not of their settings."""


def of_run(run: Record) -> Predictions | None:
    """What a run said of the test images; None where there is no such file, or a damaged one."""
    try:
        return read_predictions(run.folder / "predictions.npz")
    except UserError:
        return None


def temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """The temperature in [0.05, 20] that makes the negative log-likelihood smallest.

    By Newton's method on its inverse, in which the likelihood is convex.
    C. Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    below = np.maximum(logits - logits.max(axis=1, keepdims=True), -1e4)  # an impossible class is -inf
    own, inverse = float(np.take_along_axis(below, labels[:, None], axis=1).mean()), 1.0
    for _ in range(50):
        shares = np.exp(inverse * below)
        shares /= shares.sum(axis=1, keepdims=True)
        mean = (shares * below).sum(axis=1)
        slope, curvature = mean.mean() - own, ((shares * below**2).sum(axis=1) - mean**2).mean()
        previous, step = inverse, slope / max(curvature, 1e-12)
        inverse = float(np.clip(inverse - step, max(inverse / 2, 0.05), min(2 * inverse, 20.0)))
        if abs(inverse - previous) < 1e-4 * inverse:
            break
    return 1 / inverse


def calibration(runs: Sequence[Predictions]) -> Calibration:
    """The calibration of runs.

    A temperature is fitted on every other image and applied to the rest, and the other way round: fitted
    and judged on the same images it would flatter.
    """
    rows = []
    for logits, labels, _ in runs:
        found = [temperature(logits[half::2], labels[half::2]) for half in (0, 1)]
        scaled = logits.copy()
        for half, other in zip((0, 1), found[::-1], strict=True):
            scaled[half::2] /= other
        measured = [f(z, labels) for z in (logits, scaled) for f in (ece, nll)]
        rows.append([*measured[:2], math.sqrt(found[0] * found[1]), *measured[2:]])
    return Calibration(*(math.fsum(column) / len(rows) for column in zip(*rows, strict=True)))


def ensemble_accuracy(runs: Sequence[Predictions]) -> float | None:
    """The accuracy of the mean probabilities of runs; None unless they are of the same images."""
    first = runs[0]
    if any(not _same_images(first, other) for other in runs):
        return None
    mean = np.mean([np.exp(log_probabilities(run.logits)) for run in runs], axis=0)
    return acc(mean, first.labels)


def agreement(a: Predictions, b: Predictions) -> Agreement | None:
    """Image by image, which of two runs is right; None unless they are of the same images.

    Q. McNemar, Note on the sampling error of the difference between correlated proportions, Psychometrika
    12, 1947.
    """
    if not _same_images(a, b):
        return None
    right = [predicted(run.logits) == run.labels for run in (a, b)]
    first, second = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
    differ = first + second
    p = min(1.0, 2 * float(bdtr(min(first, second), differ, 0.5))) if differ else 1.0
    return Agreement(int((right[0] & right[1]).sum()), first, second, int((~right[0] & ~right[1]).sum()), p)


def _same_images(a: Predictions, b: Predictions) -> bool:
    return np.array_equal(a.indices, b.indices) and np.array_equal(a.labels, b.labels)
