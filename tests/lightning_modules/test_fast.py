"""The fast recipe through train.py's own path is the published recipe, written here as a bare loop."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiment.run import Run
from lightning_modules.build import build_classifier, build_data
from lightning_modules.data.augment import to_float
from lightning_modules.loading import load_checkpoint
from lightning_modules.training import train

EPOCHS, BATCH = 4, 100
SMALL = (
    "model=fast", "model.widths=[4,8,8]", "model.dirac=false", "data.train_images=200",
    f"data.batch_size={BATCH}", f"trainer.max_epochs={EPOCHS}", "trainer.precision=64-true",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1", "data.flip=0.5", "logger=none", "callbacks.figures=null",
    f"optimizer.bias_lr={0.053 * BATCH}", f"optimizer.head_lr={0.67 * BATCH}",
    f"optimizer.weight_decay={2e-6 * BATCH}",
)  # fmt: skip
# Rates for the mean of the losses, where the published ones are for the sum. Where convolutions begin as the
# identity many pixels of a digit are equally large: which one a max-pooling takes is then rounding's choice.


class Published(nn.Module):
    """As published: bare torch, the sum of the losses, two optimizers."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.weights = {name.replace(".", "_"): value.clone() for name, value in weights.items()}
        for name, value in self.weights.items():
            if "running" not in name and "batches" not in name and name != "patches_weight":
                value.requires_grad_("norm" not in name and "first_2_weight" not in name)
        self.weights["patches_weight"].requires_grad_(False)

    def forward(self, x: Tensor, with_whitening_bias: bool) -> Tensor:
        w = self.weights
        bias = w["patches_bias"]
        x = F.gelu(F.conv2d(x, w["patches_weight"], bias if with_whitening_bias else bias.detach()))
        for group in (1, 2, 3):
            x = F.conv2d(x, w[f"groups_{group}_first_0_weight"], padding=1)
            x = F.gelu(self.norm(F.max_pool2d(x, 2), f"groups_{group}_first_2"))
            x = F.conv2d(x, w[f"groups_{group}_rest_conv2_weight"], padding=1)
            x = F.gelu(self.norm(x, f"groups_{group}_rest_norm2"))
        x = F.max_pool2d(x, 3).flatten(1)
        return x @ w["head_weight"].T / x.shape[1]

    def norm(self, x: Tensor, name: str) -> Tensor:
        w = self.weights
        mean, var = w[f"{name}_running_mean"], w[f"{name}_running_var"]
        return F.batch_norm(x, mean, var, None, w[f"{name}_bias"], True, 0.4, 1e-12)


def whiten(g: Tensor) -> Tensor:
    x = g / (g.norm() + 1e-7)
    if len(x) > x.shape[1]:
        x = x.T
    for _ in range(3):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if len(g) > g.shape[1] else x


def published(weights: dict[str, Tensor], batches, mean: Tensor, std: Tensor, epochs: int) -> Published:
    net = Published(weights)
    every = net.weights
    filters = [w for name, w in every.items() if w.ndim == 4 and name != "patches_weight"]
    biases = [w for name, w in every.items() if name.endswith("bias") and name != "patches_bias"]
    for bias in biases:
        bias.requires_grad_()
    steps = epochs * len(batches(0))
    decay = 2e-6 * BATCH
    groups = [
        {"params": [every["patches_bias"]], "lr": 0.053, "weight_decay": decay / 0.053},
        {"params": biases, "lr": 0.053, "weight_decay": decay / 0.053},
        {"params": [every["head_weight"]], "lr": 0.67, "weight_decay": decay / 0.67},
    ]
    sgd = torch.optim.SGD(groups, momentum=0.85, nesterov=True)
    full = [group["lr"] for group in sgd.param_groups]
    momenta = [torch.zeros_like(w) for w in filters]
    step, until = 0, 0.375 * steps
    for epoch in range(epochs):
        for images, labels in batches(epoch):
            x = (images.double() - mean) / std
            losses = F.cross_entropy(net(x, step < until), labels, label_smoothing=0.2, reduction="none")
            losses.sum().backward()
            left = 1 - step / steps
            sgd.param_groups[0]["lr"] = full[0] * max(0.0, 1 - step / until)
            sgd.param_groups[1]["lr"], sgd.param_groups[2]["lr"] = full[1] * left, full[2] * left
            if step >= until:
                every["patches_bias"].grad = None
            sgd.step()
            with torch.no_grad():
                for w, momentum in zip(filters, momenta, strict=True):
                    momentum.mul_(0.6).add_(w.grad)
                    w.mul_(len(w) ** 0.5 / w.norm())
                    g = w.grad + 0.6 * momentum
                    w.sub_(0.24 * left * whiten(g.reshape(len(g), -1)).view_as(g))
                    w.grad = None
            sgd.zero_grad()
            step += 1
    return net


def test_train_py_s_path_is_the_published_recipe_step_by_step(configure):
    config = configure(*SMALL)
    run = Run.create(config, Path(config.output_dir), "run")
    train(config, run)
    assert run.metrics[-1]["train_acc"] > 0.15  # a network that learns nothing shows nothing
    data = build_data(config)
    torch.manual_seed(0)
    module = build_classifier(config, data)
    first = load_checkpoint(run.checkpoint("last"))["state_dict"]
    mean, std = first["mean"], first["std"]

    def batches(epoch: int):
        made = data.train_dataloader()
        return type(made)(**{**vars(made), "epoch": lambda: epoch})

    module.initialise_from(data.training_images(5000))
    start = {n: v.detach() for n, v in module.network.double().state_dict().items()}
    net = published(start, batches, mean, std, EPOCHS)
    for name, value in net.weights.items():
        if "batches" in name or ("weight" in name and ("norm" in name or "first_2" in name)):
            continue
        own = next(v for n, v in first.items() if n.removeprefix("network.").replace(".", "_") == name)
        # the 1e-7 that Muon adds to a norm is more beside a mean of gradients than beside their sum
        torch.testing.assert_close(
            own, value.detach(), rtol=1e-6, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_whitened_patches_are_uncorrelated_and_of_unit_variance(configure):
    data = build_data(configure("model=fast"))
    module = build_classifier(configure("model=fast"), data)
    module.initialise_from(data.training_images(5000))
    images = (to_float(data.training_images(5000)) - module.mean) / module.std
    with torch.no_grad():
        out = F.conv2d(images, module.network.patches.weight)
    out = out.movedim(1, -1).flatten(0, -2).double()
    half = out.shape[1] // 2
    torch.testing.assert_close(out[:, half:], -out[:, :half])
    moments = out[:, :half].T @ out[:, :half] / len(out)
    torch.testing.assert_close(moments, torch.eye(half, dtype=torch.float64), atol=0.05, rtol=0)


@pytest.mark.parametrize("knob", ["whitening", "dirac", "scaled_logits"])
def test_each_ingredient_is_a_switch(configure, knob):
    data = build_data(configure("model=fast"))
    with_it, without = (
        build_classifier(configure("model=fast", f"model.{knob}={value}"), data).network
        for value in ("true", "false")
    )
    assert len(list(with_it.parameters())) == len(list(without.parameters()))
    x = torch.rand(4, 1, 28, 28)
    torch.manual_seed(0)
    assert with_it(x).shape == without(x).shape
    if knob == "whitening":
        assert not with_it.patches.weight.requires_grad
        assert without.patches.weight.requires_grad
