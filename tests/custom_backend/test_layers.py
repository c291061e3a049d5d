"""Every layer against torch and against numerical derivatives, with every set of kernels."""

import kernel_sets
import numpy as np
import pytest
import torch
from cases import CASES, randomised, state_of
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = [
    pytest.mark.parametrize("kind", CASES),
    pytest.mark.filterwarnings("ignore:Using padding='same'"),  # torch's, of even kernels
]
each_kernel_set = pytest.mark.parametrize("kernels", kernel_sets.KERNEL_SETS)
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}


def batch_last(tensor):
    """As the library takes it, on memory of another order: what it gets need not be contiguous."""
    return np.moveaxis(tensor.detach().numpy(), 0, -1)


@each_kernel_set
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_parity_with_torch(kind, kernels, dtype, data):
    case = data.draw(CASES[kind])
    training, ties = data.draw(st.booleans()), data.draw(st.booleans())
    torch.manual_seed(data.draw(st.integers(0, 99)))
    reference = randomised(case.reference, dtype).train(training)
    state, x = state_of(reference), torch.randn(case.shape, dtype=dtype)
    if ties:
        x = x.round()
    x.requires_grad_()
    expected = reference(x)
    grad = torch.randn_like(expected)
    expected.backward(grad)
    with kernel_sets.using(kernels):
        y, saved = case.layer.forward(state, batch_last(x), training)
        grad_x, gradients = case.layer.backward(saved, batch_last(grad))
    close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    np.testing.assert_allclose(y, batch_last(expected), **close)
    np.testing.assert_allclose(grad_x, batch_last(x.grad), **close)
    parameters = dict(reference.named_parameters())
    assert gradients.keys() == parameters.keys()
    for name, parameter in parameters.items():
        np.testing.assert_allclose(gradients[name], parameter.grad, **close)
    assert set(case.layer.shapes) == set(reference.state_dict())
    for name, tensor in reference.state_dict().items():
        np.testing.assert_allclose(state[name], tensor, **close)
    assert y.dtype == grad_x.dtype == batch_last(x).dtype


@each_kernel_set
@settings(deadline=None, max_examples=6)
@given(data=st.data())
def test_gradient_along_random_directions(kind, kernels, data):
    case = data.draw(CASES[kind])
    torch.manual_seed(data.draw(st.integers(0, 99)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    state = state_of(randomised(case.reference, torch.float64))
    x = rng.permutation(np.linspace(-2, 2, np.prod(case.shape)) + 0.01).reshape(
        *case.shape[1:], case.shape[0]
    )
    trained = [name for name in state if name.rpartition(".")[2] in ("weight", "bias")]
    with kernel_sets.using(kernels):
        y, saved = case.layer.forward(state, x, training=True)
        weights = rng.normal(size=y.shape)  # L = Σ weights · y
        grad_x, gradients = case.layer.backward(saved, weights)
        direction = {name: rng.normal(size=state[name].shape) for name in trained}
        direction_x = rng.normal(size=x.shape)

        def loss(h):
            moved = state | {name: state[name] + h * direction[name] for name in trained}
            return np.sum(weights * case.layer.forward(moved, x + h * direction_x, training=True)[0])

        slope = np.sum(grad_x * direction_x) + sum(np.sum(gradients[n] * direction[n]) for n in trained)
        h = 1e-7 if kind in ("pool", "norm_act_pool", "pointwise") else 1e-5  # too short to meet a kink
        numerical = (loss(h) - loss(-h)) / (2 * h)
    assert slope == pytest.approx(numerical, rel=1e-6, abs=1e-6 * (1 + np.abs(weights).sum()))
