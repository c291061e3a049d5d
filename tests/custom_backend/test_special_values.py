"""Infinities, NaN, denormals and one-pixel images: the kernels agree with one another and with torch."""

import kernel_sets
import numpy as np
import pytest
import torch
from cases import CASES, randomised, state_of
from hypothesis import given, settings
from hypothesis import strategies as st
from test_losses import LOSSES
from torch.nn import functional

import custom_backend as cb

pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning",  # NumPy's, of infinities and NaN
    "ignore:Using padding='same'",  # torch's, of even kernels
)
INF, NAN = float("inf"), float("nan")
SPECIAL = [INF, -INF, NAN, 1e-40, -1e-40, 1e-310, 0.0, -0.0]


def assert_agree(mine, other, dtype, what):
    """The same NaNs and infinities, and close numbers."""
    close = {torch.float64: 1e-9, torch.float32: 2e-4}[dtype]
    np.testing.assert_allclose(mine, other, rtol=close, atol=close, equal_nan=True, err_msg=what)


def drawn(data, shape, dtype):
    """Ordinary numbers, and some special ones of one or two kinds."""
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    kinds = data.draw(st.lists(st.sampled_from(SPECIAL), min_size=1, max_size=2))
    x = rng.normal(size=shape).round(1)
    chosen = rng.random(shape) < data.draw(st.sampled_from([0.02, 0.2, 1.0]))
    x[chosen] = rng.choice(kinds, size=chosen.sum())
    return torch.from_numpy(x).to(dtype)


def pass_through(layer, state, x, grad, training):
    """The output, the gradient by x and those by the parameters, batch last."""
    y, saved = layer.forward({name: array.copy() for name, array in state.items()}, x, training)
    grad_x, gradients = layer.backward(saved, grad)
    return [("y", y), ("∂L/∂x", grad_x), *(gradients.items())]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("kind", CASES)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_kernels_agree_with_one_another_and_with_torch(kind, dtype, data):
    case, training = data.draw(CASES[kind]), data.draw(st.booleans())
    torch.manual_seed(data.draw(st.integers(0, 99)))
    reference = randomised(case.reference, dtype).train(training)
    state, x = state_of(reference), drawn(data, case.shape, dtype)
    # of the slope of SELU at NaN torch says NaN in whole vectors, and the scale in what is left over
    copies, n = 32 if kind == "pointwise" else 1, len(x)
    many = torch.cat([x] * copies).requires_grad_()
    expected = reference(many)
    grad = torch.randn_like(expected[:n])
    expected.backward(torch.cat([grad] * copies))
    tensors = (x, grad, expected[:n], many.grad[:n])
    batch_last = [np.moveaxis(tensor.detach().numpy(), 0, -1) for tensor in tensors]
    results = {}
    for kernels in kernel_sets.KERNEL_SETS:
        with kernel_sets.using(kernels):
            results[kernels] = pass_through(case.layer, state, *batch_last[:2], training)
    for kernels, result in results.items():
        for (what, mine), (_, other) in zip(result, results["reference"], strict=True):
            assert_agree(mine, other, dtype, f"{what}: {kernels} and reference")
    theirs = {name: parameter.grad.numpy() for name, parameter in reference.named_parameters()}
    theirs |= {"y": batch_last[2], "∂L/∂x": batch_last[3]}
    assert theirs.keys() == dict(results["numba"]).keys()
    for what, mine in results["numba"]:
        assert_agree(mine, theirs[what], dtype, f"{what}: numba and torch")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("kind", LOSSES)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_losses_on_special_logits_are_torchs(kind, dtype, data):
    forward, backward, arguments = LOSSES[kind]
    classes, batch = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    logits = drawn(data, (batch, classes), dtype).requires_grad_()
    labels = torch.randint(classes, (batch,))
    value, saved = forward(logits.detach().numpy().T, labels.numpy(), *arguments)
    if "focal" in kind:  # torch has none, and its building blocks give 0 · ∞
        masked = torch.isinf(logits).any() or torch.isnan(logits).any()
        assert masked or np.isfinite(backward(saved)).all()
        return
    expected = functional.cross_entropy(logits, labels, label_smoothing=arguments[0] if arguments else 0.0)
    expected.backward()
    assert_agree(value, expected.item(), dtype, "loss")
    assert_agree(backward(saved).T, logits.grad, dtype, "gradient")


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (1.0, 0.0), (1.0, 0.5)])
def test_masked_classes_change_nothing(alpha, gamma):
    """Logits of −∞: as if the classes were not there."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(3, 6)), rng.integers(3, size=6)
    masked = np.concatenate([logits, np.full((2, 6), -np.inf)])
    for forward, backward, arguments in (
        (cb.cross_entropy_forward, cb.cross_entropy_backward, ()),
        (cb.focal_loss_forward, cb.focal_loss_backward, (alpha, gamma)),
    ):
        expected, kept = forward(logits, labels, *arguments)
        value, saved = forward(masked, labels, *arguments)
        assert value == pytest.approx(expected, rel=1e-12)
        gradient = backward(saved)
        np.testing.assert_allclose(gradient[:3], backward(kept), rtol=1e-12)
        assert not gradient[3:].any()
    nothing = np.zeros(3)  # class weights do not hide a logit that is no number
    broken = np.where(labels == 0, np.nan, logits)
    assert np.isnan(cb.cross_entropy_forward(broken, labels, 0.0, nothing, "none")[0]).tolist() == [
        label == 0 for label in labels
    ]
    impossible, saved = cb.focal_loss_forward(masked, np.full(6, 4), alpha, gamma)
    assert impossible == np.inf
    assert np.isfinite(cb.focal_loss_backward(saved)).all()


@pytest.mark.parametrize("kernels", kernel_sets.KERNEL_SETS)
def test_hand_computed_edges(kernels):
    def value(layer, x, state=None):
        return layer.forward(state or {}, np.array(x, np.float32))[0]

    with kernel_sets.using(kernels):
        y = value(cb.ReLU(), [[INF, -INF, -1.0, 2.0]])
        assert y.tolist() == [[INF, 0, 0, 2]]
        assert not np.signbit(y).any()
        assert value(cb.LeakyReLU(0.5), [[INF, -INF]]).tolist() == [[INF, -INF]]
        y, saved = cb.ReLU().forward({}, np.array([[-1.0, 1.0]], np.float32))
        gradient, _ = cb.ReLU().backward(saved, np.array([[INF, INF]], np.float32))
        assert gradient.tolist() == [[0, INF]]
        x = np.array([-15, -20, -80], np.float32).reshape(1, 3)
        _, saved = cb.SELU().forward({}, x)
        gradient, _ = cb.SELU().backward(saved, np.ones_like(x))
        np.testing.assert_allclose(
            gradient, 1.0507009873554805 * 1.6732632423543772 * np.exp(x.astype(float)), 1e-5
        )
        dark = np.full((1, 3, 3, 1), -INF, np.float32)
        pool = cb.MaxPool2d(2, 2, 1)
        y, saved = pool.forward({}, dark)
        gradient, _ = pool.backward(saved, np.ones_like(y))
        assert gradient[0, :, :, 0].tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("value", [INF, 3e38, 1e30, 1e20, 1e6])
@pytest.mark.parametrize("where", ["x", "grad", "weight"])
def test_one_huge_number_stays_where_it_is(where, value):
    """Winograd's sums would take it to the neighbours, as NaN or as the noise of rounding."""
    rng = np.random.default_rng(0)
    layer, shape = cb.Conv2d(16, 16, 3, padding=1, bias=False), (16, 6, 6, 8)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name in ("x", "grad")} | layer.init(rng)
    pixel = {"x": (3, 0, 0, 2), "grad": (3, 3, 0, 2), "weight": (2, 3, 0, 2)}[where]

    def results(dtype):
        x, grad, weight = (arrays[name].astype(dtype) for name in ("x", "grad", "weight"))
        y, saved = layer.forward({"weight": weight}, x)
        grad_x, gradients = layer.backward(saved, grad)
        return y, grad_x, gradients["weight"]

    with kernel_sets.using("reference"):
        without = results(np.float64)
        arrays[where][pixel] = value
        expected = results(np.float64)
    for mine, exact, before in zip(results(np.float32), expected, without, strict=True):
        finite = np.abs(exact) < np.finfo(np.float32).max
        np.testing.assert_array_equal(np.isfinite(mine), finite)
        largest = np.abs(exact[finite]).max()
        np.testing.assert_allclose(mine[finite], exact[finite], rtol=1e-3, atol=1e-3 + 1e-6 * largest)
        unseen = exact == before
        assert unseen.any()
        np.testing.assert_allclose(mine[unseen], exact[unseen], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kernels", kernel_sets.KERNEL_SETS)
def test_an_infinite_kernel_reaches_only_the_pixels_that_it_sees(kernels):
    layer = torch.nn.Conv2d(2, 2, 3, bias=False).double()
    with torch.no_grad():
        layer.weight[0, 0, 0, 0] = INF
    x = torch.randn(3, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    layer(x).sum().backward()
    with kernel_sets.using(kernels):
        state, images = {"weight": layer.weight.detach().numpy()}, np.moveaxis(x.detach().numpy(), 0, -1)
        y, saved = cb.Conv2d(2, 2, 3, bias=False).forward(state, images)
        grad_x, _ = cb.Conv2d(2, 2, 3, bias=False).backward(saved, np.ones_like(y))
    assert_agree(grad_x, np.moveaxis(x.grad.numpy(), 0, -1), torch.float64, kernels)


def test_labels_of_a_small_integer_type():
    logits = np.random.default_rng(0).normal(size=(300, 4))
    labels = np.array([0, 7, 100, 127])
    expected, _ = cb.cross_entropy_forward(logits, labels)
    for kind in (np.int8, np.uint8, np.int16, np.uint64):
        value, _ = cb.cross_entropy_forward(logits, labels.astype(kind))
        assert value == expected
