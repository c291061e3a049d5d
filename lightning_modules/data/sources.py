"""Where images come from: files of any kind to uint8 tensors.

A data set is a function decorated with :func:`source` and a file in ``conf/data``.
"""

import gzip
import logging
import math
import shutil
import socket
import tempfile
import zlib
from collections.abc import Callable
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, MNIST, FashionMNIST
from torchvision.datasets.utils import check_integrity

from experiment.errors import UserError
from lightning_modules.data.decoding import MODES
from lightning_modules.data.image_set import ImageSet, hold_out_test
from lightning_modules.data.image_tree import read_tree

log = logging.getLogger(__name__)

DIGITS = tuple("0123456789")
SILENCE = 10.0
"""Seconds without a byte after which a download is given up; a slow one may take as long as it needs."""

LARGEST = 2**30
"""Bytes of an unpacked file in MNIST's format; the largest there is has a twentieth of them."""

Source = Callable[..., ImageSet]

SOURCES: dict[str, Source] = {}
"""Every data set by name. A source takes, by these names, what it needs of ``root``, ``download``,
``image_size``, ``channels``, ``test_fraction``, ``background`` and ``cache``."""


def source(load: Source) -> Source:
    """Register a data set under its function's name."""
    SOURCES[load.__name__] = load
    return load


@source
def cifar10(root: Path, download: bool, cache: Path | None = None) -> ImageSet:
    """CIFAR-10 (Krizhevsky 2009): ``root/cifar10/{train,test}/<class>/*``, else torchvision's files.

    Raises:
        UserError: if there is neither and no download, or a file is damaged.
    """
    if (root / "cifar10").is_dir():
        return read_tree(root / "cifar10", cache=cache)
    checksums = {
        root / CIFAR10.base_folder / name: md5 for name, md5 in CIFAR10.train_list + CIFAR10.test_list
    }
    checksums[root / CIFAR10.base_folder / CIFAR10.meta["filename"]] = CIFAR10.meta["md5"]
    if not all(path.exists() for path in checksums):
        archive = root / CIFAR10.filename
        # the official host is slow: many will have fetched the archive from elsewhere
        if check_integrity(archive, CIFAR10.tgz_md5):
            shutil.unpack_archive(archive, root, filter="data")
        else:
            looked_for = "cifar10/{train,test}/<class>/*.png, cifar-10-batches-py/ or cifar-10-python.tar.gz"
            _download(CIFAR10, root, looked_for, download)
    # before torchvision opens them: these files are pickles
    for path, md5 in checksums.items():
        if not check_integrity(path, md5):
            raise UserError(
                f"{path} is not CIFAR-10's (wrong checksum): remove it, or put a whole copy in place"
            )
    parts = []
    for train in (True, False):
        official = CIFAR10(root, train=train)
        images = torch.from_numpy(official.data).permute(0, 3, 1, 2).contiguous()
        parts += [images, torch.tensor(official.targets)]
    return ImageSet(tuple(official.classes), *parts)


@source
def mnist(root: Path, download: bool) -> ImageSet:
    """MNIST (LeCun et al. 1998): ``root/MNIST/raw/*-ubyte``, gzipped or not.

    Raises:
        UserError: if it is not there and cannot be downloaded, or a file is damaged.
    """
    return _read_mnist(MNIST, DIGITS, root, download)


@source
def fashion_mnist(root: Path, download: bool) -> ImageSet:
    """Fashion-MNIST (Xiao et al. 2017): ``root/FashionMNIST/raw/*-ubyte``, gzipped or not.

    Raises:
        UserError: if it is not there and cannot be downloaded, or a file is damaged.
    """
    return _read_mnist(FashionMNIST, tuple(FashionMNIST.classes), root, download)


@source
@cache  # for all jobs of a sweep
def mnist_mini() -> ImageSet:
    """The 5,000 digits of :mod:`lightning_modules.data.digits`; 100 of each class are the test part."""
    from lightning_modules.data.digits import digits  # here, so that python -m can run that module

    return hold_out_test(DIGITS, *digits(), fraction=0.2)


@source
def image_folder(
    root: Path,
    image_size: int | None,
    channels: int | None,
    test_fraction: float,
    cache: Path | None = None,
    background: str = "white",
) -> ImageSet:
    """Your own images: ``root/{train,val,test}/<class>/*``, or ``root/<class>/*``, a part of it as test set.

    Arguments and errors are those of :func:`read_tree`.
    """
    if channels not in (None, *MODES):
        raise UserError(f"data.channels={channels}: an image has 1 (grey), 3 (RGB) or 4 (RGBA) channels")
    return read_tree(root, image_size, channels, test_fraction, cache, background)


def _read_mnist(dataset: Any, classes: tuple[str, ...], root: Path, download: bool) -> ImageSet:
    folder = root / dataset.__name__ / "raw"
    names = [name.removesuffix(".gz") for name, _ in dataset.resources]
    if not all((folder / name).exists() or (folder / f"{name}.gz").exists() for name in names):
        looked_for = f"{dataset.__name__}/raw/{{{','.join(names)}}}, gzipped or not"
        _download(dataset, root, looked_for, download)
    parts = []
    for images_name, labels_name in (names[:2], names[2:]):
        images, labels = _read_idx(folder / images_name, 3), _read_idx(folder / labels_name, 1)
        if len(images) != len(labels) or labels.max() >= len(classes):
            raise UserError(
                f"{folder / labels_name} does not go with {images_name}: {len(labels)} labels up to "
                f"{labels.max()} for {len(images)} images of {len(classes)} classes"
            )
        parts += [images.unsqueeze(1), labels.long()]
    return ImageSet(classes, *parts)


def _read_idx(path: Path, dimensions: int) -> Tensor:
    """A file of unsigned bytes in MNIST's format: 0, 0, 8, dimensions; sizes as big-endian int32; bytes."""
    try:
        if path.exists():
            content = path.read_bytes()
        else:
            path = path.with_name(f"{path.name}.gz")
            with gzip.open(path) as file:
                content = file.read(LARGEST + 1)  # a few bytes may unpack to all of the memory
    except MemoryError as failure:
        raise UserError(f"memory ran out while {path} was read") from failure
    except (OSError, EOFError, zlib.error) as damage:
        raise UserError(
            f"{path} cannot be read ({damage}): remove it, or put a whole copy in place"
        ) from damage
    header = 4 + 4 * dimensions
    sizes = [int.from_bytes(content[at : at + 4]) for at in range(4, header, 4)]
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) != header + math.prod(sizes) or 0 in sizes:
        raise UserError(
            f"{path} is not a whole idx file of bytes in {dimensions} dimensions ({len(content):,} bytes): "
            "remove it, or put a whole copy in place"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).view(sizes)


def _download(dataset: Any, root: Path, looked_for: str, allowed: bool) -> None:
    """Have torchvision download a data set; what is not whole never reaches ``root``.

    Raises:
        UserError: if that is not ``allowed`` or does not work: where was looked, and three ways on.
    """
    missing = f"{dataset.__name__} is not under {root.absolute()} (looked for {looked_for})"
    ways_on = (
        "Three ways on:\n"
        "  data.download=true      with a network, to have it downloaded\n"
        "  data.root=PATH          a folder that has it (or set DATA_ROOT)\n"
        "  data=mnist_mini         5,000 digits that need neither network nor files"
    )
    if not allowed:
        raise UserError(f"{missing}, and data.download=false.\n{ways_on}")
    log.info(f"downloading {dataset.__name__} to {root.absolute()}")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as part:
            dataset(part, download=True)
            for path in Path(part).rglob("*"):
                if path.is_file() and path.suffix != ".gz":
                    target = root / path.relative_to(part)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(target)
    except (OSError, RuntimeError, HTTPException) as failure:
        reason = " ".join(str(failure).split()).rstrip(" .")  # torchvision's has line breaks
        raise UserError(f"{missing}, and downloading it failed: {reason}.\n{ways_on}") from failure
    finally:
        socket.setdefaulttimeout(before)
