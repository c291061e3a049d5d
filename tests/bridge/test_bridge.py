import copy
import pickle

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional
from torch_reference import ENGINE, batch, both, network

from lightning_modules import bridge
from lightning_modules.focal_loss import FocalLoss
from lightning_modules.networks.resnet import resnet
from lightning_modules.optim import CustomAdam


def assert_same_state(ours, theirs, tolerance=1e-9):
    mine, other = ours.state_dict(), theirs.state_dict()
    assert list(mine) == list(other)
    for name in mine:
        torch.testing.assert_close(mine[name], other[name], rtol=tolerance, atol=tolerance)


def test_same_seed_same_names_same_weights():
    pair = both()
    assert_same_state(pair.ours, pair.theirs, 0)
    for name, parameter in pair.ours.named_parameters():
        assert type(parameter) is nn.Parameter, name


def test_state_dicts_interchange_strictly():
    pair = both(torch.float32)
    x, _ = batch(torch.float32)
    pair.theirs(x)
    pair.ours.load_state_dict(pair.theirs.state_dict(), strict=True)
    assert pair.ours[1].num_batches_tracked == 1
    pair.theirs.load_state_dict(pair.ours.state_dict(), strict=True)
    pair.ours.load_state_dict(copy.deepcopy(pair.theirs.state_dict()), strict=True, assign=True)
    torch.testing.assert_close(pair.ours.eval()(x), pair.theirs.eval()(x))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_values_gradients_and_statistics_are_torchs(training, memory_format):
    pair = both()
    x, _ = batch()
    results = []
    for model in (pair.ours, pair.theirs):
        model.train(training)
        own = x.to(memory_format=memory_format).clone(memory_format=torch.preserve_format).requires_grad_()
        y = model(own)
        y.square().sum().backward()
        results.append([y, own.grad, *(p.grad for p in model.parameters())])
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
    assert_same_state(pair.ours, pair.theirs)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=str)
def test_fifty_adam_steps_in_lockstep(dtype, tolerance):
    pair = both(dtype)
    theirs = torch.optim.Adam(pair.theirs.parameters(), lr=1e-3)
    ours = CustomAdam(pair.ours.parameters(), lr=1e-3)
    loss_function = ENGINE.CrossEntropyLoss(label_smoothing=0.1)
    for _ in range(50):
        x, labels = batch(dtype)
        expected = functional.cross_entropy(pair.theirs(x), labels, label_smoothing=0.1)
        loss = loss_function(pair.ours(x), labels)
        for optimizer, value in ((theirs, expected), (ours, loss)):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        assert loss.item() == pytest.approx(expected.item(), abs=tolerance)


def _residual_networks(dtype):
    results = []
    for module in (ENGINE, nn):
        torch.manual_seed(0)
        results.append(
            resnet(module, (2, 13, 11), 5, widths=[4, 8], blocks=2, dropout=0.0, init="he").to(dtype)
        )
    return results


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-3)], ids=str)
def test_a_residual_network_trains_in_lockstep(dtype, tolerance):
    ours, theirs = _residual_networks(dtype)
    assert_same_state(ours, theirs, 0)
    optimizers = CustomAdam(ours.parameters(), lr=1e-3), torch.optim.Adam(theirs.parameters(), lr=1e-3)
    for _ in range(10):
        x, labels = batch(dtype)
        losses = ENGINE.CrossEntropyLoss()(ours(x), labels), functional.cross_entropy(theirs(x), labels)
        for optimizer, loss in zip(optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert losses[0].item() == pytest.approx(losses[1].item(), abs=tolerance)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=tolerance, atol=tolerance)


def test_every_module_alone_equals_the_fused_run():
    pair = both()
    x, _ = batch()
    fused = pair.ours(x)
    alone = copy.deepcopy(pair.theirs)
    for module, reference in zip(pair.ours, alone, strict=True):
        torch.testing.assert_close(module(x), reference(x), rtol=1e-9, atol=1e-9)
        x = reference(x).detach()
    torch.testing.assert_close(fused, x, rtol=1e-9, atol=1e-9)


def test_hooks_see_what_passes_between_layers():
    pair = both()
    x, _ = batch()
    seen = {}
    for kind, model in vars(pair).items():
        model[1].register_forward_hook(lambda module, args, out, kind=kind: seen.update({kind: out}))
        model[4].register_full_backward_hook(
            lambda module, grad_in, grad_out, kind=kind: seen.update({kind + "_grad": grad_out[0]})
        )
        model(x.clone().requires_grad_()).sum().backward()
    torch.testing.assert_close(seen["ours"], seen["theirs"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(seen["ours_grad"], seen["theirs_grad"], rtol=1e-9, atol=1e-9)


def _calls(model, x):
    """How often a global hook sees each kind of module."""
    seen = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, *_: seen.append(type(module).__name__)
    )
    try:
        y = model(x)
    finally:
        handle.remove()
    return y, seen


def test_global_hooks_see_every_layer():
    pair = both()
    x, _ = batch()
    (mine, seen), (other, expected) = _calls(pair.ours, x), _calls(pair.theirs, x)
    assert seen == expected
    torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


class Doubled(ENGINE.ReLU):
    def forward(self, x):
        return 2 * super().forward(x)


def test_code_of_the_users_own_runs():
    """A subclass, a replaced forward of a module or of its class, a replaced call of all modules."""
    x = torch.randn(4, 3, 6, 6)

    def plain():
        torch.manual_seed(0)
        return ENGINE.Sequential(
            ENGINE.Conv2d(3, 4, 3), ENGINE.BatchNorm2d(4), ENGINE.ReLU(), ENGINE.MaxPool2d(2)
        )

    expected = 2 * plain()(x)
    subclassed, patched = plain(), plain()
    subclassed[2] = Doubled()
    torch.testing.assert_close(subclassed(x), expected)
    forward = patched[2].forward
    patched[2].forward = lambda x: 2 * forward(x)
    torch.testing.assert_close(patched(x), expected)
    with pytest.MonkeyPatch.context() as context:
        context.setattr(ENGINE.ReLU, "forward", lambda self, x: 2 * x.clamp_min(0))
        torch.testing.assert_close(plain()(x), expected)
        context.undo()
        seen, call = [], nn.Module.__call__
        context.setattr(nn.Module, "__call__", lambda self, *args: seen.append(self) or call(self, *args))
        plain()(x)
        assert len(seen) == 5


def test_an_engines_layers_are_classes():
    numpy = bridge.namespace("numpy")
    for engine in (ENGINE, numpy):
        layer = engine.Conv2d(3, 4, 3)
        assert isinstance(layer, engine.Conv2d)
        assert isinstance(layer, nn.Conv2d)
        assert isinstance(engine.Sequential(layer), nn.Sequential)
    assert bridge.namespace("numpy").Conv2d is numpy.Conv2d
    assert not hasattr(numpy, "Conv3d")

    class Own(numpy.Conv2d):
        pass

    assert Own(3, 4, 3).engine == "numpy"
    for protocol in (2, pickle.DEFAULT_PROTOCOL):  # torch.save's is 2
        assert type(pickle.loads(pickle.dumps(numpy.Conv2d(3, 4, 3), protocol))) is numpy.Conv2d


IN_PLACE = {"Conv2d": (3, 3, 3, 1, 1), "BatchNorm2d": (3,), "GroupNorm": (1, 3), "ReLU": ()}
IN_PLACE |= {"MaxPool2d": (1,), "AvgPool2d": (1,)}


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_result_may_be_changed_in_place(name):
    x, results = torch.randn(2, 3, 5, 5, dtype=torch.float64), []
    for module in (ENGINE, nn):
        torch.manual_seed(0)
        layer, own = getattr(module, name)(*IN_PLACE[name]).double(), x.clone().requires_grad_()
        y = layer(own)
        if module is ENGINE:
            y += x
            y = nn.ReLU(inplace=True)(y)
        else:
            y = nn.ReLU()(y + x)
        y.square().sum().backward()
        results.append([y, own.grad])
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layer", [ENGINE.Sigmoid(), ENGINE.Tanh(), ENGINE.Softmax(1)], ids=str)
def test_a_result_that_backward_needs_may_not_be_changed_unnoticed(layer):
    y = layer(torch.randn(2, 3, requires_grad=True))
    y += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_an_input_that_backward_needs_may_not_be_changed_unnoticed():
    for layer, needs_it in ((ENGINE.Conv2d(3, 3, 1), True), (ENGINE.SELU(), True), (ENGINE.ReLU(), False)):
        own = torch.randn(2, 3, 5, 5, requires_grad=True)
        x = own * 1
        y = layer(x)
        x += 1
        if needs_it:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                y.sum().backward()
        else:
            y.sum().backward()
            assert torch.equal(own.grad, (own > 0).float())


def test_gradients_of_an_evaluation_that_a_training_step_followed():
    """The running statistics that it was normalised with have moved on."""
    x, results = batch()[0], []
    for fused in (True, False):
        torch.manual_seed(0)
        model = ENGINE.Sequential(
            ENGINE.BatchNorm2d(2), *[ENGINE.ReLU(), ENGINE.MaxPool2d(2)][: 2 * fused]
        ).double()
        for between in (True, False):
            model[0].reset_running_stats()
            own = x.clone().requires_grad_()
            y = model.eval()(own)
            if between:
                model.train()(3 * x + 1)
            model.zero_grad()
            y.square().sum().backward()
            results.append([own.grad, model[0].weight.grad.clone()])
        for mine, other in zip(*results, strict=True):
            assert torch.equal(mine, other)
        results.clear()


@pytest.mark.parametrize("average", ["update_bn", "training"])
def test_momentum_none_averages_over_all_batches(average):
    results = []
    for module in (ENGINE, nn):
        torch.manual_seed(0)
        model = module.Sequential(
            module.BatchNorm2d(2, momentum=None), module.ReLU(), module.MaxPool2d(2)
        ).double()
        batches = [batch()[0] for _ in range(3)]
        if average == "update_bn":
            torch.optim.swa_utils.update_bn(batches, model)
        else:
            for x in batches:
                model(x)
        results.append(model)
    assert_same_state(*results)
    assert results[0][0].num_batches_tracked == 3


def test_a_frozen_normalisation_in_a_training_network():
    pair = both()
    x, _ = batch()
    for model in vars(pair).values():
        model.train()
        model[1].eval().requires_grad_(False)
        model(x).sum().backward()
        assert model[1].weight.grad is None
    torch.testing.assert_close(pair.ours[0].weight.grad, pair.theirs[0].weight.grad, rtol=1e-9, atol=1e-9)
    assert_same_state(pair.ours, pair.theirs)


def test_copies_are_independent_and_pickle_keeps_everything():
    model = both().ours.eval()
    x, _ = batch()
    expected = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with torch.no_grad():
            assert torch.equal(other(x), expected)
            other[0].weight.zero_()
    assert torch.equal(model(x), expected)


def test_tensors_without_memory_of_their_own():
    """−x as a flag on x, and a zero that is only known to be one: as input and as gradient."""
    layer, x = ENGINE.Linear(3, 2), torch.randn(4, 3, requires_grad=True)
    layer(x).backward(torch._neg_view(torch.ones(4, 2)))
    torch.testing.assert_close(x.grad, -layer.weight.sum(0).expand(4, 3))
    layer(x).backward(torch._efficientzerotensor((4, 2)))
    torch.testing.assert_close(x.grad, -layer.weight.sum(0).expand(4, 3))
    torch.testing.assert_close(layer(torch._neg_view(x)), layer(-x))


def test_accumulated_and_repeated_gradients():
    pair = both()
    for model in vars(pair).values():
        torch.manual_seed(1)
        for _ in range(2):
            x, labels = batch()
            loss = functional.cross_entropy(model(x), labels)
            loss.backward(retain_graph=True)
            loss.backward()
    for mine, other in zip(pair.ours.parameters(), pair.theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-9)


def test_backward_after_the_graph_is_freed_is_an_error():
    loss = both().ours(batch()[0]).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_parameters_changed_before_backward_are_noticed():
    model = both().ours
    loss = model(batch()[0]).sum()
    with torch.no_grad():
        model[0].weight += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_double_backward_is_refused():
    model = both().ours
    x = batch()[0].requires_grad_()
    with pytest.raises(RuntimeError, match="create_graph=True"):  # the incoming gradient is a constant
        torch.autograd.grad(model(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="create_graph=True"):
        torch.autograd.functional.hessian(lambda x: model(x).sum(), x)
    logits = torch.randn(3, 4, requires_grad=True)
    with pytest.raises(RuntimeError, match="create_graph=True"):
        torch.autograd.grad(ENGINE.CrossEntropyLoss()(logits, torch.arange(3)), logits, create_graph=True)


def test_autocast_computes_in_float32_with_a_correct_gradient():
    pair = both(torch.float32)
    x, labels = batch(torch.float32)
    x = x.bfloat16()
    own, plain = x.clone().requires_grad_(), x.float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        logits = pair.ours(own)
        loss = ENGINE.CrossEntropyLoss()(logits, labels)
    assert logits.dtype == torch.float32
    loss.backward()
    functional.cross_entropy(pair.theirs(plain), labels).backward()
    assert own.grad.dtype == torch.bfloat16
    torch.testing.assert_close(own.grad, plain.grad.bfloat16(), rtol=2e-2, atol=1e-6)
    for mine, other in zip(pair.ours.parameters(), pair.theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_inference_mode_and_no_grad():
    pair = both()
    x, _ = batch()
    for context in (torch.inference_mode, torch.no_grad):
        with context():
            mine, other = pair.ours.eval()(x), pair.theirs.eval()(x)
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
            assert not mine.requires_grad


def test_dropout_follows_torchs_generator():
    model = network(ENGINE, dropout=0.5)
    x, _ = batch(torch.float32)
    torch.manual_seed(3)
    first, second = model(x), model(x)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    again = model(x)
    torch.testing.assert_close(again, first)
    state = torch.get_rng_state()
    model.eval()(x)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["cross_entropy", "focal"])
def test_losses_on_torchs_logits(kind):
    logits, labels = torch.randn(7, 4, dtype=torch.float64, requires_grad=True), torch.randint(4, (7,))
    if kind == "focal":
        loss = bridge.CustomFocalLoss(alpha=0.5, gamma=1.5)(logits, labels)
        log_pt = functional.log_softmax(logits, 1).gather(1, labels[:, None])
        expected = (-0.5 * (1 - log_pt.exp()) ** 1.5 * log_pt).mean()
    else:
        loss = bridge.CustomCrossEntropyLoss(label_smoothing=0.2)(logits, labels)
        expected = functional.cross_entropy(logits, labels, label_smoothing=0.2)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    (mine,) = torch.autograd.grad(2 * loss, logits)
    (other,) = torch.autograd.grad(2 * expected, logits)
    torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("alpha", [0.5, [0.1, 1.0, 2.0, 0.7]])
@pytest.mark.parametrize("kind", [bridge.CustomFocalLoss, FocalLoss])
def test_focal_loss_weighs_each_class_and_bears_masked_ones(kind, alpha):
    """By hand: the paper's eq. 5, a weight for each class being that of the target."""
    torch.manual_seed(0)
    logits, labels = torch.randn(8, 4, dtype=torch.float64), torch.arange(8) % 3
    logits[:, 3] = -torch.inf
    probability = logits.exp() / logits.exp().sum(1, keepdim=True)
    expected = 0.0
    for row, label in zip(probability, labels, strict=True):
        weight = alpha if isinstance(alpha, float) else alpha[label]
        expected -= weight * (1 - row[label]) ** 1.5 * row[label].log() / len(labels)
    logits.requires_grad_()
    loss = kind(alpha, gamma=1.5)(logits, labels)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-9)
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[:, 3].any()
    impossible = kind(alpha)(logits, torch.full_like(labels, 3))
    assert impossible == torch.inf
    (gradient,) = torch.autograd.grad(impossible, logits)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_class_weights_and_reductions_are_torchs(reduction, smoothing):
    weight = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    logits, labels = torch.randn(7, 3, dtype=torch.float64, requires_grad=True), torch.randint(3, (7,))
    settings, results = {"weight": weight, "reduction": reduction, "label_smoothing": smoothing}, []
    for module in (ENGINE, nn):
        loss = module.CrossEntropyLoss(**settings)(logits, labels)
        results.append([loss, *torch.autograd.grad((loss * torch.arange(loss.numel()).add(1)).sum(), logits)])
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


def adams(dtype=torch.float64):
    pair = both(dtype)
    settings = {"lr": 0.01, "weight_decay": 0.1}
    return (
        pair,
        CustomAdam(pair.ours.parameters(), **settings),
        torch.optim.Adam(pair.theirs.parameters(), **settings),
    )


def test_adams_state_interchanges_with_torchs():
    pair, ours, theirs = adams()

    def step(optimizer, model, seed):
        torch.manual_seed(seed)
        x, labels = batch()
        optimizer.zero_grad()
        functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    step(ours, pair.ours, 0)
    step(theirs, pair.theirs, 0)
    mine, other = copy.deepcopy(ours.state_dict()), copy.deepcopy(theirs.state_dict())
    torch.testing.assert_close(mine["state"], other["state"], rtol=1e-9, atol=1e-9)
    ours.load_state_dict(other)
    theirs.load_state_dict(mine)
    for seed in range(1, 4):
        step(ours, pair.ours, seed)
        step(theirs, pair.theirs, seed)
    assert_same_state(pair.ours, pair.theirs)
    assert ours.state_dict()["state"][0]["step"].item() == 4


@pytest.mark.parametrize(
    "settings",
    [
        {"maximize": True},
        {"decoupled_weight_decay": True},
        {"decoupled_weight_decay": True, "maximize": True},
    ],
)
@pytest.mark.parametrize("where", ["built with", "of a group", "loaded"])
def test_adam_heeds_every_setting_of_torchs_wherever_it_comes_from(settings, where):
    settings = {"weight_decay": 0.5, **settings}
    torch.manual_seed(0)
    start, gradients, results = torch.randn(5, 3), torch.randn(4, 5, 3), []
    for optimizer in (CustomAdam, torch.optim.Adam):
        weight = nn.Parameter(start.clone())
        if where == "built with":
            adam = optimizer([weight], lr=0.1, **settings)
        elif where == "of a group":
            adam = optimizer([{"params": [weight], "lr": 0.1, **settings}])
        else:
            adam = optimizer([weight])
            adam.load_state_dict(
                torch.optim.Adam([nn.Parameter(start.clone())], lr=0.1, **settings).state_dict()
            )
        for gradient in gradients:
            weight.grad = gradient.clone()
            adam.step()
            assert torch.equal(weight.grad, gradient)
        results.append(weight.detach())
    torch.testing.assert_close(*results)
    assert (results[0] - start).abs().min() > 0


def test_a_state_of_an_older_adam_is_loaded():
    """Before torch 1.12 steps were plain numbers, and groups had fewer settings."""
    results = []
    for optimizer in (CustomAdam, torch.optim.Adam):
        weight = nn.Parameter(torch.ones(2))
        weight.grad, old = torch.tensor([1.0, -2.0]), _stepped(torch.optim.Adam, lr=0.1)
        old["state"][0]["step"] = 1
        kept = ("lr", "betas", "eps", "weight_decay", "amsgrad", "params")
        old["param_groups"] = [{key: group[key] for key in kept} for group in old["param_groups"]]
        adam = optimizer([weight])
        adam.load_state_dict(old)
        adam.step()
        results.append(weight.detach())
    torch.testing.assert_close(*results)


def _stepped(optimizer, **settings):
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    other = optimizer([weight], **settings)
    other.step()
    return other.state_dict()


@pytest.mark.parametrize("stepped", [True, False])
@pytest.mark.parametrize(
    "optimizer",
    [torch.optim.NAdam, torch.optim.RAdam, torch.optim.Adamax, torch.optim.SGD, torch.optim.RMSprop],
)
def test_another_optimizers_state_is_refused_and_nothing_is_loaded(optimizer, stepped):
    adam = CustomAdam([nn.Parameter(torch.ones(2))], lr=0.5)
    before = copy.deepcopy(adam.state_dict())
    state = _stepped(optimizer) if stepped else optimizer([nn.Parameter(torch.ones(2))]).state_dict()
    with pytest.raises(ValueError, match="CustomAdam: expected Adam's parameter groups, with"):
        adam.load_state_dict(state)
    assert adam.state_dict() == before


def test_adams_settings_that_the_library_lacks_are_refused():
    with pytest.raises(ValueError, match="CustomAdam: expected amsgrad=False, got True"):
        CustomAdam([{"params": [nn.Parameter(torch.ones(2))], "amsgrad": True}])
    with pytest.raises(ValueError, match="CustomAdam: expected amsgrad=False, got True"):
        CustomAdam([nn.Parameter(torch.ones(2))]).load_state_dict(_stepped(torch.optim.Adam, amsgrad=True))
    state = _stepped(torch.optim.Adam)
    state["state"][0]["max_exp_avg_sq"] = torch.ones(2)
    with pytest.raises(ValueError, match="CustomAdam: expected a state of"):
        CustomAdam([nn.Parameter(torch.ones(2))]).load_state_dict(state)
    first, half = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, dtype=torch.float16))
    first.grad, half.grad = torch.ones_like(first), torch.ones_like(half)
    with pytest.raises(ValueError, match="expected parameters of float32 or float64, got"):
        CustomAdam([first, half]).step()
    assert torch.equal(first, torch.ones(2))


def test_adam_runs_a_closure():
    weight = nn.Parameter(torch.ones(1))

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    optimizer = CustomAdam([weight], lr=0.5)
    assert optimizer.step(closure).item() == 1
    assert weight.item() == pytest.approx(0.5)


IMAGES = torch.zeros(2, 3, 5, 5)


def changed(module, **settings):
    """What a module says that was changed after it was built."""
    for name, value in settings.items():
        setattr(module, name, value)
    return module(torch.zeros(2, 3), torch.tensor([0, 1])) if "ignore_index" in settings else module(IMAGES)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda nn: nn.Conv2d(4, 4, 3, padding_mode="circular"),
            r"expected padding_mode='zeros', got 'circular'",
        ),
        (lambda nn: nn.Conv2d(4, 4, 3, stride=0), r"Conv2d\(.*\): expected stride of at least 1"),
        (lambda nn: nn.Conv2d(4, 4, 0), r"Conv2d\(.*\): expected kernel_size of at least 1"),
        (lambda nn: nn.Conv2d(4, 4, -1), r"Conv2d: expected settings of torch.nn.Conv2d, got .*negative"),
        (lambda nn: nn.Conv2d(4, 4, (3,)), r"Conv2d\(.*\): expected kernel_size of at least 1"),
        (lambda nn: nn.Conv2d(4, 4, 3, padding=-1), r"Conv2d\(.*\): expected padding of at least 0"),
        (lambda nn: nn.MaxPool2d(0), r"MaxPool2d\(.*\): expected kernel_size of at least 1"),
        (
            lambda nn: nn.AdaptiveAvgPool2d([2, None]),
            r"expected output_size of at least 1, .* got \(2, None\)",
        ),
        (lambda nn: nn.BatchNorm2d(4, affine=False), r"BatchNorm2d\(.*\): expected affine=True, got False"),
        (lambda nn: nn.LayerNorm((3, 4)), r"LayerNorm\(.*\): expected a normalized_shape of one number, got"),
        (lambda nn: nn.GELU("tanh"), r"GELU\(.*\): expected approximate='none', got 'tanh'"),
        (lambda nn: nn.Softmax(0), r"Softmax\(dim=0\): expected dim=1, the classes"),
        (
            lambda nn: nn.CrossEntropyLoss(label_smoothing=2),
            r"expected a number label_smoothing in \[0, 1\], got 2",
        ),
        (
            lambda nn: nn.CrossEntropyLoss(reduction="all"),
            r"expected reduction one of mean, sum, none, got 'all'",
        ),
        (lambda nn: nn.FocalLoss(alpha=-1), r"FocalLoss: expected a number alpha of at least 0, got -1"),
        (lambda nn: nn.Tahn, r"engine auto: expected a layer such as Tanh, got 'Tahn'"),
        (
            lambda nn: nn.Conv2d(3, 4, 3)(IMAGES[0]),
            r"expected a tensor \(batch, channels, height, width\), got shape \(3, 5, 5\)",
        ),
        (
            lambda nn: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))(IMAGES),
            r"Linear\(.*\): expected a tensor \(batch, features\), got shape \(2, 3, 5, 5\)",
        ),
        (
            lambda nn: nn.Conv2d(3, 4, 3)(IMAGES[:0]),
            r"at least one entry along every axis, got shape \(0, 3, 5, 5\)",
        ),
        (lambda nn: nn.MaxPool2d(2, ceil_mode=True), r"expected ceil_mode=False, got True"),
        (lambda nn: nn.AvgPool2d(2, count_include_pad=False), r"expected count_include_pad=True, got False"),
        (
            lambda nn: nn.Conv2d(3, 4, 7)(IMAGES),
            r"Conv2d\(.*expected an image of at least \(7, 7\), got \(5, 5\)",
        ),
        (lambda nn: nn.Conv2d(1, 4, 3)(IMAGES), r"Conv2d\(.*expected 1 channels, got 3"),
        (
            lambda nn: nn.Conv2d(3, 4, 3)(IMAGES.half()),
            r"Conv2d\(.*expected float32 or float64, got torch.float16",
        ),
        (
            lambda nn: nn.Conv2d(3, 4, 3)(IMAGES.double()),
            r"expected weight of float64 like the input, got float32",
        ),
        (
            lambda nn: nn.Conv2d(3, 4, 3)(IMAGES.to("meta")),
            r"expected a tensor on cpu or cuda for engine auto, got meta",
        ),
        (lambda nn: nn.Conv2d(3, 4, 3).to("meta")(IMAGES), r"expected everything on cpu, got meta"),
        (
            lambda nn: nn.CrossEntropyLoss()(torch.zeros(2, 3), torch.tensor([0, 3])),
            r"expected labels in \[0, 3\)",
        ),
        (lambda nn: changed(nn.CrossEntropyLoss(), ignore_index=1), r"expected ignore_index=-100, got 1"),
        (lambda nn: changed(nn.BatchNorm2d(3), running_mean=None), r"expected a running_mean, got None"),
        (lambda nn: nn.Linear(2, 2)(torch.eye(2).to_sparse()), r"expected a dense tensor, got torch.sparse"),
        (lambda nn: make_fx(nn.ReLU())(IMAGES), r"expected a call, got a trace"),
        (lambda nn: bridge.namespace("fpga"), r"engine: expected one of auto, numpy, cupy, got 'fpga'"),
        (
            lambda nn: bridge.NAMESPACES["cupy"].Conv2d(3, 4, 3)(IMAGES),
            r"expected a tensor on cuda for engine cupy, got cpu",
        ),
    ],
)
def test_errors_name_layer_expected_and_got(build, message):
    with pytest.raises(ValueError, match=message):
        build(ENGINE)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_engine_cupy_without_a_gpu_is_an_error():
    with pytest.raises(RuntimeError, match=r"engine cupy: expected .* got"):
        bridge.namespace("cupy")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_all_is_as_in_torch():
    pair = both()
    x, labels = (tensor.cuda() for tensor in batch())
    losses = []
    for model, optimizer in ((pair.ours.cuda(), CustomAdam), (pair.theirs.cuda(), torch.optim.Adam)):
        own = optimizer(model.parameters(), lr=1e-3)
        for _ in range(5):
            loss = functional.cross_entropy(model(x), labels)
            own.zero_grad()
            loss.backward()
            own.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-9)
    assert_same_state(pair.ours, pair.theirs)
