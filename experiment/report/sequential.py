"""Looking after each seed without deceiving oneself: a group-sequential t-test.

The level is spent look by look, so that all looks together find an effect where there is none in 5 % of all
cases at most: K. Kim, D. L. DeMets, Design and analysis of group sequential tests based on the type I error
spending rate function, Biometrika 74, 1987. At each look the interval for the level of that look is what the
verdict is read from; all of them together cover the true effect with 95 %: C. Jennison, B. W. Turnbull,
Interim analyses: the repeated confidence interval approach, J. R. Statist. Soc. B 51, 1989.
"""

import functools
import math
from collections.abc import Mapping

import numpy as np
from scipy.special import stdtr

FIRST_LOOK = 3  # seeds: two give no spread worth the name
SPENDING = 2.0  # after k of K looks (k/K)² of the level is spent
PATHS = 400_000


@functools.cache
def look_levels(max_seeds: int, level: float) -> Mapping[int, float]:
    """Seeds → two-sided level of the t-test at the look after so many; no look before the third seed.

    The bounds are quantiles of the t statistics of 400,000 sequences of normal values, always the same ones.

    Args:
        max_seeds: of the last look.
        level: of all looks together.

    Raises:
        ValueError: for less than three seeds.
    """
    if max_seeds < FIRST_LOOK:
        raise ValueError(
            f"max_seeds={max_seeds}: a test that looks after each seed needs {FIRST_LOOK} at least"
        )
    levels = dict.fromkeys(range(FIRST_LOOK, max_seeds + 1), 0.0)
    rng = np.random.default_rng(0)
    total, squares = rng.standard_normal((2, PATHS)), np.empty(PATHS)
    squares = (total**2).sum(axis=0)
    total = total.sum(axis=0)
    crossed = np.zeros(PATHS, dtype=bool)
    for look, n in enumerate(levels, 1):
        drawn = rng.standard_normal(PATHS)
        total += drawn
        squares += drawn**2
        mean = total / n
        t = np.abs(mean) / np.sqrt((squares - n * mean**2) / (n - 1) / n)
        may_cross = int(level * (look / len(levels)) ** SPENDING * PATHS) - int(crossed.sum())
        if may_cross > 0:
            left = np.where(crossed, 0.0, t)
            bound = float(np.partition(left, -may_cross)[-may_cross])
            crossed |= left >= bound
            levels[n] = float(2 * stdtr(n - 1, -bound)) if math.isfinite(bound) else 0.0
    return levels
