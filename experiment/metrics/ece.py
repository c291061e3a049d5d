"""Expected calibration error: how far the confidence in predictions is from how often they are right."""

import math

import numpy as np

from experiment.metrics.logits import log_probabilities, predicted
from experiment.metrics.table import Labels, Logits, metric


@metric("ece", "expected calibration error", unit="%", better="lower")
def ece(logits: Logits, labels: Labels, bins: int = 15) -> float:
    """In [0, 1]: the mean of |accuracy − confidence| over bins of equal width, weighted by their images.

    C. Guo et al., On calibration of modern neural networks, ICML 2017, with its 15 bins, (0, 1/15] to
    (14/15, 1]. NaN where a logit is.

    Args:
        logits: (N, K).
        labels: (N,).
        bins: number of bins.
    """
    confidence = np.exp(log_probabilities(logits).max(axis=1))
    if np.isnan(confidence).any():
        return math.nan
    # per bin the sum of (right − confidence): its size over N is that bin's weighted gap
    which = np.minimum(np.ceil(confidence * bins).astype(np.int64), bins)
    gaps = np.bincount(which, (predicted(logits) == labels) - confidence, minlength=bins + 1)
    return float(np.abs(gaps).sum() / len(labels))
