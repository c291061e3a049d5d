"""The run that a composed configuration means: a new one, one to go on with, or a job of a sweep."""

import fcntl
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from omegaconf import DictConfig

from experiment.config import choices, run_config
from experiment.errors import UserError
from experiment.run import Run
from experiment.schema import problems
from experiment.sweep import Job, problems_in_sweep


def claim_run(composed: DictConfig, hydra_config: DictConfig) -> Run:
    """The run that a single configuration means: a new folder, or with ``resume`` the folder named there.

    Args:
        composed: the configuration.
        hydra_config: its ``hydra`` node.

    Raises:
        UserError: for values that are not allowed, or no run to resume.
    """
    config = run_config(composed)
    if wrong := problems(config):
        raise UserError("\n       ".join(wrong))
    if config.resume:
        return Run.open(Path(config.resume))
    chosen = choices(hydra_config)
    automatic = f"{chosen['model']}-{chosen['data']}-{datetime.now():%Y%m%d-%H%M%S}"
    return Run.create(config, Path(config.output_dir), config.name or automatic, chosen)


def claim_job(composed: DictConfig, hydra_config: DictConfig) -> Run | None:
    """The run that a job of a sweep is to train, or None where it is not to be trained now.

    Args:
        composed: what the launcher hands over: ``resume`` is the job's folder, or null where another sweeper
            than ours drew the values.
        hydra_config: its ``hydra`` node.

    Raises:
        UserError: for values that are not allowed.
    """
    folder = Path(hydra_config.sweep.dir).absolute()
    if composed.resume:
        run = Run.open(Path(composed.resume))
    else:
        config = run_config(composed)
        if wrong := problems_in_sweep(config):
            raise UserError("\n       ".join(wrong))
        task = (override.lstrip("+") for override in hydra_config.overrides.task)
        overrides = dict(item.split("=", 1) for item in task if not item.startswith("sweep."))
        job = Job(folder, overrides, config, choices(hydra_config))
        job.lay_out()
        run = job.run
    others = (Run(path.parent) for path in folder.glob("*/provenance.json"))
    if run.is_busy or (composed.sweep.fail_fast and any(other.status == "failed" for other in others)):
        return None
    claim_gpu(folder)
    return run


def claim_gpu(folder: Path, gpus: Sequence[str] | None = None) -> None:
    """Give this process a GPU of its own where the machine has several, before torch is imported.

    Processes of one sweep agree by locks in its ``folder``; with more processes than GPUs they share.

    Args:
        folder: of the sweep.
        gpus: names of the GPUs as ``CUDA_VISIBLE_DEVICES`` takes them; default: those this process sees.
    """
    if gpus is None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        listed = sorted(Path("/proc/driver/nvidia/gpus").glob("*"))
        gpus = visible.split(",") if visible is not None else [str(index) for index in range(len(listed))]
    if len(gpus) < 2:
        return
    chosen = gpus[os.getpid() % len(gpus)]
    for gpu in gpus:
        lock = os.open(folder / f".gpu-{gpu.replace('/', '_')}.lock", os.O_CREAT | os.O_WRONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        chosen = gpu  # the lock stays open, and with it held, until this process ends
        break
    os.environ["CUDA_VISIBLE_DEVICES"] = chosen


def study_storage(folder: str) -> str:
    """Address of an Optuna study in the sweep's ``folder``, which is made if it is missing."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder}/study.db"
