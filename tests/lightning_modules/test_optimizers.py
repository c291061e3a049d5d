"""Optimizers and what goes with them, beside independent formulas and uninterrupted runs."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn.functional import cross_entropy

from experiment.run import Run
from lightning_modules import training
from lightning_modules.build import build_classifier, build_data, build_network, build_optimizer
from lightning_modules.loading import load_checkpoint
from lightning_modules.optim import SAM, Lion, Muon
from lightning_modules.optim.muon import orthogonalised
from lightning_modules.training import train

TINY = (
    "model.widths=[4,8]", "data.train_images=200", "data.batch_size=50", "trainer.max_epochs=2",
    "trainer.limit_val_batches=2", "trainer.limit_test_batches=2", "logger=none", "callbacks.figures=null",
    "callbacks.checkpoint.every_steps=1",
)  # fmt: skip


class StopAt(training.Callback):
    """Ends a training at a step, as a power cut would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_checkpoint(run.checkpoint("last"))["state_dict"]


def assert_resumes_exactly(configure, monkeypatch, stop: StopAt, *overrides: str) -> Run:
    config = configure(*TINY, *overrides)
    whole = Run.create(config, Path(config.output_dir), "whole")
    train(config, whole)
    run = Run.create(config, Path(config.output_dir), "run")
    build = training.build_trainer

    def with_stop(*args, **options) -> Trainer:
        trainer = build(*args, **options)
        trainer.callbacks.insert(0, stop)
        return trainer

    with monkeypatch.context() as patched:
        patched.setattr(training, "build_trainer", with_stop)
        with pytest.raises(KeyboardInterrupt):
            train(config, run)
    train(config, run)
    timings = ("train_seconds", "seconds", "images_per_second")
    for own, other in zip(run.metrics, whole.metrics, strict=True):
        assert {k: v for k, v in own.items() if k not in timings} == {
            k: v for k, v in other.items() if k not in timings
        }
    for name, value in weights(whole).items():
        assert torch.equal(weights(run)[name], value), name
    assert run.results["test_loss"] == whole.results["test_loss"]
    return whole


FAST = ("model=fast", "model.widths=[4,4,8]", "++data.flip=0.5", "metrics=[acc,acc_tta]")


@pytest.mark.parametrize(
    "overrides",
    [
        (*FAST, "callbacks=ema", "++callbacks.ema.decay=0.5", "++loss.keep_hardest=0.5",
         "++data.size_schedule=[20,28]"),
        ("optimizer=lion", "++data.mix=cutmix", "++data.randaugment=2", "++data.cutout=6",
         "data.augment=true", "++scheduler.warmup=0.3", "trainer.precision=64-true"),
        # the bias that is not trained to the end counts in the norm of SAM's gradient
        (*FAST, "optimizer=sam", "trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.1"),
    ],
    ids=["fast", "lion", "sam"],
)  # fmt: skip
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(configure, monkeypatch, overrides):
    step = 3 if "optimizer=sam" in overrides else 6
    assert_resumes_exactly(configure, monkeypatch, StopAt(step), *overrides)


def test_orthogonalised_updates_have_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((16, 40), (40, 16), (8, 8)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape, dtype=torch.float64), 8))
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_muon_flattens_convolutions_and_leaves_vectors_to_momentum():
    conv, bias = nn.Parameter(torch.randn(4, 3, 3, 3)), nn.Parameter(torch.randn(4))
    conv.grad, bias.grad = torch.randn_like(conv), torch.randn_like(bias)
    before, bias_before = conv.detach().clone(), bias.detach().clone()
    Muon([conv, bias], lr=0.1, momentum=0.0, sgd_momentum=0.0).step()
    update = orthogonalised(conv.grad.reshape(4, -1), 5).view_as(conv)
    torch.testing.assert_close(conv.detach(), before - 0.1 * update)
    torch.testing.assert_close(bias.detach(), bias_before - 0.1 * bias.grad)


def test_muon_shrinks_each_group_by_the_same_part():
    parameters = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(parameters, (0.1, 10.0), strict=True)]
    optimizer = Muon(groups, weight_decay=0.01, sgd_momentum=0.0)
    for parameter in parameters:
        parameter.grad = torch.zeros(3)
    optimizer.step()
    for parameter in parameters:
        torch.testing.assert_close(parameter.detach(), torch.full((3,), 0.99))


def test_lion_is_its_formula():
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(5, dtype=torch.float64))
    w, m = p.detach().clone(), torch.zeros(5, dtype=torch.float64)
    optimizer = Lion([p], lr=0.01, weight_decay=0.1)
    for _ in range(4):
        g = torch.randn(5, dtype=torch.float64)
        p.grad = g.clone()
        optimizer.step()
        w = w - 0.01 * ((0.9 * m + 0.1 * g).sign() + 0.1 * w)
        m = 0.99 * m + 0.01 * g
        torch.testing.assert_close(p.detach(), w)


def test_sam_alone_is_its_formula():
    p = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = SAM([p], lr=0.1, rho=0.05, momentum=0.0)

    def closure():
        optimizer.zero_grad()
        loss = (p**4).sum()
        loss.backward()
        return loss

    w = p.detach().clone()
    loss = optimizer.step(closure)
    gradient = 4 * w**3
    there = w + 0.05 * gradient / gradient.norm()
    torch.testing.assert_close(p.detach(), w - 0.1 * 4 * there**3)
    assert loss.item() == pytest.approx(17.0)


@pytest.mark.parametrize("clip", [None, 0.01])
def test_sam_in_training_takes_one_gradient_of_all_accumulated_batches(configure, monkeypatch, clip):
    """A step of SAM on two half batches, clipped or not, from the formula on the whole."""
    config = configure(
        *TINY, "optimizer=sam", "optimizer.weight_decay=0", "trainer.max_epochs=1",
        "trainer.precision=64-true",
        "model.batch_norm=false", "model.dropout=0", "trainer.accumulate_grad_batches=2",
        "data.train_images=100", f"trainer.gradient_clip_val={clip or 'null'}",
    )  # fmt: skip
    run = Run.create(config, Path(config.output_dir), "run")
    train(config, run)
    data = build_data(config)
    torch.manual_seed(0)
    module = build_classifier(config, data).double()
    batches = list(data.train_dataloader())
    images = torch.cat([images for images, _ in batches]).double()
    labels = torch.cat([labels for _, labels in batches])
    parameters = list(module.network.parameters())

    def gradients():
        found = torch.autograd.grad(cross_entropy(module(images), labels), parameters)
        norm = torch.stack([g.norm() for g in found]).norm()
        return found, norm

    first, norm = gradients()
    with torch.no_grad():
        for p, g in zip(parameters, first, strict=True):
            p.add_(0.05 * g / norm)
    second, norm_there = gradients()
    factor = min(1.0, clip / float(norm_there)) if clip else 1.0
    with torch.no_grad():
        for p, g, h in zip(parameters, first, second, strict=True):
            p.sub_(0.05 * g / norm).sub_(config.optimizer.lr * factor * h)
    trained = weights(run)
    for name, value in module.network.named_parameters():
        torch.testing.assert_close(trained[f"network.{name}"], value.detach(), rtol=1e-4, atol=1e-7)


def test_the_second_pass_of_sam_leaves_no_trace(configure):
    """Metrics and running statistics are those of the first pass: with a rate of almost 0, SGD's own."""
    kept = {}
    for optimizer in ("sgd", "sam"):
        more = ("optimizer.lr=1e-12", "optimizer.weight_decay=0", "model.dropout=0", "trainer.max_epochs=1")
        config = configure(*TINY, f"optimizer={optimizer}", *more)
        run = Run.create(config, Path(config.output_dir), optimizer)
        train(config, run)
        kept[optimizer] = run.metrics[0]["train_loss"], weights(run)
    assert kept["sam"][0] == kept["sgd"][0]
    for name, value in kept["sgd"][1].items():
        if "running" in name or "batches" in name:
            torch.testing.assert_close(kept["sam"][1][name], value, msg=name)


@pytest.mark.parametrize("model", ["mnist", "enhanced", "resnet", "fast"])
def test_rates_and_decay_by_group(configure, model):
    own = (
        "++optimizer.head_lr=0.5",
        "++optimizer.bias_lr=0.25",
        "++optimizer.no_decay_on_norms_and_biases=true",
    )
    config = configure(f"model={model}", "optimizer=sgd", *own, "model.widths=[4,4,8]")
    network = build_network(config, (3, 32, 32), 10)
    optimizer = build_optimizer(config.optimizer, network)
    of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert len(of) == len(trained)
    last = [name for name, p in trained.items() if p.ndim > 1][-1]
    for name, parameter in trained.items():
        group = of[id(parameter)]
        expected = 0.25 if parameter.ndim < 2 else 0.5 if name == last else config.optimizer.lr
        assert group["lr"] == expected
        assert group["weight_decay"] == (0.0 if parameter.ndim < 2 else config.optimizer.weight_decay)
    assert optimizer.param_groups[0]["lr"] == config.optimizer.lr


def test_without_such_knobs_there_is_one_group_as_ever(configure):
    config = configure("model=enhanced")
    assert len(build_optimizer(config.optimizer, build_network(config, (3, 32, 32), 10)).param_groups) == 1


@pytest.mark.parametrize(("optimizer", "lr"), [("muon", 0.02), ("lion", 0.003), ("sam", 0.1)])
def test_every_optimizer_learns(configure, optimizer, lr):
    config = configure(f"optimizer={optimizer}", f"optimizer.lr={lr}", "model.widths=[4,8]")
    data = build_data(config)
    torch.manual_seed(0)
    module = build_classifier(config, data)
    images, labels = data.samples(64, 1)[::2]
    images = images / 255
    rule = module.make_optimizer(module.network)

    def closure():
        rule.zero_grad()
        loss = cross_entropy(module(images), labels)
        loss.backward()
        return loss

    losses = [rule.step(closure).item() for _ in range(20)]
    assert losses[-1] < 0.6 * losses[0]


def test_only_the_hardest_are_learned_from(configure):
    config = configure("++loss.keep_hardest=0.25", "model.widths=[4,8]", "model.batch_norm=false")
    module = build_classifier(config, build_data(config))
    images, labels = torch.rand(40, 1, 28, 28), torch.arange(40) % 10
    module.training_step((images, labels))
    with torch.no_grad():
        losses = cross_entropy(module.eval()(images), labels, reduction="none")
    hardest = losses.argsort(descending=True)[:10].sort().values
    assert module.learned_from is not None
    assert torch.equal(module.learned_from[0], images[hardest])
    assert torch.equal(module.learned_from[1], labels[hardest])
