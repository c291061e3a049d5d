"""The best and the last state of a training, written whole or not at all, with a checksum beside it."""

import math
import time
from pathlib import Path
from typing import Annotated, Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from experiment.files import CannotWrite, note_checksum
from experiment.metrics import row as metric_row


class BestAndLast(Checkpoint):
    """Writes ``checkpoints/last.ckpt`` at the start and after every epoch, ``best.ckpt`` after the best.

    Lightning's ModelCheckpoint forgets its best score when the folder has moved and writes no last
    checkpoint for an epoch that is not among the best; a run here is its folder, wherever that is.
    Without validation the last epoch counts as the best. A checkpoint within an epoch holds all that the
    rest of the epoch depends on: a resumed run goes on at the very step.

    Args:
        monitor: ``val_loss`` or ``val_`` with the key of a metric, whose row says which way is better.
        every_minutes: how often to write ``last.ckpt`` within an epoch, too; None = never.
        every_steps: the same in steps of the optimizer.
    """

    def __init__(
        self,
        monitor: str = "val_acc",
        every_minutes: Annotated[
            float | None, "(0, inf)", "minutes between two checkpoints within an epoch"
        ] = None,
        every_steps: Annotated[
            int | None, "[1, inf)", "steps between two checkpoints within an epoch"
        ] = None,
    ) -> None:
        self.monitor = monitor
        self.every_minutes, self.every_steps = every_minutes, every_steps
        self.best_score: float | None = None
        self._written = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best_score": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved best score."""
        self.best_score = state_dict["best_score"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make a run resumable before its first epoch has ended."""
        self._written = time.monotonic()
        if trainer.global_step == 0:
            self.write(trainer, "last")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the state within an epoch when it is time to."""
        if is_between_steps(trainer, batch_idx) and self._is_due(trainer):
            self.write(trainer, "last")

    def _is_due(self, trainer: Trainer) -> bool:
        if self.every_steps is not None and trainer.global_step % self.every_steps == 0:
            return True
        if self.every_minutes is None:
            return False
        is_due = time.monotonic() - self._written >= 60 * self.every_minutes
        # clocks differ, but all processes take part in writing
        return trainer.strategy.reduce_boolean_decision(is_due, all=False)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Have a validation that is under way begin anew: what it has found so far is not saved."""
        if trainer.validating:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            for count in (progress["total"], progress["current"]):
                count |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress["is_last_batch"] = False
            if "current_model_state" in checkpoint:  # validated with averaged weights, which took their place
                names = "state_dict", "current_model_state"
                checkpoint |= dict(zip(names, [checkpoint[name] for name in reversed(names)], strict=True))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch's state."""
        is_best = True
        if self.monitor in trainer.callback_metrics:
            score = float(trainer.callback_metrics[self.monitor])
            sign = metric_row(self.monitor).sign
            is_best = self.best_score is None or sign * score > sign * self.best_score
            if is_best and not math.isnan(score):
                self.best_score = score
        if is_best:
            # before last.ckpt: killed in between, the resumed run repeats this epoch and writes both again
            self.write(trainer, "best")
        self.write(trainer, "last")

    def write(self, trainer: Trainer, name: str) -> None:
        """Write ``checkpoints/<name>.ckpt``.

        Raises:
            CannotWrite: if the folder is full, away or not to be written to.
        """
        folder = Path(trainer.default_root_dir) / "checkpoints"
        part = folder / f".{name}.ckpt.part"
        try:
            trainer.save_checkpoint(part)
            if trainer.is_global_zero:
                with note_checksum(part, folder / f"{name}.ckpt"):
                    part.replace(folder / f"{name}.ckpt")
        except (OSError, RuntimeError) as failure:  # torch's writer hides what the system says
            reason = _cannot_write(failure, folder)
            if reason is None:
                raise
            part.unlink(missing_ok=True)
            raise CannotWrite(f"{folder / name}.ckpt cannot be written: {reason}") from failure
        self._written = time.monotonic()


def _cannot_write(failure: Exception, folder: Path) -> str | None:
    """Why a file in ``folder`` could not be written, or None where the failure is of another kind."""
    if not folder.is_dir():
        return f"{folder} is not there any more"
    if isinstance(failure, OSError):
        return failure.strerror or str(failure)
    words = ("PytorchStreamWriter", "basic_ios", "unexpected pos", "iostream")  # torch's
    first = str(failure).partition("\n")[0]
    return (
        f"the disk is full or takes nothing ({first})"
        if any(word in str(failure) for word in words)
        else None
    )


def is_between_steps(trainer: Trainer, batch_idx: int) -> bool:
    """Whether the optimizer has just made a step and the epoch goes on."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and not trainer.is_last_batch
