"""The figures of a run, beyond what they look like."""

from types import SimpleNamespace

import numpy as np
import pytest

from lightning_modules import classifier
from lightning_modules.build import build_classifier, build_data
from lightning_modules.callbacks import Figures


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_a_test_may_have_any_number_of_mistakes(configure, tmp_path, wrong):
    config = configure("model.widths=[2]")
    data = build_data(config)
    module = build_classifier(config, data)
    labels = np.arange(data.sizes["test"]) % 10
    logits = np.eye(10, dtype=np.float32)[labels]
    logits[:wrong] = np.roll(logits[:wrong], 1, axis=1)
    module.tested = classifier.Tested(logits, labels, [len(labels)])
    trainer = SimpleNamespace(
        is_global_zero=True, datamodule=data, default_root_dir=str(tmp_path), loggers=[], global_step=1
    )
    Figures().on_test_end(trainer, module)
    assert (tmp_path / "figures" / "mistakes.png").is_file()
