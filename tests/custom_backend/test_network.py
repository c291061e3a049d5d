import gzip
import inspect
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import kernel_sets
import numpy as np
import pytest
import torch
from torch import nn

import custom_backend as cb


def networks():
    """The same small network in the library and in torch."""

    def build(nn, leaky):
        return nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            leaky,
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 5),
        )

    torch.manual_seed(0)
    return build(cb, cb.LeakyReLU(0.1)), build(nn, nn.LeakyReLU(0.1))


@pytest.mark.parametrize("kernels", kernel_sets.KERNEL_SETS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=str)
def test_fifty_adam_steps_in_lockstep_with_torch(kernels, dtype, tolerance):
    network, reference = networks()
    reference = reference.to(dtype)
    state = {name: tensor.detach().clone().numpy() for name, tensor in reference.state_dict().items()}
    adam, theirs = cb.Adam(lr=1e-3), torch.optim.Adam(reference.parameters(), lr=1e-3)
    with kernel_sets.using(kernels):
        for _ in range(50):
            x, labels = torch.randn(8, 2, 11, 11, dtype=dtype), torch.randint(5, (8,))
            expected = nn.functional.cross_entropy(reference(x), labels)
            theirs.zero_grad()
            expected.backward()
            theirs.step()
            logits, saved = network.forward(state, np.moveaxis(x.numpy(), 0, -1), training=True)
            loss, saved_loss = cb.cross_entropy_forward(logits, labels.numpy())
            _, gradients = network.backward(
                saved, cb.cross_entropy_backward(saved_loss), needs_input_grad=False
            )
            adam.step(state, gradients)
            assert loss == pytest.approx(expected.item(), abs=tolerance)


def test_names_and_initial_state_are_torchs():
    network, reference = networks()
    state = network.init(np.random.default_rng(0))
    assert list(state) == list(network.shapes) == list(reference.state_dict())
    for name, tensor in reference.state_dict().items():
        assert state[name].shape == tuple(tensor.shape)


def test_nested_networks_are_flat_to_the_state():
    network, _ = networks()
    nested = cb.Sequential(cb.Sequential(*network.layers[:4]), cb.Sequential(*network.layers[4:]))
    state = nested.init(np.random.default_rng(0))
    assert "0.1.running_mean" in state
    x = np.random.default_rng(1).normal(size=(2, 9, 9, 3)).astype(np.float32)
    y, saved = nested.forward(state, x, training=True)
    grad_x, gradients = nested.backward(saved, np.ones_like(y))
    assert grad_x.shape == x.shape
    assert gradients["1.4.bias"].shape == (5,)


def test_one_layer_in_two_places_has_two_states():
    layer = cb.Linear(3, 3)
    network, apart = (
        cb.Sequential(layer, cb.Tanh(), layer),
        cb.Sequential(cb.Linear(3, 3), cb.Tanh(), cb.Linear(3, 3)),
    )
    state = network.init(np.random.default_rng(0))
    x, results = np.ones((3, 2), np.float32), []
    for each in (network, apart):
        y, saved = each.forward(state, x)
        results.append(each.backward(saved, y, needs_input_grad=False)[1])
    assert results[0].keys() == state.keys()
    for name in state:
        np.testing.assert_array_equal(results[0][name], results[1][name])


def test_a_container_has_a_length_parts_and_a_text():
    network, _ = networks()
    assert len(network) == len(network.layers) == 9
    assert network[0] is network.layers[0]
    assert isinstance(network[-1], cb.Linear)
    assert [*network[4:6]] == list(network.layers[4:6])
    assert repr(cb.Sequential(cb.Residual(cb.Sequential(cb.Tanh())), cb.Flatten())) == (
        "Sequential(\n  (0): Residual(\n    (body): Sequential(\n      (0): Tanh()\n    )\n"
        "    (shortcut): Identity()\n  )\n  (1): Flatten()\n)"
    )


def test_saved_arrays_are_not_overwritten_by_the_next_forward():
    network, _ = networks()
    state = network.init(np.random.default_rng(0))
    x, other = np.random.default_rng(1).normal(size=(2, 2, 33, 33, 64)).astype(np.float32)
    _, saved = network.forward(state, x, training=True)
    expected = network.backward(saved, np.ones((5, 64), np.float32))
    network.forward(state, other, training=True)
    again = network.backward(saved, np.ones((5, 64), np.float32))
    np.testing.assert_array_equal(again[0], expected[0])
    for name, gradient in expected[1].items():
        np.testing.assert_array_equal(again[1][name], gradient)


def test_dropout_scales_what_it_keeps_and_repeats_by_seed():
    layer, x = cb.Dropout(0.25), np.ones((40, 500), np.float32)
    y, saved = layer.forward({}, x, training=True, rng=np.random.default_rng(0))
    again, _ = layer.forward({}, x, training=True, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(y, again)
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.75], rtol=1e-6)
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.02)
    np.testing.assert_array_equal(layer.backward(saved, x)[0], y)
    assert layer.forward({}, x)[0] is x
    assert not cb.Dropout(1.0).forward({}, x, True, np.random.default_rng(0))[0].any()


IMAGE = np.zeros((3, 5, 5, 2), np.float32)


@pytest.mark.parametrize(
    ("layer", "x", "message"),
    [
        (cb.Conv2d(3, 4, 7), IMAGE, r"Conv2d\(.*\): expected an image of at least \(7, 7\), got \(5, 5\)"),
        (cb.Conv2d(3, 4, 3, dilation=3), IMAGE, r"expected an image of at least \(7, 7\), got \(5, 5\)"),
        (cb.Conv2d(1, 4, 3), IMAGE, r"Conv2d\(.*\): expected 1 channels, got 3"),
        (cb.Conv2d(3, 4, 3), IMAGE[0], r"expected an array \(channels, height, width, batch\), got shape"),
        (cb.Conv2d(3, 4, 3), IMAGE[..., :0], r"at least one entry along every axis, got .*'batch': 0"),
        (cb.AdaptiveAvgPool2d(1), IMAGE[:, :0], r"at least one entry along every axis, got .*'height': 0"),
        (cb.ReLU(), IMAGE[:0], r"ReLU\(.*\): expected at least one entry along every axis"),
        (cb.Conv2d(3, 4, 3), IMAGE.astype(np.int64), r"expected float32 or float64, got int64"),
        (cb.ReLU(), None, r"ReLU\(.*\): expected an array, got NoneType"),
        (cb.ReLU(), IMAGE.astype(np.float16), r"expected float32 or float64, got float16"),
        (
            cb.Conv2d(3, 4, 3),
            IMAGE.astype(np.float64),
            r"expected weight of float64 like the input, got float32",
        ),
        (cb.BatchNorm2d(2), IMAGE, r"BatchNorm2d\(.*\): expected 2 channels, got 3"),
        (cb.BatchNorm2d(3), IMAGE[:, :1, :1, :1], r"expected more than one value per channel when training"),
        (cb.AvgPool2d(6), IMAGE, r"AvgPool2d\(.*\): expected an image of at least \(6, 6\), got \(5, 5\)"),
        (
            cb.Sequential(cb.BatchNorm2d(3), cb.ReLU(), cb.MaxPool2d(2)),
            IMAGE[:, :1, :1],
            r"MaxPool2d\(.*\): expected an image of at least \(2, 2\), got \(1, 1\)",
        ),
        (cb.Linear(4, 2), IMAGE[0, 0], r"Linear\(.*\): expected 4 features, got 5"),
        (cb.Dropout(0.5), IMAGE, r"Dropout\(p=0.5\): expected a random generator"),
        (
            cb.Residual(cb.Conv2d(3, 4, 1)),
            IMAGE,
            r"Residual: expected a shortcut to \(4, 5, 5, 2\), the shape of",
        ),
        (
            cb.Concat(cb.Identity(), cb.MaxPool2d(2)),
            IMAGE,
            r"Concat: expected \(channels, 5, 5, 2\), got \(3, 2, 2, 2\)",
        ),
    ],
)
def test_wrong_input_names_layer_expected_and_got(layer, x, message):
    state = layer.init(np.random.default_rng(0))
    with pytest.raises(ValueError, match=message):
        layer.forward(state, x, training=True)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: cb.Conv2d(3, 4, 0),
            r"Conv2d\(.*\): expected kernel_size of at least 1, one integer or two, got 0",
        ),
        (
            lambda: cb.Conv2d(3, 4, (3,)),
            r"expected kernel_size of at least 1, one integer or two, got \(3,\)",
        ),
        (lambda: cb.Conv2d(3, 4, 3, stride=0), r"expected stride of at least 1, one integer or two, got 0"),
        (
            lambda: cb.Conv2d(3, 4, 3, padding=-1),
            r"expected padding of at least 0, one integer or two, got -1",
        ),
        (lambda: cb.Conv2d(3, 4, 3, padding="full"), r"expected padding 'same', 'valid' or pixels, got full"),
        (lambda: cb.Conv2d(3, 4, 3, 2, "same"), r"expected stride 1 for padding 'same', got \(2, 2\)"),
        (lambda: cb.Conv2d(3, 4, 3, groups=3), r"expected outputs divisible by groups=3, got 4"),
        (lambda: cb.Conv2d(3.0, 4, 3), r"expected inputs of at least 1, an integer, got 3.0"),
        (lambda: cb.Conv2d(3, 4, True), r"expected kernel_size of at least 1, one integer or two, got True"),
        (lambda: cb.Linear(0, 4), r"Linear\(.*\): expected inputs of at least 1, an integer, got 0"),
        (lambda: cb.MaxPool2d(2, padding=2), r"MaxPool2d\(.*\): expected padding of at most half the kernel"),
        (lambda: cb.MaxPool2d(17), r"MaxPool2d\(.*\): expected a window of at most 256 pixels, got 289"),
        (lambda: cb.AvgPool2d((2, 2, 2)), r"AvgPool2d\(.*\): expected kernel_size of at least 1"),
        (
            lambda: cb.AdaptiveAvgPool2d(None),
            r"expected output_size of at least 1, one integer or two, got None",
        ),
        (lambda: cb.Dropout(1.5), r"Dropout\(p=1.5\): expected a number p in \[0, 1\], got 1.5"),
        (
            lambda: cb.BatchNorm2d(4, eps=-1),
            r"BatchNorm2d\(.*\): expected a number eps in \[0, inf\], got -1",
        ),
        (lambda: cb.BatchNorm2d(4, momentum="fast"), r"expected a number momentum, got 'fast'"),
        (
            lambda: cb.GroupNorm(4, groups=3),
            r"GroupNorm\(.*\): expected features divisible by groups=3, got 4",
        ),
        (lambda: cb.LeakyReLU(float("nan")), r"LeakyReLU\(.*\): expected a number negative_slope, got nan"),
        (lambda: cb.SGD(lr=-1), r"SGD\(.*\): expected a number lr in \[0, inf\], got -1"),
        (
            lambda: cb.Adam(betas=0.9),
            r"Adam\(.*\): expected betas, two numbers in \[0, 1\), got 0.9",
        ),
        (
            lambda: cb.Adam(betas=(0.9, 1)),
            r"Adam\(.*\): expected betas, two numbers in \[0, 1\), got \(0.9, 1\)",
        ),
        (
            lambda: cb.AdamW(weight_decay=None),
            r"AdamW\(.*\): expected a number weight_decay in \[0, inf\], got None",
        ),
        (lambda: cb.Sequential(np.tanh), r"Sequential: expected a layer as 0, got <ufunc 'tanh'>"),
    ],
)
def test_wrong_hyperparameters_are_an_error_at_once(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("layer", [cb.Conv2d(3, 4, 3), cb.BatchNorm2d(3), cb.Sequential(cb.Conv2d(3, 4, 3))])
def test_a_wrong_state_is_an_error(layer):
    state = layer.init(np.random.default_rng(0))
    for name in state:
        missing = {other: array for other, array in state.items() if other != name}
        with pytest.raises(
            ValueError, match=f"expected an entry {name.rpartition('.')[2]} in the state, got"
        ):
            layer.forward(missing, IMAGE, training=True)
        with pytest.raises(ValueError, match=r"expected \w+ of shape \(.*\), got \(7,\)"):
            layer.forward(state | {name: np.zeros(7, np.float32)}, IMAGE, training=True)


def test_importing_is_light():
    script = "import sys, custom_backend; print({'torch', 'lightning', 'numba', 'cupy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


NUMPY_ALONE = """
import importlib.metadata, sys
for package in importlib.metadata.packages_distributions():
    if package not in ("numpy", "custom_backend"):
        sys.modules[package] = None  # as where it is not installed
"""


def test_the_script_of_the_docstring_trains_with_numpy_alone(tmp_path):
    """On two easy classes in MNIST's format."""
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 512), ("t10k", 128)):
        labels = rng.integers(2, size=count, dtype=np.uint8)
        images = rng.integers(64, size=(count, 28, 28), dtype=np.uint8)
        images[labels == 1, :14] += 128
        for name, header, array in (("images-idx3", 16, images), ("labels-idx1", 8, labels)):
            with gzip.open(tmp_path / f"MNIST/raw/{part}-{name}-ubyte.gz", "wb") as file:
                file.write(bytes(header) + array.tobytes())
    script = textwrap.dedent(inspect.getdoc(cb).partition(":\n\n")[2])
    assert len(script.splitlines()) <= 32
    script = NUMPY_ALONE + script.replace("epochs=1", "epochs=6")
    script += "\nassert cb.GELU().forward({}, np.ones((2, 2), np.float32))[0].shape == (2, 2)"
    path = os.pathsep.join([str(Path(cb.__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert float(done.stdout.rsplit("accuracy ")[1].strip().rstrip("%")) > 95
