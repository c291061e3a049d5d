"""The reference implementations keep to the array API standard, and to the device that its input is on."""

import numpy as np
import pytest
from test_network import networks

import custom_backend as cb

strict = pytest.importorskip("array_api_strict")
DEVICE = strict.Device("device1")


def on_device(array):
    return strict.asarray(np.array(array), device=DEVICE)


def on_cpu(array):
    return np.from_dlpack(strict.asarray(array, device=strict.Device("CPU_DEVICE")))


def train(asarray, layers, optimizer, loss_pair, x, labels):
    network = cb.Sequential(*layers)
    rng = np.random.default_rng(0)
    state = {name: asarray(array.astype(np.float64)) for name, array in network.init(rng).items()}
    for name in state:
        if name.endswith("num_batches_tracked"):
            state[name] = asarray(np.array(0))
    losses = []
    for _ in range(3):
        logits, saved = network.forward(state, asarray(x), training=True, rng=rng)
        loss, saved_loss = loss_pair[0](logits, asarray(labels))
        _, gradients = network.backward(saved, loss_pair[1](saved_loss))
        optimizer.step(state, gradients)
        losses.append(float(loss))
    return losses


@pytest.mark.parametrize(
    ("optimizer", "loss_pair"),
    [
        (cb.SGD, (cb.cross_entropy_forward, cb.cross_entropy_backward)),
        (cb.Adam, (cb.focal_loss_forward, cb.focal_loss_backward)),
        (cb.AdamW, (cb.cross_entropy_forward, cb.cross_entropy_backward)),
    ],
)
def test_the_whole_network_on_another_device_as_on_numpy(optimizer, loss_pair):
    network, _ = networks()
    layers = [*network.layers[:-3], cb.AvgPool2d(1), *network.layers[-3:-1], cb.Linear(6, 5)]
    layers += [cb.SELU(), cb.Sigmoid(), cb.Dropout(0.2)]
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(2, 11, 11, 8)), rng.integers(5, size=8)
    expected = train(np.array, layers, optimizer(), loss_pair, x, labels)
    assert train(on_device, layers, optimizer(), loss_pair, x, labels) == pytest.approx(expected, rel=1e-9)


def test_mixed_devices_and_modules_are_an_error():
    layer = cb.Linear(3, 2)
    state = {"weight": on_device(np.ones((2, 3))), "bias": on_device(np.ones(2))}
    with pytest.raises(
        ValueError, match=r"Linear\(.*\): expected weight on .*CPU.* like the input, got .*device1"
    ):
        layer.forward(state, strict.asarray(np.ones((3, 4))))
    with pytest.raises(ValueError, match="expected weight of numpy like the input, got array_api_strict"):
        layer.forward(state, np.ones((3, 4)))
