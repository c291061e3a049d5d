"""The library without torch: a training loop, a state on disk, a table of the layers."""

import numpy as np
import pytest
import torch
from torch import nn

import custom_backend as cb


def network():
    return cb.Sequential(
        cb.Conv2d(1, 4, 3, padding=1),
        cb.Residual(cb.Sequential(cb.BatchNorm2d(4), cb.ReLU(), cb.Conv2d(4, 4, 3, padding=1, groups=2))),
        cb.Concat(cb.Conv2d(4, 2, 1), cb.Identity()),
        cb.AdaptiveAvgPool2d(2),
        cb.Flatten(),
        cb.Dropout(0.1),
        cb.Linear(24, 2),
    )


def test_a_network_learns_and_predicts():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=300)
    x = rng.normal(size=(1, 6, 6, 300)).astype(np.float32)
    x[0, :3] += 1.5 * labels
    model = network()
    state = model.init(rng)
    losses = [*cb.fit(model, state, x, labels, cb.Adam(lr=1e-2), rng=rng, epochs=8, batch_size=32)]
    assert losses[-1] < 0.3 < losses[0]
    logits = cb.predict(model, state, x, batch_size=70)
    np.testing.assert_allclose(logits, model.forward(state, x)[0], rtol=1e-4, atol=1e-5)
    assert np.mean(logits.argmax(axis=0) == labels) > 0.9


def test_the_same_generator_gives_the_same_training():
    rng = np.random.default_rng(0)
    x, labels, results = rng.normal(size=(1, 6, 6, 50)).astype(np.float32), rng.integers(2, size=50), []
    for _ in range(2):
        rng, model = np.random.default_rng(1), network()
        state = model.init(rng)
        losses = [*cb.fit(model, state, x, labels, cb.Adam(), rng=rng, epochs=2, batch_size=20)]
        results.append([*losses, *state.values()])
    for mine, other in zip(*results, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_saved_state_is_loaded_bit_for_bit_and_read_by_torch(tmp_path, monkeypatch):
    numpy_files = pytest.importorskip("safetensors.numpy")
    from safetensors.torch import load_file

    state = network().init(np.random.default_rng(0))
    state["1.body.0.num_batches_tracked"] += 7
    state["6.weight"] = np.asfortranarray(state["6.weight"])
    cb.save(state, tmp_path / "state.safetensors")
    loaded = cb.load(tmp_path / "state.safetensors")
    assert loaded.keys() == state.keys() == load_file(tmp_path / "state.safetensors").keys()
    for name, array in state.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype
    network().forward(loaded, np.ones((1, 6, 6, 2), np.float32))

    def broken(arrays, path):
        raise OSError("no space left")

    monkeypatch.setattr(numpy_files, "save_file", broken)
    with pytest.raises(OSError, match="no space left"):
        cb.save({}, tmp_path / "state.safetensors")
    assert cb.load(tmp_path / "state.safetensors").keys() == state.keys()


def test_a_summary_has_shapes_parameters_and_operations():
    lines = cb.summary(network(), (1, 6, 6)).splitlines()
    cells = {line.split(": ")[-1].split()[0]: line.split() for line in lines}
    assert cells["Conv2d"][-3:] == ["6", "10", "576"]  # 1 × 1, 4 → 2 channels: 2 · 8 · 36
    assert cells["Concat"][2:7] == ["6", "×", "6", "×", "6"]
    assert cells["Linear"][-2:] == ["50", "96"]
    convolutions = 2 * 36 * (9 * 4 + 9 * 2 * 4 + 8)
    assert lines[1].split()[-2:] == [f"{40 + 84 + 10 + 50}", f"{convolutions + 96:,}"]


@pytest.mark.parametrize(
    ("layer", "reference", "shape"),
    [
        (cb.Conv2d(4, 6, 3, 2, 1, dilation=2, groups=2), nn.Conv2d(4, 6, 3, 2, 1, 2, 2), (4, 11, 9)),
        (cb.Conv2d(4, 6, (2, 4), padding="same"), nn.Conv2d(4, 6, (2, 4), padding="same"), (4, 7, 8)),
        (cb.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, 1), (4, 7, 8)),
        (cb.AdaptiveAvgPool2d((2, 3)), nn.AdaptiveAvgPool2d((2, 3)), (4, 7, 8)),
        (cb.BatchNorm2d(4), nn.BatchNorm2d(4), (4, 7, 8)),
        (cb.Flatten(), nn.Flatten(), (4, 7, 8)),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_shapes_in_a_summary_are_torchs(layer, reference, shape):
    assert layer.output_shape(shape) == tuple(reference(torch.ones(2, *shape)).shape[1:])
    trained = sum(parameter.numel() for parameter in reference.parameters())
    assert f" {trained:,} " in cb.summary(layer, shape)
