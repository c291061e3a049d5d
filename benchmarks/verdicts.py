"""How often verdicts are false, intervals cover and effects are found: ``python -m benchmarks.verdicts``.

Simulated are differences of pairs, normal with standard deviation 1. No training, no torch.
"""

import argparse
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks import positive
from experiment.report.sequential import look_levels
from experiment.report.statistics import LEVEL, corrected, estimate

Values = NDArray[np.float64]
SEEDS = 10


def fixed(values: Values) -> bool:
    """One look at the end."""
    return estimate(list(values)).p < LEVEL


def peeking(values: Values) -> bool:
    """The same test after each seed from the second on, until it finds something."""
    return any(estimate(list(values[:n])).p < LEVEL for n in range(2, len(values) + 1))


def sequential(values: Values) -> bool:
    """``sweep.until=decided``."""
    return any(estimate(list(values[:n])).p < p for n, p in look_levels(len(values), LEVEL).items())


def equivalent(values: Values) -> bool:
    """Two one-sided tests with δ = 1, the true effect."""
    return estimate(list(values)).p_equivalent(1.0) < LEVEL


def covered(values: Values, effect: float) -> bool:
    """Whether the interval of a fixed number of seeds has the effect."""
    found = estimate(list(values))
    return found.low <= effect <= found.high


def rate(test: Callable[[Values], bool], effect: float, repetitions: int) -> str:
    """How often ``test`` finds something, in per cent."""
    values = np.random.default_rng(0).normal(effect, 1.0, (repetitions, SEEDS))
    return f"{100 * np.mean([test(row) for row in values]):.1f} %"


def of_one_seed(average: bool, repetitions: int) -> str:
    """False verdicts where three seeds, each with an effect of its own, have four pairs."""
    rng = np.random.default_rng(0)
    pairs = rng.normal(0, 1, (repetitions, 3, 1)) + rng.normal(0, 0.5, (repetitions, 3, 4))
    rows = pairs.mean(axis=2) if average else pairs.reshape(repetitions, 12)
    return f"{100 * np.mean([fixed(row) for row in rows]):.1f} %"


def together(correct: bool, repetitions: int) -> str:
    """Reports of six void claims, 5 seeds each, with a false verdict."""
    rows = np.random.default_rng(0).normal(0, 1, (repetitions, 6, 5))
    ps = [[estimate(list(values)).p for values in claims] for claims in rows]
    least = [min(corrected(list(enumerate(p))) if correct else p) for p in ps]
    return f"{100 * np.mean(np.array(least) < LEVEL):.1f} %"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=positive, default=2000)
    n = parser.parse_args().repetitions
    rows = [
        ("false verdicts, one look after 10 seeds", rate(fixed, 0, n)),
        ("false verdicts, a look after each seed until there is one", rate(peeking, 0, n)),
        ("false verdicts, sweep.until=decided", rate(sequential, 0, n)),
        ("false verdicts, 3 seeds of 4 pairs, each counted", of_one_seed(False, n)),
        ("false verdicts, 3 seeds of 4 pairs, averaged within a seed", of_one_seed(True, n)),
        ("false verdicts, 6 claims in one report, not corrected", together(False, n)),
        ("false verdicts, 6 claims in one report, corrected", together(True, n)),
        ("false verdicts of equivalence, the effect is δ", rate(equivalent, 1, n)),
        ("coverage of the 95 % interval", rate(lambda values: covered(values, 1), 1, n)),
        *(
            (f"effect of {size} standard deviations found, {name}", rate(test, size, n))
            for size in (1.0, 1.5)
            for name, test in (("one look", fixed), ("until=decided", sequential))
        ),
    ]
    error = 100 * math.sqrt(LEVEL * (1 - LEVEL) / n)
    print(f"| {n:,} simulated data sets (standard error of 5 %: {error:.1f}) | |\n|---|---|")
    print("\n".join(f"| {name} | {value} |" for name, value in rows))


if __name__ == "__main__":
    main()
