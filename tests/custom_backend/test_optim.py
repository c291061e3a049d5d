import kernel_sets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import custom_backend as cb

OPTIMIZERS = {
    "sgd": (cb.SGD, torch.optim.SGD, {"lr": 0.1}),
    "momentum": (cb.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    "adam": (cb.Adam, torch.optim.Adam, {"lr": 0.01}),
    "adam_l2": (
        cb.Adam,
        torch.optim.Adam,
        {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1},
    ),
    "adamw": (cb.AdamW, torch.optim.AdamW, {"lr": 0.01}),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=str)
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 99), steps=st.integers(1, 12))
def test_parity_with_torch(kind, dtype, tolerance, seed, steps):
    ours, theirs, hyperparameters = OPTIMIZERS[kind]
    torch.manual_seed(seed)
    weight = torch.randn(3, 4, dtype=dtype).requires_grad_()
    parameters = {"weight": weight.detach().clone().numpy()}
    optimizer, reference = ours(**hyperparameters), theirs([weight], **hyperparameters)
    for _ in range(steps):
        weight.grad = torch.randn_like(weight)
        optimizer.step(parameters, {"weight": weight.grad.numpy()})
        reference.step()
    np.testing.assert_allclose(parameters["weight"], weight.detach(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kernels", kernel_sets.KERNEL_SETS)
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9)])
def test_adam_bears_huge_and_tiny_gradients_as_torch_does(kernels, betas):
    """Squares that overflow and squares that vanish, an infinite parameter, a change of scale."""
    start = torch.tensor([float("inf"), 1, 1, 1, 1, 0, 0])
    steps = torch.tensor(
        [[1, 3e19, 1e20, 1e8, 1e-22, 0, float("nan")], [1, 1, 1, 1, 1e-30, -1e-45, 1]], dtype=torch.float32
    )
    weight, optimizer = start.clone().requires_grad_(), cb.Adam(betas=betas)
    reference, parameters = torch.optim.Adam([weight], betas=betas), {"w": start.clone().numpy()}
    with kernel_sets.using(kernels), np.errstate(all="ignore"):
        for grad in steps:
            weight.grad = grad.clone()
            reference.step()
            optimizer.step(parameters, {"w": grad.numpy()})
            np.testing.assert_allclose(parameters["w"], weight.detach(), rtol=1e-6)
            for name in ("exp_avg", "exp_avg_sq"):
                np.testing.assert_allclose(optimizer.state["w"][name], reference.state[weight][name], 1e-6)


@pytest.mark.parametrize("kernels", kernel_sets.KERNEL_SETS)
def test_adam_on_a_single_number(kernels):
    parameters, optimizer = {"scale": np.array(1.0)}, cb.Adam(lr=0.1)
    with kernel_sets.using(kernels):
        for _ in range(3):
            optimizer.step(parameters, {"scale": np.array(2.0)})
    np.testing.assert_allclose(parameters["scale"], 0.7)


def test_adam_state_is_torchs():
    weight = torch.ones(2).requires_grad_()
    reference = torch.optim.Adam([weight])
    weight.grad = torch.tensor([0.5, -2.0])
    reference.step()
    optimizer = cb.Adam()
    optimizer.step({"w": np.ones(2, np.float32)}, {"w": weight.grad.numpy()})
    expected = reference.state[weight]
    assert optimizer.state["w"].keys() == expected.keys()
    for name, value in optimizer.state["w"].items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6)


def test_parameters_without_a_gradient_stay():
    parameters = {"moved": np.ones(2), "fixed": np.ones(2)}
    cb.SGD(lr=0.5).step(parameters, {"moved": np.ones(2)})
    assert parameters["moved"].tolist() == [0.5, 0.5]
    assert parameters["fixed"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("initialise", "deviation"),
    [
        (cb.torch_default, 1 / np.sqrt(3 * 18)),  # of U(−b, b): b / √3
        (cb.he_fan_in, np.sqrt(2 / 18)),
        (cb.he_fan_out, np.sqrt(2 / (500 * 9))),
        (cb.lecun_normal, np.sqrt(1 / 18)),
    ],
)
def test_initial_weights_have_the_variance_that_keeps_the_signal(initialise, deviation):
    weights = initialise(np.random.default_rng(0), (500, 2, 3, 3))
    assert weights.std() == pytest.approx(deviation, rel=0.03)
    assert abs(weights.mean()) < deviation / 20


def test_the_order_in_memory_does_not_matter():
    rng = np.random.default_rng(0)
    weight, grad = rng.normal(size=(2, 5, 3))
    other = {"weight": np.asfortranarray(weight)}
    plain = {"weight": weight}
    for parameters, optimizer in ((plain, cb.Adam(lr=0.1)), (other, cb.Adam(lr=0.1))):
        for _ in range(3):
            optimizer.step(parameters, {"weight": grad})
    np.testing.assert_allclose(plain["weight"], other["weight"], rtol=1e-12)
