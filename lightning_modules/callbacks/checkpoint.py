"""The best and the last state of a training, written whole or not at all."""

import math
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from experiment.metrics import row as metric_row


class BestAndLast(Checkpoint):
    """Writes ``checkpoints/last.ckpt`` at the start and after every epoch, ``best.ckpt`` after the best.

    Lightning's ModelCheckpoint forgets its best score when the folder has moved and writes no last
    checkpoint for an epoch that is not among the best; a run here is its folder, wherever that is.
    Without validation the last epoch counts as the best.

    Args:
        monitor: ``val_loss`` or ``val_`` with the key of a metric, whose row says which way is better.
    """

    def __init__(self, monitor: str = "val_acc") -> None:
        self.monitor = monitor
        self.best_score: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best_score": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved best score."""
        self.best_score = state_dict["best_score"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make a run resumable before its first epoch has ended."""
        if trainer.global_step == 0:
            self._write(trainer, "last")

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
            self._write(trainer, "best")
        self._write(trainer, "last")

    def _write(self, trainer: Trainer, name: str) -> None:
        folder = Path(trainer.default_root_dir) / "checkpoints"
        part = folder / f".{name}.ckpt.part"
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            part.replace(folder / f"{name}.ckpt")
