"""Run folders of an earlier version, see `old_runs/README.md`, still do all that a run folder does."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from experiment.files import read_json
from experiment.run import Run

OLD_RUNS = Path(__file__).parent / "old_runs"


@pytest.fixture
def old_run(tmp_path, monkeypatch):
    """A copy of an old run folder, in the folder it is called from."""

    def copy(name: str) -> Run:
        shutil.copytree(OLD_RUNS / name, tmp_path / "outputs" / name)
        return Run.open(tmp_path / "outputs" / name)

    monkeypatch.chdir(tmp_path)
    return copy


def test_an_old_run_is_evaluated_as_it_was_tested(old_run, run_entry_point):
    run = old_run("finished")
    done = run_entry_point("evaluate.py", f"run={run.folder}")
    assert done.code in (0, None), done.err
    evaluation = read_json(run.folder / "evaluation_best.json")
    assert evaluation["test_acc"] == pytest.approx(run.results["test_acc"])
    assert evaluation["test_loss"] == pytest.approx(run.results["test_loss"], rel=1e-5)


@pytest.mark.parametrize("name", ["finished", "killed"])
def test_an_old_run_predicts_and_is_exported(name, old_run, run_entry_point, tmp_path):
    run = old_run(name)
    Image.new("L", (28, 28), 200).save(tmp_path / "one.png")
    assert run_entry_point("predict.py", f"run={run.folder}", "images=one.png").code in (0, None)
    assert run_entry_point("export.py", f"run={run.folder}", "format=safetensors").code in (0, None)


def test_an_old_run_is_reported(old_run, run_entry_point):
    run = old_run("finished")
    done = run_entry_point("report.py", run.folder)
    assert done.code in (0, None), done.err
    assert "16.50" in (run.folder / "report" / "report.md").read_text()


def test_an_old_killed_run_is_resumed(old_run, run_entry_point):
    run = old_run("killed")
    before = run.metrics
    done = run_entry_point("train.py", f"resume={run.folder}")
    assert done.code in (0, None), done.err
    assert run.status == "finished"
    after = run.metrics
    assert [row["epoch"] for row in after] == [1, 2, 3, 4, 5, 6]
    assert after[0] == before[0]  # of the checkpoint; the epoch that was killed is computed by today's engine
    assert after[1]["val_loss"] == pytest.approx(before[1]["val_loss"], rel=1e-5)
    assert after[-1]["train_loss"] < before[0]["train_loss"]
