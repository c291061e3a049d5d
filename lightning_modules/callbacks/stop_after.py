"""Fewer epochs, for now, than a run is laid out for."""

from lightning.pytorch import Callback, LightningModule, Trainer


class StopAfter(Callback):
    """Ends the training after an epoch, once its checkpoint is written, within the schedule of all epochs.

    Comes after all other callbacks: where one of them ends the training for good at this epoch, it is over.

    Args:
        epoch: after which to stop, counted from 1; None = not before the end.
    """

    def __init__(self, epoch: int | None) -> None:
        self.epoch = epoch
        self.has_stopped = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        if self.epoch is not None and trainer.current_epoch + 1 >= self.epoch and not trainer.should_stop:
            self.has_stopped = trainer.should_stop = True
