"""The MNIST example of the popular Lightning–Hydra template beside its network trained here.

The stand-in is written from what the template's files define: a dense network 784–64–128–64–10 with batch
normalisation, Adam at 0.001, batches of 128, each image through PIL, ``ToTensor`` and ``Normalize``,
torchmetrics in every step, logged for the progress bar. Both are given the 5,000 digits, eight times.
"""

import torch
import torchmetrics
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose, Normalize, ToTensor

from benchmarks.overhead import Epoch, bare_loop, configuration, framework
from benchmarks.timing import Row, Settings, ratio
from lightning_modules.build import build_classifier, build_data

REPEATS = 8


def dense() -> nn.Module:
    """The template's network."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in ((784, 64), (64, 128), (128, 64)):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


class Digits(Dataset[tuple[Tensor, int]]):
    """uint8 images that become PIL images one by one, as torchvision's MNIST hands them out."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels
        self.transform = Compose([ToTensor(), Normalize((0.1307,), (0.3081,))])

    def __len__(self) -> int:
        return REPEATS * len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        index %= len(self.images)
        return self.transform(Image.fromarray(self.images[index, 0].numpy())), int(self.labels[index])


class Template(LightningModule):
    """Its training step: loss and accuracy into torchmetrics and the progress bar, each step."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.criterion = dense(), nn.CrossEntropyLoss()
        self.train_loss = torchmetrics.MeanMetric()
        self.train_acc = torchmetrics.Accuracy(task="multiclass", num_classes=10)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch."""
        images, labels = batch
        logits = self.network(images)
        loss: Tensor = self.criterion(logits, labels)
        self.train_loss(loss)
        self.train_acc(logits.argmax(dim=1), labels)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=0.001)


def measure(settings: Settings) -> list[Row]:
    """Images a second of an epoch, with its metrics and checkpoint."""
    config = configuration(settings.device, "model=mnist", "data.augment=false", "optimizer.lr=0.001",
                           "trainer.limit_train_batches=31")  # fmt: skip
    data = build_data(config)
    data.load()
    module = build_classifier(config, data)
    module.network = dense()
    official = data._data  # the images as they were read
    digits = Digits(official.train_images, official.train_labels)

    def template(workers: int) -> float:
        trainer = Trainer(
            max_epochs=1, accelerator="gpu" if settings.device == "cuda" else "cpu", logger=False,
            enable_model_summary=False, enable_progress_bar=False, enable_checkpointing=False,
        )  # fmt: skip
        epoch = Epoch(settings.now)
        trainer.callbacks.append(epoch)  # type: ignore[attr-defined]
        trainer.fit(Template(), DataLoader(digits, 128, shuffle=True, num_workers=workers))
        return epoch.seconds

    def here() -> float:
        return sum(framework(config, module, data, settings.now) for _ in range(REPEATS))

    images = REPEATS * 31 * 128
    times = settings.in_turn({
        "here": here,
        "bare loop": lambda: sum(bare_loop(config, module, data, settings.now) for _ in range(REPEATS)),
        "template": lambda: template(0) * images / len(digits),
        "template, 2 workers": lambda: template(2) * images / len(digits),
    })  # fmt: skip
    speeds = {name: [images / seconds for seconds in of_one] for name, of_one in times.items()}
    rows = [
        *(Row(f"its network, {name}", values, "images/s") for name, values in speeds.items()),
        ratio("here ÷ template", speeds["here"], speeds["template"], ("≥", 3.0)),
    ]
    if settings.clock == "wall":  # processor time does not see workers that still run
        two = speeds["template, 2 workers"]
        rows.append(ratio("here ÷ template with 2 workers", speeds["here"], two, ("≥", 2.0)))
    return rows
