"""What ``train.py``'s own path costs over a bare loop of the same network, batches and optimizer."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig

from benchmarks.timing import Row, Settings, ratio
from experiment.precision import resolve
from lightning_modules import compose
from lightning_modules.build import build_classifier, build_data, build_trainer
from lightning_modules.classifier import Classifier
from lightning_modules.data import ImageDataModule
from lightning_modules.training import quieten_lightning

NETWORKS = {
    "a tiny network": (
        "model=mnist", "model.widths=[2,2]", "data.batch_size=16", "data.augment=false",
        "trainer.limit_train_batches=250",
    ),
    "narrow enhanced, full augmentation": (
        "model=enhanced", "model.widths=[16,32,64,64,64]", "data.augment=true", "data.crop_padding=4",
        "data.flip=0.5", "data.jitter=0.2", "data.rotation=15", "trainer.limit_train_batches=30",
    ),
    "narrow fast, batches of 2,000": (
        "model=fast", "model.widths=[16,64,64]", "data.flip=0.5", "trainer.limit_train_batches=2",
    ),
}  # fmt: skip


class Epoch(Callback):
    """Notes how long an epoch takes, from before its first batch until its metrics are written."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now, self.begun, self.seconds = now, 0.0, 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.begun = self.now()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock, after all other callbacks."""
        self.seconds = self.now() - self.begun


def configuration(device: str, *overrides: str) -> DictConfig:
    """Of one epoch without validation."""
    config = compose(
        "trainer.max_epochs=1", "data.val_fraction=0", "callbacks.figures=null", *overrides,
        f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}",
        f"trainer.precision={'bf16-mixed' if device == 'cuda' else 'auto'}",
    )  # fmt: skip
    resolve(config)
    return config


def framework(
    config: DictConfig, module: Classifier, data: ImageDataModule, now: Callable[[], float]
) -> float:
    """The seconds of an epoch with all that ``train.py`` has around it."""
    quieten_lightning()
    with TemporaryDirectory() as folder:
        (Path(folder) / "checkpoints").mkdir()
        trainer = build_trainer(config, Path(folder))
        epoch = Epoch(now)
        trainer.callbacks.append(epoch)  # type: ignore[attr-defined]
        trainer.fit(module, datamodule=data)
    return epoch.seconds


def bare_loop(
    config: DictConfig, module: Classifier, data: ImageDataModule, now: Callable[[], float]
) -> float:
    """The seconds of the same training in the fewest lines; the data is where a Trainer has placed it."""
    steps, mixed = int(config.trainer.limit_train_batches), config.trainer.precision == "bf16-mixed"
    device = data.trainer.strategy.root_device  # type: ignore[union-attr]
    module.to(device)
    optimizer = module.make_optimizer(module.network)
    scheduler = module.make_scheduler(optimizer, steps)
    begun = now()
    for _, (images, labels) in zip(range(steps), data.train_dataloader(), strict=False):
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = module.criterion(module(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    loss.item()
    return now() - begun


def measure(settings: Settings) -> list[Row]:
    """An epoch of each network, both ways in turn."""
    rows = []
    for name, overrides in NETWORKS.items():
        config = configuration(settings.device, *overrides)
        data = build_data(config)
        data.load()
        module = build_classifier(config, data)
        steps = int(config.trainer.limit_train_batches)
        images = steps * config.data.batch_size
        ways = {"framework": framework, "bare": bare_loop}
        times = settings.in_turn(
            {way: partial(function, config, module, data, settings.now) for way, function in ways.items()}
        )
        bare, ours = times["bare"], times["framework"]
        added = [1000 * (a - b) / steps for a, b in zip(ours, bare, strict=True)]
        rows += [
            Row(f"{name}, {config.trainer.precision}: bare loop", [images / s for s in bare], "images/s"),
            Row(f"{name}: train.py's path", [images / s for s in ours], "images/s"),
            ratio(
                f"{name}: of the bare loop's images/s", bare, ours, ("≥", 0.95) if "narrow" in name else None
            ),
            Row(f"{name}: added to a step", added, "ms", ("≤", 0.8) if "tiny" in name else None),
        ]
    return rows
