"""Train an image classifier: ``python train.py [group=option …] [knob=value …]``; see ``--help``."""

import logging
import sys
from typing import cast

from experiment.command_line import CONFIG_DIR, check  # before others: says so where a package is missing

# isort: split
import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiment.entry_point import entry_point, stop
from experiment.errors import UserError
from experiment.results import table
from experiment.run import Busy, Run
from experiment.sweep import outcome
from experiment.terminal import loading, wrap_log
from experiment.worker import be_parent, claim_job, claim_run, continuation
from hydra_plugins.folder_sweeper import register_sweepers

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")
def job(config: DictConfig) -> float | None:
    """One job of Hydra's: the only one, or one of a sweep."""
    hydra_config = cast(DictConfig, HydraConfig.get())
    is_sweep = hydra_config.mode == RunMode.MULTIRUN
    wrap_log()
    try:
        run = (claim_job if is_sweep else claim_run)(config, hydra_config)
        if run is None:
            return None
        if run.status != "finished" or run.changes:
            return train_job(run, config, is_sweep)
        if not is_sweep:
            log.info(f"nothing to resume:\n{table(run.results, run.folder)}")
        return run.results.get("monitored")
    except UserError as error:
        if is_sweep:  # the launcher notes it and goes on
            raise
        stop(error)


def train_job(run: Run, config: DictConfig, is_sweep: bool) -> float | None:
    """Train a run; where it is one of a sweep, its log goes to its folder only."""
    try:
        with loading(is_quiet=is_sweep):  # after every check: it takes seconds
            from lightning_modules.training import train

        return train(run.config, run)
    except Exception as error:
        if not is_sweep or config.resume or isinstance(error, Busy):
            raise
        return None  # to a search a trial without a value has failed
    except (KeyboardInterrupt, SystemExit):
        if said := continuation(run):
            log.info(said)
        raise
    finally:
        run.discard()
        if is_sweep and not config.resume:  # the sweeper is not ours, which prints these lines itself
            print(f"{run.folder.name}  {outcome(run)}", flush=True)


@entry_point
def main() -> None:
    """Check the command line, then have Hydra compose what it says."""
    sys.argv[1:] = check(sys.argv[1:])
    be_parent()
    register_sweepers()
    job()


if __name__ == "__main__":
    main()
