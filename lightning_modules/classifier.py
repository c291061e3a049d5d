"""The LightningModule that trains any network on any images."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics.utilities.distributed import gather_all_tensors

from experiment.errors import UserError
from experiment.metrics import Labels, Logits, Metric
from experiment.metrics.acc import acc
from lightning_modules.data.augment import to_float
from lightning_modules.data.datamodule import Batch
from lightning_modules.networks.blocks import Shape
from lightning_modules.views import mean_over_views


@dataclass
class Outputs:
    """What the batches of an epoch have given so far, on the device: a step waits for nothing.

    N·K logits of 4 bytes: 2 MB for 50,000 images of 10 classes, 5 GB for ImageNet's 1.3 million of 1,000.
    """

    logits: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    loss: Tensor | float = 0.0
    """Sum of the batches' losses, each times its weight."""
    weight: int = 0
    views: list[Tensor] = field(default_factory=list)
    """Mean logits over the views of each image, where a metric asks for them."""


class Tested(NamedTuple):
    """(N, K) logits and (N,) labels of a test, first those of the first process, which saw ``sizes[0]``."""

    logits: Logits
    labels: Labels
    sizes: list[int]


class Classifier(LightningModule):
    """Trains a network with a loss; logs the loss and each metric, ``{train,val,test}_…``, once an epoch.

    Nothing here knows what the network is made of: it maps normalised (N, C, H, W) images to (N, K) logits.

    Args:
        network: the network.
        criterion: maps (N, K) logits and (N,) int64 targets to a scalar.
        make_optimizer: builds the optimizer of a network.
        make_scheduler: builds its learning-rate schedule over a number of steps.
        image_shape: (C, H, W) of the images.
        classes: names of the K classes.
        mean: of each channel of the training images, in [0, 1].
        std: their standard deviations.
        metrics: what is measured beside the loss.
        mirrors: whether a mirror image is a view of an image.
        keep_hardest: learn of each batch from this part, which has the highest cross-entropy, in (0, 1].
        weighs_batches_alike: take the loss of an epoch as the mean over its batches, a smaller last one too,
            not over its images: runs of version 0.1 go on as they began.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        criterion: nn.Module,
        make_optimizer: Callable[[nn.Module], Optimizer],
        make_scheduler: Callable[[Optimizer, int], LRScheduler],
        image_shape: Shape,
        classes: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        metrics: Iterable[Metric] = (acc,),
        mirrors: bool = False,
        keep_hardest: float = 1.0,
        weighs_batches_alike: bool = False,
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
        self.metrics = tuple(metrics)
        self.mirrors, self.keep_hardest = mirrors, keep_hardest
        self.weighs_batches_alike = weighs_batches_alike
        self.learned_from: Batch | None = None
        """The batch of the latest step, or what was kept of it."""
        self.measured: dict[str, float] = {}
        """Column → value of the epoch, as far as it has come."""
        self.tested: Tested | None = None
        self._outputs: dict[str, Outputs] = {}
        self._ending: list[Any] = []
        """Parameters that are trained for a part of the training, ``until``."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # set 44 times a step; torch would ask each time if it is a weight
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images in [0, 1] to (N, K) logits."""
        logits: Tensor = self.network(self.normalised(images))
        return logits

    def normalised(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images in [0, 1], each channel less its mean and divided by its deviation."""
        normal: Tensor = (images - self.mean) / self.std
        return normal

    def initialise_from(self, images: Tensor) -> None:
        """Show (N, C, H, W) uint8 training images to a network whose first weights depend on some."""
        if initialise := getattr(self.network, "initialise_from", None):
            initialise(self.normalised(to_float(images)))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what goes in and what comes out: the weights are of use without the data set."""
        checkpoint["image_shape"] = list(self.image_shape)
        checkpoint["classes"] = list(self.classes)
        if (outputs := self._outputs.get("train")) is not None:  # within an epoch
            logits, sizes = self._gather(torch.cat(outputs.logits))
            labels, _ = self._gather(torch.cat(outputs.labels))
            losses, _ = self._gather(torch.as_tensor(outputs.loss)[None])
            checkpoint["outputs"] = {
                "logits": torch.split(logits, sizes), "labels": torch.split(labels, sizes), "losses": losses,
                "weight": outputs.weight,
            }  # fmt: skip

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
        if saved := checkpoint.get("outputs"):  # of an epoch that was under way
            processes = len(saved["logits"])
            if self._trainer and self.trainer.world_size != processes:
                raise UserError(
                    f"the checkpoint was written within an epoch by {processes} processes: go on with as "
                    f"many, not with {self.trainer.world_size}"
                )
            rank = self.trainer.global_rank if self._trainer else 0
            # the running sum stays on the device of the losses
            logits, labels, loss = (
                saved[name][rank].to(self.device) for name in ("logits", "labels", "losses")
            )
            self._outputs["train"] = Outputs([logits], [labels], loss, saved["weight"])

    def _step(self, stage: str, batch: Batch) -> Tensor:
        images, labels = batch
        logits = self(images)
        loss: Tensor = self.criterion(logits, labels)
        if labels.is_floating_point():  # probabilities, of mixed images
            labels = labels.argmax(dim=1)
        weight = 1 if self.weighs_batches_alike else len(labels)
        outputs = self._outputs.setdefault(stage, Outputs())
        outputs.logits.append(logits.detach())
        outputs.labels.append(labels)
        outputs.loss = outputs.loss + loss.detach().float() * weight
        outputs.weight += weight
        return loss

    def training_step(self, batch: Batch) -> Tensor:
        """The loss of one batch."""
        self.learned_from = self._hardest(batch) if self.keep_hardest < 1 else batch
        return self._step("train", self.learned_from)

    @torch.no_grad()
    def _hardest(self, batch: Batch) -> Batch:
        images, labels = batch
        self.network.eval()  # a look that leaves no trace
        losses = cross_entropy(self(images).float(), labels, reduction="none")
        self.network.train()
        kept = losses.topk(max(1, round(self.keep_hardest * len(losses)))).indices.sort().values
        return images[kept], labels[kept]

    def validation_step(self, batch: Batch) -> None:
        """Keep what one batch of the validation set gives."""
        self._step("val", batch)

    def test_step(self, batch: Batch) -> None:
        """Keep what one batch of the test set gives."""
        self._step("test", batch)
        if any(metric.views for metric in self.metrics):
            self._outputs["test"].views.append(mean_over_views(self, batch[0], self.mirrors))

    def on_train_epoch_start(self) -> None:
        """Measure anew."""
        self.measured = {}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Compute no gradients of what is trained no longer, but had an end of its own."""
        for parameter in self._ending:
            if parameter.until * self.trainer.estimated_stepping_batches <= self.trainer.global_step:
                parameter.requires_grad_(False)
                self._ending = [other for other in self._ending if other is not parameter]

    def on_train_epoch_end(self) -> None:
        """Measure what :meth:`measure` has not been asked for before."""
        self.measure("train")

    def on_validation_epoch_start(self) -> None:
        """Have all processes use the running statistics of the first one, which are those of a checkpoint."""
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, 0)

    def on_validation_epoch_end(self) -> None:
        """Measure the validation set."""
        self.measure("val")

    def on_test_epoch_end(self) -> None:
        """Measure the test set, and keep what the network said of it."""
        self.measure("test")

    def measure(self, stage: str) -> None:
        """Log the loss and the metrics of an epoch over all processes, once its batches are through.

        Callbacks come before this module's own ``on_train_epoch_end``: one that needs the epoch's training
        metrics calls this.
        """
        if (outputs := self._outputs.pop(stage, None)) is None:
            return
        logits, sizes = self._gather(torch.cat(outputs.logits))
        labels, _ = self._gather(torch.cat(outputs.labels))
        loss = torch.as_tensor(outputs.loss)
        sums, _ = self._gather(torch.stack([loss, torch.full_like(loss, outputs.weight)])[None])
        total, weight = sums.sum(dim=0)
        arrays = _array(logits), labels.cpu().numpy()
        views = _array(self._gather(torch.cat(outputs.views))[0]) if outputs.views else arrays[0]
        values = {"loss": float(total / weight)}
        with np.errstate(all="ignore"):
            due = (metric for metric in self.metrics if stage == "test" or metric.when == "epoch")
            values |= {m.key: m(views if m.views else arrays[0], arrays[1]) for m in due}
        if stage == "test":
            self.tested = Tested(*arrays, sizes)
        # float32, as all that is logged: what is written is what was monitored
        columns = {f"{stage}_{key}": float(np.float32(value)) for key, value in values.items()}
        self.measured |= columns
        self.log_dict(columns, logger=False, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        grouped = {f"{key}/{stage}": columns[f"{stage}_{key}"] for key in values}
        for logger in self.loggers:
            logger.log_metrics(grouped, max(0, self.trainer.global_step - 1))

    def _gather(self, tensor: Tensor) -> tuple[Tensor, list[int]]:
        """The rows of all processes, and how many each has."""
        parts = gather_all_tensors(tensor) if self.trainer.world_size > 1 else [tensor]
        return torch.cat(parts), [len(part) for part in parts]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, and a schedule laid out over all steps of the training."""
        optimizer = self.make_optimizer(self.network)
        if self.trainer.world_size == 1:  # several processes count on the gradients that there were
            self._ending = [p for p in self.network.parameters() if getattr(p, "until", 1.0) < 1]
        scheduler: Any = self.make_scheduler(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _array(logits: Tensor) -> Logits:
    """For NumPy, which has no bfloat16."""
    array: Logits = (logits if logits.dtype == torch.float64 else logits.float()).cpu().numpy()
    return array
