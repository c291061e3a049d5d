import gzip
import hashlib
import http.server
import logging
import os
import shutil
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import MNIST, FashionMNIST

from experiment.errors import UserError
from lightning_modules.data import SOURCES, ImageSet, image_cache, image_tree, sources
from lightning_modules.data.image_set import stratified_order, stratified_part, stratified_split

CLASSES = ("cat", "dog", "eel")


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """5 training and 2 test images of 8×6 pixels in each of 3 classes."""
    for part, n in (("train", 5), ("test", 2)):
        for label, name in enumerate(CLASSES):
            for i in range(n):
                save(tmp_path / "tree" / part / name / f"{i}.png", pixels(100 * label + 10 * n + i, 6, 8, 3))
    return tmp_path / "tree"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """10 images of each of 2 classes, without a test set."""
    for label, name in enumerate(("a", "b")):
        for i in range(10):
            save(tmp_path / "plain" / name / f"{i}.png", pixels(100 * label + i, 5, 5))
    return tmp_path / "plain"


def image_folder(root: Path, image_size=None, channels=None, test_fraction=0.2) -> ImageSet:
    return SOURCES["image_folder"](root, image_size, channels, test_fraction)


def same(one: ImageSet, other: ImageSet) -> bool:
    return one.classes == other.classes and all(
        torch.equal(getattr(one, name), getattr(other, name))
        for name in ("train_images", "train_labels", "test_images", "test_labels")
    )


# trees


def test_a_tree_is_read_in_the_order_of_its_names(tree: Path):
    images = image_folder(tree)
    assert images.classes == CLASSES
    assert images.train_images.shape == (15, 3, 6, 8)
    assert images.train_images.dtype == torch.uint8
    assert images.train_labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert images.test_labels.tolist() == [0, 0, 1, 1, 2, 2]
    eel = np.array(Image.open(tree / "test" / "eel" / "1.png"))
    assert np.array_equal(images.test_images[5].permute(1, 2, 0).numpy(), eel)


def test_cifar10_prefers_its_tree(tree: Path, tmp_path: Path):
    tree.rename(tmp_path / "cifar10")
    assert same(SOURCES["cifar10"](tmp_path, download=False), image_folder(tmp_path / "cifar10"))


def test_cifar10_wants_its_own_test_set(plain: Path, tmp_path: Path):
    plain.rename(tmp_path / "cifar10")
    with pytest.raises(UserError, match="cifar10 needs both train/ and test/"):
        SOURCES["cifar10"](tmp_path, download=False)


def test_a_plain_tree_is_split_the_same_way_every_time(plain: Path):
    images = image_folder(plain, test_fraction=0.3)
    assert images.train_labels.bincount().tolist() == [7, 7]
    assert images.test_labels.bincount().tolist() == [3, 3]
    together = torch.cat([images.train_images, images.test_images])
    assert len(together.flatten(1).unique(dim=0)) == 20
    shutil.rmtree(plain / ".cache")
    assert same(images, image_folder(plain, test_fraction=0.3))


def test_hidden_files_other_files_and_deeper_folders(tree: Path):
    expected = image_folder(tree)
    (tree / "train" / "cat" / ".hidden.png").write_bytes(b"not an image")
    (tree / "train" / "cat" / "readme.txt").write_text("not an image")
    (tree / "train" / ".thumbnails").mkdir()
    (tree / "train" / "cat" / "4").mkdir()
    (tree / "train" / "cat" / "4.png").rename(tree / "train" / "cat" / "4" / "4.PNG")
    assert same(image_folder(tree), expected)


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 1), ("L", 1), ("I;16", 1), ("RGB", 3), ("P", 3), ("CMYK", 3), ("LA", 4), ("RGBA", 4), ("PA", 4)],
)
def test_channels_are_what_the_images_have(tmp_path: Path, mode: str, channels: int):
    grey = Image.fromarray(pixels(0, 6, 6))
    for name in ("a", "b"):
        for i in range(2):
            path = tmp_path / name / (f"{i}.tif" if mode == "CMYK" else f"{i}.png")
            path.parent.mkdir(exist_ok=True)
            if mode == "I;16":
                Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(path)
            elif mode == "PA":
                grey.convert("P").save(path, transparency=bytes([0, 128] + [255] * 254))
            else:
                grey.convert("RGB").convert(mode).save(path)
    images = image_folder(tmp_path, test_fraction=0.5).train_images
    assert images.shape[1] == channels
    if mode in ("L", "I;16", "RGB", "LA", "RGBA"):
        assert np.array_equal(images[0, 0].numpy(), np.asarray(grey))
    for wanted in (1, 3, 4):
        assert image_folder(tmp_path, channels=wanted, test_fraction=0.5).train_images.shape[1] == wanted


def test_mixed_channels_become_the_richest(plain: Path):
    save(plain / "b" / "0.png", pixels(1, 5, 5, 4))
    images = image_folder(plain)
    assert images.train_images.shape[1] == 4
    grey = images.train_images[0]
    assert torch.equal(grey[0], grey[1])
    assert (grey[3] == 255).all()


def test_sixteen_bits_are_scaled_to_the_nearest_of_eight(tmp_path: Path):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for name in ("a", "b"):
        for i in range(2):
            save(tmp_path / name / f"{i}.png", values)
    read = image_folder(tmp_path, test_fraction=0.5).train_images[0, 0].numpy()
    assert np.array_equal(read, np.rint(values / 257))


def test_images_are_resized_and_cropped_to_a_square(tmp_path: Path):
    # a red square in the middle of a blue strip: it alone is left, but for a blur at its edge
    for name, size in (("a", 20), ("b", 40)):
        strip = np.zeros((size, 3 * size, 3), dtype=np.uint8)
        strip[..., 2] = 255
        strip[:, size : 2 * size] = (255, 0, 0)
        for i in range(2):
            save(tmp_path / name / f"{i}.png", strip if i else strip.transpose(1, 0, 2))
    images = image_folder(tmp_path, image_size=10, test_fraction=0.5)
    assert images.train_images.shape == (2, 3, 10, 10)
    assert (images.train_images[:, :, 1:-1, 1:-1] == torch.tensor([255, 0, 0]).view(3, 1, 1)).all()


def test_a_photo_is_turned_the_way_its_camera_was_held(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90°
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.fromarray(pixels(i, 6, 8)).save(tmp_path / name / f"{i}.png", exif=exif)
    assert image_folder(tmp_path, test_fraction=0.5).train_images.shape[2:] == (8, 6)


def test_different_sizes_name_two_files(tree: Path):
    save(tree / "test" / "dog" / "1.png", pixels(0, 7, 9, 3))
    message = r"train/cat/0.png has 8×6 pixels, .*test/dog/1.png has 9×7(.|\n)*data.image_size=32"
    with pytest.raises(UserError, match=message):
        image_folder(tree)


def test_a_set_too_large_for_the_memory_is_refused_at_once(tree: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 16)
    with pytest.raises(UserError, match=r"GiB of memory(.|\n)*data.image_size"):
        image_folder(tree)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def flip_a_bit(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def replace_by_a_link(folder: Path, target: str) -> None:
    empty(folder)
    (folder / "link.png").symlink_to(target, target_is_directory=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tree: truncate(tree / "train/dog/3.png"), r"train/dog/3\.png is not a readable image"),
        (lambda tree: (tree / "test/eel/0.png").write_bytes(b""), r"test/eel/0\.png is not a readable image"),
        (lambda tree: flip_a_bit(tree / "train/cat/0.png", 0.5), r"train/cat/0\.png is not a readable image"),
        (lambda tree: empty(tree / "train/dog"), r"train/dog holds no image"),
        (lambda tree: (tree / "test/eel").rename(tree / "test/fox"), r"only one of them has eel, fox"),
        (lambda tree: (tree / "train").rename(tree / "valid"), r"has valid/ and test/ but no train/"),
        (lambda tree: replace_by_a_link(tree / "train/dog", "../dog"), r"train/dog/link\.png is a link to"),
        (lambda tree: replace_by_a_link(tree / "train/dog", "gone"), r"train/dog/link\.png cannot be read"),
        (lambda tree: tree.rename(tree.with_name("moved")), r"tree cannot be read .*data\.root=PATH"),
    ],
)
def test_bad_trees_name_what_is_bad(tree: Path, damage, message: str):
    damage(tree)
    with pytest.raises(UserError, match=message):
        image_folder(tree)


def test_one_class_is_no_classification(tmp_path: Path):
    save(tmp_path / "only" / "0.png", pixels(0, 4, 4))
    with pytest.raises(UserError, match="at least two, it has 1"):
        image_folder(tmp_path)


def test_impossible_channels(tree: Path):
    with pytest.raises(UserError, match=r"data\.channels=2"):
        image_folder(tree, channels=2)


def test_a_class_too_small_to_split_is_named(plain: Path):
    for i in range(1, 10):
        (plain / "b" / f"{i}.png").unlink()
    with pytest.raises(UserError, match=r"data\.test_fraction=0.2 splits .* class 'b' has 1: it needs 2"):
        image_folder(plain)


# the cache of a tree


class Decoded(AssertionError):
    pass


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise Decoded

    monkeypatch.setattr(image_tree, "_decode", refuse)


def cache_of(tree: Path) -> Path:
    return tree / ".cache" / "anypx-anych-white.images"


def test_a_second_start_decodes_nothing(tree: Path, request: pytest.FixtureRequest):
    first = image_folder(tree)
    request.getfixturevalue("no_decoding")
    second = image_folder(tree)
    assert same(first, second)
    assert first.fingerprint == second.fingerprint
    with pytest.raises(Decoded):
        image_folder(tree, image_size=4)


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: os.utime(tree / "train/cat/0.png", ns=(0, 1)),
        lambda tree: (tree / "train/cat/0.png").unlink(),
        lambda tree: (tree / "train/cat/0.png").rename(tree / "train/cat/9.png"),
        lambda tree: save(tree / "test/cat/9.png", pixels(1, 60, 80, 3)),
        lambda tree: truncate(cache_of(tree)),
        lambda tree: cache_of(tree).write_bytes(b""),
        *(lambda tree, at=at: flip_a_bit(cache_of(tree), at) for at in (0.0, 0.5, 0.9)),
        lambda tree: cache_of(tree).unlink(),
        lambda tree: cache_of(tree).write_bytes(b"[]"),
    ],
)
def test_a_stale_or_damaged_cache_is_rebuilt_in_place(
    tree: Path, change, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
):
    large = pixels(0, 60, 80, 3)
    for path in tree.glob("*/*/*.png"):
        save(path, large)  # pixels are most of the cache, so the flipped bits are among them
    image_folder(tree)
    change(tree)
    rebuilt = image_folder(tree)
    shutil.copytree(tree, tree.with_name("copy"), ignore=shutil.ignore_patterns(".cache"))
    assert same(rebuilt, image_folder(tree.with_name("copy")))
    assert [*(tree / ".cache").iterdir()] == [cache_of(tree)]
    request.getfixturevalue("no_decoding")
    assert same(image_folder(tree), rebuilt)


def test_no_flipped_bit_of_a_cache_is_ever_trusted(tree: Path):
    images = image_folder(tree)
    # what is mapped from a file changes with it
    expected = replace(
        images, train_images=images.train_images.clone(), test_images=images.test_images.clone()
    )
    share = image_cache.HEADER / cache_of(tree).stat().st_size
    for largest in (1, share, share / 8):  # anywhere, before the pixels, in what is told of them
        for at in largest * np.random.default_rng(0).random(30):
            flip_a_bit(cache_of(tree), at)
            assert same(image_folder(tree), expected)


def test_a_cache_that_cannot_be_written_is_only_a_warning(tree: Path, caplog: pytest.LogCaptureFixture):
    expected = image_folder(tree)
    shutil.rmtree(tree / ".cache")
    (tree / ".cache").write_text("a file where the folder should be")
    assert same(image_folder(tree), expected)
    assert "cannot be written" in caplog.text
    assert "data.cache=FOLDER" in caplog.text


def test_starts_at_once_do_not_harm_each_other(tree: Path):
    together = threading.Barrier(4)

    def start(_: int) -> str:
        together.wait()
        return image_folder(tree).fingerprint

    with ThreadPoolExecutor(4) as threads:
        fingerprints = set(threads.map(start, range(8)))
    assert fingerprints == {image_folder(tree).fingerprint}
    assert [*(tree / ".cache").iterdir()] == [cache_of(tree)]


def test_the_fingerprint_is_of_the_content(tree: Path, tmp_path: Path):
    before = image_folder(tree).fingerprint
    os.utime(tree / "train/cat/0.png", ns=(0, 1))
    tree.rename(tmp_path / "elsewhere")
    assert image_folder(tmp_path / "elsewhere").fingerprint == before
    for part in ("train", "test"):
        (tmp_path / "elsewhere" / part / "cat").rename(tmp_path / "elsewhere" / part / "cab")
    assert image_folder(tmp_path / "elsewhere").fingerprint != before


# published files


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


NAMES = tuple(name.removesuffix(".gz") for name, _ in MNIST.resources)
ARRAYS = (
    pixels(0, 30, 28, 28),
    np.arange(30, dtype=np.uint8) % 10,
    pixels(1, 20, 28, 28),
    np.zeros(20, "u1"),
)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Tiny files in MNIST's format where torchvision has them."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, array in zip(NAMES, ARRAYS, strict=True):
        (folder / name).write_bytes(idx(array))
    return folder


def test_mnist_is_read_plain_or_gzipped(raw: Path, tmp_path: Path):
    images = SOURCES["mnist"](tmp_path, download=False)
    assert images.classes == tuple("0123456789")
    assert torch.equal(images.train_images, torch.from_numpy(ARRAYS[0]).unsqueeze(1))
    assert images.train_labels.tolist() == ARRAYS[1].tolist()
    assert len(images.test_images) == len(images.test_labels) == 20
    for path in list(raw.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert same(SOURCES["mnist"](tmp_path, download=False), images)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: truncate(raw / NAMES[0]), "train-images-idx3-ubyte is not a whole idx file"),
        (lambda raw: (raw / NAMES[1]).write_bytes(b""), "train-labels-idx1-ubyte is not a whole idx file"),
        (lambda raw: (raw / NAMES[2]).write_bytes(idx(ARRAYS[3])), "t10k-images-idx3-ubyte is not a whole"),
        (lambda raw: (raw / NAMES[3]).write_bytes(b"<html>" * 9), "t10k-labels-idx1-ubyte is not a whole"),
        (
            lambda raw: (raw / NAMES[3]).write_bytes(idx(ARRAYS[1])),
            "t10k-labels-idx1-ubyte does not go with t10k-images",
        ),
        (lambda raw: (raw / NAMES[3]).write_bytes(idx(ARRAYS[3] + 10)), "labels up to 10 .* of 10 classes"),
        (
            lambda raw: (raw / NAMES[3]).rename(raw / f"{NAMES[3]}.gz"),
            r"t10k-labels-idx1-ubyte\.gz cannot be read",
        ),
    ],
)
def test_bad_mnist_files_are_named(raw: Path, tmp_path: Path, damage, message: str):
    damage(raw)
    with pytest.raises(UserError, match=message):
        SOURCES["mnist"](tmp_path, download=False)


def test_bad_cifar10_files_are_named_before_they_are_unpickled(tmp_path: Path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(b"not what it should be")
    with pytest.raises(UserError, match=r"data_batch_1 is not CIFAR-10's \(wrong checksum\)"):
        SOURCES["cifar10"](tmp_path, download=True)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_without_data_and_network_there_are_three_ways_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    root = tmp_path / "data"
    for download in (False, True):
        with pytest.raises(UserError) as refused:
            SOURCES[name](root, download)
        message = str(refused.value)
        assert str(root) in message
        assert ("Network is unreachable" in message) == download
        for way_on in ("data.download=true", "data.root=PATH", "DATA_ROOT", "data=mnist_mini"):
            assert way_on in message
    assert list(root.iterdir()) == []
    assert socket.getdefaulttimeout() is None


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Tiny files that FashionMNIST is downloaded from, on this machine."""
    folder = tmp_path / "host"
    folder.mkdir()
    resources = []
    for name, array in zip(NAMES, ARRAYS, strict=True):
        (folder / f"{name}.gz").write_bytes(content := gzip.compress(idx(array)))
        resources.append((f"{name}.gz", hashlib.md5(content).hexdigest()))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setattr(FashionMNIST, "resources", resources)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield folder
        server.shutdown()
        serving.join()


def test_a_download_leaves_what_is_whole_or_nothing(host: Path, tmp_path: Path):
    root = tmp_path / "data"
    last = host / f"{NAMES[3]}.gz"
    whole = last.read_bytes()
    last.write_bytes(whole[:-5])
    with pytest.raises(UserError, match="downloading it failed"):
        SOURCES["fashion_mnist"](root, download=True)
    assert list(root.iterdir()) == []
    last.write_bytes(whole)
    images = SOURCES["fashion_mnist"](root, download=True)
    assert images.classes[0] == "T-shirt/top"
    assert {path.name for path in (root / "FashionMNIST/raw").iterdir()} == set(NAMES)
    assert [path.name for path in root.iterdir()] == ["FashionMNIST"]
    assert same(SOURCES["fashion_mnist"](root, download=False), images)


def test_a_silent_host_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "SILENCE", 0.2)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
        with pytest.raises(UserError, match="timed out"):
            SOURCES["fashion_mnist"](tmp_path, download=True)


def test_mnist_mini_is_there_without_anything():
    images = SOURCES["mnist_mini"]()
    assert images.train_images.shape == (4000, 1, 28, 28)
    assert images.train_labels.bincount().tolist() == [400] * 10
    assert images.test_images.shape == (1000, 1, 28, 28)
    assert images.test_labels.bincount().tolist() == [100] * 10
    assert images.train_images.dtype == torch.uint8
    assert images.train_labels.dtype == torch.int64
    assert SOURCES["mnist_mini"]().fingerprint == images.fingerprint


# splits


@pytest.mark.parametrize("sizes", [(50, 50), (10, 200, 37), (1, 2, 3, 500)])
def test_any_stretch_of_the_stratified_order_is_in_proportion(sizes: tuple[int, ...]):
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    order = stratified_order(labels)
    assert torch.equal(order.sort().values, torch.arange(len(labels)))
    for start, stop in ((0, 30), (7, 41), (len(labels) // 2, len(labels))):
        share = torch.tensor(sizes) * (stop - start) / len(labels)
        counts = labels[order[start:stop]].bincount(minlength=len(sizes))
        assert ((counts - share).abs() <= 2).all()


def test_a_split_is_shuffled_within_each_class():
    labels: Tensor = torch.arange(2).repeat_interleave(100)
    _, held_out = stratified_split(labels, 0.2, ("a", "b"), "data.val_fraction")
    first = held_out[labels[held_out] == 0]
    assert len(first) == 20
    assert first.max() > 50


@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.99])
def test_a_split_has_an_image_of_every_class_on_both_sides(fraction: float):
    labels = torch.tensor([0] * 50 + [1] * 2 + [2] * 20)
    left, held_out = stratified_split(labels, fraction, ("a", "b", "c"), "data.val_fraction")
    assert torch.cat([left, held_out]).sort().values.tolist() == list(range(72))
    assert len(held_out) == {0.001: 3, 0.5: 36, 0.99: 69}[fraction]
    for part in (left, held_out):
        assert (labels[part].bincount(minlength=3) > 0).all()


def test_a_class_of_one_image_cannot_be_split():
    labels = torch.tensor([0] * 50 + [1])
    with pytest.raises(UserError, match=r"class 'b' has 1: it needs 2 .*val_fraction=0 holds nothing out"):
        stratified_split(labels, 0.1, ("a", "b"), "data.val_fraction")
    assert len(stratified_split(labels, 0, ("a", "b"), "data.val_fraction")[0]) == 51
    with pytest.raises(UserError, match="class 'c' has 0"):
        stratified_split(labels, 0, ("a", "b", "c"), "data.val_fraction")


@pytest.mark.parametrize("number", [3, 10, 50])
def test_a_part_has_every_class_and_is_part_of_a_larger_one(number: int):
    labels = torch.tensor([0] * 50 + [1] * 2 + [2] * 20)
    order = stratified_order(labels)
    part = stratified_part(order, labels, number)
    assert len(part) == number
    assert set(labels[part].tolist()) == {0, 1, 2}
    assert set(part.tolist()) < set(stratified_part(order, labels, number + 1).tolist())


def test_progress_is_one_plain_line_where_nobody_watches(
    tree: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    with caplog.at_level(logging.INFO):
        image_folder(tree)
    assert caplog.messages == ["decoding 21 images"]
    assert capfd.readouterr().err == ""
