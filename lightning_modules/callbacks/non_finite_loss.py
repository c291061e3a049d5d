"""Stops a training whose loss is no longer a number."""

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from experiment.errors import UserError


class Diverged(UserError):
    """The loss is no longer a number: going on from a checkpoint would meet that again."""


class NonFiniteLoss(Callback):
    """Raises at the first loss that is NaN or infinite, naming step and learning rate.

    Losses are looked at in groups, since each look waits for the device to catch up.

    Args:
        every: steps between two looks; the last step of an epoch is always one.
    """

    def __init__(self, every: int = 20) -> None:
        self.every = every
        self.pending: list[tuple[int, float, Tensor]] = []
        self._rate = 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the rate of this step, before the schedule moves on."""
        self._rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the losses now and then, see :meth:`look`."""
        self.pending.append((trainer.global_step, self._rate, outputs["loss"]))
        if len(self.pending) >= self.every or trainer.is_last_batch:
            self.look(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what is left where the training ended within an epoch."""
        self.look(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let no checkpoint be written of weights that such a loss has spoilt."""
        self.look(trainer)

    def look(self, trainer: Trainer) -> None:
        """Look at the losses since the last look.

        Raises:
            Diverged: if one is not finite.
        """
        if not self.pending:
            return
        finite = torch.isfinite(torch.stack([loss for _, _, loss in self.pending])).tolist()
        first = finite.index(False) if False in finite else len(finite)
        # all processes end together: one that goes on alone would wait for the others
        shared = torch.tensor(first, device=trainer.strategy.root_device)
        first = int(trainer.strategy.reduce(shared, reduce_op="min"))
        if first < len(finite):
            step, rate, loss = self.pending[first]
            value = math.nan if finite[first] else loss.item()  # it was another process's
            raise Diverged(
                f"the loss became {value} at step {step} (epoch {trainer.current_epoch + 1}, "
                f"learning rate {rate:.3g}). Lower optimizer.lr, set trainer.gradient_clip_val=1, "
                "or look at the data. checkpoints/ holds the weights of the last epoch before"
            )
        self.pending.clear()
