"""What follows from logits: the predicted class, and probabilities."""

import numpy as np
from numpy.typing import NDArray

from experiment.metrics.table import Labels, Logits


def predicted(logits: Logits) -> NDArray[np.int64]:
    """(N,) classes with the largest logit, the first of equals; -1, no class, where a logit is NaN."""
    return np.where(np.isnan(logits).any(axis=1), -1, logits.argmax(axis=1)).astype(np.int64)


def centred(logits: Logits) -> Logits:
    """Logits less the largest of their row: the same probabilities and ranking, and no overflow.

    A class with an infinite logit is certain: all others become minus infinity. NaN stays NaN.
    """
    largest = logits.max(axis=1, keepdims=True)
    if np.isfinite(logits).all():
        below: Logits = logits - largest
        return below
    with np.errstate(invalid="ignore"):
        finite = logits - largest
    certain = np.where(np.isposinf(logits), 0, np.where(np.isnan(logits), np.nan, -np.inf))
    centred: Logits = np.where(np.isposinf(largest), certain, finite).astype(logits.dtype)
    return centred


def log_probabilities(logits: Logits) -> Logits:
    """(N, K) logarithms of softmax, in float64; NaN in a row that holds NaN."""
    shifted = centred(logits.astype(np.float64))
    logarithms: Logits = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logarithms


def confusion(logits: Logits, labels: Labels) -> NDArray[np.int64]:
    """(K, K) counts, a row for each true class, a column for each predicted; NaN is not counted."""
    classes, guess = logits.shape[1], predicted(logits)
    pairs = (labels * classes + guess)[guess >= 0]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def recalls(logits: Logits, labels: Labels) -> NDArray[np.float64]:
    """(K,) fractions of the images of each class that are recognised; NaN of a class without images."""
    classes = logits.shape[1]
    total = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[predicted(logits) == labels], minlength=classes)
    found = np.full(classes, np.nan)
    np.divide(right, total, out=found, where=total > 0)
    return found
