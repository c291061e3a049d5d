"""Full augmentation and normalisation of CIFAR-sized images: ours, torchvision on PIL images, kornia."""

from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec

import torch
from PIL import Image
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.timing import Row, Settings, ratio
from lightning_modules.data.augment import Augmentation
from lightning_modules.data.datamodule import TrainingBatches

BATCH = 512
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
IMAGES = {"ours": 80 * BATCH, "torchvision, 0 workers": 8 * BATCH, "torchvision, 2 workers": 16 * BATCH}
"""How many of them a round takes, so that it takes about as long for all."""


class Pictures(Dataset[Tensor]):
    """PIL images under torchvision's transforms, one by one."""

    def __init__(self, images: Tensor) -> None:
        self.images = [Image.fromarray(image) for image in images.permute(0, 2, 3, 1).numpy()]
        self.transform = v2.Compose(
            [
                v2.RandomCrop(images.shape[-1], padding=4), v2.RandomHorizontalFlip(),
                v2.ColorJitter(0.2, 0.2, 0.2), v2.RandomRotation(15), v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
            ]
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image: Tensor = self.transform(self.images[index])
        return image


def exhaust(batches: Iterable[object]) -> None:
    """Make all batches."""
    for _ in batches:
        pass


def kornia_batches(images: Tensor, device: str) -> Callable[[], None]:
    """The same by kornia, with a draw for each image."""
    import kornia.augmentation as K

    transform = torch.nn.Sequential(
        K.RandomCrop(images.shape[-2:], padding=4), K.RandomHorizontalFlip(),
        K.ColorJiggle(0.2, 0.2, 0.2, 0.0, p=1.0), K.RandomRotation(15.0, resample="nearest", p=1.0),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    ).to(device)  # fmt: skip
    on_device = images.to(device)
    return lambda: exhaust(transform(batch / 255) for batch in torch.split(on_device, BATCH))


def measure(settings: Settings) -> list[Row]:
    """Images a second of each, on images of CIFAR-10's size, and how many times as many ours are."""
    largest = max(IMAGES.values())
    images = torch.randint(256, (largest, 3, 32, 32), dtype=torch.uint8, generator=Generator().manual_seed(0))
    device = torch.device(settings.device)
    mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (MEAN, STD))
    ours = TrainingBatches(
        images=images.to(device), labels=torch.zeros(largest, dtype=torch.int64, device=device),
        indices=torch.arange(largest), batch_size=BATCH, augmentation=Augmentation(), seed=0, epoch=lambda: 0,
    )  # fmt: skip
    numbers = IMAGES | {"kornia": 16 * BATCH}
    contestants: dict[str, Callable[[], None]] = {
        "ours": lambda: exhaust(batch.sub_(mean).div_(std) for batch, _ in ours)
    }
    if find_spec("kornia"):
        contestants["kornia"] = kornia_batches(images[: numbers["kornia"]], settings.device)
    else:
        print("left out: kornia, which pip install -e '.[bench]' brings", flush=True)
    if settings.device == "cpu" and not find_spec("numba"):
        print("ours by plain torch, without numba, which pip install -e '.[fast]' brings", flush=True)
    for workers in (0, 2):
        name = f"torchvision, {workers} workers"
        pictures = Pictures(images[: IMAGES[name]])
        contestants[name] = partial(exhaust, DataLoader(pictures, BATCH, shuffle=True, num_workers=workers))
    times = settings.interleaved(contestants)
    speeds = {name: [numbers[name] / seconds for seconds in of_one] for name, of_one in times.items()}
    rows = [Row(name, speed, "images/s") for name, speed in speeds.items()]
    targets = {"torchvision, 0 workers": 30.0, "torchvision, 2 workers": 16.0, "kornia": 6.0}
    if settings.clock == "cpu":  # processor time does not tell what workers side by side gain
        del targets["torchvision, 2 workers"]
    return rows + [
        ratio(f"ours to {name}", speeds["ours"], speeds[name], ("≥", target))
        for name, target in targets.items()
        if name in speeds
    ]
