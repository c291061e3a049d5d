"""The runs that a report is about, read from their folders. Nothing is written there."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from experiment.errors import UserError
from experiment.files import read_yaml
from experiment.metrics import learn
from experiment.results import Row
from experiment.run import Run
from experiment.schema import flatten
from experiment.terminal import announced

REPEATED = ("seed", "data.fold")
"""Keys in which the runs of one setting differ: what an effect is averaged over."""
IGNORED = (*REPEATED, "name", "output_dir", "resume", "data.root", "data.download")
"""Keys in which repetitions of a run may differ."""
UNSEEN = (*IGNORED, "data.dataset", "logger", "callbacks.figures")
"""Keys, and nodes, that are no settings: the data set has a place of its own, the others change no result."""

UNFINISHED = ("pending", "running", "interrupted")
"""States from which a run may still finish."""
DERIVED = {
    "val_acc_falls": "sums over epochs how far the validation accuracy fell: lower = smoother",
    "seconds_per_epoch": "divides the training seconds by the epochs",
}
"""Metrics that are not in ``results.json``, with their meaning."""


@dataclass
class Record:
    """A run, or what was found instead of one.

    ``status`` is the run's, or ``missing`` (a job without a folder), ``left out`` (in the folder of a sweep,
    but none of its jobs) or ``skipped`` (damaged or foreign), and ``reason`` says more. ``config`` is flat;
    ``values`` are swept keys, options of groups and the config as :func:`plain` text; ``results`` are those
    of ``results.json`` and :data:`DERIVED`.
    """

    folder: Path
    status: str
    reason: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Row] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def settings(self) -> dict[str, str]:
        """what the run was given, as :func:`plain` text: its configuration without :data:`UNSEEN` and nulls.

        A key that an older run did not know is as good as null.
        """
        given = {key: value for key, value in self.config.items() if value is not None}
        if "data.fold" not in given:
            given.pop("data.folds", None)
        return {
            k: plain(v)
            for k, v in given.items()
            if not f"{k}.".startswith(tuple(f"{node}." for node in UNSEEN))
        }

    @cached_property
    def items(self) -> frozenset[tuple[str, str]]:
        """The settings, as what two runs have in common or not."""
        return frozenset(self.settings.items())

    @cached_property
    def dataset(self) -> str:
        """The data set: its name, and for a folder of images the fingerprint of what is in it."""
        known = self.provenance.get("data", {})
        name = str(self.config.get("data.dataset") or known.get("dataset", "unknown data"))
        return f"{name} {self.fingerprint[:8]}" if name == "image_folder" else name

    @property
    def fingerprint(self) -> str:
        """Of the data that it was trained and tested on."""
        return str(self.provenance.get("data", {}).get("fingerprint"))

    def metric(self, name: str) -> float | None:
        """A finite number among the results of a finished run, else None."""
        value = self.results.get(name) if self.status == "finished" else None
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    def has_failed(self, name: str) -> bool:
        """Whether the run failed, or this metric of it is not finite: an outcome, too."""
        value = self.results.get(name)
        is_finite = name not in self.results.get("not_finite", {})
        is_finite &= not isinstance(value, float) or math.isfinite(value)
        return self.status == "failed" or (self.status == "finished" and not is_finite)

    @cached_property
    def choices(self) -> dict[str, str]:
        """Group → option that the configuration was composed of."""
        return dict(self.provenance.get("choices", {}))


@dataclass
class Sweep:
    """What ``sweep.json`` tells; ``max_seeds`` is 0 for a sweep of a fixed number of seeds."""

    name: str
    swept: list[str]
    claims: list[Any]
    sessions: list[dict[str, Any]]
    jobs: dict[Path, dict[str, str]]
    max_seeds: int = 0

    @property
    def contrasts(self) -> int:
        """Contrasts of all claims, among which a sequential sweep shares out the level."""
        return sum(len(claim.get("contrasts") or ()) for claim in self.claims if isinstance(claim, Mapping))


class Collection:
    """Everything in some folders: each is a sweep, a run, a report on them, or holds such folders.

    ``keys`` are what was varied, seeds aside: what the sweeps swept, the data set where there are several
    and, unless there is but one sweep, what else tells finished runs apart. ``finished`` are the finished
    runs, each once: ``repeats`` map a further run of the same settings, data and seed to the one that counts.
    ``outcomes`` are these and, of their settings, those that failed or have no result yet, unless another
    attempt finished.

    Raises:
        UserError: for a folder that does not exist, or if there is no finished run.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.sweeps: list[Sweep] = []
        self._found: dict[Path, Record] = {}
        self._seen: set[Path] = set()
        for folder in folders:
            if not folder.is_dir():
                raise UserError(f"{folder}: there is no such folder")
            number = "{:,} folders, {:,} runs and others"
            with announced(lambda: f"{folder}: {number.format(len(self._seen), len(self._found))} so far …"):  # noqa: B023
                self._visit(folder.resolve())
        self.records = list(self._found.values())
        finished = [record for record in self.records if record.status == "finished"]
        root = os.path.commonpath([folders[0].resolve(), *(record.folder.parent for record in self.records)])
        self.names = {record.folder: os.path.relpath(record.folder, root) for record in self.records}
        if not finished:
            found = [f"{self.names[r.folder]}: {r.status} {r.reason}".strip() for r in self.records]
            more = [f"and {len(found) - 12:,} more"] * (len(found) > 12)
            raise UserError("\n       ".join(["no finished run to report", *found[:12], *more]))
        for record in self.records:
            merged = {**record.config, **record.choices, **record.values}
            record.values = {key: plain(value) for key, value in merged.items()}
        in_sweeps = {folder for sweep in self.sweeps for folder in sweep.jobs}
        first: dict[Any, Record] = {}
        for record in sorted(finished, key=lambda record: record.folder not in in_sweeps):
            first.setdefault(_identity(record), record)
        self.finished = [record for record in finished if first[_identity(record)] is record]
        self.repeats = {r.folder: kept for r in finished if (kept := first[_identity(r)]) is not r}
        outcomes = {_identity(record)[:-1]: record for record in self.finished}
        known = {record.items for record in self.finished}
        for record in sorted(self.records, key=lambda record: record.status != "failed"):
            if record.status == "failed" or (record.items in known and record.status in UNFINISHED):
                outcomes.setdefault(_identity(record)[:-1], record)
        self.outcomes = [*self.finished, *(r for r in outcomes.values() if r.status != "finished")]
        self.loose = [record for record in self.finished if record.folder not in in_sweeps]
        self.keys = list(dict.fromkeys(key for sweep in self.sweeps for key in sweep.swept))
        if len({record.dataset for record in self.finished}) > 1:
            is_option = all("data" in record.choices for record in self.finished)
            for record in self.finished:  # of a folder of images, which images
                record.values = {**record.values, "data.fingerprint": record.dataset.partition(" ")[2] or "–"}
            keys = ["data" if is_option else "data.dataset", "data.fingerprint"]
            self.keys = distinguishing_keys(self.finished, keys, self.keys)
        if len(self.sweeps) != 1 or self.loose:
            groups = [key for record in self.finished for key in record.choices]
            others = [key for record in self.finished for key in record.config]
            others.sort(key=lambda key: not key.startswith("model."))  # what a person would name first
            keys = [key for key in [*groups, *others] if key not in IGNORED]
            self.keys = distinguishing_keys(self.finished, keys, self.keys)

    def of(self, sweep: Sweep) -> list[Record]:
        """The jobs of a sweep, in its order."""
        return [self._found[folder] for folder in sweep.jobs]

    def _visit(self, folder: Path) -> None:
        try:
            if folder not in self._seen:
                self._seen.add(folder)
                self._look(folder)
        except OSError as refusal:
            self._found[folder] = Record(folder, "skipped", described(refusal))

    def _look(self, folder: Path) -> None:
        if sweep := self._sweep(folder):
            self.sweeps.append(sweep)
            self._found |= {path: read(path, values) for path, values in sweep.jobs.items()}
            for path in sorted(folder.glob("*/provenance.json")):
                why = "is no job of the sweep as it is defined now"
                self._found.setdefault(path.parent, Record(path.parent, "left out", why))
        elif any((folder / name).is_file() for name in ("config.yaml", "provenance.json")):
            if folder not in self._found or self._found[folder].status == "left out":
                self._found[folder] = read(folder)
        elif all((folder / name).is_file() for name in ("report.md", "results.csv")):
            from experiment.report.reported import read_reported

            sweep, records = read_reported(folder)
            self.sweeps.append(sweep)
            self._found |= records
        else:
            inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."]
            for path in inner:
                if not (path / "report.md").exists():
                    self._visit(path.resolve())
            if not inner:
                why = "is no run folder: it has neither config.yaml nor provenance.json"
                self._found[folder] = Record(folder, "skipped", why)

    def _sweep(self, folder: Path) -> Sweep | None:
        """What ``sweep.json`` tells; None if there is no such file, or it is damaged."""
        path = folder / "sweep.json"
        try:
            content = json.loads(path.read_text()) if path.exists() else None
            if content is None:
                return None
            swept = [key for key in content["swept"] if key not in REPEATED]
            jobs = {folder / job["folder"]: dict(job["overrides"]) for job in content["jobs"]}
            max_seeds = int(content["max_seeds"]) if content.get("until") == "decided" else 0
            claims, sessions = list(content["claims"]), list(content["sessions"])
            return Sweep(str(content["name"]), swept, claims, sessions, jobs, max_seeds)
        except Exception as damage:  # whatever it is, the runs may be whole
            self._found[path] = Record(path, "skipped", f"{described(damage)}; its runs count as single ones")
        return None


def _identity(record: Record) -> tuple[Any, ...]:
    """What two runs have in common that are one and the same: settings, data, seed and fold."""
    repetition = [record.config.get(key) for key in REPEATED]
    return (record.dataset, *repetition, record.items, record.fingerprint)


def read(folder: Path, overrides: Mapping[str, str] | None = None) -> Record:
    """The run in ``folder``. Whatever is wrong with its files costs this run, not the report."""
    if not folder.is_dir():
        return Record(folder, "missing", "has no folder: never started", overrides or {})
    try:
        return _read(folder, overrides or {})
    except Exception as damage:
        return Record(folder, "skipped", described(damage), overrides or {})


def _read(folder: Path, overrides: Mapping[str, str]) -> Record:
    if absent := [name for name in ("config.yaml", "provenance.json") if not (folder / name).is_file()]:
        raise ValueError(f"has no {' and no '.join(absent)}")
    run = Run(folder)
    config = flatten(read_yaml(folder / "config.yaml"))
    provenance, results, rows = run.provenance, run.results, run.metrics
    status = str(provenance["status"])
    # what is asked of a run is no setting of it
    config = {key: value for key, value in config.items() if key.partition(".")[0] != "metrics"}
    provenance.get("choices", {}).pop("metrics", None)
    learn(results.get("metrics", {}))
    reason = {"running": "or killed", "pending": "not started yet"}.get(status, str(results.get("error", "")))
    if status == "interrupted" and "stopped_after" in results:
        status, reason = "stopped", f"by successive halving after epoch {results['stopped_after']}"
    if status == "finished":
        int(config["seed"])
        if rows and not (folder / "metrics.csv").read_text().endswith("\n"):
            raise ValueError("metrics.csv is half-written: its last line is cut")
        if len(rows) != results["epochs"]:
            raise ValueError(f"metrics.csv has {len(rows)} epochs, results.json {results['epochs']}")
        if rows:
            accuracies = [math.nan if (value := row.get("val_acc")) is None else value for row in rows]
            falls = np.maximum(0, -np.diff(accuracies))  # keeps NaN, which max() does not
            results["val_acc_falls"] = float(falls.sum())
            results["seconds_per_epoch"] = results["train_seconds"] / len(rows)
    return Record(folder, status, reason, overrides, config, results, rows, provenance)


def distinguishing_keys(
    records: Iterable[Record], keys: Iterable[str], kept: Sequence[str] = ()
) -> list[str]:
    """``kept``, and those of ``keys`` each of which tells records apart that those before it do not."""
    kept = list(kept)
    for key in dict.fromkeys(keys):
        with_key = {tuple(record.values.get(k) for k in (*kept, key)) for record in records}
        if len(with_key) > len({values[:-1] for values in with_key}):
            kept.append(key)
    return kept


def shorter(key: str, keys: Iterable[str]) -> str:
    """The last part of a dotted key, or all of it where another of ``keys`` ends alike."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) < 2 else key


def plain(value: Any) -> str:
    """A value as one types it; equal values have equal texts (``0`` and ``0.0``, ``1e-4`` and ``0.0001``)."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(plain, value))}]"
    word = str(value).strip("'\" ")
    if word.startswith("[") and word.endswith("]"):
        return plain(word[1:-1].split(","))
    try:
        return f"{float(word):.12g}"
    except ValueError:
        return word.lower() if word.lower() in ("true", "false", "null") else word


def described(damage: Exception) -> str:
    """What an exception says, or its kind where that alone says little."""
    tells = isinstance(damage, UserError | ValueError) and str(damage)
    return str(damage) if tells else f"{type(damage).__name__}: {damage}"
