"""Successive halving: many settings for few epochs, the best of them for more, from their checkpoints.

K. Jamieson, A. Talwalkar, Non-stochastic best arm identification and hyperparameter optimization, AISTATS
2016. A run that stops at a rung stops within the schedule of all its epochs, and goes on at the very step:
one that is promoted to the end is bit for bit the run of the full grid.

Theirs begin with as few epochs as there are rungs for. Here none is judged before a fifth of its epochs: a
high rate of learning is behind at first, whatever becomes of it.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from experiment.config import monitor
from experiment.errors import UserError
from experiment.metrics import row as metric_row
from experiment.results import shown
from experiment.sweep import Job, Sweep, duration
from experiment.terminal import say

Setting: TypeAlias = tuple[tuple[str, str], ...]
"""Swept keys with their values, but for the seed."""


FIRST = 0.2
"""Part of its epochs that every setting is trained for."""


def stops(rungs: int, epochs: int) -> list[int]:
    """The epoch after which each rung ends, each so many times the one before; the last is that of all."""
    parts = [FIRST ** (1 - rung / (rungs - 1)) for rung in range(rungs - 1)]
    return [*(max(1, round(part * epochs)) for part in parts), epochs]


def counts(settings: int, epochs: int, factor: int) -> list[int]:
    """How many settings are trained at each rung.

    Args:
        settings: there are.
        epochs: of a whole training.
        factor: one in so many is promoted, until one is left or a rung would have no epoch of its own.
    """
    kept = [settings]
    while kept[-1] > 1 and len(set(stops(len(kept) + 1, epochs))) > len(kept):
        kept.append(math.ceil(kept[-1] / factor))
    return kept


def problems_of_halving(jobs: Sequence[Job], max_seeds: int) -> list[str]:
    """What keeps jobs from being compared at a part of their epochs, one line each."""
    wrong = []
    if max_seeds:
        wrong.append(
            "sweep.until=decided: halving stops settings early; take hydra/sweeper=folder for verdicts"
        )
    if any(not job.config.callbacks.get("checkpoint") for job in jobs):
        wrong.append("callbacks.checkpoint=null: halving goes on from checkpoints")
    if len(monitors := {monitor(job.config) for job in jobs}) > 1:
        wrong.append(f"callbacks.checkpoint.monitor: halving compares one metric, not {', '.join(monitors)}")
    return wrong


class Halving(Sweep):
    """A sweep that trains most of its jobs for a part of their epochs only.

    A setting is what jobs that differ in nothing but the seed have in common. It is as good as the mean over
    its seeds of the best monitored value until the rung; a job that failed makes it the worst.

    Args:
        folder: of the sweep.
        jobs: all of them, finished or not.
        claims: what the sweep asks, for the report.
        factor: one setting in so many is promoted to the next rung.
    """

    def __init__(self, folder: Path, jobs: Sequence[Job], claims: Sequence[Any], factor: int) -> None:
        super().__init__(folder, jobs, claims)
        self.factor = factor
        self.settings: dict[Setting, list[Job]] = defaultdict(list)
        for job in self.jobs:
            self.settings[tuple(item for item in job.overrides.items() if item[0] != "seed")].append(job)
        longest = max((job.config.trainer.max_epochs for job in self.jobs), default=1)
        self.counts = counts(len(self.settings), longest, factor)

    def rounds(self) -> Iterator[list[Job]]:
        """The jobs of each rung that have not come so far yet."""
        for rung in range(len(self.counts)):
            jobs = self._jobs(rung)
            for job in jobs:
                stop = self._stop(job, rung)
                job.stop_after = stop if stop < job.config.trainer.max_epochs else None
            left = [job for job in jobs if not self._has_reached(job, rung) and job.run.state != "diverged"]
            if todo := self.prepare(left):
                say(self._describe(rung))
                yield todo
            if not self._is_over(rung):
                return

    def _jobs(self, rung: int) -> list[Job]:
        return [job for setting in self._kept(rung) for job in self.settings[setting]]

    def _kept(self, rung: int) -> list[Setting]:
        """The settings that are trained at a rung, in the order of the sweep.

        Raises:
            UserError: if nothing has been validated.
        """
        if rung == 0:
            return list(self.settings)
        before = self._kept(rung - 1)
        scores = {setting: self.score(setting, rung - 1) for setting in before}
        if all(score == -math.inf for score in scores.values()):
            raise UserError(
                f"no job has measured {monitor(self.jobs[0].config)}: there is nothing to choose by"
            )
        best = sorted(before, key=lambda setting: -scores[setting])[: self.counts[rung]]
        return [setting for setting in before if setting in best]

    def _stop(self, job: Job, rung: int) -> int:
        """The epoch after which a job stops at a rung: one that is validated."""
        epochs: int = job.config.trainer.max_epochs
        stop = stops(len(self.counts), epochs)[rung]
        every: int = job.config.trainer.get("check_val_every_n_epoch") or 1
        last: int = math.ceil(stop / every) * every
        return min(epochs, last)

    def _has_reached(self, job: Job, rung: int) -> bool:
        stop = self._stop(job, rung)
        is_last = stop == job.config.trainer.max_epochs
        has_come = not is_last and job.run.has_checkpoint and len(job.run.metrics) >= stop
        return has_come or job.run.state == "finished"

    def _is_over(self, rung: int) -> bool:
        return all(self._has_reached(job, rung) or job.status == "failed" for job in self._jobs(rung))

    def score(self, setting: Setting, rung: int) -> float:
        """How good a setting is until a rung; higher = better whatever is monitored."""
        values = []
        for job in self.settings[setting]:
            key = monitor(job.config)
            measured = [row.get(key) for row in job.run.metrics[: self._stop(job, rung)]]
            signed = [metric_row(key).sign * value for value in measured if value is not None]
            finite = [value for value in signed if math.isfinite(value)]
            failed = job.status == "failed" or not finite
            values.append(-math.inf if failed else max(finite))
        return statistics.fmean(values)

    def _describe(self, rung: int) -> str:
        stops = sorted({self._stop(job, rung) for job in self.jobs})
        epochs = str(stops[0]) if len(stops) == 1 else f"{stops[0]}–{stops[-1]}"
        count = self.counts[rung]
        which = f"{count} setting{'s' * (count > 1)}" if rung == 0 else f"the best {count}"
        return f"rung {rung + 1} of {len(self.counts)}: {which} to epoch {epochs}"

    def plan(self) -> str:
        """The rungs, the jobs with their states, and what part of the full grid's epochs that is."""
        seeds = len(self.jobs) / len(self.settings)
        longest = max(self.jobs, key=lambda job: int(job.config.trainer.max_epochs))
        stops = [0, *(self._stop(longest, rung) for rung in range(len(self.counts)))]
        epochs = sum(n * (stops[i + 1] - stops[i]) for i, n in enumerate(self.counts)) * seeds
        of_grid = len(self.jobs) * stops[-1]
        lines = [self._describe(rung) for rung in range(len(self.counts))]
        lines += [f"{job.status:<12}{job.label}" for job in self.jobs]
        left = self.seconds_left(foreign=True)
        time = "" if left is None else f"; the grid's time that is left: {duration(left)}"
        lines.append(f"{self.folder}: {epochs:.0f} of the grid's {of_grid} epochs{time}")
        return "\n".join(lines)

    @property
    def is_complete(self) -> bool:
        """Whether every rung is over, and no job failed but for its loss."""
        is_over = all(self._is_over(rung) for rung in range(len(self.counts)))
        return is_over and all(job.run.state != "failed" for job in self.jobs)

    def outcome(self) -> list[str]:
        """The best setting of those that were trained to the end, by validation."""
        last = len(self.counts) - 1
        trained = [
            setting
            for setting, jobs in self.settings.items()
            if all(job.status == "finished" for job in jobs)
        ]
        if not trained:
            return []
        best = max(trained, key=lambda setting: self.score(setting, last))
        lines = []
        for job in self.settings[best]:
            key, results = monitor(job.config), job.run.results
            test = f"test_{key.removeprefix('val_')}"
            figures = f"{key} {shown(results, key)}  {test} {shown(results, test)}"
            lines.append(f"best: {job.label}  {figures}  {job.run.folder}")
        return lines
