"""Top-5 accuracy: the fraction of images whose class is among the five that are thought likeliest."""

import numpy as np

from experiment.metrics.table import Labels, Logits, metric


@metric("top5", "top-5 accuracy", unit="%", min_classes=6)
def top5(logits: Logits, labels: Labels) -> float:
    """In [0, 1]; of equal logits the lower class comes first. An image with a NaN logit counts as wrong."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    before = (logits > own) | ((logits == own) & (np.arange(logits.shape[1]) < labels[:, None]))
    return float(((before.sum(axis=1) < 5) & ~np.isnan(logits).any(axis=1)).mean())
