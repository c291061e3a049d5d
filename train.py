"""Train an image classifier: ``python train.py [group=option …] [knob=value …]``; see ``--help``."""

import logging
import sys
from datetime import datetime
from pathlib import Path
from typing import cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiment.command_line import check, door, stop
from experiment.config import choices, run_config
from experiment.errors import UserError
from experiment.results import table
from experiment.run import Run
from experiment.schema import problems
from experiment.sweep import outcome
from experiment.worker import claim_job

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def job(config: DictConfig) -> float | None:
    """One job of Hydra's: the only one, or one of a sweep."""
    hydra_config = cast(DictConfig, HydraConfig.get())
    is_sweep = hydra_config.mode == RunMode.MULTIRUN
    try:
        return (train_in_sweep if is_sweep else train_alone)(config, hydra_config)
    except UserError as error:
        if is_sweep:  # the launcher notes it and goes on
            raise
        stop(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def train_alone(composed: DictConfig, hydra_config: DictConfig) -> float | None:
    """Make or open the run that the command line describes and train it."""
    config = run_config(composed)
    if wrong := problems(config):
        raise UserError("\n       ".join(wrong))
    if config.resume:
        run = Run.open(Path(config.resume))
        if run.status == "finished":
            log.info(f"nothing to resume:\n{table(run.results, run.folder)}")
            return run.results.get("monitored")
        run.check_resumable()
    else:
        chosen = choices(hydra_config)
        automatic = f"{chosen['model']}-{chosen['data']}-{datetime.now():%Y%m%d-%H%M%S}"
        run = Run.create(config, Path(config.output_dir), config.name or automatic, chosen)
    from lightning_modules.training import train  # imports torch and lightning: seconds, so after every check

    try:
        return train(run.config, run)
    except (KeyboardInterrupt, SystemExit):
        if run.has_begun:
            log.info(f"continue with: python train.py resume={run.folder}")
        raise


def train_in_sweep(composed: DictConfig, hydra_config: DictConfig) -> float | None:
    """Train one job of a sweep; its log goes to its folder only."""
    run = claim_job(composed, hydra_config)
    if run is None or run.status == "finished":
        return run.results.get("monitored") if run else None
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.CRITICAL + 1)
    from lightning_modules.training import train

    try:
        return train(run.config, run)
    finally:
        if not composed.resume:  # the sweeper is not ours, which prints these lines itself
            print(f"{run.folder.name}  {outcome(run)}", flush=True)


if __name__ == "__main__":
    door(lambda: check(sys.argv[1:]))
    job()
