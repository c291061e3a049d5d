"""A metric of the user's own, from outside the checkout: a file with its row, and its switch."""

import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiment.metrics import TABLE, of_predictions
from experiment.run import Run
from experiment.schema import trusted_packages

METRIC = '''
"""How sure the network is, right or wrong: an overconfident one is not what we want."""

from experiment.metrics import Labels, Logits, metric


@metric("sureness", "mean sureness", better="lower")
def sureness(logits: Logits, labels: Labels, scale: float = 1.0) -> float:
    return float(scale * logits.max(axis=1).mean())
'''
SWITCH = "sureness:\n  _target_: foreign_metric.sureness.sureness\n  scale: 2.0\n"
TINY = (
    "model.widths=[4,8]", "data.train_images=320", "trainer.max_epochs=3", "optimizer.lr=0.01",
    "trainer.accelerator=cpu",
)  # fmt: skip


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A folder with a package and a configuration folder of the user's, entered and trusted."""
    for path, text in (
        ("foreign_metric/sureness.py", METRIC),
        ("foreign_metric/__init__.py", ""),
        ("conf/metrics/sureness.yaml", SWITCH),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TRUSTED_PACKAGES", "foreign_metric")
    yield tmp_path
    TABLE.pop("sureness", None)
    for name in [name for name in sys.modules if name.startswith("foreign_metric")]:
        del sys.modules[name]


def test_a_metric_of_one_file_and_its_switch_shows_everywhere(foreign, run_entry_point, monkeypatch):
    chosen = ("--config-dir=conf", "metrics=[acc,sureness]", "callbacks.checkpoint.monitor=val_sureness")
    early = ("callbacks=early_stopping", "callbacks.early_stopping.monitor=val_sureness")
    done = run_entry_point("train.py", *chosen, *early, *TINY, "name=run")
    assert done.code in (0, None), done.err
    run = Run.open(foreign / "outputs" / "run")
    values = [row["val_sureness"] for row in run.metrics]
    assert all(row["train_sureness"] is not None for row in run.metrics)
    log = (run.folder / "run.log").read_text()
    assert f"sureness {values[0]:.4f}" in log  # the line of the epoch
    assert "test mean sureness" in log  # the final table
    results = run.results
    assert results["metrics"]["sureness"]["better"] == "lower"
    assert results["monitored"] == results["val_sureness"] == min(values)
    assert results["tested"]["epoch"] == results["best_epoch"] == 1 + values.index(min(values))
    events = EventAccumulator(str(run.folder)).Reload()
    assert {f"sureness/{stage}" for stage in ("train", "val", "test")} <= {*events.Tags()["scalars"]}
    assert {"final/test_sureness", "final/val_sureness"} <= {*events.Tags()["scalars"]}
    # asked again of the predictions, and by evaluate.py
    found = of_predictions(run.folder / "predictions.npz", ["sureness"])
    assert {*found} == {"test_sureness"}
    done = run_entry_point("evaluate.py", f"run={run.folder}")
    assert "test mean sureness" in done.out
    # without its code a report knows it from the run
    del TABLE["sureness"]
    monkeypatch.delenv("TRUSTED_PACKAGES")
    assert trusted_packages() == []
    done = run_entry_point("report.py", run.folder)
    assert done.code in (0, None), done.err
    report = (run.folder / "report" / "report.md").read_text()
    assert "test mean sureness" in report
    assert f"{results['test_sureness']:.3g}"[:4] in report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["metrics=[acc,surenes]"], "Did you mean sureness?"),
        (["metrics=[sureness]"], "metrics=[sureness] has no acc; choose val_sureness or val_loss"),
        (["metrics=[acc,sureness]", "metrics.sureness.scale=big"], "metrics.sureness.scale=big"),
        (["metrics=[acc,sureness]", "metrics.sureness.scal=1"], "metrics.sureness.scale"),
    ],
)
def test_a_mistake_with_it_is_answered_like_one_with_ours(foreign, run_entry_point, arguments, message):
    done = run_entry_point("train.py", "--config-dir=conf", *arguments)
    assert done.code == 1
    assert message in done.err


def test_it_is_not_imported_without_trust(foreign, run_entry_point, monkeypatch):
    monkeypatch.delenv("TRUSTED_PACKAGES")
    done = run_entry_point("train.py", "--config-dir=conf", "metrics=[acc,sureness]")
    assert done.code == 1
    assert "TRUSTED_PACKAGES=foreign_metric" in done.err
    assert "foreign_metric.sureness" not in sys.modules


def test_no_metric_at_all(foreign, run_entry_point):
    done = run_entry_point(
        "train.py", "metrics=[]", "callbacks.checkpoint.monitor=val_loss", *TINY, "trainer=smoke", "name=run"
    )
    assert done.code in (0, None), done.err
    run = Run.open(foreign / "outputs" / "run")
    assert "test_acc" not in run.results
    assert run.results["convergence_epoch"] is None
    assert run_entry_point("report.py", run.folder).code in (0, None)
