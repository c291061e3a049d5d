"""What is asked of runs: the claims of a sweep, or which value of a varied setting is best.

Compared are runs of one data set and one seed that differ in what is asked and in nothing else; whatever else
differs is named. No statistics here: :mod:`experiment.report.answers` has them.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from experiment.report.differences import differing_settings, flags
from experiment.report.runs import Collection, Record, Sweep, plain, said, telling

MANY_SETTINGS = 12
"""More values than these are not compared each with each."""

Pair = tuple[str, ...]
"""What the runs that are compared share: ``("seed=3", "model=enhanced")``."""
Cell = Sequence[tuple[Pair, Record]]
"""The runs of one setting."""


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

    @property
    def is_benchmark(self) -> bool:
        """Whether ``benchmark.json`` gives the number, once and for all seeds."""
        return self.metric.startswith("benchmark.")


@dataclass
class Contrast:
    """A weighted sum of cells (the runs of one setting each), formed pair by pair and averaged within a seed.

    Args:
        terms: setting → weight.
        cells: setting → pair → the metric.
        values: pair → the sum.
        seeds: seed → mean of the sums of its pairs; what the statistics see.
        unpaired: other pairs → the settings they lack.
        failed: setting → its failed runs and all its runs, where some failed.
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
    seeds: dict[str, float] = field(default_factory=dict)
    unpaired: dict[Pair, list[str]] = field(default_factory=dict)
    failed: dict[str, tuple[int, int]] = field(default_factory=dict)
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


@dataclass
class Question:
    """A claim, or a comparison that nobody made a claim about.

    Args:
        claim: the claim; of a comparison only ``text`` and ``metric`` matter.
        contrasts: a claim's own; of a comparison each setting with each.
        changed: the settings that a comparison is about; empty for a claim.
        sweep: that makes the claim, or whose jobs alone are compared.
        measured: of ``benchmark.json``, for a claim about it.
    """

    claim: Claim
    contrasts: list[Contrast] = field(default_factory=list)
    changed: tuple[str, ...] = ()
    sweep: Sweep | None = None
    measured: float | None = None

    @property
    def text(self) -> str:
        """The question as a sentence."""
        return self.claim.text


def parse_claim(given: Any) -> Claim:
    """The claim that a YAML file makes.

    Raises:
        ValueError: saying what makes no sense in it.
    """
    if not isinstance(given, Mapping) or not {"text", "metric"} <= set(given):
        raise ValueError("a claim has a text and a metric")
    if unknown := set(given) - {"text", "metric", "contrasts", "scale", "claimed", "delta", "failed"}:
        raise ValueError(f"unknown key {', '.join(sorted(map(str, unknown)))}")
    if given.get("scale") not in (None, "difference", "ratio"):
        raise ValueError(f"scale={given['scale']}: expected difference or ratio")
    is_ratio = given.get("scale") == "ratio"
    claimed = None
    if (size := given.get("claimed")) is not None:
        sizes = sorted(map(float, size)) if isinstance(size, list) else [float(size)]
        claimed = sizes[0], sizes[-1]
        if is_ratio and sizes[0] <= 0:
            raise ValueError("a factor is positive")
    listed = given.get("contrasts") or []
    if not isinstance(listed, list) or not all(isinstance(contrast, Mapping) for contrast in listed):
        raise ValueError("contrasts is a list of comparisons such as {seed=0: 1, seed=1: -1}")
    contrasts = tuple({str(k): float(v) for k, v in contrast.items()} for contrast in listed)
    numbers = (None if given.get(key) is None else float(given[key]) for key in ("delta", "failed"))
    claim = Claim(str(given["text"]), str(given["metric"]), contrasts, is_ratio, claimed, *numbers)
    if not contrasts and not claim.is_benchmark:
        raise ValueError("no contrasts")
    for contrast in contrasts:
        if abs(total := math.fsum(contrast.values())) > 1e-9 * max(map(abs, contrast.values())):
            raise ValueError(f"the weights of {contrast} sum to {total:g}: a comparison's sum to 0")
    return claim


def matches(values: Mapping[str, str], setting: str) -> bool:
    """Whether a run of these :func:`plain` ``values`` has the ``setting`` ``"model=mnist seed=0"``."""
    tokens = (token.partition("=") for token in setting.split())
    return all(values.get(key) == plain(value) for key, _, value in tokens)


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
                asked.append(_ask_claim(parse_claim(given), sweep, runs.of(sweep)))
            except (KeyError, TypeError, ValueError, AttributeError) as mistake:
                notes.append(f"a claim of {sweep.name} cannot be examined ({said(mistake)}): {given}")
    for dataset in dict.fromkeys(run.dataset for run in runs.finished):
        asked += _comparisons(runs, dataset, metric, notes)
    return asked, notes


def _ask_claim(claim: Claim, sweep: Sweep, jobs: Sequence[Record]) -> Question:
    question = Question(claim, sweep=sweep)
    if claim.is_benchmark:
        question.measured = sweep.benchmark[claim.metric]
    for terms in claim.contrasts:
        cells = {setting: [job for job in jobs if matches(job.values, setting)] for setting in terms}
        if absent := [setting for setting, cell in cells.items() if not cell]:
            raise ValueError(f"no job has {', or '.join(absent)}")
        # what has one value in each cell belongs to the cell: the sweep was asked to compare such cases
        keys = [
            k
            for k in sweep.swept
            if any(len({r.values[k] for r in c if k in r.values}) > 1 for c in cells.values())
        ]
        named = {token.partition("=")[0] for setting in terms for token in setting.split()}
        shared = [key for key in keys if key not in named]
        datasets = [{run.dataset for run in cell if run.config} for cell in cells.values()]
        if all(len(known) > 1 for known in datasets):  # the same question once for each data set
            parts = [[name] for name in dict.fromkeys(run.dataset for cell in cells.values() for run in cell)]
        else:
            parts = [sorted(set().union(*datasets))]
            for name in parts[0]:
                of_data = [
                    weight for weight, known in zip(terms.values(), datasets, strict=True) if name in known
                ]
                if abs(math.fsum(of_data)) > 1e-9:
                    raise ValueError(
                        f"it compares {' with '.join(parts[0])}: runs of one data set are comparable"
                    )
        for part in parts:
            gathered = {
                setting: [(_pair(run, shared), run) for run in cell if not run.config or run.dataset in part]
                for setting, cell in cells.items()
            }
            question.contrasts.append(_contrast(terms, gathered, claim, named))
    return question


def _pair(run: Record, keys: Iterable[str]) -> Pair:
    return tuple(f"{key}={run.values[key]}" for key in ("seed", *keys) if key in run.values)


def _comparisons(runs: Collection, dataset: str, metric: str, notes: list[str]) -> list[Question]:
    """What can be asked of the runs of one data set that no claim is about.

    Two settings are compared if they differ in one thing, or in several that never change one by one.
    """
    claimed = {folder: sweep for sweep in runs.sweeps if sweep.claims for folder in sweep.jobs}
    outcomes = [
        r for r in runs.records if r.status in ("finished", "failed") and r.config and r.dataset == dataset
    ]
    by_setting: dict[frozenset[tuple[str, str]], list[Record]] = defaultdict(list)
    for record in (record for record in outcomes if record.folder not in runs.repeats):
        by_setting[frozenset(record.settings.items())].append(record)
    settings = list(by_setting.values())
    linked: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    if len(settings) > 300:  # a search: hardly two runs are alike
        notes.append(f"{len(settings)} settings on {dataset} are too many to compare each with each")
        return []
    for i, j in combinations(range(len(settings)), 2):
        a, b = settings[i][0], settings[j][0]
        if a.folder not in claimed or b.folder not in claimed:
            linked[tuple(sorted(differing_settings(a, b)))].append((i, j))
    asked: list[Question] = []
    covered: set[str] = set()
    order = list(runs.keys)
    for changed in sorted(
        linked, key=lambda keys: (len(keys), [order.index(k) if k in order else 99 for k in keys])
    ):
        if set(changed) <= covered:
            continue
        covered |= set(changed)
        members = [settings[i] for i in sorted({i for pair in linked[changed] for i in pair})]
        linked_pairs = [(settings[i], settings[j]) for i, j in linked[changed]]
        question = _compare(changed, members, linked_pairs, dataset, metric)
        if len(question.contrasts) > math.comb(MANY_SETTINGS, 2):
            notes.append(f"{question.text} {len(members)} settings are too many to compare each with each")
        elif any(contrast.values or contrast.failed for contrast in question.contrasts):
            asked.append(question)
        else:
            notes.append(f"{question.text} No two runs of one seed differ in this alone: not compared")
    return asked


def _compare(
    changed: tuple[str, ...],
    members: Sequence[Sequence[Record]],
    linked: Sequence[tuple[Sequence[Record], Sequence[Record]]],
    dataset: str,
    metric: str,
) -> Question:
    def is_changed(key: str) -> bool:
        return key in changed or key.partition(".")[0] in changed

    def value(run: Record) -> tuple[tuple[str, str], ...]:
        return tuple(sorted((key, text) for key, text in run.settings.items() if is_changed(key)))

    runs = [run for member in members for run in member]
    groups = [key for run in runs for key in run.choices]
    keys = [key for run in runs for key in run.settings]
    known = {run.folder: {**run.settings, **run.choices} for run in runs}
    for run in runs:
        run.values = {**run.values, **{key: known[run.folder].get(key, "–") for key in changed}}
    shared = telling(runs, [key for key in [*groups, *keys] if not is_changed(key) and key != "data"])
    names: dict[tuple[tuple[str, str], ...], str] = {}
    for run in sorted(runs, key=lambda run: [_number(run.values[key]) for key in changed]):
        name = " ".join(f"{key}={run.values[key]}" for key in changed)
        names.setdefault(value(run), name)
    for name in {name for name in names.values() if list(names.values()).count(name) > 1}:
        alike = [key for key in names if names[key] == name]
        for one in alike:  # options with further knobs changed
            names[one] += "".join(f" {k}={v}" for k, v in one if any((k, v) not in other for other in alike))
    order = list(names)
    what = changed[0] if len(changed) == 1 else f"these settings ({', '.join(changed)})"
    text = (
        f"Does {what} matter on {dataset}?"
        if len(changed) == 1
        else f"Do {what} matter together on {dataset}?"
    )
    claim = Claim(text, metric)
    question = Question(claim, changed=changed)
    cells: dict[tuple[Any, Any], tuple[list[Record], list[Record]]] = {}
    for a, b in linked:
        pair = sorted((a, b), key=lambda runs: order.index(value(runs[0])))
        earlier, later = cells.setdefault((value(pair[0][0]), value(pair[1][0])), ([], []))
        earlier.extend(pair[0])
        later.extend(pair[1])
    for first, second in sorted(cells, key=lambda pair: (order.index(pair[0]), order.index(pair[1]))):
        earlier, later = cells[first, second]
        terms = {names[second]: 1.0, names[first]: -1.0}
        gathered = {
            name: [(_pair(run, shared), run) for run in {run.folder: run for run in cell}.values()]
            for name, cell in ((names[second], later), (names[first], earlier))
        }
        question.contrasts.append(_contrast(terms, gathered, claim, set(changed)))
    return question


def _number(text: str) -> tuple[float, str]:
    try:
        return float(text), ""
    except ValueError:
        return math.inf, text


def _contrast(
    terms: dict[str, float], gathered: Mapping[str, Cell], claim: Claim, named: set[str]
) -> Contrast:
    """The contrast of ``terms`` over what is ``gathered`` for each of them; of logarithms for a ratio."""
    contrast = Contrast(terms)
    runs: dict[str, dict[Pair, list[Record]]] = {}
    for setting, cell in gathered.items():
        values: dict[Pair, list[float]] = defaultdict(list)
        runs[setting] = defaultdict(list)
        failed = 0
        contrast.datasets[setting] = " and ".join(dict.fromkeys(run.dataset for _, run in cell if run.config))
        for pair, run in cell:
            value = run.metric(claim.metric)
            if run.has_failed(claim.metric):
                failed += 1
                value = claim.failed
            if value is not None and (value > 0 or not claim.is_ratio):
                values[pair].append(value)
                runs[setting][pair].append(run)
        if failed and claim.failed is None:
            contrast.failed[setting] = failed, len(cell)
        contrast.cells[setting] = {pair: math.fsum(found) / len(found) for pair, found in values.items()}
    every = {pair for cell in contrast.cells.values() for pair in cell}
    compared: list[Record] = []
    for pair in sorted(every, key=lambda pair: (float(pair[0].removeprefix("seed=")), pair)):
        if lacking := [setting for setting in terms if pair not in contrast.cells[setting]]:
            contrast.unpaired[pair] = lacking
            continue
        parts = [math.log(c[pair]) if claim.is_ratio else c[pair] for c in contrast.cells.values()]
        contrast.values[pair] = sum(w * part for w, part in zip(terms.values(), parts, strict=True))
        sides = [runs[setting][pair] for setting in terms]
        compared += [run for side in sides for run in side]
        for a, b in combinations([side[0] for side in sides], 2):
            others = [key for key in differing_settings(a, b) if key not in named]
            known = contrast.along if a.dataset == b.dataset else contrast.across
            known += [key for key in others if key not in known]
    by_seed: dict[str, list[float]] = defaultdict(list)
    for pair, value in contrast.values.items():
        by_seed[pair[0]].append(value)
    contrast.seeds = {seed: math.fsum(values) / len(values) for seed, values in by_seed.items()}
    contrast.caveats = flags({run.folder: run for run in compared}.values())
    contrast.command = str(compared[0].provenance.get("command", "")) if compared else ""
    contrast.scope = _scope(compared or [run for cell in gathered.values() for _, run in cell])
    return contrast


def _scope(runs: Sequence[Record]) -> str:
    """Data, size and network of runs: ``cifar10, 5,000 images; enhanced; 15 epochs``."""

    def of(key: str) -> str:
        values = dict.fromkeys(run.settings.get(key) or run.choices.get(key, "") for run in runs)
        return " or ".join(filter(None, values))

    images = " or ".join(
        f"{float(n):,.0f} images" if n else "all images"
        for n in dict.fromkeys(run.settings.get("data.train_images", "") for run in runs)
    )
    data = " and ".join(dict.fromkeys(run.dataset for run in runs))
    parts = [f"{data}, {images}", of("model"), f"{of('trainer.max_epochs')} epochs"]
    return "; ".join(part for part in parts if part and part != " epochs")
