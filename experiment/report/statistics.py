"""What a few seeds allow to be said: intervals, corrected p-values and verdicts. Pure functions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

LEVEL, POWER = 0.05, 0.8
MANY = 1000  # seeds that nobody will train


@dataclass(frozen=True)
class Estimate:
    """A mean of ``n`` values with its 95 % interval and two-sided p; NaN where so few values do not tell."""

    n: int
    mean: float
    sd: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan


def estimate(values: Sequence[float], size: float = 0.0) -> Estimate:
    """Mean, interval and p by Student's t; of the differences of pairs this is the paired t-test.

    "Student", The probable error of a mean, Biometrika 6, 1908. What two runs of one seed share, such as
    batches and augmentation, drops out of their difference.

    Args:
        values: one a pair.
        size: largest magnitude of what the values are differences of. Values that agree to a millionth of it
            have no spread: metrics are float32, which knows no more.
    """
    n = len(values)
    mean = float(np.mean(values)) if n else math.nan
    if n < 2:
        return Estimate(n, mean)
    if np.ptp(values) <= 1e-6 * size:
        return Estimate(n, mean if abs(mean) > 1e-6 * size else 0.0, 0.0)
    sd = float(np.std(values, ddof=1))
    error = sd / math.sqrt(n)
    half = error * float(stdtrit(n - 1, 1 - LEVEL / 2))
    return Estimate(n, mean, sd, mean - half, mean + half, float(2 * stdtr(n - 1, -abs(mean) / error)))


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected for their number; NaN, no test, does not count and stays.

    S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6, 1979.
    """
    tested = sorted((p, place) for place, p in enumerate(ps) if not math.isnan(p))
    corrected, highest = [math.nan] * len(ps), 0.0
    for rank, (p, place) in enumerate(tested):
        corrected[place] = highest = max(highest, min(1.0, (len(tested) - rank) * p))
    return corrected


def pairs_needed(mean: float, sd: float, tests: int) -> float:
    """Pairs with which one t-test of ``tests`` finds this mean and spread in 80 % of all cases.

    W. C. Guenther, Sample size formulas for normal theory t tests, The American Statistician 35, 1981, at
    Bonferroni's level.
    """
    level = float(ndtri(1 - LEVEL / 2 / tests))
    return math.inf if mean == 0 else ((level + float(ndtri(POWER))) * sd / mean) ** 2 + level**2 / 2


def verdict(found: Estimate, p: float, tests: int, seeds: int, words: tuple[str, str], is_exact: bool) -> str:
    """What a contrast says: one of ``words``, or ``undecided: …`` with what is lacking.

    Args:
        found: of the contrast.
        p: corrected for the number of ``tests``.
        tests: of the report.
        seeds: that the pairs come from.
        words: for a significantly positive and a significantly negative effect. ``held`` expects the former.
        is_exact: whether the metric cannot depend on the seed.
    """
    word = words[found.mean < 0]
    if found.n == 0:
        return "undecided: no seed has a finished run of every setting"
    if is_exact and not found.sd > 0:
        return word if found.mean else "undecided: no difference"
    if found.n == 1:
        return "undecided: one pair gives no interval, at least 1 more seed needed"
    if found.sd == 0:
        how = "differ by the same amount, there is no spread to test against" if found.mean else "are equal"
        return f"undecided: all {found.n} pairs {how}"
    if p < LEVEL:
        return word
    if word == "contradicted":
        return "undecided: so far the mean goes the other way"
    more = (pairs_needed(found.mean, found.sd, tests) - found.n) * seeds / found.n
    if more > MANY:
        return f"undecided: more than {MANY} more seeds needed"
    return f"undecided: about {max(1, math.ceil(more))} more seed{'s' * (more > 1)} needed"
