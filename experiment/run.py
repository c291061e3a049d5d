"""A run is its folder: what later tools know of it, they read from here.

==================  ==================================================================================
``config.yaml``     the resolved configuration; enough to rebuild the run
``provenance.json`` who, what, where, when: commit, command, versions, hardware, data, status
``metrics.csv``     one row an epoch
``results.json``    the final figures, with the status they were reached in, and what was tested
``predictions.npz`` what the network said of every test image: see :mod:`experiment.metrics.predictions`
``checkpoints/``    ``best.ckpt`` and ``last.ckpt``
``figures/``        PNG pictures
``run.log``         what was printed, and the traceback of a failure
==================  ==================================================================================
"""

import csv
import fcntl
import hashlib
import itertools
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiment.errors import UserError
from experiment.provenance import environment, git_state, now
from experiment.results import json_numbers, summary
from experiment.schema import problems

FORMAT_VERSION = 1
"""Of ``provenance.json`` and ``results.json``; raised when a key changes its meaning."""

RANK_VARIABLES = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
FOLDER_VARIABLE = "EXPERIMENT_RUN_FOLDER"
"""Tells the processes that one run starts on its other devices which folder is theirs."""


class Run:
    """A run folder. Only the process of rank 0 writes to it.

    Args:
        folder: an existing run folder; :meth:`create` and :meth:`open` are the ways to get one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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
        """
        if FOLDER_VARIABLE in os.environ:
            return cls(Path(os.environ[FOLDER_VARIABLE]))  # a process on another device of the same run
        parent.mkdir(parents=True, exist_ok=True)
        for attempt in itertools.count(1):
            folder = (parent / (name if attempt == 1 else f"{name}-{attempt}")).resolve()
            try:
                folder.mkdir()  # atomic: of two runs that start at one instant only one succeeds
                break
            except FileExistsError:
                continue
        run = cls(folder)
        run.lay_out(config, choices or {})
        return run

    def lay_out(self, config: DictConfig, choices: Mapping[str, str | None]) -> None:
        """Make the folder that of a run still to begin; of an earlier one only its log stays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in ("run.log", ".lock"):
                path.unlink()
        (self.folder / "checkpoints").mkdir()
        self.configure(config)
        self.write_json(
            "provenance.json",
            {"format_version": FORMAT_VERSION, "status": "pending", "choices": dict(choices)},
        )

    def configure(self, config: DictConfig) -> None:
        """Write ``config.yaml``."""
        write_atomically(self.folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))

    def begin(self) -> None:
        """Note what trains the run, where and when, or that it goes on, perhaps elsewhere."""
        if self.provenance.get("start") and (self.folder / "checkpoints" / "last.ckpt").exists():
            resumed = {"at": now(), "git": git_state()}
            self.record(status="running", resumed=[*self.provenance.get("resumed", []), resumed])
            return
        self.record(
            status="running",
            **environment(),
            seed=self.config.seed,
            start=now(),
        )

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """The run in an existing folder.

        Raises:
            UserError: if ``folder`` is not a run folder or its configuration has values that are not allowed.
        """
        missing = [name for name in ("config.yaml", "provenance.json") if not (folder / name).is_file()]
        if missing:
            what = f"has no {' and no '.join(missing)}" if folder.is_dir() else "does not exist"
            known = sorted(path.parent.name for path in folder.parent.glob("*/provenance.json"))[-5:]
            hint = f" The latest runs in {folder.parent}: {', '.join(known)}." if known else ""
            raise UserError(f"{folder} is not a run folder: it {what}.{hint}")
        run = cls(folder.resolve())
        if wrong := problems(run.config):  # the folder may come from a stranger
            raise UserError("\n       ".join([f"{folder / 'config.yaml'} cannot be used:", *wrong]))
        return run

    @property
    def config(self) -> DictConfig:
        """The run's resolved configuration."""
        config = OmegaConf.load(self.folder / "config.yaml")
        assert isinstance(config, DictConfig)
        return config

    @property
    def provenance(self) -> dict[str, Any]:
        """The content of ``provenance.json``."""
        return self._read("provenance.json")

    @property
    def results(self) -> dict[str, Any]:
        """The content of ``results.json``; empty while there is none."""
        return self._read("results.json")

    @property
    def metrics(self) -> list[dict[str, float | None]]:
        """The rows of ``metrics.csv``; ``None`` where a value was not measured."""
        path = self.folder / "metrics.csv"
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return [{k: float(v) if v else None for k, v in row.items()} for row in csv.DictReader(file)]

    @property
    def summary(self) -> dict[str, Any]:
        """What the epochs so far amount to, see :func:`experiment.results.summary`."""
        checkpoint = self.config.callbacks.get("checkpoint") or {}
        return summary(self.metrics, checkpoint.get("monitor", "val_acc"))

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

    @property
    def status(self) -> str:
        """``pending``, ``running`` (or killed), ``finished``, ``interrupted`` or ``failed``."""
        status: str = self.provenance.get("status", "pending")
        return status

    @property
    def is_busy(self) -> bool:
        """Whether a process is training the run right now."""
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @contextmanager
    def session(self) -> Iterator[None]:
        """Own the folder, copy the log to ``run.log`` and name the folder to the processes started meanwhile.

        Raises:
            UserError: if another process owns the folder.
        """
        if not self.is_writer:
            yield
            return
        with (self.folder / ".lock").open("w") as lock:  # the system lets go of it however this process ends
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as taken:
                raise UserError(f"{self.folder} is being trained by another process: let it end") from taken
            self.begin()
            os.environ[FOLDER_VARIABLE] = str(self.folder)
            handler = logging.FileHandler(self.folder / "run.log")
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            logging.getLogger().addHandler(handler)
            try:
                yield
            finally:
                logging.getLogger().removeHandler(handler)
                handler.close()
                del os.environ[FOLDER_VARIABLE]

    def record(self, **facts: Any) -> None:
        """Add ``facts`` to ``provenance.json``."""
        self.write_json("provenance.json", self.provenance | facts)

    def finish(self, status: str, traceback: str = "", **measured: Any) -> None:
        """Write ``results.json`` and close the provenance.

        Args:
            status: ``finished``, ``interrupted`` or ``failed``.
            traceback: of a failure, for ``run.log``.
            **measured: what is known beyond ``metrics.csv``.
        """
        if not self.is_writer:
            return
        if traceback:
            with (self.folder / "run.log").open("a") as file:
                file.write(traceback)
        results = {"format_version": FORMAT_VERSION, "status": status, **self.summary, **measured}
        self.write_json("results.json", results)
        self.record(status=status, end=now())

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write ``content`` to a file of the folder, whole or not at all; see :func:`json_numbers`."""
        if self.is_writer:
            text = json.dumps(json_numbers(content), indent=2, allow_nan=False)
            write_atomically(self.folder / name, text + "\n")

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        if not path.exists():
            return {}
        try:
            content: dict[str, Any] = json.loads(path.read_text())
        except json.JSONDecodeError as damage:
            raise UserError(f"{path} is damaged: {damage}") from damage
        return content


def sha256(path: Path) -> str:
    """Checksum of a file's content, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` so that a reader or a crash never meets half a file."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
