"""What is asked of the runs: the claims of a sweep, or which value of a varied knob is better."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from experiment.report import units
from experiment.report.runs import Collection, Record, Sweep, plain, said
from experiment.report.statistics import Estimate, estimate, holm, verdict

EXACT = ("parameters", "flops_per_image")
"""Metrics that do not depend on the seed."""

Pair = tuple[str, ...]
"""What the runs that are compared share: ``("seed=3", "model=enhanced")``."""


@dataclass
class Contrast:
    """A weighted sum of cells (the runs of one setting each), formed pair by pair.

    ``terms`` maps settings to weights, ``cells`` settings to the metric of each pair, ``values`` pairs to the
    sums, ``unpaired`` the other pairs to the settings they lack.
    """

    terms: dict[str, float]
    found: Estimate
    cells: dict[str, dict[Pair, float]] = field(default_factory=dict)
    values: dict[Pair, float] = field(default_factory=dict)
    unpaired: dict[Pair, list[str]] = field(default_factory=dict)
    corrected: float = math.nan
    verdict: str = ""


@dataclass
class Question:
    """A claim, or a comparison that nobody made a claim about; positive contrasts speak for it.

    ``claimed`` is the size, from–to, in the metric's unit or as a factor.
    """

    text: str
    metric: str
    contrasts: list[Contrast] = field(default_factory=list)
    is_ratio: bool = False
    claimed: tuple[float, float] | None = None
    words: tuple[str, str] = ("held", "contradicted")

    @property
    def is_benchmark(self) -> bool:
        """Whether ``benchmark.json`` gives the number, once and for all seeds."""
        return self.metric.startswith("benchmark.")

    @property
    def verdict(self) -> str:
        """A claim holds if all contrasts do, and is contradicted if one is; comparisons are counted."""
        verdicts = [contrast.verdict for contrast in self.contrasts]
        if len(set(verdicts)) < 2:
            return verdicts[0]
        if "contradicted" in verdicts:
            return "contradicted"
        if all(verdict.startswith("held") for verdict in verdicts):
            return "held in direction: not all effects are of the claimed size"
        counts = Counter(verdict.partition(":")[0] for verdict in verdicts)
        parts = ", ".join(f"{count} {word}" for word, count in counts.items())
        return f"undecided: {parts}" if self.words[0] == "held" else parts

    def name(self, contrast: Contrast) -> str:
        """The sum as one writes it: ``optimizer.lr=0.1 − optimizer.lr=0.01``, with ÷ for a ratio."""
        text, (plus, minus) = "", ("×", "÷") if self.is_ratio else ("+", "−")
        for setting, weight in contrast.terms.items():
            size = "" if abs(weight) == 1 else f"{abs(weight):g} "
            text += f" {minus if weight < 0 else plus} {size}" + (
                f"({setting})" if " " in setting else setting
            )
        return text.removeprefix(f" {plus} ").strip()

    def effect(self, contrast: Contrast) -> str:
        """The size of a contrast with its interval, and where the claimed size lies."""
        found = contrast.found
        if not found.n:
            return "–"
        numbers = (found.mean, found.low, found.high, *self._sizes())
        mean, low, high, *sizes = (units.effect(self.metric, self.is_ratio, number) for number in numbers)
        text = mean + (f" ({low} to {high})" if found.low < found.high else "")
        text += units.unit(self.metric, is_effect=not self.is_ratio)
        if self.claimed and not math.isnan(found.low):
            where = {"": "inside", "smaller": "larger than", "larger": "smaller than"}[self.beyond(contrast)]
            what = "interval" if found.low < found.high else "measured value"
            text += f". The claimed {' to '.join(dict.fromkeys(sizes))} is {where} the {what}"
        return text

    def beyond(self, contrast: Contrast) -> str:
        """``smaller`` or ``larger`` where the whole interval of the effect is so than claimed, else empty."""
        least, most = self._sizes()
        found = contrast.found
        return "smaller" if found.high < least else "larger" if found.low > most else ""

    def _sizes(self) -> tuple[float, float]:
        """The claimed size, from–to, as the effect is measured; NaN, beyond which nothing lies, for none."""
        least, most = self.claimed or (math.nan, math.nan)
        return (math.log(least), math.log(most)) if self.is_ratio else (least, most)


def questions(runs: Collection) -> tuple[list[Question], list[str]]:
    """The claims of the sweeps, and by test accuracy each varied knob that no sweep with claims has swept.

    All p-values of the report are corrected together.

    Returns:
        The questions with their verdicts, and what could not be asked.
    """
    asked: list[Question] = []
    notes: list[str] = []
    for sweep in runs.sweeps:
        for claim in sweep.claims:
            try:
                asked.append(_claim(claim, sweep, runs.of(sweep)))
            except (KeyError, TypeError, ValueError, AttributeError) as mistake:
                notes.append(f"a claim of {sweep.name} cannot be examined ({said(mistake)}): {claim}")
    claimed = {key for sweep in runs.sweeps if sweep.claims for key in sweep.swept}
    for key in (key for key in runs.keys if key not in claimed):
        question = Question(f"Does {key} matter?", "test_acc", words=("better", "worse"))
        values = list(dict.fromkeys(run.values[key] for run in runs.finished if key in run.values))
        for value in values[1:]:
            terms = {f"{key}={value}": 1.0, f"{key}={values[0]}": -1.0}
            contrast = _measure(terms, question.metric, False, runs.finished, runs.keys)
            if contrast.values:
                question.contrasts.append(contrast)
            else:
                notes.append(f"{question.name(contrast)}: no two runs differ in this alone, not compared")
        asked += [question] if question.contrasts else []
    tested = [(question, contrast) for question in asked for contrast in question.contrasts]
    corrected = holm([contrast.found.p for _, contrast in tested])
    tests = sum(not math.isnan(p) for p in corrected)
    for (question, contrast), p in zip(tested, corrected, strict=True):
        contrast.corrected, seeds = p, len({pair[0] for pair in contrast.values})
        if not question.is_benchmark:
            is_exact = question.metric in EXACT
            contrast.verdict = verdict(contrast.found, p, tests, seeds, question.words, is_exact)
            if contrast.verdict == "held" and (where := question.beyond(contrast)):
                contrast.verdict = f"held in direction: the effect is {where} than claimed"
    return asked, notes


def _claim(claim: Mapping[str, Any], sweep: Sweep, jobs: Sequence[Record]) -> Question:
    question = Question(str(claim["text"]), str(claim["metric"]), is_ratio=claim.get("scale") == "ratio")
    if (size := claim.get("claimed")) is not None:
        sizes = sorted(map(float, size)) if isinstance(size, list) else [float(size)]
        question.claimed = sizes[0], sizes[-1]
        if question.is_ratio and sizes[0] <= 0:
            raise ValueError("a factor is positive")
    if question.is_benchmark:
        number = sweep.benchmark[question.metric]
        question.contrasts = [Contrast({}, Estimate(1, number, low=number, high=number), verdict="measured")]
        return question
    if not claim["contrasts"]:
        raise ValueError("no contrasts")
    for contrast in claim["contrasts"]:
        terms = {str(setting): float(weight) for setting, weight in contrast.items()}
        # what has one value in each cell belongs to the cell: the sweep was asked to compare such cases
        cells = [[record.values for record in jobs if _matches(record, setting)] for setting in terms]
        keys = [k for k in sweep.swept if any(len({v[k] for v in cell if k in v}) > 1 for cell in cells)]
        question.contrasts.append(_measure(terms, question.metric, question.is_ratio, jobs, keys))
    return question


def _matches(record: Record, setting: str) -> bool:
    tokens = (token.partition("=") for token in setting.split())
    return all(record.values.get(key) == plain(value) for key, _, value in tokens)


def _measure(
    terms: dict[str, float], metric: str, is_ratio: bool, records: Iterable[Record], keys: Sequence[str]
) -> Contrast:
    """The contrast of ``terms``, paired over seeds and those of ``keys`` that it does not name.

    With ``is_ratio`` it is one of logarithms. Runs that share setting and pair count as their mean.
    """
    named = {token.partition("=")[0] for setting in terms for token in setting.split()}
    shared = ["seed", *(key for key in keys if key not in named)]
    cells: dict[str, dict[Pair, float]] = {}
    for setting in terms:
        gathered: dict[Pair, list[float]] = {}
        for record in records:
            value = record.metric(metric)
            if value is not None and (value > 0 or not is_ratio) and _matches(record, setting):
                pair = tuple(f"{key}={record.values[key]}" for key in shared if key in record.values)
                gathered.setdefault(pair, []).append(value)
        cells[setting] = {pair: math.fsum(values) / len(values) for pair, values in gathered.items()}
    values, unpaired = dict[Pair, float](), dict[Pair, list[str]]()
    every = {pair for cell in cells.values() for pair in cell}
    for pair in sorted(every, key=lambda pair: (float(pair[0].removeprefix("seed=")), pair)):
        if lacking := [setting for setting in terms if pair not in cells[setting]]:
            unpaired[pair] = lacking
        else:
            parts = [math.log(cell[pair]) if is_ratio else cell[pair] for cell in cells.values()]
            values[pair] = sum(weight * part for weight, part in zip(terms.values(), parts, strict=True))
    size = 1.0 if is_ratio else max((abs(v) for cell in cells.values() for v in cell.values()), default=0.0)
    return Contrast(terms, estimate(list(values.values()), size), cells, values, unpaired)
