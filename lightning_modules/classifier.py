"""The LightningModule that trains any network on any images."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from experiment.errors import UserError
from lightning_modules.data.datamodule import Batch
from lightning_modules.networks.blocks import Shape

STAGES = ("train", "val", "test")


class Classifier(LightningModule):
    """Trains a network with a loss; logs ``{train,val,test}_{loss,acc}`` once an epoch.

    Nothing here knows what the network is made of: it maps normalised (N, C, H, W) images to (N, K) logits.

    Args:
        network: the network.
        criterion: maps (N, K) logits and (N,) int64 targets to a scalar.
        make_optimizer: builds the optimizer of the network's parameters.
        make_scheduler: builds its learning-rate schedule over a number of steps.
        image_shape: (C, H, W) of the images.
        classes: names of the K classes.
        mean: of each channel of the training images, in [0, 1].
        std: their standard deviations.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        criterion: nn.Module,
        make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        make_scheduler: Callable[[Optimizer, int], LRScheduler],
        image_shape: Shape,
        classes: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.classes = tuple(classes)
        self.network = network
        self.criterion = criterion
        self.make_optimizer = make_optimizer
        self.make_scheduler = make_scheduler
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.metrics = nn.ModuleDict(
            {
                f"{stage}_metrics": nn.ModuleDict(
                    {
                        f"{stage}_loss": MeanMetric(nan_strategy="disable"),
                        f"{stage}_acc": MulticlassAccuracy(
                            len(classes), average="micro", validate_args=False
                        ),
                    }
                )
                for stage in STAGES
            }
        )
        self.confusion = MulticlassConfusionMatrix(len(classes), validate_args=False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images in [0, 1] to (N, K) logits."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what goes in and what comes out: the weights are of use without the data set."""
        checkpoint["image_shape"] = list(self.image_shape)
        checkpoint["classes"] = list(self.classes)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights that were trained for other classes.

        Raises:
            UserError: naming both sets of classes.
        """
        if (trained := tuple(checkpoint["classes"])) != self.classes:
            raise UserError(
                f"the checkpoint was trained on {len(trained)} classes ({', '.join(trained[:5])}, …), "
                f"the data has {len(self.classes)} ({', '.join(self.classes[:5])}, …)"
            )

    def _step(self, stage: str, batch: Batch) -> tuple[Tensor, Tensor]:
        images, labels = batch
        logits = self(images)
        loss = self.criterion(logits, labels)
        metrics: Any = self.metrics[f"{stage}_metrics"]
        metrics[f"{stage}_loss"].update(loss.detach(), len(labels))
        metrics[f"{stage}_acc"].update(logits.detach(), labels)
        # the metrics sum on the device and are read once an epoch
        self.log_dict(dict(metrics), on_step=False, on_epoch=True)
        return loss, logits

    def training_step(self, batch: Batch) -> Tensor:
        """The loss of one batch."""
        return self._step("train", batch)[0]

    def validation_step(self, batch: Batch) -> None:
        """Count one batch of the validation set."""
        self._step("val", batch)

    def test_step(self, batch: Batch) -> Tensor:
        """Count one batch of the test set and return its (N, K) logits."""
        logits = self._step("test", batch)[1]
        self.confusion.update(logits, batch[1])
        return logits

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, and a schedule laid out over all steps of the training."""
        optimizer = self.make_optimizer(self.network.parameters())
        scheduler: Any = self.make_scheduler(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
