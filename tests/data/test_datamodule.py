import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from experiment.errors import UserError
from lightning_modules.data import SOURCES, Augmentation, ImageDataModule, ImageSet


def toy() -> ImageSet:
    """100 + 30 images of 8×8 pixels in 5 classes, sorted; the first pixels of an image tell its number."""
    rng = np.random.default_rng(0)
    parts = []
    for n in (100, 30):
        images = torch.from_numpy(rng.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8))
        images[:, 0, 0, 0] = torch.arange(n)
        parts += [images, torch.arange(n) * 5 // n]
    return ImageSet(tuple("abcde"), *parts)


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "toy", toy)


def data(**options: object) -> ImageDataModule:
    defaults = {
        "dataset": "toy",
        "root": None,
        "batch_size": 16,
        "val_fraction": 0.2,
        "seed": 0,
        "augment": True,
        "crop_padding": 2,
        "flip": 0.5,
        "jitter": 0.2,
        "rotation": 15.0,
    }
    return ImageDataModule(**(defaults | options))


def as_rank(module: ImageDataModule, rank: int = 0, world_size: int = 1, epoch: int = 0) -> ImageDataModule:
    module.trainer = SimpleNamespace(
        overfit_batches=0,
        training=False,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        global_rank=rank,
        world_size=world_size,
        current_epoch=epoch,
    )
    return module


def numbers(images: Tensor) -> list[int]:
    """Which images these are, if they are not augmented."""
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


def batches(module: ImageDataModule) -> list[tuple[Tensor, Tensor]]:
    return list(module.train_dataloader())


def equal(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    return all(
        torch.equal(images, others) and torch.equal(labels, other_labels)
        for (images, labels), (others, other_labels) in zip(one, other, strict=True)
    )


def test_facts():
    module = data()
    module.load()
    assert module.classes == tuple("abcde")
    assert module.image_shape == (3, 8, 8)
    assert module.sizes == {"train": 80, "val": 20, "test": 30}
    assert module.fingerprint == toy().fingerprint


def test_every_image_is_held_out_once_over_the_folds():
    folds = [data(fold=fold, folds=3)._indices for fold in range(3)]
    assert sorted(torch.cat([fold["val"] for fold in folds]).tolist()) == list(range(100))
    for fold in folds:
        assert sorted(torch.cat([fold["train"], fold["val"]]).tolist()) == list(range(100))
        counts = toy().train_labels[fold["val"]].bincount()
        assert counts.max() - counts.min() <= 1
        assert torch.equal(fold["test"], folds[0]["test"])
    assert data(fold=1, folds=3, train_images=20).sizes == {"train": 20, "val": 34, "test": 30}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fold": 5}, "data.fold=5: with data.folds=5 there are 0 to 4"),
        ({"fold": 0, "folds": 21}, "class 'a' has 20 images; choose as many parts at most"),
    ],
)
def test_folds_that_there_are_not_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        data(**options).load()


def test_moments_are_of_the_images_trained_on():
    module = data(augment=False)
    trained_on = [n for images, _ in batches(module) for n in numbers(images)]
    pixels = toy().train_images[trained_on].double() / 255
    assert module.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist(), abs=1e-12)
    assert module.std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist(), abs=1e-12)


def test_a_constant_channel_can_be_divided_by_its_deviation(monkeypatch: pytest.MonkeyPatch):
    images = toy()
    images.train_images[:, 2] = 51
    monkeypatch.setitem(SOURCES, "toy", lambda: images)
    assert data().mean[2] == 0.2
    assert data().std[2] == 1


def test_the_parts_are_stratified_disjoint_and_independent_of_the_seed():
    parts = []
    for seed in (0, 1):
        module = data(seed=seed, augment=False)
        train = sorted(n for images, _ in batches(module) for n in numbers(images))
        val = sorted(n for images, _ in module.val_dataloader() for n in numbers(images))
        labels = torch.cat([labels for _, labels in module.val_dataloader()])
        assert labels.bincount().tolist() == [4] * 5
        assert sorted(train + val) == list(range(100))
        parts.append((train, val))
    assert parts[0] == parts[1]


def test_the_test_set_is_the_official_one():
    seen = [(images, labels) for images, labels in data().test_dataloader()]
    images, labels = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert sorted(numbers(images)) == list(range(30))
    order = torch.tensor(numbers(images))
    assert torch.equal(images, toy().test_images[order] / 255)
    assert torch.equal(labels, toy().test_labels[order])
    assert len(data().test_dataloader()) == len(seen) == 2


def test_batches_are_floats_in_0_to_1_and_keep_their_labels():
    for images, labels in batches(data(augment=False)):
        assert images.shape == (16, 3, 8, 8)
        assert images.dtype == torch.float32
        assert 0 <= images.min() <= images.max() <= 1
        assert torch.equal(labels, toy().train_labels[numbers(images)])


def test_a_batch_is_a_function_of_seed_epoch_and_step():
    first = batches(as_rank(data(), epoch=3))
    torch.manual_seed(1234)
    assert equal(first, batches(as_rank(data(), epoch=3)))
    assert not equal(first, batches(as_rank(data(), epoch=4)))
    assert not equal(first, batches(as_rank(data(seed=1), epoch=3)))
    plain = [numbers(images) for images, _ in batches(as_rank(data(augment=False)))]
    assert plain != [numbers(images) for images, _ in batches(as_rank(data(augment=False), epoch=1))]


def test_the_same_image_is_augmented_differently_in_every_step_and_epoch():
    # one image, again and again: only augmentation can tell its copies apart
    images = toy()
    images.train_images[:] = images.train_images[50]
    module = data()
    module._data = images
    seen = [
        image for epoch in (0, 1) for batch, _ in batches(as_rank(module, epoch=epoch)) for image in batch
    ]
    assert len(torch.stack(seen).flatten(1).unique(dim=0)) == len(seen) == 160


def test_no_global_random_state_is_read_or_changed():
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    module = data()
    batches(module)
    list(module.val_dataloader())
    module.samples(4, 2)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_together_see_the_batches_of_one(world_size: int):
    alone = batches(as_rank(data(batch_size=16), epoch=2))
    ranks = [
        batches(as_rank(data(batch_size=16 // world_size), rank, world_size, epoch=2))
        for rank in range(world_size)
    ]
    for step, (images, labels) in enumerate(alone):
        for rank in range(world_size):
            assert torch.equal(ranks[rank][step][0], images[rank::world_size])
            assert torch.equal(ranks[rank][step][1], labels[rank::world_size])


def test_processes_share_evaluation_without_duplicates():
    seen = []
    for rank in range(4):
        loader = as_rank(data(batch_size=3), rank, 4).test_dataloader()
        evaluated = [numbers(images) for images, _ in loader]
        assert len(evaluated) == len(loader)
        seen += [n for batch in evaluated for n in batch]
    assert sorted(seen) == list(range(30))


def test_an_incomplete_last_batch_is_left_out_unless_it_is_the_only_one():
    loader = data(batch_size=30).train_dataloader()
    assert len(loader) == len(list(loader)) == 2
    (only,) = batches(data(batch_size=1000))
    assert len(only[0]) == 80
    ranks = [batches(as_rank(data(batch_size=1000), rank, 3)) for rank in range(3)]
    assert [len(images) for ((images, _),) in ranks] == [26, 26, 26]


def test_train_images_is_a_nested_stratified_subset_beside_the_same_validation():
    few, more = data(augment=False, train_images=20), data(augment=False, train_images=40)
    assert few.sizes == {"train": 20, "val": 20, "test": 30}
    some = {n for images, _ in batches(few) for n in numbers(images)}
    others = {n for images, _ in batches(more) for n in numbers(images)}
    assert some < others
    labels = torch.cat([labels for _, labels in data(train_images=20, batch_size=20).train_dataloader()])
    assert labels.bincount().tolist() == [4] * 5


@pytest.mark.parametrize("train_images", [4, 81])
def test_impossible_train_images(train_images: int):
    with pytest.raises(UserError, match=f"train_images={train_images}: toy has 5 classes and 80 training"):
        data(train_images=train_images).load()


def test_a_small_validation_part_has_every_class():
    assert data(val_fraction=0.03).sizes == {"train": 95, "val": 5, "test": 30}


def test_unknown_data_sets_and_missing_roots():
    with pytest.raises(UserError, match=r"data\.dataset=cifar: there are cifar10, mnist"):
        data(dataset="cifar").load()
    with pytest.raises(UserError, match=r"mnist is read from files: set data\.root=PATH"):
        data(dataset="mnist").load()


def test_samples_are_the_same_whenever_asked_for():
    module = data()
    originals, augmented, labels = module.samples(6, 3)
    assert originals.shape == (6, 3, 8, 8)
    assert originals.dtype == torch.uint8
    assert augmented.shape == (3, 6, 3, 8, 8)
    assert not torch.equal(augmented[0], augmented[1])
    assert labels[:5].sort().values.tolist() == [0, 1, 2, 3, 4]
    batches(as_rank(module, epoch=5))
    assert torch.equal(module.samples(6, 3)[1], augmented)
    assert module.augmentation == Augmentation(2, 0.5, 0.2, 15.0)
    assert data(augment=False).augmentation is None
    assert torch.equal(data(augment=False).samples(6, 1)[1][0], originals / 255)


class Recorder(LightningModule):
    """Keeps the batches it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: dict[str, list[Tensor]] = {"train": [], "val": [], "test": []}

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.seen["train"].append(batch[0])
        return self.layer(batch[0].mean().view(1, 1)).sum()

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.seen["val"].append(batch[0])

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.seen["test"].append(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, **options: object) -> Trainer:
    return Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@pytest.mark.parametrize("val_fraction", [0.0, 0.2])
@pytest.mark.parametrize("use_distributed_sampler", [True, False])
def test_lightning_takes_the_batches_as_they_are(
    tmp_path: Path, val_fraction: float, use_distributed_sampler: bool
):
    module, recorder = data(val_fraction=val_fraction), Recorder()
    fitting = trainer(
        tmp_path, max_epochs=2, num_sanity_val_steps=0, use_distributed_sampler=use_distributed_sampler
    )
    fitting.fit(recorder, datamodule=module)
    expected = [
        images
        for epoch in (0, 1)
        for images, _ in batches(as_rank(data(val_fraction=val_fraction), epoch=epoch))
    ]
    assert torch.equal(torch.stack(recorder.seen["train"]), torch.stack(expected))
    assert sum(map(len, recorder.seen["val"])) == 2 * 100 * val_fraction
    trainer(tmp_path).test(recorder, datamodule=module, verbose=False)
    assert sum(map(len, recorder.seen["test"])) == 30


def test_mnist_mini_through_the_module():
    module = data(dataset="mnist_mini", val_fraction=0.1, batch_size=64, flip=0.0, jitter=0.0)
    assert module.sizes == {"train": 3600, "val": 400, "test": 1000}
    assert module.image_shape == (1, 28, 28)
    assert len(batches(module)) == 56


def test_options_that_augmentation_switched_off_leaves_without_effect_are_named(caplog):
    data(augment=True, mix="cutmix", cutout=8)
    assert not caplog.messages
    data(augment=False, mix="cutmix", cutout=8)
    (said,) = caplog.messages
    assert "no effect of data.mix=cutmix, data.cutout=8: data.augment=true" in said


def test_of_large_images_fewer_are_looked_at(monkeypatch):
    """5,000 of 256×256 pixels are a gigabyte, four as floats: a container ended the run without a word."""
    assert len(data().training_images(50)) == 50
    large = ImageSet(
        ("a", "b"),
        *(torch.randint(0, 256, (6, 1, 2048, 2048), dtype=torch.uint8), torch.arange(6) % 2),
        *(torch.randint(0, 256, (2, 1, 2048, 2048), dtype=torch.uint8), torch.arange(2)),
    )
    monkeypatch.setitem(SOURCES, "toy", lambda: large)
    assert data(val_fraction=0.0).training_images(5000).shape == (4, 1, 2048, 2048)
