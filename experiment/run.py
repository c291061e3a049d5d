"""A run is its folder: what later tools know of it, they read from here.

``outputs/README.md`` lists its files, ``docs/reliability.md`` says what becomes of it in each of its
:data:`STATES` at each event. Only the process that holds the folder's lock writes there.
"""

import csv
import itertools
import json
import logging
import os
import pickle
import re
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, cast, get_args

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from experiment.config import monitor
from experiment.errors import UserError
from experiment.files import CannotWrite, damaged, make_folder, read_json, sha256, write_atomically
from experiment.launch import launched
from experiment.provenance import environment, inexact, now, version
from experiment.results import json_numbers, summary
from experiment.schema import problems
from experiment.terminal import announced

FORMAT_VERSION = 2
"""Of ``provenance.json`` and ``results.json``; raised when a key changes its meaning."""

State = Literal["pending", "running", "killed", "interrupted", "failed", "diverged", "finished"]
STATES: tuple[State, ...] = get_args(State)

LOCK = ".lock"
"""Held by the process that owns the folder; the file stays where it is whatever becomes of the run."""

ESSENTIAL = (
    *("seed", "model", "data", "optimizer", "scheduler", "loss", "callbacks", "logger"),
    *(f"trainer.{key}" for key in ("max_epochs", "accelerator", "devices", "strategy", "sync_batchnorm")),
)
"""Keys that a run has had since the first version; further ones may be missing in an older run."""

RANK_VARIABLES = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
FOLDER_VARIABLE = "EXPERIMENT_RUN_FOLDER"
"""Tells the processes that one run starts on its other devices which folder is theirs."""

log = logging.getLogger(__name__)


class Busy(UserError):
    """Another process owns the folder."""


def at_start(state: State, has_checkpoint: bool) -> Literal["begin", "continue", "leave"]:
    """What a start does with a run in ``state``."""
    if state in ("running", "finished"):
        return "leave"
    return "continue" if has_checkpoint and state not in ("pending", "diverged") else "begin"


class Run:
    """A run folder. Only the process of rank 0 writes to it.

    Args:
        folder: an existing run folder; :meth:`create` and :meth:`open` are the ways to get one.

    Attributes:
        is_new: whether this process made the folder, so that it goes again if the run cannot begin.
        is_job: whether the run is a job of a sweep, which notes why it could not begin.
        has_begun: whether this process has begun to train it.
        changes: keys of the configuration, with what a resume changes them to.
        resumed_from: the checkpoint to go on from, if not ``last.ckpt``.
        stop_after: the epoch after which this attempt ends, within the schedule of all; None = the last.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_new = self.is_job = self.has_begun = self._is_owner = False
        self.changes: dict[str, Any] = {}
        self.resumed_from: Path | None = None
        self.stop_after: int | None = None
        self._meeting: Path | None = None
        self.is_writer = not any(os.environ.get(variable, "0") != "0" for variable in RANK_VARIABLES)

    @classmethod
    def create(
        cls, config: DictConfig, parent: Path, name: str, choices: Mapping[str, str | None] | None = None
    ) -> "Run":
        """Make a new folder for a run of ``config``: ``parent/name``, or ``name-2``, … where that exists.

        Args:
            config: the composed configuration.
            parent: where the folder goes.
            name: of the folder.
            choices: group → option that the configuration was composed of.

        Raises:
            CannotWrite: if there can be no such folder.
        """
        if FOLDER_VARIABLE in os.environ:
            return cls(Path(os.environ[FOLDER_VARIABLE]))  # a process on another device of the same run
        meeting = _meeting_point(parent)
        if meeting and not cls(parent).is_writer:
            return cls(_folder_of_first_process(meeting))
        make_folder(parent)
        for attempt in itertools.count(1):
            folder = (parent / (name if attempt == 1 else f"{name}-{attempt}")).resolve()
            with suppress(FileExistsError):
                make_folder(folder, is_new=True)  # of two runs that start at one instant only one succeeds
                break
        run = cls(folder)
        run.is_new = True
        try:
            run.write_pending(config, choices or {})
        except CannotWrite:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if meeting:
            write_atomically(meeting, str(folder))
            run._meeting = meeting
        return run

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """The run in an existing folder.

        Raises:
            UserError: if ``folder`` is not a run folder or its configuration has values that are not allowed.
        """
        missing = [name for name in ("config.yaml", "provenance.json") if not (folder / name).is_file()]
        if missing:
            what = f"has no {' and no '.join(missing)}" if folder.is_dir() else "does not exist"
            what = "is a file" if folder.is_file() else what
            with announced(lambda: f"looking for runs in {folder.parent} …"):
                found = [path.parent for path in folder.parent.glob("*/config.yaml")]
                known = sorted(path.name for path in found if Run(path).has_checkpoint)[-5:]
            hint = f" The latest runs in {folder.parent}: {', '.join(known)}." if known else ""
            raise UserError(f"{folder} is not a run folder: it {what}.{hint}")
        run = cls(folder.resolve())
        written = run.provenance
        if written.get("format_version", 1) > FORMAT_VERSION:
            raise UserError(
                f"{folder} was written by version {written.get('version', 'unknown')} of this project, in "
                f"format {written['format_version']}; this is version {version()}, which reads up to format "
                f"{FORMAT_VERSION}: update it"
            )
        config = run.config  # may come from a stranger
        absent = [f"{key} is missing" for key in ESSENTIAL if OmegaConf.select(config, key) is None]
        if wrong := absent or problems(config):
            raise UserError("\n       ".join([f"{folder / 'config.yaml'} cannot be used:", *wrong]))
        return run

    def clear(self) -> Path | None:
        """Make room for a run that begins anew; only the log of an earlier attempt stays.

        Returns:
            Where an earlier attempt was moved to that had finished epochs or left results of finished ones.
        """
        entries = [path for path in self.folder.iterdir() if path.name != LOCK]
        if self.metrics or self.status == "finished":
            aside = self.folder.parent / ".old" / f"{self.folder.name}-{datetime.now():%Y%m%d-%H%M%S-%f}"
            make_folder(aside)
            for path in entries:
                path.rename(aside / path.name)
            return aside
        for path in entries:
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "run.log":
                path.unlink()
        return None

    def write_pending(self, config: DictConfig, choices: Mapping[str, str | None]) -> None:
        """Make the folder that of a run still to begin."""
        make_folder(self.folder / "checkpoints")
        self.configure(config)
        self.write_json(
            "provenance.json",
            {"format_version": FORMAT_VERSION, "status": "pending", "choices": dict(choices)},
        )

    def configure(self, config: DictConfig) -> None:
        """Write ``config.yaml``."""
        write_atomically(self.folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))

    def begin(self, **facts: Any) -> None:
        """Note what trains the run, where and when, or that it goes on, perhaps elsewhere.

        Args:
            **facts: what is known of this attempt beyond :func:`environment`.
        """
        if not self.is_writer:
            self.has_begun = True
            return
        known = {key: value for key, value in self.provenance.items() if key not in ("refused", "end")}
        if known.get("start"):
            attempt = {"at": now(), **environment(), **facts}
            if differences := inexact(known, attempt):
                attempt["inexact"] = differences
                log.warning(
                    f"{self.folder.name} began elsewhere ({'; '.join(differences)}): from here on it is no "
                    "longer bit for bit what it would have been there"
                )
            if self.changes:
                attempt["changes"] = self.changes
                self.configure(self.config)
            known["resumed"] = [*known.get("resumed", []), attempt]
        else:
            known |= {**environment(), **facts, "seed": self.config.seed, "start": now()}
        self.write_json("provenance.json", known | {"status": "running"})
        self.has_begun = True

    @property
    def config(self) -> DictConfig:
        """The run's resolved configuration."""
        path = self.folder / "config.yaml"
        try:
            text = path.read_text()
            config = pickle.loads(_pickled_config(text))
        except Exception as damage:  # the parsers trip over damaged bytes in any way
            raise damaged(path, damage) from damage
        if not isinstance(config, DictConfig) or "${" in text:  # it was written resolved
            raise damaged(path, "it is not the resolved configuration of a run")
        for key, value in self.changes.items():
            OmegaConf.update(config, key, value)
        return config

    @property
    def provenance(self) -> dict[str, Any]:
        """The content of ``provenance.json``."""
        kinds = {
            "data": dict,
            "choices": dict,
            "resumed": list,
            "refused": dict | None,
            "format_version": int,
        }
        known = read_json(self.folder / "provenance.json", **kinds)
        if known.get("status", "pending") not in STATES:
            raise damaged(self.folder / "provenance.json", "it has no known status")
        return known

    @property
    def results(self) -> dict[str, Any]:
        """The content of ``results.json``; empty while there is none."""
        kinds = {"seconds": int | float, "metrics": dict | list, "not_finite": dict}
        return read_json(self.folder / "results.json", **kinds)

    @property
    def metrics(self) -> list[dict[str, float | None]]:
        """The rows of ``metrics.csv``; ``None`` where a value was not measured."""
        path = self.folder / "metrics.csv"
        try:
            with path.open(newline="") as file:
                rows = [*csv.DictReader(file, strict=True)]
            return [{key: float(value) if value else None for key, value in row.items()} for row in rows]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, csv.Error) as damage:
            raise damaged(path, damage) from damage

    @property
    def summary(self) -> dict[str, Any]:
        """What the epochs so far amount to, see :func:`experiment.results.summary`."""
        try:
            return summary(self.metrics, monitor(self.config))
        except (KeyError, TypeError, ValueError, AttributeError) as lacking:
            raise damaged(self.folder / "metrics.csv", f"{lacking!r}") from lacking

    @property
    def status(self) -> str:
        """``pending``, ``running`` (or killed), ``finished``, ``interrupted`` or ``failed``."""
        status: str = self.provenance.get("status", "pending")
        return status

    @property
    def state(self) -> State:
        """As :attr:`status`, but ``killed`` where nobody trains what is said to run, and ``diverged``."""
        status = self.status
        if status == "running":
            return "running" if self.is_busy else "killed"
        if status == "failed":
            results = self.results  # without the key: written by version 0.1.0
            diverged = results.get("diverged", "the loss became" in str(results.get("error", "")))
            return "diverged" if diverged else "failed"
        return cast(State, status)

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to go on from."""
        return (self.folder / "checkpoints" / "last.ckpt").exists()

    def checkpoint(self, name: str) -> Path:
        """The file of checkpoint ``best`` or ``last``, or of a path.

        Raises:
            UserError: if there is no such file.
        """
        path = self.folder / "checkpoints" / f"{name}.ckpt" if name in ("best", "last") else Path(name)
        if not path.is_file():
            raise UserError(f"no checkpoint {path}. ckpt= takes best, last or the path of a .ckpt file")
        return path

    def evaluation_name(self, checkpoint: Path) -> str:
        """Name, less its suffix, of the files with an evaluation of ``checkpoint``, or one from elsewhere."""
        own = checkpoint.resolve().parent == (self.folder / "checkpoints").resolve()
        return f"evaluation_{checkpoint.stem}" + ("" if own else f"-{sha256(checkpoint)[:8]}")

    def check_resumable(self) -> None:
        """See that there is something to go on from, and to do.

        Raises:
            UserError: if the run would meet the same end again, has no checkpoint, or too many epochs.
        """
        epochs, done = self.changes.get("trainer.max_epochs"), len(self.metrics)
        if epochs is not None and epochs < done:
            raise UserError(f"trainer.max_epochs={epochs}: {self.folder} has {done} epochs already")
        if self.status == "finished" and (epochs is None or epochs == done):
            self.changes = {}
        state = self.state
        if at_start(state, self.has_checkpoint) != "begin":
            return
        if state == "diverged":
            error = self.results.get("error", "").partition(": ")[2]
            raise UserError(
                f"{self.folder} cannot be resumed, it would meet this again: {error}. Start a new run instead"
            )
        if done:
            raise UserError(
                f"{self.folder} has no checkpoint to go on from: checkpoints/last.ckpt is not there"
            )

    @property
    def is_busy(self) -> bool:
        """Whether a process trains the run right now; nothing is written to find out."""
        path = self.folder / LOCK
        if self._is_owner:
            return self.has_begun
        if not path.exists() or not os.access(path, os.W_OK):
            return False
        try:
            with FileLock(path, timeout=0):
                return False
        except Timeout:
            return True

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Own the folder; the system lets go of it however this process ends.

        Raises:
            Busy: if another process owns it.
            CannotWrite: if nothing can be written there.
        """
        lock = FileLock(self.folder / LOCK, timeout=1)  # others look for an instant, see is_busy
        try:
            if not os.access(self.folder, os.W_OK):
                raise OSError("check its permissions, or copy it elsewhere")
            lock.acquire()
        except Timeout as taken:
            raise Busy(f"{self.folder} is being trained by another process: let it end") from taken
        except OSError as failure:
            raise CannotWrite(
                f"{self.folder} cannot be written to: {failure.strerror or failure}"
            ) from failure
        self._is_owner, self.has_begun = True, False
        try:
            yield
        finally:
            self._is_owner = False
            lock.release()

    @contextmanager
    def session(self) -> Iterator[None]:
        """Own the folder, copy the log to ``run.log`` and name the folder to the processes started meanwhile.

        Raises:
            Busy: if another process owns the folder.
        """
        if not self.is_writer:
            yield
            return
        try:
            with self.locked(), _copying_log(self.folder / "run.log"):
                os.environ[FOLDER_VARIABLE] = str(self.folder)
                try:
                    yield
                finally:
                    del os.environ[FOLDER_VARIABLE]
                    if self._meeting:
                        self._meeting.unlink(missing_ok=True)
        except Busy:
            raise
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Remove the folder that this process has made, if the run has not begun."""
        if self.is_new and not self.has_begun:
            shutil.rmtree(self.folder, ignore_errors=True)  # or it would be offered as a run later

    def fail(self, failure: BaseException, diverged: bool = False) -> None:
        """Note a failure and, in ``run.log``, its traceback, as far as the disk takes them.

        Before the training began only a job of a sweep does: it has failed if it was pending, and stays what
        it was otherwise. Of any other run that could not begin nothing is noted.
        """
        if not self.is_writer or not (self.has_begun or self.is_job):
            return
        with suppress(OSError), (self.folder / "run.log").open("a") as file:
            file.write("".join(traceback.format_exception(failure)))
        with suppress(UserError):  # else the run counts as killed, which it is
            if self.has_begun or self.status == "pending":
                self.finish("failed", error=describe(failure), diverged=diverged)
            elif self.status != "finished":
                self.record(refused={"at": now(), "error": describe(failure)})

    def record(self, **facts: Any) -> None:
        """Add ``facts`` to ``provenance.json``."""
        self.write_json("provenance.json", self.provenance | facts)

    def finish(self, status: str, **measured: Any) -> None:
        """Write ``results.json`` and close the provenance.

        Args:
            status: ``finished``, ``interrupted`` or ``failed``.
            **measured: what is known beyond ``metrics.csv``.
        """
        results = {"format_version": FORMAT_VERSION, "status": status, **self.summary, **measured}
        self.write_json("results.json", results)
        self.record(status=status, end=now())

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write ``content`` to a file of the folder, whole or not at all; see :func:`json_numbers`."""
        if self.is_writer:
            text = json.dumps(json_numbers(content), indent=2, allow_nan=False)
            write_atomically(self.folder / name, text + "\n")


@lru_cache(maxsize=8)
def _pickled_config(text: str) -> bytes:
    """What a ``config.yaml`` holds, to be copied: a run looks into its own time and again."""
    return pickle.dumps(OmegaConf.create(text))


@contextmanager
def _copying_log(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    for each in logging.getLogger().handlers:
        each.handleError = partial(_handle_error, each)  # type: ignore[method-assign]
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        with suppress(OSError):  # what is left to write finds no room
            handler.close()


def _handle_error(handler: logging.Handler, record: logging.LogRecord) -> None:
    """As the kind of ``handler`` does, but a full disk or a pipe that nobody reads any more ends no run."""
    if not isinstance(sys.exception(), OSError):
        type(handler).handleError(handler, record)


def _meeting_point(parent: Path) -> Path | None:
    """Where the first of the processes that torchrun or srun started names the folder of their run."""
    launch = launched()
    if launch.processes == 1:
        return None
    return parent / f".launch-{re.sub(r'[^A-Za-z0-9.-]', '_', launch.name)}"


def _folder_of_first_process(meeting: Path, seconds: float = 120) -> Path:
    """Wait until the first process has made the folder of the run.

    Raises:
        UserError: if it has not after ``seconds``.
    """
    begun, end = time.time(), time.monotonic() + seconds
    while time.monotonic() < end:
        # an older file is another launch's of the same name
        if meeting.exists() and meeting.stat().st_mtime > begun - seconds:
            return Path(meeting.read_text())
        time.sleep(0.1)
    raise UserError(f"the first process of this launch made no run folder in {seconds:.0f} s: see its output")


def describe(failure: BaseException) -> str:
    """The kind and the message of an exception."""
    kind = UserError if isinstance(failure, UserError) else type(failure)
    return f"{kind.__name__}: {failure}"
