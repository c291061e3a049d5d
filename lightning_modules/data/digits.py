"""The 5,000 digits that come with the package: the first 500 of each class of MNIST's training images.

``python -m lightning_modules.data.digits RAW_FOLDER`` cuts ``digits.npz`` anew from the unpacked files of
MNIST (LeCun et al. 1998).
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets.mnist import read_image_file, read_label_file

from experiment.entry_point import entry_point
from experiment.errors import UserError

FILE = Path(__file__).with_name("digits.npz")
PER_CLASS = 500


def digits() -> tuple[Tensor, Tensor]:
    """The digits in the order of their classes.

    Returns:
        (5000, 1, 28, 28) uint8 images and (5000,) int64 labels.
    """
    with np.load(FILE) as file:
        images = torch.from_numpy(file["images"])
    return images.unsqueeze(1), torch.arange(10).repeat_interleave(PER_CLASS)


def cut(raw: Path, file: Path = FILE) -> None:
    """Write ``file`` from ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte`` in ``raw``."""
    images = read_image_file(str(raw / "train-images-idx3-ubyte"))
    labels = read_label_file(str(raw / "train-labels-idx1-ubyte"))
    chosen = torch.cat([torch.nonzero(labels == label)[:PER_CLASS, 0] for label in range(10)])
    np.savez_compressed(file, images=images[chosen].numpy())


@entry_point
def main() -> None:
    """Cut, from MNIST in the folder that the command line names."""
    if len(sys.argv) != 2 or not Path(sys.argv[1], "train-images-idx3-ubyte").is_file():
        raise UserError("name the folder of MNIST's unpacked files, as MNIST/raw of data.root")
    cut(Path(sys.argv[1]))
    print(f"{FILE}: {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
