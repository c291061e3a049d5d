"""What a few seeds allow to be said: intervals, tests and their correction. Numbers in, numbers out."""

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

LEVEL, POWER = 0.05, 0.8
EXACT_FLIPS = 14  # values whose signs are all flipped; of more, this many random flips are drawn:
RANDOM_FLIPS = 20_000


@dataclass(frozen=True)
class Estimate:
    """A mean of ``n`` values with its interval and two-sided p; NaN where so few values do not tell.

    Args:
        n: values.
        mean: of them.
        sd: standard deviation.
        error: standard error of the mean.
        low, high: the interval, of 95 % unless said otherwise.
        p: of Student's t-test against 0.
    """

    n: int
    mean: float
    sd: float = math.nan
    error: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan

    def p_below(self, value: float) -> float:
        """One-sided p against the hypothesis that the true mean is ``value`` or more."""
        return float(stdtr(self.n - 1, (self.mean - value) / self.error)) if self.error > 0 else math.nan

    def p_above(self, value: float) -> float:
        """One-sided p against the hypothesis that the true mean is ``value`` or less."""
        return float(stdtr(self.n - 1, (value - self.mean) / self.error)) if self.error > 0 else math.nan

    def p_equivalent(self, delta: float) -> float:
        """p of two one-sided tests against the hypothesis that the true mean lies outside ±``delta``.

        D. J. Schuirmann, A comparison of the two one-sided tests procedure …, J. Pharmacokinet. Biopharm. 15,
        1987.
        """
        return max(self.p_below(delta), self.p_above(-delta))


def estimate(values: Sequence[float], size: float = 0.0, level: float = LEVEL) -> Estimate:
    """Mean, interval and p by Student's t; of the differences of pairs this is the paired t-test.

    "Student", The probable error of a mean, Biometrika 6, 1908. What two runs of one seed share, such as
    batches and augmentation, drops out of their difference.

    Args:
        values: independent ones, one a seed.
        size: largest magnitude of what the values are differences of. Values that agree to a millionth of it
            have no spread: metrics are float32, which knows no more.
        level: one minus the coverage of the interval.
    """
    n = len(values)
    mean = float(np.mean(values)) if n else math.nan
    if n < 2:
        return Estimate(n, mean)
    if np.ptp(values) <= 1e-6 * size:
        return Estimate(n, mean if abs(mean) > 1e-6 * size else 0.0, 0.0)
    sd = float(np.std(values, ddof=1))
    return _students(n, mean, sd, sd / math.sqrt(n), level)


def _students(n: int, mean: float, sd: float, error: float, level: float) -> Estimate:
    half = error * float(stdtrit(n - 1, 1 - level / 2))
    p = float(2 * stdtr(n - 1, -abs(mean) / error))
    return Estimate(n, mean, sd, error, mean - half, mean + half, p)


def estimate_over_folds(values: Mapping[tuple[str, ...], float], folds: int, size: float = 0.0) -> Estimate:
    """As :func:`estimate`, where the split varies: the training sets of two folds overlap.

    The variance of the mean of J folds is (1/J + 1/(folds − 1))·s², the ratio of test to training images
    standing in for their correlation: C. Nadeau, Y. Bengio, Inference for the generalization error, Machine
    Learning 52, 2003. Where several folds share several seeds, the variance of the mean over seeds is added.

    Args:
        values: (seed, fold) → value.
        folds: parts of the training set.
        size: as of :func:`estimate`.
    """
    of_seeds, of_folds = (_means(values, place) for place in (0, 1))
    found = estimate(of_folds, size)
    if not found.error > 0:
        return found
    variance = found.error**2 + found.sd**2 / (folds - 1)
    n = found.n
    if 1 < len(of_seeds) < len(values):
        variance += estimate(of_seeds, size).error ** 2
        n = min(n, len(of_seeds))
    return _students(n, found.mean, found.sd, math.sqrt(variance), LEVEL)


def _means(values: Mapping[tuple[str, ...], float], place: int) -> list[float]:
    groups: dict[str, list[float]] = defaultdict(list)
    for pair, value in values.items():
        groups[pair[place]].append(value)
    return [float(np.mean(group)) for group in groups.values()]


def sign_flips(values: Sequence[float]) -> float:
    """Two-sided p of the mean when each value's sign is as likely to be the other one.

    It asks for symmetry only, where the t-test asks for normal values.
    R. A. Fisher, The Design of Experiments, 1935, section 21. All 2ⁿ flips up to 14 values, else random ones,
    the same at every call. With n values p cannot fall below 2 ÷ 2ⁿ.
    """
    array = np.asarray(values, dtype=np.float64)
    if len(array) <= EXACT_FLIPS:
        signs = np.array(list(product((1.0, -1.0), repeat=len(array))))
        extra = 0
    else:
        signs = np.random.default_rng(0).choice((1.0, -1.0), (RANDOM_FLIPS, len(array)))
        extra = 1  # what was found is one of the possible flips
    sums = np.abs(signs @ array)
    as_large = int(np.count_nonzero(sums >= abs(array.sum()) * (1 - 1e-12)))
    return (as_large + extra) / (len(signs) + extra)


def corrected(tests: Sequence[tuple[Hashable, float]]) -> list[float]:
    """p-values corrected for how many of their hypotheses can be true at a time.

    Each is (contrast, p); of the hypotheses about one contrast (no effect, the claimed effect, a large
    effect) the tests can reject one wrongly at most. With one hypothesis a contrast this is Holm's
    correction: S. Holm, Scand. J. Statist. 6, 1979; else step S1 of J. P. Shaffer, Modified sequentially
    rejective multiple test procedures, JASA 81, 1986. NaN, no test, does not count and stays.
    """
    order = sorted((p, place) for place, (_, p) in enumerate(tests) if not math.isnan(p))
    adjusted, highest = [math.nan] * len(tests), 0.0
    for rank, (p, place) in enumerate(order):
        left = len({tests[other][0] for _, other in order[rank:]})
        adjusted[place] = highest = max(highest, min(1.0, left * p))
    return adjusted


def pairs_needed(mean: float, sd: float, tests: int) -> float:
    """Pairs with which one t-test of ``tests`` finds this mean and spread in 80 % of all cases.

    W. C. Guenther, Sample size formulas for normal theory t tests, The American Statistician 35, 1981, at
    Bonferroni's level.
    """
    level = float(ndtri(1 - LEVEL / 2 / tests))
    return math.inf if mean == 0 else ((level + float(ndtri(POWER))) * sd / mean) ** 2 + level**2 / 2
