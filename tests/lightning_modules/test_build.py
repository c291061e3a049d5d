"""The one place that turns a ``_target_`` into an object."""

import pytest
import torch
from omegaconf import OmegaConf

from experiment.errors import UserError
from lightning_modules.build import instantiate


def test_instantiate_passes_options_on():
    layer = instantiate(OmegaConf.create({"_target_": "torch.nn.Linear", "bias": False}), 2, out_features=3)
    assert isinstance(layer, torch.nn.Linear)
    assert layer.weight.shape == (3, 2)
    assert layer.bias is None


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("os.system", "only names from"),
        ("builtins.eval", "only names from"),
        ("torch.load", "only names from"),
        ("torch.nnx.Linear", "only names from"),
        ("torch.nn.Linea", "no such thing"),
        ("torch.optim.nothing.Adam", "no such thing"),
        # allowed modules hold what they import: none of that is a way out
        ("lightning_modules.build.import_module", "not a class or function of"),
        ("lightning_modules.loading.pickle", "not a class or function of"),
    ],
)
def test_targets_outside_the_list_are_refused(target, message):
    with pytest.raises(UserError, match=message):
        instantiate(OmegaConf.create({"_target_": target}))


def test_options_that_do_not_fit_are_named():
    with pytest.raises(UserError, match=r"torch\.nn\.Dropout cannot be built from .*prob"):
        instantiate(OmegaConf.create({"_target_": "torch.nn.Dropout", "prob": 0.5}))
