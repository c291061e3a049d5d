"""Every network of conf/model is tested by being there, with those of the knobs below that it has."""

import pytest
import torch
from torch import nn

from experiment.command_line import CONFIG_DIR
from experiment.errors import UserError
from experiment.schema import known_knobs
from lightning_modules.build import build_network

MODELS = sorted(path.stem for path in (CONFIG_DIR / "model").glob("*.yaml"))
CONVOLUTIONAL = ("baseline", "custom", "enhanced", "mnist")
"""Those built by conv_classifier."""


@pytest.fixture
def network_of(configure):
    """Build the network of a model for images of a shape, with what it has of some overrides."""

    def build(model: str, shape: tuple[int, int, int], num_classes: int, *overrides: str) -> nn.Module:
        known = known_knobs(configure(f"model={model}"))
        own = [override for override in overrides if override.partition("=")[0] in known]
        return build_network(configure(f"model={model}", *own), shape, num_classes)

    return build


def layers(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [layer for layer in network.modules() if isinstance(layer, kind)]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("shape", "pooling"),
    [
        ((1, 28, 28), "fixed_avg"),
        ((3, 32, 32), "adaptive_avg"),
        ((4, 33, 47), "fixed_avg"),
        ((4, 33, 47), "fixed_max"),
    ],
)
def test_any_model_takes_any_images_on_any_engine(network_of, model, shape, pooling):
    images, gradients, logits = torch.rand(2, *shape), [], []
    for engine in ("torch", "numpy"):
        knobs = [
            f"model.pooling={pooling}",
            "model.widths=[4,4,8]",
            f"model.engine={engine}",
            "model.dropout=0",
        ]
        torch.manual_seed(0)
        network = network_of(model, shape, 7, *knobs)
        logits.append(network(images))
        assert logits[-1].shape == (2, 7)
        logits[-1].square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("model", CONVOLUTIONAL)
@pytest.mark.parametrize(
    ("knob", "layer", "counts"),
    [
        ("model.batch_norm=false", nn.BatchNorm2d, {"baseline": 0, "enhanced": 0, "mnist": 0}),
        ("model.batch_norm=true", nn.BatchNorm2d, {"baseline": 3, "enhanced": 3, "mnist": 3}),
        ("model.activation=selu", nn.SELU, {"baseline": 7, "enhanced": 4, "mnist": 3}),
        ("model.activation=sigmoid", nn.Sigmoid, {"baseline": 7, "enhanced": 4, "mnist": 3}),
        ("model.dropout=0.7", nn.Dropout, {"baseline": 4, "enhanced": 1, "mnist": 1}),
    ],
)
def test_knobs_reach_the_layers(configure, model, knob, layer, counts):
    network = build_network(configure(f"model={model}", knob, "model.widths=[4,4,8]"), (3, 32, 32), 10)
    found = layers(network, layer)
    if model in counts:
        assert len(found) == counts[model]
    if layer is nn.Dropout:
        assert all(dropout.p == 0.7 for dropout in found if isinstance(dropout, nn.Dropout))


def test_the_report_s_architectures(configure):
    def shape(model: str) -> tuple[int, int, int, int]:
        network = build_network(configure(f"model={model}"), (3, 32, 32), 10)
        counted = [len(layers(network, kind)) for kind in (nn.Conv2d, nn.BatchNorm2d, nn.Linear)]
        return (*counted, sum(p.numel() for p in network.parameters()))  # type: ignore[return-value]

    assert shape("baseline")[:3] == (5, 0, 5)
    assert shape("enhanced") == (5, 5, 2, 1_586_122)
    assert shape("mnist")[:3] == (3, 3, 1)


def test_an_engine_that_cannot_work_here_is_refused_with_the_way_on(configure):
    if torch.cuda.is_available():
        pytest.skip("it can work here")
    with pytest.raises(UserError, match=r"model\.engine=cupy: .*model\.engine=auto takes what fits"):
        build_network(configure("model=custom", "model.engine=cupy"), (1, 28, 28), 10)


def test_adaptive_pooling_keeps_the_classifier_s_size(configure):
    config = configure("model=enhanced", "model.widths=[4,4,8,8,16]")
    sizes = {
        layers(build_network(config, (3, side, side), 10), nn.Linear)[0].in_features  # type: ignore[attr-defined]
        for side in (32, 64)
    }
    assert sizes == {16}


def test_he_initialisation_has_his_variance(configure):
    network = build_network(
        configure("model=mnist", "model.init=he", "model.widths=[64,64,64]"), (3, 32, 32), 10
    )
    weight = network.conv2.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    assert network.fc1.bias.abs().max() == 0


@pytest.mark.parametrize("model", CONVOLUTIONAL)
def test_too_deep_for_the_images(configure, model):
    config = configure(f"model={model}", "model.widths=[2,2,2,2,2,2,2,2,2,2]")
    with pytest.raises(UserError, match=r"too deep for images of 8×8 pixels.*model\.widths"):
        build_network(config, (3, 8, 8), 10)


def test_fixed_pooling_that_does_not_fit(configure):
    config = configure("model=enhanced", "model.widths=[2,2,2,2]", "model.pooling=fixed_avg")
    with pytest.raises(UserError, match=r"model\.pooling=fixed_avg needs feature maps of at least 2×2"):
        build_network(config, (3, 4, 4), 10)
