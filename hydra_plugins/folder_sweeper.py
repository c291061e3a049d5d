"""The default sweeper: every combination, composed at the start, resumable. Hydra finds plugins here only."""

import copy
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from experiment.config import choices, run_config
from experiment.entry_point import stop
from experiment.errors import UserError
from experiment.run import Busy, describe
from experiment.sweep import Job, Sweep, problems_in_sweep
from experiment.worker import PREEMPTED

ROOT = str(Path(__file__).parents[1])


class Frozen:
    """Gives a launcher, in place of what it would compose, the configuration ``resume=<folder>``.

    A job then reads its configuration from its folder, where it was written when the sweep started.
    """

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The sweep's own configuration with the folder that is the only one of ``sweep_overrides``."""
        config = copy.deepcopy(master_config)
        with open_dict(config):
            (config.resume,) = sweep_overrides
        return config


class FolderSweeper(BasicSweeper):
    """Runs every combination of the swept values that has no finished run in the sweep's folder.

    Args:
        max_batch_size: jobs that a launcher is given at a time; null = all.
        params: swept keys of a named experiment with their values; the command line replaces them.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what composes, and give the launcher what does not."""
        self.hydra_context, self.config = hydra_context, config
        frozen = HydraContext(cast(ConfigLoader, Frozen()), hydra_context.callbacks)
        self.launcher = Plugins.instance().instantiate_launcher(frozen, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        """Run what is left of the sweep, or with ``sweep.dry_run=true`` only say what that is."""
        assert self.config is not None
        try:
            sweep = self._define(arguments)
            if self.config.sweep.dry_run:
                print(sweep.plan())
                return
            todo = sweep.prepare()
        except UserError as error:
            stop(error)
        except HydraException as mistake:  # of values that are no list, such as an interval
            stop(UserError(f"{mistake}. hydra/sweeper=optuna draws from intervals"))
        with sweep.watched():
            code = self._launch(todo)
        text, is_complete = sweep.summary()
        print(text)
        if not is_complete:
            raise SystemExit(code or 1)

    def _define(self, arguments: list[str]) -> Sweep:
        """Compose every job.

        Raises:
            UserError: for values that are not allowed.
        """
        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(loader)
        combinations = []
        for case in self.config.sweep.cases or [""]:
            given = [*(f"{key}={value}" for key, value in self.params.items()), *case.split(), *arguments]
            (batch,) = self.split_arguments(parser.parse_overrides(given), None)
            combinations += [dict(item.split("=", 1) for item in job) for job in batch]
        keys = list(dict.fromkeys(key for job in combinations for key in job))
        keys.sort(key=lambda key: (key == "seed", "." in key))  # what a person would name first
        swept = [key for key in keys if len({job.get(key) for job in combinations}) > 1]
        folder = Path(self.config.hydra.sweep.dir).absolute()
        jobs, wrong = [], []
        for job in combinations:
            composed = loader.load_sweep_config(self.config, [f"{key}={value}" for key, value in job.items()])
            run = run_config(composed)
            wrong += problems_in_sweep(run)
            overrides = {key: job[key] for key in swept if key in job}
            jobs.append(Job(folder, overrides, run, choices(composed.hydra)))
        if wrong:
            raise UserError("\n       ".join(dict.fromkeys(wrong)))
        plain: Any = OmegaConf.to_container(self.config.sweep)
        return Sweep(folder, jobs, plain.get("claims", []))

    def _launch(self, todo: Sequence[Job]) -> int:
        """Train the jobs; returns the exit code of what interrupted that, else 0."""
        assert self.launcher is not None
        for name in ("hydra", "hydra_plugins"):  # a line for each job when it ends is enough
            logging.getLogger(name).setLevel(logging.WARNING)
        # jobs in other processes find the project however they are started
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))
        size = self.max_batch_size or len(todo)
        for start in range(0, len(todo), size or 1):
            chunk = todo[start : start + size]
            folders = [[str(job.run.folder)] for job in chunk]
            try:
                returns = self.launcher.launch(folders, initial_job_idx=start)
            except KeyboardInterrupt:
                return 130
            except SystemExit as end:
                return PREEMPTED if end.code == PREEMPTED else 130
            except Exception as failure:  # of the launcher: a lost worker, a queue that is not there
                print(f"error: the launcher gave up: {type(failure).__name__}: {failure}", file=sys.stderr)
                return 0
            for job, returned in zip(chunk, returns, strict=True):
                _record_failure(job, returned)
        return 0


def _record_failure(job: Job, returned: JobReturn) -> None:
    """Note a failure that came before the run could note it itself."""
    error = returned._return_value
    if returned.status != JobStatus.FAILED or isinstance(error, Busy):
        return
    try:
        with job.run.locked():
            noted = job.run.provenance.get("refused", job.run.results).get("error")
            if job.run.state != "finished" and noted != describe(error):
                job.run.withdraw(error)
    except Busy:
        pass  # who trains it now notes what becomes of it
