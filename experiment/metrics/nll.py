"""Negative log-likelihood: how surprised the network is by the true classes."""

import numpy as np

from experiment.metrics.logits import log_probabilities
from experiment.metrics.table import Labels, Logits, metric


@metric("nll", "negative log-likelihood", better="lower", digits=4)
def nll(logits: Logits, labels: Labels) -> float:
    """In nats an image, at least 0: the cross-entropy, whatever the loss of the training.

    Infinite where a true class is held for impossible, NaN where a logit is.
    """
    return float(-np.take_along_axis(log_probabilities(logits), labels[:, None], axis=1).mean())
