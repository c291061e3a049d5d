"""Accuracy with test-time augmentation."""

from experiment.metrics.acc import acc
from experiment.metrics.table import Labels, Logits, metric


@metric("acc_tta", "accuracy with test-time augmentation", unit="%", when="end", views=True)
def acc_tta(logits: Logits, labels: Labels) -> float:
    """The part that is right by the mean logits of an image, shifted and, where training flips, mirrored."""
    return acc(logits, labels)
