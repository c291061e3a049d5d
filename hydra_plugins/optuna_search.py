"""A search with Optuna that ends early and goes on later without losing a trial."""

import inspect
import logging
import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from experiment.entry_point import argument, invocation, stop
from experiment.errors import UserError
from experiment.terminal import say
from experiment.worker import PREEMPTED
from hydra_plugins.folder_sweeper import ending_jobs


class OptunaSearch(Sweeper):
    """The sweeper of the package hydra-optuna-sweeper.

    A trial that was interrupted, or whose process was killed, counts as failed, and the search that goes on
    begins with its values: its run continues from its checkpoint. The search ends when more trials have
    failed than ``max_failure_rate`` of ``n_trials``; the package would end it at the first one.

    Args:
        **options: those of the package's sweeper.
    """

    def __init__(self, **options: Any) -> None:
        from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper

        self.options, self.failed = options, 0
        older = dict.fromkeys({"search_space"} & {*inspect.signature(OptunaSweeper).parameters})
        self.sweeper = OptunaSweeper(**options | older | {"max_failure_rate": 1.0})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Have the launcher's failures counted."""
        self.config = config
        self.sweeper.setup(hydra_context=hydra_context, task_function=task_function, config=config)
        launcher = self.sweeper.sweeper.launcher
        launch, allowed = launcher.launch, self.options["max_failure_rate"] * self.options["n_trials"]

        def counting(overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            returns: Sequence[JobReturn] = launch(overrides, initial_job_idx=initial_job_idx)
            self.failed += sum(not isinstance(returned._return_value, float) for returned in returns)
            if self.failed > allowed:
                raise UserError(f"{self.failed} failed trials are more than hydra.sweeper.max_failure_rate")
            return returns

        launcher.launch = counting

    def sweep(self, arguments: list[str]) -> None:
        """Try ``n_trials`` more sets of values."""
        assert self.config is not None
        folder, code = Path(self.config.hydra.sweep.dir), 0
        for name in ("hydra", "hydra_plugins", "optuna"):  # a line a trial is enough
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            with FileLock(folder / ".search.lock", timeout=0):
                try:
                    self._end_trials(repeat=True)
                    with ending_jobs(self.sweeper.sweeper.launcher, folder):
                        self.sweeper.sweep(arguments)
                except KeyboardInterrupt:
                    code = 130
                except SystemExit as end:
                    code = PREEMPTED if end.code == PREEMPTED else 130
                except Exception as failure:
                    code = 1
                    print(f"error: {failure}", file=sys.stderr)
                say(f"{folder}: {self._end_trials()}")
        except Timeout:
            taken = "another process searches there: hydra.sweeper.n_jobs=2 tries two at once"
            stop(UserError(f"{folder}: {taken}"))
        given = [word for word in sys.argv[1:] if not word.startswith("sweep.name=")]
        again = f"{shlex.join(given)} {argument('sweep.name', folder.name)}"
        say(f"{'continue' if code else 'more trials'} with: {invocation('train')} {again}")
        if code:
            raise SystemExit(code)

    def _end_trials(self, repeat: bool = False) -> str:
        """Count the trials that nobody works on as failed, and perhaps have them repeated.

        Returns:
            How many trials ended in which way, and the best one.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            study = optuna.load_study(study_name=self.options["study_name"], storage=self.options["storage"])
        except KeyError:
            return "no trial"
        interrupted = study.user_attrs.get("interrupted", [])
        for trial in study.get_trials():
            if trial.state == optuna.trial.TrialState.RUNNING:
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
                interrupted.append(trial.params)
        for values in interrupted if repeat else ():
            with warnings.catch_warnings(action="ignore"):  # this function may change
                study.enqueue_trial(values)
        study.set_user_attr("interrupted", [] if repeat else interrupted)
        counts = Counter(trial.state.name.lower() for trial in study.get_trials())
        said = ", ".join(f"{number} {state}" for state, number in counts.items())
        if counts["complete"]:
            values = " ".join(f"{key}={value}" for key, value in study.best_params.items())
            said += f"; best {study.best_value:.4f} with {values}"
        return said
