"""A sweep is a list of configurations and a list of folders; what is left to do is the difference of the two.

``<output_dir>/<sweep.name>/`` holds ``sweep.json`` (what was asked, and each session that worked on it) and
one run folder a job, whose name ends in a digest of the job's configuration: the same sweep finds its jobs
again, a changed configuration is another job.
"""

import logging
import re
import shlex
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from itertools import repeat
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiment.config import digest
from experiment.entry_point import invocation
from experiment.errors import UserError
from experiment.files import damaged, make_folder, read_json, read_yaml
from experiment.precision import problems_here
from experiment.provenance import command, git_state, now
from experiment.results import headline, shown
from experiment.run import Busy, Run, at_start
from experiment.schema import problems
from experiment.terminal import ERASE, announced, meanwhile, say, width

FORMAT_VERSION = 1
"""Of ``sweep.json``; raised when a key changes its meaning."""

log = logging.getLogger(__name__)


def problems_in_sweep(config: DictConfig) -> list[str]:
    """What is wrong with the configuration of a job, one line each."""
    wrong = problems(config) + problems_here(config.trainer)
    several = {"strategy": ("ddp",), "devices": range(2, 10**6), "num_nodes": range(2, 10**6)}
    for key, values in several.items():
        if (value := config.trainer.get(key)) in values:
            wrong.append(f"trainer.{key}={value}: a sweep gives each job one device; run this job alone")
    return wrong


class Job:
    """One configuration of a sweep and its run folder, which may not be there yet.

    Args:
        parent: folder of the sweep.
        overrides: the swept keys with their values as text.
        config: the run's configuration.
        choices: group → option that it was composed of.
    """

    def __init__(
        self, parent: Path, overrides: Mapping[str, str], config: DictConfig, choices: Mapping[str, str]
    ) -> None:
        self.overrides, self.config, self.choices = dict(overrides), config, dict(choices)
        self.label = " ".join(f"{key}={value}" for key, value in overrides.items()) or "run"
        self.digest = digest(config)
        before = next(parent.glob(f"*-{self.digest}"), None)
        # letters that need no quotes, neither in a shell nor in Hydra's grammar
        name = re.sub(r"[^\w.+-]+", "-", self.label.replace(" ", "_"))[:120]
        self.run = Run(before or parent / f"{name}-{self.digest}")
        self.run.is_job = True
        self.stop_after: int | None = None  # an epoch, in this session

    @property
    def status(self) -> str:
        """As :attr:`Run.state`, where ``diverged`` is a way to have ``failed``; ``stopped`` by its sweep."""
        state = self.run.state.replace("diverged", "failed")
        return "stopped" if state == "interrupted" and "stopped_after" in self.run.results else state

    def prepare(self) -> bool:
        """Make the folder ready for training; False if that is done, or another process does it."""
        make_folder(self.run.folder)
        with suppress(Busy), self.run.locked():
            action = at_start(self.run.state, self.run.has_checkpoint)
            if action == "continue":  # its data may have moved since
                self.run.configure(self.config)
                self.run.record(refused=None)
            elif action == "begin":
                if aside := self.run.clear():
                    log.warning(f"{self.label} begins anew: its finished epochs were moved to {aside}")
                self.run.write_pending(self.config, self.choices)
            return action != "leave"
        return False


class Sweep:
    """The jobs of a sweep.

    Args:
        folder: of the sweep.
        jobs: all of them, finished or not.
        claims: what the sweep asks, for the report.
        max_seeds: of a sequential sweep, see :mod:`experiment.report.sequential`; 0 = run all jobs.
    """

    def __init__(
        self, folder: Path, jobs: Sequence[Job], claims: Sequence[Any] = (), max_seeds: int = 0
    ) -> None:
        self.folder, self.claims, self.max_seeds = folder, claims, max_seeds
        unique: dict[str, Job] = {}
        self.jobs = [job for job in jobs if unique.setdefault(job.digest, job) is job]
        self._begun = time.monotonic()
        self._git = git_state()
        self._start = now()
        self._before: int | None = None  # sessions of earlier starts
        self._unreported: dict[Job, tuple[Any, ...] | None] = {}  # with the end of an earlier session
        self._worked = 0.0  # seconds of the jobs that ended in this session
        self._round = len(self.jobs)
        self._drawn = ""  # on the terminal

    def rounds(self) -> Iterator[list[Job]]:
        """The jobs that are left: all, or in a sequential sweep seed by seed until its claims are decided."""
        if not self.max_seeds:
            yield self.prepare()
            return
        from experiment.report.answers import is_decided
        from experiment.report.questions import questions
        from experiment.report.runs import Collection
        from experiment.report.sequential import look_levels

        every = self.jobs
        for seeds in look_levels(self.max_seeds, 0.05):
            self.jobs = [job for job in every if job.config.seed < seeds]
            yield self.prepare()
            if not any(job.status == "finished" for job in self.jobs):
                return
            runs = Collection([self.folder])
            if is_decided(questions(runs)[0], runs):
                return

    def prepare(self, jobs: Sequence[Job] | None = None) -> list[Job]:
        """Write ``sweep.json`` and the folders of those ``jobs`` (default: all) that are left; return these.

        From here on the configuration is fixed: jobs read it from their folders.
        """
        make_folder(self.folder)
        sessions = read_json(self.folder / "sweep.json").get("sessions", [])
        if not isinstance(sessions, list):
            raise damaged(self.folder / "sweep.json", "sessions is no list. Remove the file")
        self._before = len(sessions) if self._before is None else self._before  # later rounds are one session
        Run(self.folder).write_json(
            "sweep.json",
            {
                "format_version": FORMAT_VERSION,
                "name": self.folder.name,
                "swept": list(dict.fromkeys(key for job in self.jobs for key in job.overrides)),
                "jobs": [{"folder": job.run.folder.name, "overrides": job.overrides} for job in self.jobs],
                "claims": list(self.claims),
                **({"until": "decided", "max_seeds": self.max_seeds} if self.max_seeds else {}),
                "sessions": [
                    *sessions[: self._before],
                    {"start": self._start, "command": command(), "git": self._git},
                ],
            },
        )
        todo = [job for job in (self.jobs if jobs is None else jobs) if job.prepare()]
        self._round = len(self.jobs if jobs is None else jobs)
        self._unreported = {job: _ended(job.run) for job in todo}
        return todo

    def plan(self) -> str:
        """The jobs with their states and the time that is left, one job at a time."""
        states = [job.status for job in self.jobs]
        left = self.seconds_left(foreign=True)
        time_left = "unknown: no run of this kind has finished an epoch" if left is None else duration(left)
        lines = [f"{status:<12}{job.label}" for status, job in zip(states, self.jobs, strict=True)]
        done = f"{states.count('finished')} of {len(states)} jobs finished"
        return "\n".join([*lines, f"{self.folder}: {done}; left, one at a time: {time_left}"])

    def seconds_left(self, foreign: bool = False) -> float | None:
        """Seconds that the unfinished jobs will take one after another; None without an epoch to go by.

        Args:
            foreign: look at other runs beside the sweep's folder, too.
        """
        paces: dict[str, list[float]] = defaultdict(list)
        runs: list[tuple[Run, Any]] = [(job.run, job.config) for job in self.jobs]
        if foreign:
            runs += _runs_below(self.folder.parent)
        for run, config in runs:
            if rows := run.metrics:
                paces[_kind(config)].append(statistics.fmean(row["seconds"] or 0.0 for row in rows))
        own = [pace for job in self.jobs for pace in paces.get(_kind(job.config), [])]
        if not own:
            return None
        total = 0.0
        for job in self.jobs:
            if job.status != "finished":
                pace = statistics.fmean(paces.get(_kind(job.config)) or own)
                total += pace * max(
                    0, (job.stop_after or job.config.trainer.max_epochs) - len(job.run.metrics)
                )
        return total

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Print a line whenever a job ends, wherever it runs; on a terminal show which epochs are trained."""
        try:
            with meanwhile(self._look, repeat(0.5)):
                yield
        finally:
            self._look()
            self._draw("")

    def _look(self) -> None:
        for job, before in list(self._unreported.items()):
            with suppress(UserError):  # the summary names a damaged folder
                if (ended := _ended(job.run)) and ended != before:
                    del self._unreported[job]
                    self._worked += job.run.results.get("seconds", 0.0)
                    left = len(self._unreported)
                    line = f"[{self._round - left}/{self._round}] {job.label}  {outcome(job.run)}"
                    self._draw("")
                    say(f"{line}  {left} left{self._estimated_end()}" if left else line)
        if not sys.stderr.isatty():
            return
        with suppress(UserError):
            running = [job for job in self._unreported if job.run.status == "running"]
            self._draw("  ".join(f"{job.label} epoch {_epochs(job)}" for job in running))

    def _draw(self, line: str) -> None:
        """Replace the last line of a terminal by one that is gone before others are printed."""
        if sys.stderr.isatty() and line != self._drawn:
            print(f"{ERASE}{line[: width()]}", end="", file=sys.stderr, flush=True)
            self._drawn = line

    def _estimated_end(self) -> str:
        left = self.seconds_left()
        if not left or not self._worked:
            return ""
        # as many jobs at once, and as much time around the epochs, as until now
        wait = left * (time.monotonic() - self._begun) / self._worked
        return f", about {duration(wait)}, until {datetime.now() + timedelta(seconds=wait):%H:%M}"

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing left to do."""
        return all(job.status == "finished" for job in self.jobs)

    def outcome(self) -> list[str]:
        """What is to be said of the jobs together."""
        return []

    def summary(self) -> tuple[str, bool]:
        """What became of the jobs, with every one that did not finish, and whether all did."""
        counts = Counter(job.status for job in self.jobs)
        took = duration(time.monotonic() - self._begun)
        lines = [f"{self.folder}: {', '.join(f'{n} {status}' for status, n in counts.items())} after {took}"]
        for job in self.jobs:
            if job.status not in ("finished", "pending", "stopped"):
                lines.append(f"  {job.label}  {job.status.upper()}, see {job.run.folder / 'run.log'}")
        if git_state() != self._git:
            lines.append("the code was changed while the sweep ran: later jobs may have run other code")
        lines += self.outcome()
        if not (complete := self.is_complete):
            given = [argument for argument in sys.argv[1:] if not argument.startswith("sweep.name=")]
            again = shlex.join([*given, f"sweep.name={self.folder.name}"])
            lines.append(f"continue with: {invocation('train')} {again}")
        lines.append(f"report with: {invocation('report')} {shlex.quote(str(self.folder))}")
        return "\n".join(lines), complete


def jobs_in(folder: Path) -> dict[Path, dict[str, str]]:
    """Run folder → swept keys with their values, of the jobs of the sweep in ``folder``; empty if it is none.

    Raises:
        UserError: if ``sweep.json`` is damaged.
    """
    path = folder / "sweep.json"
    try:
        return {folder / job["folder"]: dict(job["overrides"]) for job in read_json(path).get("jobs", [])}
    except (TypeError, ValueError, KeyError) as lacking:
        raise damaged(path, f"{lacking!r}") from lacking


def swept(run: Run) -> dict[str, str]:
    """The swept keys of the sweep that ``run`` is a job of, with its values; empty outside a sweep."""
    return jobs_in(run.folder.parent).get(run.folder, {})


def _ended(run: Run) -> tuple[Any, ...] | None:
    """When and how the last attempt at a run ended; None while it goes on or there is none."""
    noted = run.provenance
    has_ended = run.status not in ("pending", "running") or noted.get("refused")
    # times are in seconds: attempts tell two ends within one
    return (noted.get("end"), noted.get("refused"), len(noted.get("resumed", ()))) if has_ended else None


def outcome(run: Run) -> str:
    """One phrase on how a run ended: its accuracies and time, or what went wrong."""
    results, status = run.results, run.status
    stopped = status == "interrupted" and "stopped_after" in results
    if status == "finished" or stopped:
        key = headline(results)
        figures = [f"{stage} {shown(results, name)}" for stage in ("test", "val")
                   if (name := f"{stage}_{key}") in results]  # fmt: skip
        figures += [f"after epoch {results.get('stopped_after')}"] * stopped
        return "  ".join([*figures, duration(results.get("seconds", 0.0))])
    if refused := run.provenance.get("refused"):
        return f"NOT STARTED {refused['error']} (as before: {status})".splitlines()[0]
    return f"{status.upper()} {results.get('error', '')}".strip().splitlines()[0]


def _epochs(job: Job) -> str:
    """The epoch that a running job is in, of how many."""
    epochs = job.config.trainer.max_epochs
    return f"{min(len(job.run.metrics) + 1, epochs)}/{epochs}"


def _runs_below(folder: Path) -> list[tuple[Run, Mapping[str, Any]]]:
    """The runs below a folder with their configurations; what other programs left there is passed over."""
    found = list[tuple[Run, Mapping[str, Any]]]()
    with announced(lambda: f"looking for runs in {folder} to estimate by: {len(found):,} found …"):
        for path in folder.glob("**/metrics.csv"):
            run = Run(path.parent)
            try:
                config = read_yaml(run.folder / "config.yaml")
                if all("seconds" in row for row in run.metrics) and _kind(config):
                    found.append((run, config))
            except Exception as foreign:  # whatever it is, it only costs an estimate
                log.debug(f"{path} is no run's: {foreign}")
    return found


def _kind(config: Any) -> str:
    """Of runs with the same kind an epoch takes the same time."""
    model, data = config["model"], config["data"]
    values = [model.get("widths"), model["_target_"], model.get("engine")]
    return repr([*values, *(data[key] for key in ("dataset", "train_images", "augment", "batch_size"))])


def duration(seconds: float) -> str:
    """``41 s``, ``12 min`` or ``3 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
