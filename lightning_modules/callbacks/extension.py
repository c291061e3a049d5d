"""More epochs than a run was laid out for."""

import warnings
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Extension(Callback):
    """Lays the learning-rate schedule of a resumed run out over its new number of epochs.

    From the step that was reached the rate is what it is there in a run of the new length.
    """

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take from the checkpoint where the schedule is, not how long it is."""
        kept = ("last_epoch", "_step_count", "base_lrs", "_last_lr", "lr_lambdas")
        checkpoint["lr_schedulers"] = [
            {key: state[key] for key in kept if key in state} for state in checkpoint["lr_schedulers"]
        ]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the rate of the next step."""
        for scheduler in (config.scheduler for config in trainer.lr_scheduler_configs):
            with warnings.catch_warnings(action="ignore"):  # torch's, of a rate asked for outside a step
                rates = getattr(scheduler, "_get_closed_form_lr", scheduler.get_lr)()
            for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
