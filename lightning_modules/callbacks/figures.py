"""The pictures of a run, as files and in TensorBoard."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from experiment.metrics.logits import confusion
from experiment.plots import run as plots
from experiment.plots.style import png, write_png
from lightning_modules.callbacks.checkpoint import BestAndLast
from lightning_modules.callbacks.history import History
from lightning_modules.classifier import Classifier
from lightning_modules.data import ImageDataModule


class Figures(Callback):
    """Draws training curves, confusion matrix, most confident mistakes and augmented samples.

    They go to ``figures/*.png`` of the run folder and to TensorBoard's images.

    Args:
        samples: images in the picture of augmented samples.
        draws: augmentations shown of each.
    """

    def __init__(self, samples: int = 6, draws: int = 7) -> None:
        self.samples, self.draws = samples, draws
        self._reset()

    def _reset(self) -> None:
        self._images = torch.empty(0)
        self._confidences = torch.empty(0)
        self._true = self._predicted = torch.empty(0, dtype=torch.int64)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show what the network will be trained on."""
        data = _data(trainer)
        if trainer.is_global_zero:
            originals, augmented, labels = data.samples(self.samples, self.draws)
            if not data.augmentation:
                augmented = augmented[:0]  # seven copies tell nothing
            names = [data.classes[label] for label in labels]
            title = f"Training samples of {data.dataset}, {'' if data.augmentation else 'not '}augmented"
            figure = plots.augmented_samples(_pixels(originals), _pixels(augmented), names, title)
            self._save(trainer, figure, "augmented_samples")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the training curves."""
        self._curves(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Draw what there is of the training curves."""
        self._curves(trainer)

    def _curves(self, trainer: Trainer) -> None:
        rows = next((c.rows for c in trainer.callbacks if isinstance(c, History)), [])  # type: ignore[attr-defined]
        if trainer.is_global_zero and rows:
            folder = Path(trainer.default_root_dir)
            subtitle = (
                f"{rows[-1]['epoch']} epochs on {_data(trainer).dataset}; training measured with dropout"
            )
            beside, monitor = _beside_loss(trainer)
            figure = plots.training_curves(rows, folder.name, subtitle, beside, monitor)
            self._save(trainer, figure, "training_curves")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the mistakes of an earlier test."""
        self._reset()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the most confident mistakes so far."""
        images, labels = batch
        confidences, predicted = outputs.float().softmax(dim=1).max(dim=1)
        wrong = predicted != labels
        self._images = (
            torch.cat([self._images, images[wrong].cpu()]) if len(self._images) else images[wrong].cpu()
        )
        self._true = torch.cat([self._true, labels[wrong].cpu()])
        self._predicted = torch.cat([self._predicted, predicted[wrong].cpu()])
        self._confidences = torch.cat([self._confidences, confidences[wrong].cpu()])
        keep = self._confidences.argsort(descending=True)[: plots.MAX_MISTAKES]
        self._images, self._true = self._images[keep], self._true[keep]
        self._predicted, self._confidences = self._predicted[keep], self._confidences[keep]

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what the network takes for what."""
        assert isinstance(pl_module, Classifier)
        if not trainer.is_global_zero or pl_module.tested is None:
            return
        counts = confusion(pl_module.tested.logits, pl_module.tested.labels)
        classes = _data(trainer).classes
        folder = Path(trainer.default_root_dir).name
        self._save(trainer, plots.confusion_matrix(counts, classes, folder), "confusion_matrix")
        figure = plots.mistakes(
            _pixels(self._images),
            [classes[label] for label in self._true],
            [classes[label] for label in self._predicted],
            self._confidences.tolist(),
            f"Most confident mistakes of {folder}",
            int(counts.sum() - counts.trace()),
        )
        self._save(trainer, figure, "mistakes")

    def _save(self, trainer: Trainer, figure: Figure, name: str) -> None:
        folder = Path(trainer.default_root_dir) / "figures"
        folder.mkdir(exist_ok=True)
        content = png(figure)
        write_png(content, folder / f"{name}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
                logger.experiment.add_image(name, pixels, trainer.global_step, dataformats="HWC")


def _beside_loss(trainer: Trainer) -> tuple[str, str]:
    """The metric that is drawn beside the loss, and the column that the best epoch is best in.

    The former is the monitored one, else the first of every epoch, or none.
    """
    module = trainer.lightning_module
    assert isinstance(module, Classifier)
    keys = [metric.key for metric in module.metrics if metric.when == "epoch"]
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    monitor = next((c.monitor for c in callbacks if isinstance(c, BestAndLast)), "val_acc")
    return next((key for key in [monitor.removeprefix("val_"), *keys] if key in keys), ""), monitor


def _data(trainer: Trainer) -> ImageDataModule:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, ImageDataModule)
    return data


def _pixels(images: Tensor) -> NDArray[np.uint8]:
    """(..., C, H, W) uint8, or float in [0, 1], to (..., H, W, C) uint8."""
    if images.is_floating_point():
        images = (images * 255).round().to(torch.uint8)
    pixels: NDArray[np.uint8] = images.movedim(-3, -1).cpu().numpy()
    return pixels
