"""What ``train.py``'s own path costs over a bare loop of the same network, batches and optimizer."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig

from benchmarks.timing import Row, Settings, ratio
from lightning_modules import compose
from lightning_modules.build import build_classifier, build_data, build_trainer
from lightning_modules.classifier import Classifier
from lightning_modules.data import ImageDataModule

TINY = ("model=mnist", "model.widths=[2,2]", "data.batch_size=16", "trainer.limit_train_batches=200")
WIDE = (
    "model=enhanced", "model.widths=[16,32,64,64,64]", "data=mnist_mini", "data.augment=true",
    "data.crop_padding=4", "data.flip=0.5", "data.jitter=0.2", "data.rotation=15", "trainer.limit_train_batches=12",
)  # fmt: skip


@cache
def has_bfloat16() -> bool:
    """Whether the processor has units for bfloat16; without them it is many times slower."""
    info = Path("/proc/cpuinfo")
    return info.exists() and any(flag in info.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def configuration(device: str, *overrides: str) -> DictConfig:
    """Of a run of one epoch without validation."""
    fast = device == "cuda" or has_bfloat16()
    return compose(
        "trainer.max_epochs=1", "data.val_fraction=0", "callbacks.figures=null", *overrides,
        f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}",
        f"trainer.precision={'bf16-mixed' if fast else '32-true'}",
    )  # fmt: skip


class Epoch(Callback):
    """Calls back when an epoch begins and when its last batch and its metrics are done; the last of all."""

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self.begin, self.end = begin, end

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The epoch begins."""
        self.begin()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The epoch is over."""
        self.end()


def bare_loop(config: DictConfig, module: Classifier, data: ImageDataModule) -> None:
    """The same training in the fewest lines."""
    steps = int(config.trainer.limit_train_batches)
    network = module.network.to(data.device)
    optimizer = module.make_optimizer(network.parameters())
    scheduler = module.make_scheduler(optimizer, steps)
    mean, std = module.mean.to(data.device), module.std.to(data.device)
    mixed = config.trainer.precision == "bf16-mixed"
    for _, (images, labels) in zip(range(steps), data.train_dataloader(), strict=False):
        with torch.autocast(data.device.type, torch.bfloat16, enabled=mixed):
            loss = module.criterion(network((images - mean) / std), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
