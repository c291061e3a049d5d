"""The digits that come with the package are the first of each class, and always the same."""

import struct

import numpy as np
import torch

from lightning_modules.data import SOURCES, digits


def test_the_first_of_every_class_are_cut_in_order(tmp_path):
    labels = np.random.default_rng(0).integers(0, 10, 6000, dtype=np.uint8)
    images = np.zeros((6000, 28, 28), dtype=np.uint8)
    images[:, 0, 0], images[:, 0, 1], images[:, 0, 2] = labels, np.arange(6000) % 256, np.arange(6000) // 256
    header = struct.pack(">iiii", 0x803, 6000, 28, 28)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + images.tobytes())
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 0x801, 6000) + labels.tobytes())
    digits.cut(tmp_path, tmp_path / "digits.npz")
    kept = np.load(tmp_path / "digits.npz")["images"]
    assert np.array_equal(kept[:, 0, 0], np.arange(10).repeat(500))
    position = kept[:, 0, 1] + 256 * kept[:, 0, 2].astype(int)
    for label in range(10):
        assert np.array_equal(position[kept[:, 0, 0] == label], np.flatnonzero(labels == label)[:500])


def test_old_runs_find_the_digits_that_they_were_trained_on():
    images, labels = digits.digits()
    assert images.shape == (5000, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert labels.bincount().tolist() == [500] * 10
    assert SOURCES["mnist_mini"]().fingerprint == "31f72e38efae7f9cb49b74eca1b2dfd7"
