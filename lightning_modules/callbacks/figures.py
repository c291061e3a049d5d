"""The pictures of a run, as files and in TensorBoard."""

import io
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor

from experiment.metrics.logits import confusion
from experiment.plots import run as plots
from experiment.plots.style import png, write_png
from lightning_modules.callbacks.checkpoint import BestAndLast
from lightning_modules.callbacks.history import History
from lightning_modules.classifier import Classifier
from lightning_modules.data import ImageDataModule

DPI = 150


class Figures(Callback):
    """Draws training curves, confusion matrix, most confident mistakes and augmented samples.

    They go to ``figures/*.png`` of the run folder and to TensorBoard's images.

    Args:
        samples: images in the picture of augmented samples.
        draws: augmentations shown of each.
    """

    def __init__(self, samples: int = 6, draws: int = 7) -> None:
        self.samples, self.draws = samples, draws

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

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Draw what there is of the training curves."""
        self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the training curves."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        rows = next((callback.rows for callback in callbacks if isinstance(callback, History)), [])
        if not (trainer.is_global_zero and rows):
            return
        assert isinstance(pl_module, Classifier)
        monitor = next((c.monitor for c in callbacks if isinstance(c, BestAndLast)), "val_acc")
        keys = [metric.key for metric in pl_module.metrics if metric.when == "epoch"]
        own = monitor.removeprefix("val_")
        beside = own if own in keys else next(iter(keys), "")  # the loss
        epochs = f"{rows[-1]['epoch']} epoch{'s' * (rows[-1]['epoch'] > 1)}"
        subtitle = f"{epochs} on {_data(trainer).dataset}; training: mean over the epoch, in training mode"
        name = Path(trainer.default_root_dir).name
        self._save(trainer, plots.training_curves(rows, name, subtitle, beside, monitor), "training_curves")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what the network takes for what."""
        assert isinstance(pl_module, Classifier)
        if not trainer.is_global_zero or pl_module.tested is None:
            return
        logits, labels, sizes = pl_module.tested
        data, folder = _data(trainer), Path(trainer.default_root_dir).name
        counts = confusion(logits, labels)
        self._save(trainer, plots.confusion_matrix(counts, data.classes, folder), "confusion_matrix")
        confidences, predicted = torch.from_numpy(logits).softmax(dim=1).max(dim=1)
        wrong = (predicted != torch.from_numpy(labels)).nonzero().flatten()
        order = confidences[wrong].argsort(descending=True, stable=True)[: plots.MAX_MISTAKES]
        worst = wrong[order].numpy()  # an array that is indexed by a tensor of one image gives no array
        figure = plots.mistakes(
            _pixels(data.test_images(data.test_order(sizes)[worst])),
            [data.classes[label] for label in labels[worst]],
            [data.classes[label] for label in predicted[worst]],
            confidences[worst].tolist(),
            f"Most confident mistakes of {folder}",
            len(wrong),
        )
        self._save(trainer, figure, "mistakes")

    def _save(self, trainer: Trainer, figure: Figure, name: str) -> None:
        folder = Path(trainer.default_root_dir) / "figures"
        folder.mkdir(exist_ok=True)
        content = png(figure, DPI)
        write_png(content, folder / f"{name}.png")
        width, height = Image.open(io.BytesIO(content)).size
        # as add_image would, which takes pixels only and encodes them once more
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=content)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                summary = Summary(value=[Summary.Value(tag=name, image=image)])
                logger.experiment._get_file_writer().add_summary(summary, trainer.global_step)


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
