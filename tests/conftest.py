"""What several tests share."""

import functools
import logging
import os
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from experiment import precision
from experiment.command_line import CONFIG_DIR
from experiment.run import Run

# tests run side by side: on a busy core torch's threads wait for each other tens of times as long
os.environ.setdefault("OMP_NUM_THREADS", "1")

for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:  # a background job ignores them, and so would its runs
        signal.signal(number, default)


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("train", [*overrides])
    precision.resolve(config)
    return config


@pytest.fixture(autouse=True, scope="session")
def _single_precision():
    """What is compared to many digits is computed in float32, whatever the machine is fastest in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "of_machine", lambda accelerator: ("32-true", "tests"))
        yield


@pytest.fixture
def configure(tmp_path) -> Callable[..., DictConfig]:
    """Compose a run's configuration; what it leaves goes to the test's own folder."""
    return lambda *overrides: composed(f"output_dir={tmp_path / 'outputs'}", *overrides)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Callable[..., Run]:
    """A run that trained for seconds, the same one for the same overrides: not to be changed."""

    @functools.cache
    def train_once(*overrides: str) -> Run:
        from lightning_modules.training import train

        folder = tmp_path_factory.mktemp("trained")
        tiny = ("trainer=smoke", "model.widths=[4,8]", "logger=none", "callbacks.figures=null")
        run = Run.create(composed(f"output_dir={folder}", *tiny, *overrides), folder, "run")
        train(run.config, run)
        return run

    return train_once


@pytest.fixture
def run_entry_point(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., SimpleNamespace]:
    """Call a script in this process, where torch is imported already: its code, out and err."""

    def call(script: str, *arguments: object) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        root, code = logging.getLogger(), 0
        before = root.handlers[:]  # Hydra leaves one that writes to this test's output
        try:
            runpy.run_path(str(Path(__file__).parents[1] / script), run_name="__main__")
        except SystemExit as end:
            code = end.code
        finally:
            root.handlers[:] = before
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return call
