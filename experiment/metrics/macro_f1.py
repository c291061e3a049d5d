"""Macro F1: the mean over the classes of the harmonic mean of precision and recall."""

import numpy as np

from experiment.metrics.logits import predicted
from experiment.metrics.table import Labels, Logits, metric


@metric("macro_f1", "macro F1", unit="%")
def macro_f1(logits: Logits, labels: Labels) -> float:
    """In [0, 1], over the classes with images or predictions: F1 = 2·right / (images + predictions)."""
    guess, classes = predicted(logits), logits.shape[1]
    right, images, predictions = (
        np.bincount(of, minlength=classes) for of in (labels[guess == labels], labels, guess[guess >= 0])
    )
    met = images + predictions > 0
    return float(np.mean(2 * right[met] / (images + predictions)[met]))
