"""What is asked of runs: the claims of a sweep, or which value of a varied setting is best.

Compared are runs of one data set and one seed that differ in what is asked and in nothing else; whatever else
differs is named. No statistics here: :mod:`experiment.report.answers` has them.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from experiment.metrics import row
from experiment.report.differences import differing_settings, flags
from experiment.report.runs import REPEATED, Collection, Record, Sweep, described, distinguishing_keys, plain
from experiment.schema import tokens

MANY_SETTINGS = 12  # more values than these are not compared each with each
MANY_RUNS = 300  # more settings than these are a search, in which hardly two runs are alike

Pair = tuple[str, ...]
"""What the runs that are compared share: ``("seed=3", "model=enhanced")``; a fold stands behind the seed."""


@dataclass(frozen=True)
class Claim:
    """What a sweep claims, see ``docs/ablations.md``.

    Args:
        text: as a sentence.
        metric: what it is about.
        contrasts: setting → weight; a positive sum speaks for the claim.
        is_ratio: whether the effect is a factor and not a difference.
        claimed: size of the effect, from–to, in the metric's unit or as a factor.
        delta: an effect within ±delta counts as none; default: the claimed size.
        failed: the metric of a run that failed; None: no verdict where a run failed.
    """

    text: str
    metric: str
    contrasts: tuple[dict[str, float], ...] = ()
    is_ratio: bool = False
    claimed: tuple[float, float] | None = None
    delta: float | None = None
    failed: float | None = None


@dataclass
class Contrast:
    """A weighted sum of cells (the runs of one setting each), formed pair by pair and averaged within a seed.

    Args:
        terms: setting → weight.
        cells: setting → pair → the metric.
        values: pair → the sum.
        seeds: seed, or seed and fold → mean of the sums of its pairs; what the statistics see.
        folds: into how many the training set was divided; 0 where all runs have one split.
        unpaired: other pairs → the settings they lack.
        failed: setting → its failed runs and all its runs, where some failed.
        lacking: setting → its runs without a result and all its runs, where some have none yet.
        datasets: setting → its data set.
        scope: data set, size and network, in a phrase.
        along: settings that change along with what is compared, on one data set: no verdict then.
        across: settings that change from one data set to the other, beside the named ones.
        caveats: circumstances in which the runs differ.
        command: that started one of them.
    """

    terms: dict[str, float]
    cells: dict[str, dict[Pair, float]] = field(default_factory=dict)
    values: dict[Pair, float] = field(default_factory=dict)
    seeds: dict[Pair, float] = field(default_factory=dict)
    folds: int = 0
    unpaired: dict[Pair, list[str]] = field(default_factory=dict)
    failed: dict[str, tuple[int, int]] = field(default_factory=dict)
    lacking: dict[str, tuple[int, int]] = field(default_factory=dict)
    datasets: dict[str, str] = field(default_factory=dict)
    scope: str = ""
    along: list[str] = field(default_factory=list)
    across: list[str] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)
    command: str = ""

    @property
    def size(self) -> float:
        """Largest magnitude of what the sums are made of."""
        return max((abs(value) for cell in self.cells.values() for value in cell.values()), default=0.0)

    def turned(self) -> "Contrast":
        """The same from the other side."""
        return replace(
            self,
            terms={setting: -weight for setting, weight in reversed(self.terms.items())},
            values={pair: -value for pair, value in self.values.items()},
            seeds={seed: -value for seed, value in self.seeds.items()},
        )


@dataclass
class Question:
    """A claim, or a comparison that nobody made a claim about.

    Args:
        claim: the claim; of a comparison only ``text`` and ``metric`` matter.
        contrasts: a claim's own; of a comparison each setting with each.
        changed: the settings that a comparison is about; empty for a claim.
        leader: the best setting of a comparison; its contrasts are that setting less the others.
        sweep: that makes the claim, or whose jobs alone are compared.
    """

    claim: Claim
    contrasts: list[Contrast] = field(default_factory=list)
    changed: tuple[str, ...] = ()
    leader: str = ""
    sweep: Sweep | None = None

    @property
    def text(self) -> str:
        """The question as a sentence."""
        return self.claim.text

    @property
    def is_sequential(self) -> bool:
        """Whether its sweep looks after each seed."""
        return self.sweep is not None and self.sweep.max_seeds > 0


def parse_claim(given: Any) -> Claim:
    """The claim that a YAML file makes.

    Raises:
        ValueError: saying what makes no sense in it.
    """
    if not isinstance(given, Mapping) or not (given.get("text") and given.get("metric")):
        raise ValueError("a claim has a text and a metric")
    if unknown := set(given) - {"text", "metric", "contrasts", "scale", "claimed", "delta", "failed"}:
        raise ValueError(f"unknown key {', '.join(sorted(map(str, unknown)))}")
    if given.get("scale") not in (None, "difference", "ratio"):
        raise ValueError(f"scale={given['scale']}: expected difference or ratio")
    is_ratio = given.get("scale") == "ratio"
    claimed = None
    if (size := given.get("claimed")) is not None:
        sizes = sorted(map(float, size)) if isinstance(size, list) else [float(size)]
        claimed = (sizes[0], sizes[-1]) if sizes else (math.nan, math.nan)
        if not int(is_ratio) < claimed[0] <= claimed[1] < math.inf:
            raise ValueError(f"claimed={size}: a size is above {int(is_ratio)}; turn the weights round")
    numbers = [None if given.get(key) is None else float(given[key]) for key in ("delta", "failed")]
    if numbers[0] is not None and not 0 < numbers[0] < math.inf:
        raise ValueError(f"delta={given['delta']}: expected a number above 0")
    if numbers[1] is not None and not (0 if is_ratio else -math.inf) < numbers[1] < math.inf:
        raise ValueError(f"failed={given['failed']}: expected a number{' above 0' * is_ratio}")
    listed = given.get("contrasts") or []
    if not listed:
        raise ValueError("no contrasts")
    if not isinstance(listed, list) or not all(isinstance(contrast, Mapping) for contrast in listed):
        raise ValueError(
            "contrasts is a list of comparisons such as {model.dropout=0.5: 1, model.dropout=0: -1}"
        )
    contrasts = tuple({str(k): float(v) for k, v in contrast.items()} for contrast in listed)
    for contrast in contrasts:
        if len(contrast) < 2 or not all(0 < abs(weight) < math.inf for weight in contrast.values()):
            raise ValueError(f"{contrast} compares nothing: it needs two settings, each with a weight")
        if repeated := [key for setting in contrast for key, _ in tokens(setting) if key in REPEATED]:
            raise ValueError(f"{contrast}: runs are compared within a {repeated[0]}, which no setting names")
        if abs(total := math.fsum(contrast.values())) > 1e-9 * max(map(abs, contrast.values())):
            raise ValueError(f"the weights of {contrast} sum to {total:g}: a comparison's sum to 0")
    return Claim(str(given["text"]), str(given["metric"]), contrasts, is_ratio, claimed, *numbers)


def matches(values: Mapping[str, str], setting: str) -> bool:
    """Whether a run of these :func:`plain` ``values`` has the ``setting`` ``"model=mnist seed=0"``."""
    return all(values.get(key) == plain(value) for key, value in tokens(setting))


def questions(runs: Collection, metric: str = "test_acc") -> tuple[list[Question], list[str]]:
    """The claims of the sweeps, and of all other runs which of their settings is best in ``metric``.

    Returns:
        The questions, and what could not be asked.
    """
    asked: list[Question] = []
    notes: list[str] = []
    for sweep in runs.sweeps:
        for given in sweep.claims:
            try:
                asked.append(ask_claim(parse_claim(given), sweep.swept, runs.of(sweep), sweep))
            except (KeyError, TypeError, ValueError, AttributeError) as mistake:
                notes.append(f"a claim of {sweep.name} cannot be examined ({described(mistake)}): {given}")
    for of in dict.fromkeys(map(_of, runs.finished)):
        asked += _comparisons(runs, of, metric, notes)
    return asked, notes


def ask_claim(
    claim: Claim, swept: Sequence[str], jobs: Sequence[Record], sweep: Sweep | None = None
) -> Question:
    """The claim of a sweep over the keys ``swept``, asked of its jobs.

    Raises:
        ValueError: if they cannot answer it.
    """
    question = Question(claim, sweep=sweep)
    for terms in claim.contrasts:
        cells = {setting: [job for job in jobs if matches(job.values, setting)] for setting in terms}
        if absent := [setting for setting, cell in cells.items() if not cell]:
            raise ValueError(f"no job has {', or '.join(absent)}")
        if any(a == b for a, b in combinations(cells.values(), 2)):
            raise ValueError(f"{terms} compares runs with themselves")
        # what has one value in each cell belongs to the cell: the sweep was asked to compare such cases
        named = {key for setting in terms for key, _ in tokens(setting)}
        known = [
            {k: {r.values[k] for r in cell if k in r.values} for k in (*swept, *named)}
            for cell in cells.values()
        ]
        for setting, values in zip(cells, known, strict=True):
            if open_ := [key for key in named if len(values[key]) > 1]:
                raise ValueError(f"{setting} leaves {', '.join(open_)} open, which another setting names")
        shared = [k for k in swept if k not in named and any(len(values[k]) > 1 for values in known)]
        datasets = [{run.dataset for run in cell if run.config} for cell in cells.values()]
        every = list(dict.fromkeys(run.dataset for cell in cells.values() for run in cell if run.config))
        if all(len(of_cell) > 1 for of_cell in datasets):  # the same question once for each data set
            parts = [{name} for name in every]
        else:
            parts = [set(every)]
            for name in every:
                weights = (w for w, of_cell in zip(terms.values(), datasets, strict=True) if name in of_cell)
                if abs(math.fsum(weights)) > 1e-9:
                    raise ValueError(
                        f"it compares {' with '.join(every)}: runs of one data set are comparable"
                    )
        for part in parts:
            gathered = {
                s: [r for r in cell if not r.config or r.dataset in part] for s, cell in cells.items()
            }
            question.contrasts.append(_contrast(terms, gathered, shared, claim, named))
    return question


def _of(run: Record) -> str:
    """The data set of a run, and the number of folds that it is divided into."""
    folds = run.settings.get("data.folds")
    return f"{run.dataset} in {folds} folds" if folds else run.dataset


def _comparisons(runs: Collection, of: str, metric: str, notes: list[str]) -> list[Question]:
    """What can be asked of the runs of one data set, and one division of it, that no claim is about.

    Two settings are compared if they differ in one thing, or in several that never change one by one.
    """
    claimed = {folder for sweep in runs.sweeps if sweep.claims for folder in sweep.jobs}
    settings: dict[frozenset[tuple[str, str]], list[Record]] = defaultdict(list)
    for run in runs.outcomes:
        if _of(run) == of:
            settings[run.items].append(run)
    if len(settings) > MANY_RUNS:
        notes.append(f"{len(settings)} settings on {of} are too many to compare each with each")
        return []
    linked: dict[tuple[str, ...], list[tuple[list[Record], list[Record]]]] = defaultdict(list)
    for a, b in combinations(settings.values(), 2):
        if not claimed.issuperset((a[0].folder, b[0].folder)):
            linked[tuple(differing_settings(a[0], b[0]))].append((a, b))
    order = {key: place for place, key in enumerate(runs.keys)}
    asked: list[Question] = []
    covered: set[str] = set()
    for changed in sorted(linked, key=lambda keys: (len(keys), [order.get(key, 99) for key in keys])):
        if set(changed) <= covered:
            continue
        covered |= set(changed)
        question = _compare(changed, linked[changed], of, metric)
        number = len({setting for contrast in question.contrasts for setting in contrast.terms})
        if number > MANY_SETTINGS:
            notes.append(f"{question.text} {number} settings are too many to compare each with each")
        elif any(contrast.values or contrast.failed for contrast in question.contrasts):
            asked.append(question)
        else:
            notes.append(f"{question.text} No two runs of one seed differ in this alone: not compared")
    return asked


def _compare(
    changed: tuple[str, ...], linked: Iterable[tuple[list[Record], list[Record]]], of: str, metric: str
) -> Question:
    """Which of the settings is best that differ in ``changed`` alone."""
    runs = list({run.folder: run for pair in linked for side in pair for run in side}.values())
    known = {
        run.folder: {k: plain(v) for k, v in run.config.items()} | run.settings | run.choices for run in runs
    }
    keys = list(dict.fromkeys(key for run in runs for key in (*run.choices, *run.settings)))
    inside = [key for key in keys if key in changed or key.partition(".")[0] in changed]
    shared = distinguishing_keys(runs, [key for key in keys if key not in inside and key != "data"])

    alike: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for run in runs:
        alike[tuple(known[run.folder].get(key, "–") for key in changed)].append(run)
    names: dict[Path, str] = {}
    for values, same in sorted(alike.items(), key=lambda item: [*map(by_value, item[0])]):
        varied = [k for k in inside if len({known[run.folder].get(k) for run in same}) > 1]
        for run in same:  # options of one name, further knobs of which changed
            tokens = [*zip(changed, values, strict=True), *((k, known[run.folder].get(k)) for k in varied)]
            names[run.folder] = " ".join(f"{key}={value}" for key, value in tokens if value is not None)
    order = list(dict.fromkeys(names.values()))
    cells: dict[tuple[str, str], tuple[dict[Path, Record], dict[Path, Record]]] = {}
    for pair in linked:
        sides = sorted(pair, key=lambda side: order.index(names[side[0].folder]))
        both = cells.setdefault((names[sides[0][0].folder], names[sides[1][0].folder]), ({}, {}))
        for cell, side in zip(both, sides, strict=True):
            cell.update({run.folder: run for run in side})
    what = changed[0] if len(changed) == 1 else f"these settings ({', '.join(changed)})"
    does = f"Does {what} matter" if len(changed) == 1 else f"Do {what} matter together"
    question = Question(Claim(f"{does} on {of}?", metric), changed=changed)
    for first, second in sorted(cells, key=lambda pair: [order.index(name) for name in pair]):
        earlier, later = (list(side.values()) for side in cells[first, second])
        terms = {second: 1.0, first: -1.0}
        gathered = {second: later, first: earlier}
        question.contrasts.append(_contrast(terms, gathered, shared, question.claim, set(changed)))
    ahead: dict[str, float] = {}  # of every other setting, at least by how much
    for contrast in question.contrasts:
        by = row(metric).sign * fmean(contrast.seeds.values()) if contrast.seeds else math.nan
        for setting, weight in contrast.terms.items():
            if not math.isnan(by):
                ahead[setting] = min(weight * by, ahead.get(setting, math.inf))
    question.leader = max(ahead, key=lambda setting: ahead[setting], default="")
    question.contrasts = [c.turned() if c.terms.get(question.leader) == -1 else c for c in question.contrasts]
    return question


def by_value(text: str) -> tuple[float, str]:
    """By which values are sorted: numbers first."""
    try:
        return float(text), ""
    except ValueError:
        return math.inf, text


def _contrast(
    terms: dict[str, float],
    gathered: Mapping[str, Sequence[Record]],
    shared: Sequence[str],
    claim: Claim,
    named: set[str],
) -> Contrast:
    """The contrast of ``terms`` over the runs of each; of logarithms for a ratio.

    Args:
        terms: setting → weight.
        gathered: setting → its runs.
        shared: keys that the runs of a pair have in common, beside the seed.
        claim: what is asked.
        named: keys that may differ.
    """
    contrast = Contrast(terms)
    runs: dict[str, dict[Pair, list[Record]]] = {}
    for setting, cell in gathered.items():
        values: dict[Pair, list[float]] = defaultdict(list)
        runs[setting] = defaultdict(list)
        failed = 0
        contrast.datasets[setting] = " and ".join(dict.fromkeys(run.dataset for run in cell if run.config))
        for run in cell:
            value = run.metric(claim.metric)
            if run.has_failed(claim.metric):
                failed += 1
                value = claim.failed
            elif value is not None and claim.is_ratio and value <= 0:
                raise ValueError(
                    f"{claim.metric} of {run.folder.name} is {value:g}, of which no ratio is formed"
                )
            if value is not None:
                own = {key: run.values.get(key, "null") for key in (*REPEATED, *shared)}
                pair = tuple(f"{key}={value}" for key, value in own.items() if value != "null")
                values[pair].append(value)
                runs[setting][pair].append(run)
        if failed and claim.failed is None:
            contrast.failed[setting] = failed, len(cell)
        if unfinished := sum(run.status not in ("finished", "failed") for run in cell):
            contrast.lacking[setting] = unfinished, len(cell)
        contrast.cells[setting] = {pair: fmean(found) for pair, found in values.items()}
    compared: list[Record] = []
    by_seed: dict[Pair, list[float]] = defaultdict(list)
    every = {pair for cell in contrast.cells.values() for pair in cell}
    of_folds = {pair for pair in every if pair[1:] and pair[1].startswith("data.fold=")}
    if of_folds and every - of_folds:
        contrast.caveats.append(f"{len(every - of_folds)} without data.fold are left out, beside folds")
        every = of_folds
    for pair in sorted(every, key=lambda pair: (float(pair[0].removeprefix("seed=")), pair)):
        if lacking := [setting for setting in terms if pair not in contrast.cells[setting]]:
            contrast.unpaired[pair] = lacking
            continue
        parts = [math.log(c[pair]) if claim.is_ratio else c[pair] for c in contrast.cells.values()]
        contrast.values[pair] = sum(w * part for w, part in zip(terms.values(), parts, strict=True))
        by_seed[pair[: 2 if of_folds else 1]].append(contrast.values[pair])
        sides = [runs[setting][pair] for setting in terms]
        compared += [run for side in sides for run in side]
        for a, b in combinations([side[0] for side in sides], 2):
            others = [key for key in differing_settings(a, b) if key not in named]
            known = contrast.along if a.dataset == b.dataset else contrast.across
            known += [key for key in others if key not in known]
    contrast.seeds = {seed: fmean(values) for seed, values in by_seed.items()}
    if len({run.config.get("data.fold") for run in compared}) > 1:
        contrast.folds = min(int(run.config.get("data.folds") or 2) for run in compared)
    contrast.caveats += flags({run.folder: run for run in compared}.values())
    contrast.command = str(compared[0].provenance.get("command", "")) if compared else ""
    contrast.scope = _scope(compared or [run for cell in gathered.values() for run in cell])
    return contrast


def _scope(runs: Sequence[Record]) -> str:
    """Data, size and network of runs: ``cifar10, 5,000 images; enhanced; 15 epochs``."""

    def of(key: str) -> list[str]:
        return list(dict.fromkeys(run.settings.get(key) or run.choices.get(key, "") for run in runs))

    images = [f"{float(n):,.0f} images" if n else "all images" for n in of("data.train_images")]
    data = " and ".join(dict.fromkeys(run.dataset for run in runs))
    epochs = " or ".join(filter(None, of("trainer.max_epochs")))
    parts = [f"{data}, {' or '.join(images)}", " or ".join(filter(None, of("model")))]
    return "; ".join(filter(None, [*parts, f"{epochs} epoch{'s' * (epochs != '1')}" if epochs else ""]))
