"""What a terminal shows of a training: one line that is gone when anything else is printed."""

import io
import logging
import math
import os
import re
import shutil
import sys
import warnings
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import Timer

from experiment.run import Run
from lightning_modules.callbacks import progress


class Terminal(io.StringIO):
    """Keeps what its lines looked like whenever one was left, and every state of the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.lines, self.states, self.line, self.column = [], [], "", 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for piece in re.findall(r"\r|\n|\033\[K|[^\r\n\033]+", text):
            if piece == "\r":
                self.column = 0
            elif piece == "\n":
                self.lines.append(self.line)
                self.line, self.column = "", 0
            elif piece == "\033[K":
                self.line = self.line[: self.column]
            else:
                self.line = self.line[: self.column] + piece + self.line[self.column + len(piece) :]
                self.column += len(piece)
                self.states.append(self.line)
        return len(text)


@pytest.fixture
def terminal() -> Terminal:
    screen = Terminal()
    handler = logging.StreamHandler(screen)
    logging.getLogger().addHandler(handler)
    yield screen
    logging.getLogger().removeHandler(handler)


def sit_down_at(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called in the test itself: pytest puts its own stderr back between a fixture and the test."""
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "REFRESH", 0.0)
    monkeypatch.setattr(logging.getLogger(), "level", logging.INFO)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_line_fits_counts_as_the_log_does_and_is_gone_before_others_print(
    configure, tmp_path, terminal, monkeypatch, width
):
    from lightning_modules.training import train

    sit_down_at(terminal, monkeypatch)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_, **__: os.terminal_size((width, 40)))
    config = configure(
        "model.widths=[4,8]", "data.train_images=200", "data.batch_size=50", "trainer.max_epochs=2",
        "trainer.limit_test_batches=2", "logger=none", "callbacks.figures=null",
    )  # fmt: skip
    run = Run.create(config, tmp_path, "run")
    train(run.config, run)
    bars = [state for state in terminal.states if "━" in state or "─" in state]
    assert {bar.split("━")[0].split("─")[0].strip() for bar in bars} == {
        "epoch 1/2", "epoch 1/2, validation", "epoch 2/2", "epoch 2/2, validation", "test"
    }  # fmt: skip
    assert max(map(len, bars)) < width
    assert ("left" in " ".join(bars)) is (width > 40)
    assert not [line for line in terminal.lines if "━" in line or "─" in line]
    assert [line[:9] for line in terminal.lines if line.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]
    assert terminal.line == ""
    assert not any(handler.filters for handler in logging.getLogger().handlers)


def test_log_records_break_between_words_and_leave_no_rest_of_a_loading_line(terminal, monkeypatch):
    from experiment.terminal import Wrapped, loading

    sit_down_at(terminal, monkeypatch)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_, **__: os.terminal_size((40, 40)))
    for handler in logging.getLogger().handlers:
        if getattr(handler, "stream", None) is terminal:
            handler.setFormatter(Wrapped())
    with loading("cifar10"):
        assert terminal.line == "loading cifar10 …"
        logging.getLogger().warning("warning: five images are in two sets\na second line  12.5 s")
    assert terminal.lines == ["warning: five images are in two sets", "a second line  12.5 s"]
    logging.getLogger().info("epoch  1/10  train loss 1.3564 acc 60.55%  lr 3.00e-04")
    assert terminal.lines[2:] == ["epoch  1/10  train loss 1.3564 acc", "  60.55%  lr 3.00e-04"]
    assert terminal.line == ""


def test_warnings_and_an_interruption_leave_nothing_of_the_line(configure, tmp_path, terminal, monkeypatch):
    from lightning_modules.training import train

    sit_down_at(terminal, monkeypatch)

    def show(message, *_) -> None:
        terminal.write(f"{message}\n")

    monkeypatch.setattr(warnings, "showwarning", show)
    config = configure("trainer=smoke", "model.widths=[4,8]", "logger=none", "callbacks.figures=null")
    run = Run.create(config, tmp_path, "run")

    def interrupt(self, trainer, pl_module, *_) -> None:
        warnings.showwarning("careful", UserWarning, "file.py", 1)
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_modules.callbacks.History.on_train_batch_end", interrupt)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(run.config, run)
    assert [line for line in terminal.lines if "careful" in line] == ["careful"]
    assert terminal.line == ""
    assert warnings.showwarning is show


def test_what_is_left_follows_from_the_steps_so_far_or_a_limit():
    trainer = SimpleNamespace(callbacks=[], estimated_stepping_batches=100, global_step=20)
    assert progress.seconds_left(trainer, seconds=10.0, steps=5) == 160
    assert progress.seconds_left(trainer, seconds=10.0, steps=0) is None
    trainer.callbacks = [Timer(duration={"seconds": 60})]
    assert progress.seconds_left(trainer, seconds=10.0, steps=5) == 60
    trainer.estimated_stepping_batches = math.inf
    assert progress.seconds_left(trainer, seconds=10.0, steps=5) == 60
    trainer.callbacks = []
    assert progress.seconds_left(trainer, seconds=10.0, steps=5) is None
