"""A moving average of the weights, which is validated, kept and tested in place of the last ones."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging


class EMA(EMAWeightAveraging):
    """Lightning's average, also where a checkpoint is written within the validation.

    There Lightning has exchanged the weights and their average, and would write each for the other.

    Args:
        decay: part of the average that a step keeps, in [0, 1).
        every_n_steps: steps between two updates, in [1, inf).
    """

    def __init__(self, decay: float = 0.99, every_n_steps: int = 1) -> None:
        super().__init__(decay=decay, update_every_n_steps=every_n_steps)
        self._is_swapped = False

    def _swap_models(self, pl_module: LightningModule) -> None:
        super()._swap_models(pl_module)
        self._is_swapped = not self._is_swapped

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the weights as such, and the average for those that are used."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._is_swapped:
            kept = checkpoint["current_model_state"]
            checkpoint["current_model_state"], checkpoint["state_dict"] = checkpoint["state_dict"], kept
