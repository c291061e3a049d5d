"""Accuracy: the fraction of images whose class is predicted."""

from experiment.metrics.logits import predicted
from experiment.metrics.table import Labels, Logits, metric


@metric("acc", "accuracy", unit="%")
def acc(logits: Logits, labels: Labels) -> float:
    """In [0, 1]. An image with a logit that is NaN counts as wrong."""
    return float((predicted(logits) == labels).mean())
