"""Image folders as people have them: what is read of them, and what is said."""

import errno
import gzip
import io
import json
import logging
import math
import os
import shutil
import socket
import struct
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from experiment.errors import UserError
from lightning_modules.data import (
    SOURCES,
    ImageDataModule,
    ImageSet,
    decoding,
    image_files,
    image_tree,
    memory,
)
from lightning_modules.data.image_cache import HEADER, digest
from lightning_modules.data.image_files import list_tree

draw = np.random.default_rng(0)


def noise(height: int = 8, width: int = 8) -> np.ndarray:
    return draw.integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise() if pixels is None else pixels).save(path, **options)
    return path


def fill(folder: Path, *classes: str, n: int = 5, suffix: str = ".png") -> None:
    for name in classes:
        for number in range(n):
            save(folder / name / f"{number}{suffix}")


def read(root: Path, **options: object) -> ImageSet:
    return SOURCES["image_folder"](
        root, **({"image_size": None, "channels": None, "test_fraction": 0.2} | options)
    )


def module(root: Path, **options: object) -> ImageDataModule:
    plain = {"augment": False, "crop_padding": 0, "flip": 0, "jitter": 0, "rotation": 0, "seed": 0}
    sizes = {"batch_size": 8, "val_fraction": 0.1}
    return ImageDataModule(dataset="image_folder", root=str(root), **(plain | sizes | options))


# names of parts


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training", "testing"), ("Train", "TEST"), ("train_set", "test_set"), ("trainset", "testset"),
        ("Training Images", "Test Images"), ("1-train", "2-test"), ("seg_train", "seg_test"),
        ("train2017", "test2017"),
    ],
)  # fmt: skip
def test_parts_are_known_by_their_names(tmp_path: Path, train: str, test: str):
    fill(tmp_path / train, "cat", "dog", n=3)
    fill(tmp_path / test, "cat", "dog", n=2)
    images = read(tmp_path)
    assert images.classes == ("cat", "dog")
    assert (len(images.train_images), len(images.test_images)) == (6, 4)


@pytest.mark.parametrize("val", ["val", "Valid", "validation", "VAL_images", "dev"])
def test_the_validation_set_of_the_data_is_used(tmp_path: Path, val: str):
    for part, n in (("train", 4), (val, 3), ("test", 2)):
        fill(tmp_path / part, "cat", "dog", n=n)
    data = module(tmp_path)
    assert data.sizes == {"train": 8, "val": 6, "test": 4}
    assert data.notes["own_validation_set"] == 6
    seen = torch.cat([images for images, _ in data.val_dataloader()])
    files = sorted((tmp_path / val).rglob("*.png"))
    expected = torch.stack([torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in files])
    assert {tuple(image.flatten().tolist()) for image in (seen * 255).round().byte()} == {
        tuple(image.flatten().tolist()) for image in expected
    }


def test_a_tree_without_a_test_set_keeps_its_validation_set(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    fill(tmp_path / "train", "cat", "dog", n=10)
    fill(tmp_path / "val", "cat", "dog", n=3)
    with caplog.at_level(logging.INFO):
        assert module(tmp_path).sizes == {"train": 16, "val": 6, "test": 4}
    assert "has no test/: 4 training images are the test set" in caplog.text


@pytest.mark.parametrize(
    "classes",
    [("bus", "car", "train"), ("valid", "invalid"), ("test", "control"), ("train station", "airport")],
)
@pytest.mark.parametrize("inside", ["", "2024", "images"])
def test_a_class_may_be_called_like_a_part(tmp_path: Path, classes: tuple[str, ...], inside: str):
    for name in classes:
        fill(tmp_path / name, inside)
    assert read(tmp_path).classes == tuple(sorted(classes))


def test_folders_around_the_tree_are_entered(tmp_path: Path):
    fill(tmp_path / "archive" / "seg_train" / "seg_train", "cat", "dog")
    fill(tmp_path / "archive" / "seg_test" / "seg_test", "cat", "dog")
    fill(tmp_path / "__MACOSX" / "archive", "cat")
    assert read(tmp_path).classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train/cat", "train/dog", "Training/cat", "Training/dog"), "Training/ and train/ both look like"),
        (("train/cat", "train/dog", "val/cat", "val/dog", "valid/cat", "valid/dog"), "val/ and valid/ both"),
        (("train/cat", "train/dog", "holdout/cat", "holdout/dog"), "holdout/ holds classes as well"),
        (("train/cat", "train/dog", "test/cat", "test/dog", "more/cat", "more/dog"), "more/ holds classes"),
        (("train/cat", "train/dog", "test"), "test/ holds images, but no class folders"),
        (("train", "test"), "train/ needs one folder a class"),
        (("cat", "dog", "test"), "test/ may be a class, or test images without classes"),
        (("val/cat", "val/dog", "test/cat", "test/dog"), "has val/ and test/ but no train/"),
        (("cat/train", "cat/test", "dog/train", "dog/test"), "put the parts above the classes"),
        (("train/cat", "train/dog", "val/cat", "val/cow"), "need the same classes; only .* cow, dog"),
    ],
)  # fmt: skip
def test_what_has_two_meanings_is_refused(tmp_path: Path, folders: tuple[str, ...], message: str):
    for folder in folders:
        fill(tmp_path / folder, "", n=2)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_what_is_neither_part_nor_class_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for part in ("train", "test"):
        fill(tmp_path / part, "cat", "dog")
    fill(tmp_path / "samples", "", n=3)
    save(tmp_path / "banner.png")
    save(tmp_path / "train" / "overview.png")
    assert len(read(tmp_path).train_images) == 10
    assert "left out 3 in samples/, 2 outside of class folders" in caplog.text


# pixels


def wide(low: int, high: int) -> np.ndarray:
    return draw.integers(low, high, (8, 8)).astype(np.uint16)


def png_48_bits(pixels: np.ndarray) -> bytes:
    """A PNG of (H, W, 3) uint16, which Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(
    ("dim", "bright", "expected"),
    [
        (500, 2500, (0, 4095)),  # a camera of 12 bits
        (5000, 50000, (0, 65535)),
        (29000, 30000, None),  # temperatures: a narrow band
        (10, 200, (0, 255)),
    ],
)
def test_wide_pixels_are_scaled_by_what_the_set_holds(
    tmp_path: Path, suffix: str, dim: int, bright: int, expected
):
    values = {}
    for name, offset in (("bright", bright), ("dim", dim)):
        for number in range(10):
            values[name, number] = wide(offset, offset + 50)
            save(tmp_path / name / f"{number}{suffix}", values[name, number])
    images = read(tmp_path)
    low, high = images.pixel_range
    if expected:
        assert (low, high) == expected
    else:
        assert dim <= low < high <= bright + 50
    for image, path in zip(torch.cat([images.train_images, images.test_images]), images.paths, strict=True):
        value = values[Path(path).parent.name, int(Path(path).stem)]
        scaled = np.rint(((value - low) * (255 / (high - low))).clip(0, 255))
        assert np.abs(image[0].numpy() - scaled).max() <= 1
    assert (
        images.train_images[images.train_labels == 0].float().mean()
        - images.train_images[images.train_labels == 1].float().mean()
        > 40
    )
    assert module(tmp_path).notes["pixel_range"] == images.pixel_range
    assert read(tmp_path).pixel_range == images.pixel_range  # from the cache


def test_the_scale_is_that_of_the_training_images(tmp_path: Path):
    for part, top in (("train", 1000), ("test", 60000)):
        for name in ("a", "b"):
            for number in range(2):
                save(tmp_path / part / name / f"{number}.png", wide(0, top))
    images = read(tmp_path)
    assert images.pixel_range == (0, 1023)
    assert images.test_images.float().mean() > 250


def test_colours_of_sixteen_bits_keep_their_lower_eight(tmp_path: Path):
    pixels = {}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(5):
            pixels[name, number] = draw.integers(0, 4096, (8, 8, 3)).astype(np.uint16)
            (tmp_path / name / f"{number}.png").write_bytes(png_48_bits(pixels[name, number]))
    images = read(tmp_path)
    assert images.pixel_range == (0, 4095)
    expected = np.rint(pixels["a", int(Path(images.paths[0]).stem)] * (255 / 4095))
    assert np.abs(images.train_images[0].permute(1, 2, 0).numpy() - expected).max() <= 1
    assert read(tmp_path, channels=1).train_images.shape[1] == 1
    assert read(tmp_path, channels=4).train_images[:, 3].min() == 255


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 5.0), (0.0, 255.0), (1e-6, 2e-6)])
def test_floats_are_scaled(tmp_path: Path, low: float, high: float):
    for name, offset in (("a", 0), ("b", 0.5)):
        for number in range(5):
            part = (draw.random((8, 8)) / 2 + offset) * (high - low) + low
            save(tmp_path / name / f"{number}.tif", part.astype(np.float32))
    images = read(tmp_path)
    means = [images.train_images[images.train_labels == label].float().mean() for label in (0, 1)]
    assert means[0] == pytest.approx(64, abs=15)
    assert means[1] == pytest.approx(191, abs=15)


def test_a_value_that_is_no_number_is_named(tmp_path: Path):
    fill(tmp_path, "b", suffix=".tif")
    for number in range(3):
        save(tmp_path / "a" / f"{number}.tif", np.full((8, 8), np.nan if number == 1 else 0.5, np.float32))
    with pytest.raises(
        UserError, match=r"1\.tif is not a readable image \(it holds values that are not finite"
    ):
        read(tmp_path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize(("background", "value"), [("white", 255), ("black", 0), ("grey", 128)])
def test_transparent_images_are_on_a_background(tmp_path: Path, mode: str, background: str, value: int):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[2:4, :, 3] = 255  # a black bar
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(5):
            image = Image.fromarray(pixels)
            if mode == "P":
                image = Image.fromarray((pixels[..., 3] > 0).astype(np.uint8), "L").convert("P")
                image.info["transparency"] = 0
            image = image if mode == "P" else image.convert(mode)
            image.save(tmp_path / name / f"{number}.png")
    images = read(tmp_path, channels=3, background=background).train_images
    assert (images[:, :, 4:] == value).all()
    assert (images[:, :, 2:4] < 2).all()
    assert read(tmp_path).train_images.shape[1] == 4


# duplicates


def leaky(root: Path) -> None:
    """5 images of each class to train, 2 to test; one of the latter is one of the former."""
    for part, n in (("train", 5), ("test", 2)):
        fill(root / part, "cat", "dog", n=n)
    (root / "test/cat/0.png").write_bytes((root / "train/cat/3.png").read_bytes())
    # the same pixels in another file
    Image.open(root / "train/dog/1.png").save(root / "train/cat/9.bmp")


def test_leaks_are_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    leaky(tmp_path)
    data = module(tmp_path)
    data.load()
    assert "1 of 4 images to test or validate with are also training images" in caplog.text
    assert "test/cat/0.png = train/cat/3.png" in caplog.text
    assert "1 images equal one of another class: train/dog/1.png = train/cat/9.bmp" in caplog.text
    assert len(data.notes["leaks"]) == 2
    with pytest.raises(UserError, match=r"train/cat/3\.png(.|\n)*on_leak=drop"):
        module(tmp_path, on_leak="error").load()
    dropped = module(tmp_path, on_leak="drop", val_fraction=0)
    assert dropped.sizes == {"train": 8, "val": 0, "test": 4}
    trained_on = {dropped._data.paths[index] for index in dropped._indices["train"]}
    assert not {"train/cat/3.png", "train/cat/9.bmp", "train/dog/1.png"} & trained_on


def test_a_validation_image_must_not_be_trained_on_either(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for part in ("train", "val", "test"):
        fill(tmp_path / part, "cat", "dog", n=3)
    (tmp_path / "val/cat/0.png").write_bytes((tmp_path / "train/cat/0.png").read_bytes())
    assert module(tmp_path, on_leak="drop").sizes == {"train": 5, "val": 6, "test": 6}
    assert "val/cat/0.png = train/cat/0.png" in caplog.text


def test_nothing_is_left_where_all_is_tested(tmp_path: Path):
    for part in ("train", "test"):
        for name in ("a", "b"):
            save(tmp_path / part / name / "0.png", np.full((4, 4), ord(name), np.uint8))
    with pytest.raises(UserError, match="leaves no training image"):
        module(tmp_path, on_leak="drop").load()


def test_a_rare_class_is_in_every_part(tmp_path: Path):
    for label in range(4):
        fill(tmp_path, f"class{label}", n=3 if label == 3 else 30)
    data = module(tmp_path)
    assert data.sizes == {"train": 67, "val": 7, "test": 19}
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert 3 in torch.cat([labels for _, labels in loader])


# files


def test_all_damaged_files_are_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path, "cat", "dog", n=30)
    intact = (tmp_path / "cat/2.png").read_bytes()
    damage = {"cat/1.png": b"404", "cat/9.png": intact[:-40], "dog/5.png": b"", "dog/7.png": intact[:100]}
    for name, content in damage.items():
        (tmp_path / name).write_bytes(content)
    decoded: list[str] = []
    call = decoding.Decoding.__call__

    def counted(self: decoding.Decoding, path: str, content: bytes) -> np.ndarray:
        decoded.append(path)
        return call(self, path, content)

    monkeypatch.setattr(decoding.Decoding, "__call__", counted)
    with pytest.raises(UserError) as refused:
        read(tmp_path)
    message = str(refused.value)
    assert message.startswith("4 of 60 images cannot be used:")
    assert all(f"{name} is not a readable image" in message for name in damage)
    assert len(decoded) == len(set(decoded)) <= 60
    for number in range(30):
        (tmp_path / f"dog/{number}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"32 of 60 (.|\n)*… and 12 more"):
        read(tmp_path)


def test_sizes_are_looked_at_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path, "cat", "dog", n=10)
    save(tmp_path / "cat/1.png", noise(6, 7))
    monkeypatch.setattr(decoding.Decoding, "__call__", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UserError, match=r"cat/1.png has 7×6 \(19 and 1 images; 2 sizes\)"):
        read(tmp_path)


def test_training_and_test_images_have_one_size(tmp_path: Path):
    fill(tmp_path / "train", "cat", "dog")
    for name in ("cat", "dog"):
        save(tmp_path / "test" / name / "0.png", noise(9, 9))
    with pytest.raises(UserError, match=r"train/cat/0.png has 8×8 pixels, .*test/cat/0.png has 9×9"):
        read(tmp_path)
    parts = [
        torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
        torch.tensor([0, 1]),
        torch.zeros(2, 1, 5, 5, dtype=torch.uint8),
    ]
    with pytest.raises(UserError, match="of different sizes"):
        ImageSet(("a", "b"), *parts, torch.tensor([0, 1]))


def test_every_listed_format_is_read(tmp_path: Path):
    pytest.importorskip("pillow_heif")
    assert features.check("avif")
    for name in ("a", "b"):
        for suffix in image_files.IMAGE_SUFFIXES:
            lossy = {".jfif": "JPEG", ".jpe": "JPEG", ".pnm": "PPM", ".pbm": "PPM", ".dib": "BMP"}
            options = {"format": lossy[suffix]} if suffix in lossy else {}
            save(tmp_path / name / f"image{suffix.upper()}", noise(32, 32), **options)
    images = read(tmp_path)
    assert len(images.train_images) + len(images.test_images) == 2 * len(image_files.IMAGE_SUFFIXES)


def test_what_is_left_out_is_counted_by_kind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    fill(tmp_path, "cat", "dog")
    for name in ("a.heic", "b.HEIC", "notes.txt", "README", ".DS_Store", "._0.png", ".old.png", "Thumbs.db"):
        (tmp_path / "cat" / name).write_bytes(b"no image")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    (tmp_path / "cat" / "null.png").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path / "cat")  # a socket's path is short
        server.bind("socket.png")
    monkeypatch.setattr(
        image_files, "formats", lambda: ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "AVIF")
    )
    skipped = read(tmp_path).skipped
    assert skipped == {
        ".heic": 2, ".txt": 1, "without suffix": 1, "hidden": 1, "named pipes": 1, "devices": 1, "sockets": 1,
    }  # fmt: skip
    assert "2 .heic (pip install pillow-heif reads them)" in caplog.text
    (tmp_path / "cow").mkdir()
    (tmp_path / "cow" / "0.heic").touch()
    with pytest.raises(UserError, match=r"cow holds no image .*3 \.heic .pip install pillow-heif reads them"):
        read(tmp_path)


def test_only_the_listed_formats_are_decoded(tmp_path: Path):
    fill(tmp_path, "cat", "dog")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    (tmp_path / "cat" / "0.png").write_bytes(eps)
    assert Image.open(io.BytesIO(eps)).format == "EPS"
    with pytest.raises(UserError, match=r"cat/0\.png is not a readable image \(its content is none"):
        read(tmp_path)


def test_a_bomb_is_not_decoded(tmp_path: Path):
    fill(tmp_path, "cat", "dog")
    Image.new("1", (13500, 13500)).save(tmp_path / "cat" / "bomb.png")
    with pytest.raises(UserError, match=r"bomb\.png is not a readable image \(Image size"):
        read(tmp_path, image_size=8)


@pytest.mark.parametrize("name", ["caf\udce9", "caf\udce9\udcff"])
def test_names_that_are_not_utf_8(tmp_path: Path, name: str):
    fill(tmp_path, "cat")
    try:
        fill(tmp_path, name)
        (tmp_path / name / "0.png").rename(tmp_path / name / "\udcff.png")
    except OSError:
        pytest.skip("this file system allows no such name")
    images = read(tmp_path)
    assert images.classes[0] == name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    assert all(path.isprintable() for path in (*images.paths, *images.classes))
    (tmp_path / name / "\udcff.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"\\xff\.png is not a readable image"):
        read(tmp_path)


def test_two_forms_of_one_name_are_one_class(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    fill(tmp_path, composed, decomposed, "tea", n=5)
    if len([*tmp_path.iterdir()]) == 2:
        pytest.skip("this file system knows one form only")
    images = read(tmp_path)
    assert images.classes == (composed, "tea")
    assert (images.train_labels == 0).sum() + (images.test_labels == 0).sum() == 10
    assert "in different Unicode forms" in caplog.text


def test_parts_agree_whatever_the_form_of_their_names(tmp_path: Path):
    fill(tmp_path / "train", "caf\u00e9", "tea")
    fill(tmp_path / "test", "cafe\u0301", "tea")
    assert read(tmp_path).classes == ("caf\u00e9", "tea")


# memory


@pytest.mark.parametrize(
    ("lines", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "2147483648"}, 2**31),
        ("0::/jobs/1\n", {"memory.max": "max", "jobs/1/memory.max": "1000", "jobs/memory.max": "900"}, 900),
        ("0::/elsewhere/docker\n", {"memory.max": "1000"}, 1000),
        (
            "5:cpu:/\n4:memory:/a\n",
            {"memory/a/memory.limit_in_bytes": "700", "memory/memory.limit_in_bytes": "9" * 19},
            700,
        ),
        ("0::/\n", {"memory.max": "max"}, None),
    ],
)  # fmt: skip
def test_the_limit_is_that_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, files, limit
):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    (tmp_path / "own").write_text(lines)
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory.memory_limit() <= (limit or physical)
    if limit:
        assert memory.memory_limit() == limit


@pytest.mark.parametrize(
    "failure",
    [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory"), OSError("out of memory error when")],
)
def test_lack_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception):
    fill(tmp_path, "cat", "dog")

    def fail(*args: object, **options: object) -> None:
        raise failure

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UserError, match=r"memory ran out .* nothing says that the file is damaged"):
        read(tmp_path)


def test_a_set_that_no_disk_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path, "cat", "dog", n=50)
    (tmp_path / ".cache").write_text("a file where the folder should be")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "wb"))  # noqa: PTH123, SIM115
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\): data.cache=FOLDER"):
        read(tmp_path)
    (tmp_path / ".cache").unlink()
    assert len(read(tmp_path).train_images) == 80


# the cache


def test_a_cache_knows_the_content(tmp_path: Path):
    """A file replaced by one of equal size and time, as archives and rsync do."""
    for name in ("a", "b"):
        for number in range(5):
            save(tmp_path / name / f"{number}.bmp")
    before, path = read(tmp_path), tmp_path / "a" / "0.bmp"
    status = path.stat()
    save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert read(tmp_path).fingerprint != before.fingerprint


def test_a_settled_tree_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path, "a", "b")
    expected = read(tmp_path).fingerprint
    monkeypatch.setattr(image_tree, "JUST_NOW", -(10**12))  # as if the files were old
    assert read(tmp_path).fingerprint == expected  # reads them, and notes that they are the same
    monkeypatch.setattr(image_tree, "read_bytes", lambda path: pytest.fail("read"))
    assert read(tmp_path).fingerprint == expected


def test_a_copied_tree_brings_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path / "here", "a", "b")
    expected = read(tmp_path / "here").fingerprint
    shutil.copytree(tmp_path / "here", tmp_path / "there", copy_function=shutil.copyfile)
    monkeypatch.setattr(image_tree, "_decode", lambda *_: pytest.fail("decoded"))
    assert read(tmp_path / "there").fingerprint == expected


def test_the_cache_may_be_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("one", "two"):
        fill(tmp_path / name / "set", "a", "b")
        read(tmp_path / name / "set", cache=tmp_path / "cache")
        assert not (tmp_path / name / "set" / ".cache").exists()
    assert len([*(tmp_path / "cache").iterdir()]) == 2
    monkeypatch.setattr(image_tree, "_decode", lambda *_: pytest.fail("decoded"))
    read(tmp_path / "one" / "set", cache=tmp_path / "cache")
    assert module(tmp_path / "two" / "set", cache=str(tmp_path / "cache")).sizes["test"] == 2


def test_what_replaces_a_cache_leaves_nothing_behind(tmp_path: Path):
    fill(tmp_path, "a", "b")
    for _ in range(3):
        save(tmp_path / "a" / "0.png")
        read(tmp_path)
    assert len([*(tmp_path / ".cache").iterdir()]) == 1


# whatever is in the files


@pytest.fixture(scope="module")
def intact() -> dict[str, bytes]:
    """A small image in each format that Pillow writes."""
    contents = {}
    for name, modes in {
        "PNG": ("RGBA", "P", "1", "I;16"), "JPEG": ("RGB", "CMYK"), "GIF": ("P",), "BMP": ("RGB",),
        "TIFF": ("RGB", "F", "LAB", "I;16"), "PPM": ("L",), "WEBP": ("RGBA",), "AVIF": ("RGB",),
    }.items():  # fmt: skip
        for mode in modes:
            image, file = Image.fromarray(noise(9, 9)), io.BytesIO()
            (image.convert("L").convert("I").convert(mode) if mode == "I;16" else image.convert(mode)).save(
                file, name
            )
            contents[f"{name}-{mode}"] = file.getvalue()
    return contents


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bytes_are_more_than_unreadable(tmp_path: Path, intact: dict[str, bytes], data: st.DataObject):
    content = bytearray(intact[data.draw(st.sampled_from(sorted(intact)))])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip":
                content[at] = data.draw(st.integers(0, 255))
            case "cut":
                del content[at : at + data.draw(st.integers(1, 40))]
            case "insert":
                content[at:at] = data.draw(st.binary(max_size=40))
        content = content or bytearray(b"\0")
    path = tmp_path / "image.png"
    path.write_bytes(content)
    _, images, problems = decoding.read_images([str(path)], (3, 8, 8))
    assert len(images) + len(problems) == 1
    with decoding.quiet_pillow(), suppress(decoding.UnreadableImage):
        decoding.read_header(str(path))


NAMES = st.sampled_from(
    ["train", "test", "val", "Training", "cat", "dog", "images", "é", "e\u0301", ".x", "__MACOSX"]
)


@settings(max_examples=100, deadline=None)
@given(paths=st.lists(st.tuples(NAMES, NAMES, NAMES), min_size=1, max_size=12), depths=st.data())
def test_any_tree_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, paths, depths: st.DataObject):
    root = tmp_path_factory.mktemp("tree")
    for names in paths:
        folder = root.joinpath(*names[: depths.draw(st.integers(0, 3))])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{len([*folder.iterdir()])}.png").touch()
    try:
        parts, _ = list_tree(root)
    except UserError:
        return
    assert "train" in parts
    assert len(parts["train"]) >= 2
    assert all(files for classes in parts.values() for files in classes.values())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_cache_is_trusted_for_its_name(tmp_path: Path, data: st.DataObject):
    if not (tmp_path / ".cache").exists():
        fill(tmp_path, "a", "b")
    expected = read(tmp_path).fingerprint
    (path,) = (tmp_path / ".cache").iterdir()
    stored = path.read_bytes()
    facts = json.loads(stored[:HEADER])
    content, key, value = data.draw(st.binary(max_size=50)), data.draw(st.integers(0, 9)), data.draw(JSON)
    kind = data.draw(st.sampled_from(["bytes", "json", "forged"]))
    if kind == "forged":  # with a right checksum
        del facts["check"]
        facts[sorted(facts)[key % len(facts)]] = value
        value = facts | {"check": digest(facts)}
    header = content if kind == "bytes" else json.dumps(value).encode()
    path.write_bytes(header.ljust(HEADER)[:HEADER] + stored[HEADER:])
    assert read(tmp_path).fingerprint == expected


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 5) | st.integers(0, 2**31 - 1), max_size=4),
    rest=st.binary(max_size=200),
    is_exact=st.booleans(),
    zipped=st.booleans(),
)
def test_any_idx_file_is_read_or_refused(
    tmp_path: Path, sizes: list[int], rest: bytes, is_exact: bool, zipped: bool
):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    number = math.prod(sizes)
    content = bytes((0, 0, 8, len(sizes))) + b"".join(struct.pack(">i", size) for size in sizes)
    content += bytes(number) if is_exact and number < 1000 else rest
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        path = folder / f"{name}-ubyte{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(UserError, match="ubyte"):  # images and labels alike
        SOURCES["mnist"](tmp_path, download=False)
