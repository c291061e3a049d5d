"""Train an image classifier: ``python train.py [group=option …] [knob=value …]``; see ``--help``."""

import logging
import sys
from datetime import datetime
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiment.command_line import check, door, stop
from experiment.errors import UserError
from experiment.results import table
from experiment.run import Run
from experiment.schema import problems

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def job(config: DictConfig) -> float | None:
    """One job of Hydra's: the only one, or one of a sweep."""
    is_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        return start(config, is_sweep)
    except UserError as error:
        if is_sweep:  # the other jobs go on; Hydra exits with 1 at the end
            log.error(f"job {HydraConfig.get().job.num} failed: {error}")
            raise
        stop(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def start(config: DictConfig, is_sweep: bool) -> float | None:
    """Make or open the run that ``config`` describes and train it."""
    if wrong := problems(config):  # a sweeper may have drawn what the command line did not show
        raise UserError("\n       ".join(wrong))
    if is_sweep and config.trainer.strategy == "ddp":
        raise UserError("trainer.strategy=ddp does not work inside a sweep: give each job one device")
    if config.resume:
        run = Run.open(Path(config.resume))
        if run.provenance["status"] == "finished":
            log.info(f"nothing to resume:\n{table(run.results, run.folder)}")
            return run.results.get("monitored")
        config = run.config
    else:
        if config.data.root is not None:
            config.data.root = str(Path(config.data.root).expanduser().absolute())
        run = Run.create(config, *_place(config, is_sweep))
    from lightning_modules.training import train  # imports torch and lightning: seconds, so after every check

    try:
        return train(config, run)
    except KeyboardInterrupt:
        log.info(f"continue with: python train.py resume={run.folder}")
        raise


def _place(config: DictConfig, is_sweep: bool) -> tuple[Path, str]:
    """Parent and name of a new run's folder."""
    hydra_config = HydraConfig.get()
    if is_sweep:
        overrides = hydra_config.job.override_dirname.replace("/", "_")
        return Path(hydra_config.sweep.dir), f"{hydra_config.job.num:03d}-{overrides}"[:120]
    choices = hydra_config.runtime.choices
    automatic = f"{choices['model']}-{choices['data']}-{datetime.now():%Y%m%d-%H%M%S}"
    return Path(config.output_dir), config.name or automatic


if __name__ == "__main__":
    door(lambda: check(sys.argv[1:]))
    job()
