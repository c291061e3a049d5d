"""Numbers as people read them: accuracies in per cent, their differences in points, times in seconds.

Every function takes the name of a metric or of a column, ``acc`` or ``val_acc``, and looks its row up.
"""

import math
import statistics
from collections.abc import Iterable

from experiment.metrics.table import row


def name(metric: str) -> str:
    """A metric in words, with its unit."""
    return f"{row(metric).words}, {unit(metric).strip()}".removesuffix(", ")


def unit(metric: str, is_effect: bool = False) -> str:
    """The unit behind a number, or a difference, of this metric, with a space that does not break."""
    unit = row(metric).unit
    return f"\u00a0{'points' if is_effect and unit == '%' else unit}" if unit else ""


def factor(metric: str) -> float:
    """By which a metric is multiplied to be in its unit."""
    return row(metric).factor


def number(metric: str, value: float | None) -> str:
    """A value with its unit; a dash where there is none."""
    return "–" if value is None else _digits(metric, value) + unit(metric)


def spread(metric: str, values: Iterable[float | None]) -> str:
    """Mean ± standard deviation of the values that are there."""
    there = [value for value in values if value is not None]
    if len(set(there)) < 2:
        return number(metric, there[0] if there else None)
    mean, deviation = statistics.fmean(there), statistics.stdev(there)
    parts = (_digits(metric, mean), "±", _digits(metric, deviation, like=mean) + unit(metric))
    return "\u00a0".join(parts)


def effect(metric: str, is_ratio: bool, value: float) -> str:
    """The value of a contrast without unit: a signed difference, or the factor of logarithms."""
    return f"×{math.exp(value):.3g}" if is_ratio else _digits(metric, value, "+")


def _digits(metric: str, value: float, sign: str = "", like: float | None = None) -> str:
    """Per cents to 0.01, all else to the digits of its row; or as many decimals as of ``like``."""
    value *= factor(metric)
    if factor(metric) == 100:
        return f"{value:{sign}z.2f}"  # z: nothing is -0.00
    size = abs(value if like is None else like)
    if size >= 1000 or not math.isfinite(size) or size.is_integer():
        return f"{value:{sign}z,.0f}"
    return f"{value:{sign}z.{max(0, row(metric).digits - 1 - math.floor(math.log10(size)))}f}"
