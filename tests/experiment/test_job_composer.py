"""The jobs of a sweep are composed as Hydra composes them, in a fraction of its time."""

import itertools

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from experiment.command_line import CONFIG_DIR
from experiment.config import choices, run_config
from hydra_plugins.folder_sweeper import JobComposer


@pytest.mark.parametrize(
    "values",
    [
        {"seed": ["0", "1"], "model.dropout": ["0", "0.5"], "model.widths": ["[4,8]", "[16,32,64]"]},
        {"model": ["mnist", "enhanced"], "optimizer": ["sgd", "adamw"], "optimizer.lr": ["1e-3", "0.1"]},
        {"model.dropout": ["0.2", "0.4"], "model": ["enhanced", "mnist"], "data.root": ["null", "'a b'"]},
        {"loss": ["{label_smoothing:0.1}", "{label_smoothing:0.2}"], "seed": ["1", "2"]},
        {"callbacks.figures": ["null"], "metrics": ["[acc,ece]", "[acc]"], "data.augment": ["true", "false"]},
        {"trainer": ["smoke", "cpu"], "trainer.max_epochs": ["2", "3"], "~callbacks.history": [""]},
        {"optimizer.amsgrad": ["true", "false"], "scheduler": ["step"], "scheduler.milestones": ["[0.5]"]},
    ],
)
def test_a_job_is_composed_as_hydra_does(values):
    given = ["model.pooling=fixed_avg", "sweep.name=one"]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("train", given, run_mode=RunMode.MULTIRUN)
        composer = JobComposer(loader, config)
        for job in itertools.product(*values.values()):
            overrides = dict(zip(values, job, strict=True)) | {"model.pooling": "fixed_avg"}
            written = [f"{'++' if key == 'optimizer.amsgrad' else ''}{key}={value}".rstrip("=")
                       for key, value in overrides.items()]  # fmt: skip
            expected = loader.load_sweep_config(config, written)
            run, chosen = composer.compose(overrides)
            assert run == run_config(expected)
            assert chosen == choices(expected.hydra)


def test_what_one_job_adds_is_not_in_the_next():
    jobs = [
        {"optimizer.amsgrad": "true", "seed": "1"},
        {"seed": "2"},
        {"optimizer.amsgrad": "false", "seed": "3", "callbacks.history": "null"},
        {"optimizer": "sgd", "optimizer.nesterov": "true"},
        {"optimizer": "sgd"},
        {"callbacks.timer": "{_target_:lightning.pytorch.callbacks.Timer}"},
        {"callbacks.timer": "{_target_:lightning.pytorch.callbacks.Timer,interval:step}"},
        {},
    ]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("train", [], run_mode=RunMode.MULTIRUN)
        composer = JobComposer(loader, config)
        for job in [*jobs, *jobs]:
            run, _ = composer.compose(job)
            written = [f"{'++' if '.' in key else ''}{key}={value}" for key, value in job.items()]
            assert run == run_config(loader.load_sweep_config(config, written))
