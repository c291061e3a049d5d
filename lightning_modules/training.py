"""From a run's configuration to its results: fit, test with the best weights, write down."""

import logging
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig
from torch.utils.flop_counter import FlopCounterMode

from experiment.errors import UserError
from experiment.run import Run
from experiment.schema import flatten
from lightning_modules.build import build_classifier, build_data, build_trainer
from lightning_modules.callbacks import BestAndLast, History
from lightning_modules.classifier import Classifier
from lightning_modules.data import ImageDataModule

log = logging.getLogger(__name__)


def train(run: Run, resume: bool = False) -> float | None:
    """Train and test as ``run.config`` says, leaving everything in the run's folder.

    Args:
        run: a new run, or one to continue.
        resume: go on from ``last.ckpt``.

    Returns:
        The monitored metric of the best epoch; without a validation set the last training accuracy.

    Raises:
        UserError: for what the user can mend; the run's status is then ``failed``.
        KeyboardInterrupt: after Ctrl-C; the run's status is then ``interrupted``.
    """
    handler = run.attach()
    try:
        results = _fit_and_test(run, resume)
    except (KeyboardInterrupt, SystemExit) as stop:
        _finish_unfinished(run, "interrupted", "stopped by the user or the system")
        raise KeyboardInterrupt from stop
    except BaseException as failure:
        _finish_unfinished(run, "failed", f"{type(failure).__name__}: {failure}")
        if run.is_writer:
            level = logging.getLogger().handlers
            log.debug("failed", exc_info=True)
        raise
    finally:
        run.detach(handler)
    return results


def _x() -> None: ...
