"""The default sweeper: every combination, composed at the start, resumable. Hydra finds plugins here only."""

import copy
import functools
import itertools
import logging
import os
import pickle
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from experiment.claims import problems_of_claims, problems_of_looks
from experiment.config import choices, override_lists, run_values
from experiment.entry_point import stop
from experiment.errors import UserError
from experiment.files import CannotWrite
from experiment.halving import Halving, problems_of_halving
from experiment.run import Busy, describe
from experiment.sweep import Job, Sweep, problems_in_sweep
from experiment.terminal import say
from experiment.worker import PREEMPTED, check_launched_once, end_jobs, ending_on_signals


def ending_jobs(launcher: Any, folder: Path) -> AbstractContextManager[None]:
    """While jobs run in other processes, have a signal that ends this one end these first."""
    return ending_on_signals(None if isinstance(launcher, BasicLauncher) else partial(end_jobs, folder))


class Frozen:
    """Gives a launcher, in place of what it would compose, the configuration ``resume=<folder>``.

    A job then reads its configuration from its folder, where it was written when the sweep started.
    """

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The sweep's own configuration with the folder of ``sweep_overrides`` and where the job stops."""
        config = copy.deepcopy(master_config)
        for node in (config, config.hydra):  # read-only since Hydra 1.4, but a launcher sets its job's number
            OmegaConf.set_readonly(node, False)
        with open_dict(config):
            config.resume, *stop = sweep_overrides
            config.sweep.stop_after = int(stop[0]) if stop else None
        return config


class JobComposer:
    """Composes the jobs of a sweep.

    Hydra composes a configuration from twenty files, which takes a tenth of a second: here once for each
    combination of groups. Plain values are then set as Hydra sets them.

    Args:
        loader: Hydra's.
        config: the sweep's own configuration.
    """

    def __init__(self, loader: ConfigLoader, config: DictConfig) -> None:
        self._loader, self._config = loader, config
        self._parser = OverridesParser.create(loader)
        self._bases: dict[tuple[str, ...], DictConfig] = {}
        # what the first run of its kind holds, the same pickled, and group → option
        self._runs: dict[tuple[str, ...], tuple[dict[str, Any], bytes, dict[str, str]]] = {}
        self._folder = Path(config.hydra.sweep.dir).absolute()

    def compose(self, job: Mapping[str, str]) -> tuple[DictConfig, dict[str, str]]:
        """The run's configuration of a job, given as key → value as text, and group → option."""
        values = {key: value for key, value in job.items() if self._is_plain(key) and value[:1] != "{"}
        groups = [
            f"{'++' * (value[:1] == '{')}{key}={value}" if value else key
            for key, value in job.items()
            if key not in values
        ]
        alike = (*groups, *values)  # jobs that differ in values only, of the same keys
        if alike not in self._bases:
            self._bases[alike] = self._loader.load_sweep_config(self._config, groups)
        base = self._bases[alike]
        for key, value in values.items():
            OmegaConf.update(base, key, self._parse(f"{key}={value}"), merge=True, force_add=True)
        content = run_values(base, self._folder)
        if alike not in self._runs:  # a copy takes a fraction of the time of a new one
            self._runs[alike] = content, pickle.dumps(OmegaConf.create(content)), choices(base.hydra)
        first, pickled, chosen = self._runs[alike]
        config: DictConfig = pickle.loads(pickled)
        _set_differences(config, first, content)
        return config, chosen

    @functools.cache  # noqa: B019 – as long as the sweep
    def _is_plain(self, key: str) -> bool:
        """Whether a key is one of the run; others choose options, remove keys or are Hydra's."""
        is_key = re.fullmatch(r"(?!hydra\.)[\w.]+", key) is not None
        return is_key and not self._loader.get_group_options(key, config_name="train")

    @functools.cache  # noqa: B019
    def _parse(self, text: str) -> Any:
        (override,) = self._parser.parse_overrides([text])
        return override.value()


def _set_differences(config: DictConfig, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Make ``config``, whose content was ``before``, one of the content ``after``."""
    for key, value in after.items():
        former = before.get(key)
        if isinstance(value, dict) and value and isinstance(former, dict) and [*value] == [*former]:
            _set_differences(config[key], former, value)
        elif key not in before or repr(value) != repr(former):  # 0 equals False
            config[key] = value


class FolderSweeper(Sweeper):
    """Runs every combination of the swept values that has no finished run in the sweep's folder.

    Args:
        max_batch_size: jobs that a launcher is given at a time; null = all.
        params: swept keys of a named experiment with their values; the command line replaces them.
        factor: of successive halving, see :class:`experiment.halving.Halving`; null = train all jobs.
    """

    def __init__(
        self,
        max_batch_size: int | None = None,
        params: Mapping[str, Any] | None = None,
        factor: int | None = None,
    ) -> None:
        self.max_batch_size, self.params, self.factor = max_batch_size, dict(params or {}), factor

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what composes, and give the launcher what does not."""
        self.hydra_context, self.config = hydra_context, config
        frozen = HydraContext(cast(ConfigLoader, Frozen()), hydra_context.callbacks)
        self.launcher = Plugins.instance().instantiate_launcher(frozen, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        """Run what is left of the sweep, or with ``sweep.dry_run=true`` only say what that is."""
        assert self.config is not None
        try:
            check_launched_once()
            sweep = self._define(arguments)
            if self.config.sweep.dry_run:
                say(sweep.plan())
                return
            code = 0
            for todo in sweep.rounds():
                if todo:
                    jobs = f"{len(todo)} job{'s' * (len(todo) > 1)}"
                    say(f"{jobs} → {os.path.relpath(sweep.folder)}")
                with sweep.watched(), ending_jobs(self.launcher, sweep.folder):
                    code = self._launch(todo)
                if code:
                    break
            text, is_complete = sweep.summary()
        except UserError as error:
            stop(error)
        say(text)
        if not is_complete:
            raise SystemExit(code or 1)

    def _define(self, arguments: list[str]) -> Sweep:
        """Compose every job.

        Raises:
            UserError: for values that are not allowed, and claims that no job can answer.
        """
        assert self.config is not None
        assert self.hydra_context is not None
        options = self.config.sweep
        max_seeds = options.max_seeds if options.until == "decided" else 0
        combinations = self._combinations([*arguments, *[f"seed=range({max_seeds})"] * bool(max_seeds)])
        keys = list(dict.fromkeys(key for job in combinations for key in job))
        keys.sort(key=lambda key: (key == "seed", "." in key))  # what a person would name first
        swept = [key for key in keys if len({job.get(key) for job in combinations}) > 1]
        folder = Path(self.config.hydra.sweep.dir).absolute()
        composer = JobComposer(self.hydra_context.config_loader, self.config)
        jobs, wrong = [], []
        for job in combinations:
            run, chosen = composer.compose(job)
            wrong += problems_in_sweep(run)
            jobs.append(Job(folder, {key: job[key] for key in swept if key in job}, run, chosen))
        plain: Any = OmegaConf.to_container(self.config.sweep)
        claims = plain.get("claims") or []
        described = [(job.config, job.choices, job.overrides) for job in jobs]
        wrong += problems_of_claims(claims, described)
        wrong = wrong or problems_of_looks(folder, claims, max_seeds, described)
        if self.factor is not None:
            wrong += problems_of_halving(jobs, max_seeds)
        if wrong:
            raise UserError("\n       ".join(dict.fromkeys(wrong)))
        if self.factor is not None:
            return Halving(folder, jobs, claims, self.factor)
        return Sweep(folder, jobs, claims, max_seeds)

    def _combinations(self, arguments: list[str]) -> list[dict[str, str]]:
        """Of each job the overrides, key → value as text."""
        assert self.config is not None
        assert self.hydra_context is not None
        parser = OverridesParser.create(self.hydra_context.config_loader)
        combinations = []
        for given in override_lists(self.params, self.config.sweep.cases, arguments):
            values: dict[str, list[str]] = {}  # a later override of a key replaces an earlier one
            for override in parser.parse_overrides(given):
                if override.is_sweep_override() and not override.is_discrete_sweep():
                    raise UserError(f"{override.input_line}: hydra/sweeper=optuna draws from intervals")
                single = [] if override.is_sweep_override() else [override.get_value_element_as_str()]
                key = override.get_key_element().lstrip("+")
                values[key] = single or list(override.sweep_string_iterator())
                if not values[key]:
                    raise UserError(f"{override.input_line}: there is no value in it, and so no job")
            combinations += [
                dict(zip(values, job, strict=True)) for job in itertools.product(*values.values())
            ]
        return combinations

    def _launch(self, todo: Sequence[Job]) -> int:
        """Train the jobs; returns the exit code of what interrupted that, else 0."""
        assert self.launcher is not None
        for name in ("hydra", "hydra_plugins"):  # a line for each job when it ends is enough
            logging.getLogger(name).setLevel(logging.WARNING)
        # one after the other each for itself, or Hydra would keep what every job leaves until the last one
        size = 1 if isinstance(self.launcher, BasicLauncher) else self.max_batch_size or len(todo)
        for start in range(0, len(todo), size or 1):
            chunk = todo[start : start + size]
            folders = [
                [str(job.run.folder), *([str(job.stop_after)] * bool(job.stop_after))] for job in chunk
            ]
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
    with suppress(Busy, CannotWrite), job.run.locked():  # who trains it now notes what becomes of it
        noted = (job.run.provenance.get("refused") or job.run.results).get("error")
        if job.run.state != "finished" and noted != describe(error):
            job.run.fail(error)
    if job.status == "pending":  # where the disk is full or away, nothing could be noted
        print(f"error: {job.label}: {error}", file=sys.stderr)


def register_sweepers() -> None:
    """Make the sweepers of this project known to Hydra, which looks in folders, not in editable installs."""
    from hydra_plugins.optuna_search import OptunaSearch

    for sweeper in (FolderSweeper, OptunaSearch):
        Plugins.instance().register(sweeper)
