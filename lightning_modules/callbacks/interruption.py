"""Ends a training at the next step after a signal, instead of anywhere or not at all."""

import logging
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from experiment.worker import PREEMPTED, install_handler, termination_signals
from lightning_modules.callbacks.checkpoint import BestAndLast, is_between_steps

log = logging.getLogger(__name__)


class Interruption(Checkpoint):
    """Notes Ctrl-C, SIGTERM and a cluster's warning, and saves and ends the training between two steps.

    Outside the training a signal ends the run at once, as does a second Ctrl-C. A noted signal is not lost
    where Python would drop an exception, as in the finalizer of a file.

    Args:
        requeue: whether a run that a signal other than Ctrl-C ends inside a Slurm job hands this job back to
            Slurm, to be started again.
    """

    def __init__(self, requeue: bool = False) -> None:
        self.requeue = requeue
        self.received: int | None = None
        self._before: list[Callable[[], object]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note signals from now on; Lightning has installed handlers of its own until here."""
        numbers = (signal.SIGINT, *termination_signals())
        self._before = [install_handler(number, self._note) for number in numbers]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received == signal.SIGINT == number:
            raise KeyboardInterrupt  # pressed twice: at once
        if number == signal.SIGINT:
            log.info("Ctrl-C: saving after this step; press it again to stop at once")
        self.received = self.received or number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the training if a signal has come, on all devices at the same step."""
        if is_between_steps(trainer, batch_idx):
            self._end(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """As after a step of training, where no other device may have fewer batches to validate with."""
        if trainer.world_size == 1 and trainer.state.fn == TrainerFn.FITTING:
            self._end(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As after a step; the epoch's checkpoint has been written."""
        self._end(trainer, is_saved=True)

    def _end(self, trainer: Trainer, is_saved: bool = False) -> None:
        """Save and raise what the signal asks for, if one has come to any device's process.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
            SystemExit: with code :data:`PREEMPTED` after another signal.
        """
        if not trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            return  # one that comes meanwhile is for the next step: the other processes do not know of it
        self.received = self.received or signal.SIGTERM
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, BestAndLast) and not is_saved:
                callback.write(trainer, "last")
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(PREEMPTED)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave signals as they were."""
        for restore in reversed(self._before):
            restore()
        self._before = []

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """As :meth:`on_train_end`, which Lightning leaves out after a failure."""
        self.on_train_end(trainer, pl_module)
