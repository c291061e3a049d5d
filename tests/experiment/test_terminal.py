"""Nothing is silent for long."""

import threading
from contextlib import contextmanager, suppress

import pytest

from experiment import terminal
from experiment.errors import UserError
from experiment.report.runs import Collection
from experiment.run import Run
from experiment.sweep import _runs_below
from lightning_modules.data import image_files, progress


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_takes_long_is_said(is_terminal, monkeypatch):
    """With patience for a moment only, and as long as it takes to say it twice."""
    written, twice = [], threading.Event()

    class Stream:
        isatty = staticmethod(lambda: is_terminal)
        flush = staticmethod(lambda: None)

        def write(self, text):
            written.append(text)
            if sum("at work" in line for line in written) == 2:
                twice.set()

    monkeypatch.setattr(terminal, "PATIENCE", 0.001)
    monkeypatch.setattr("sys.stderr", Stream())
    with terminal.announced(lambda: "at work"):
        assert twice.wait(60)
    text = "".join(written)
    assert text.endswith(terminal.ERASE if is_terminal else "at work\n")


def test_every_search_of_folders_says_where_it_is(tmp_path, monkeypatch):
    said = []

    @contextmanager
    def heard(say):
        try:
            yield
        finally:
            said.append(say())

    for module in ("experiment.report.runs", "experiment.sweep", "experiment.run"):
        monkeypatch.setattr(f"{module}.announced", heard)
    monkeypatch.setattr(image_files, "announced", heard)
    monkeypatch.setattr(progress, "announced", heard)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for search in (
        lambda: Collection([tmp_path]),
        lambda: _runs_below(tmp_path),
        lambda: Run.open(tmp_path / "none"),
        lambda: image_files.list_images(tmp_path),
        lambda: image_files.list_tree(tmp_path),
        lambda: [*progress.progress("abc", "checking")],
    ):
        with suppress(UserError):  # there is nothing
            search()
    assert len(said) == 6
    assert "3 folders, 1 runs and others so far" in said[0]
    assert f"looking for runs in {tmp_path}" in said[1]
    assert said[-1] == "checking: 3 of 3"
