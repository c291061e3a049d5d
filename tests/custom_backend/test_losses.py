import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import custom_backend as cb

LOSSES = {
    "cross_entropy": (cb.cross_entropy_forward, cb.cross_entropy_backward, ()),
    "smoothed": (cb.cross_entropy_forward, cb.cross_entropy_backward, (0.1,)),
    "focal": (cb.focal_loss_forward, cb.focal_loss_backward, (0.25, 2.0)),
    "focal_half": (cb.focal_loss_forward, cb.focal_loss_backward, (1.0, 0.5)),
}


def reference(kind, logits, labels, settings):
    """The same in torch's words."""
    if "focal" not in kind:
        return functional.cross_entropy(logits, labels, label_smoothing=settings[0] if settings else 0.0)
    log_pt = functional.log_softmax(logits, 1).gather(1, labels[:, None])
    return (-settings[0] * (1 - log_pt.exp()) ** settings[1] * log_pt).mean()


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=str)
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_parity_with_torch(kind, dtype, tolerance, data):
    forward, backward, settings = LOSSES[kind]
    classes, batch = data.draw(st.integers(2, 12)), data.draw(st.integers(1, 9))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    logits = torch.randn(batch, classes, dtype=dtype).requires_grad_()
    labels = torch.randint(classes, (batch,))
    expected = reference(kind, logits, labels, settings)
    (3 * expected).backward()
    value, saved = forward(logits.detach().numpy().T, labels.numpy(), *settings)
    np.testing.assert_allclose(value, expected.item(), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(backward(saved, 3.0).T, logits.grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", LOSSES)
def test_gradient_along_a_random_direction(kind):
    forward, backward, settings = LOSSES[kind]
    rng = np.random.default_rng(0)
    logits, direction = rng.normal(size=(2, 7, 5))
    labels = rng.integers(7, size=5)
    _, saved = forward(logits, labels, *settings)
    up, down = (forward(logits + h * direction, labels, *settings)[0] for h in (1e-5, -1e-5))
    assert np.sum(backward(saved) * direction) == pytest.approx((up - down) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_stable_for_huge_logits(kind, dtype):
    forward, backward, settings = LOSSES[kind]
    logits = np.array([[1e4, -1e4, 1e4], [-1e4, 1e4, 1e4]], dtype)
    value, saved = forward(logits, np.array([0, 0, 1]), *settings)
    assert np.isfinite(value)
    assert value > 0
    assert np.isfinite(backward(saved)).all()


def test_sigmoid_is_stable():
    x = np.array([-1000.0, -1.0, 0.0, 1.0, 1000.0], np.float32).reshape(5, 1)
    y, _ = cb.Sigmoid().forward({}, x)
    np.testing.assert_allclose(y[:, 0], [0, 0.26894143, 0.5, 0.7310586, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((3, 2)), np.array([0, 3]), r"CrossEntropyLoss: expected labels in \[0, 3\), got \[0, 3\]"),
        (np.zeros((3, 2)), np.array([-1, 0]), r"expected labels in \[0, 3\), got \[-1, 0\]"),
        (np.zeros((3, 2)), np.array([0, 1, 2]), r"expected labels \(2,\), got shape \(3,\)"),
        (np.zeros((3, 2)), np.array([0.0, 1.0]), r"expected integer labels, got float64"),
        (np.zeros(3), np.array([0]), r"expected an array \(classes, batch\), got shape \(3,\)"),
        (np.zeros((3, 2)), [0, 1], r"CrossEntropyLoss: expected an array of labels, got list"),
        ([[0.0], [1.0]], np.array([0]), r"CrossEntropyLoss: expected an array, got list"),
    ],
)
def test_wrong_input(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        cb.cross_entropy_forward(logits, labels)
