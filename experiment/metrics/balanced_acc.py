"""Balanced accuracy: the mean over the classes of the fraction that is recognised of each."""

import numpy as np

from experiment.metrics.logits import recalls
from experiment.metrics.table import Labels, Logits, metric


@metric("balanced_acc", "balanced accuracy", unit="%")
def balanced_acc(logits: Logits, labels: Labels) -> float:
    """In [0, 1], over the classes that have images; of equally many of each class it is the accuracy.

    K. H. Brodersen et al., The balanced accuracy and its posterior distribution, ICPR 2010.
    """
    return float(np.nanmean(recalls(logits, labels)))
