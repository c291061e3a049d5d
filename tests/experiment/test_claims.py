"""A claim that no job can answer is told when the sweep is composed."""

import json

import pytest
from folders import HELPS, write_sweep
from hydra import compose, initialize_config_dir

from experiment.claims import problems_of_claims, problems_of_looks
from experiment.command_line import CONFIG_DIR
from experiment.config import run_config

PAIR = {"model.dropout=0": 1, "model.dropout=0.5": -1}


@pytest.fixture(scope="module")
def jobs():
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        given = ["metrics=[acc,ece]", "optimizer.lr=1e-4"]
        runs = [compose("train", [*given, f"model.dropout={value}"]) for value in (0, 0.5)]
        runs += [compose("train", [*given, "model.dropout=0.7", "trainer.max_epochs=2", "seed=1"])]
        runs = [run_config(run) for run in runs]
    swept = [{"model.dropout": str(run.model.dropout), "seed": str(run.seed)} for run in runs]
    return [(run, {"model": "mnist"}, values) for run, values in zip(runs, swept, strict=True)]


@pytest.mark.parametrize(
    "claim",
    [
        {"metric": "test_acc", "contrasts": [PAIR]},
        {"metric": "test_ece", "contrasts": [{"model=mnist model.dropout=0": 2, "model.dropout=0.5": -2}]},
        {"metric": "val_loss", "contrasts": [PAIR, PAIR], "scale": "ratio"},
        {"metric": "val_acc_falls", "contrasts": [PAIR]},
        {"metric": "images_per_second", "contrasts": [PAIR]},
    ],
)
def test_what_can_be_answered(jobs, claim):
    assert problems_of_claims([{"text": "so", **claim}], jobs) == []


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"metric": "test_ac", "contrasts": [PAIR]}, "no metric test_ac. Did you mean test_acc?"),
        ({"metric": "test_nll", "contrasts": [PAIR]}, "no metric test_nll."),
        ({"metric": "val_ecc", "contrasts": [PAIR]}, "Did you mean val_acc or val_ece?"),
        ({"contrasts": [{"model.droput=0": 1, "model.dropout=0.5": -1}]}, "Did you mean model.dropout=0?"),
        ({"contrasts": [{"model.dropout=0": 1, "model.dropout=2": -1}]}, "They have model.dropout=0, 0.5"),
        ({"contrasts": [{"model=mnits": 1, "model.dropout=0": -1}]}, "They have model=mnist"),
        ({"contrasts": [{"seed=0 model.dropout=0.7": 1, "seed=1": -1}]}, "no setting names"),
        ({"contrasts": [{"model.dropout=0 seed=1": 1, "model.dropout=0.5": -1}]}, "no setting names"),
        (
            {"contrasts": [{"model.dropout=0 optimizer.lr=1": 1, "model.dropout=0.5": -1}]},
            "optimizer.lr=0.0001",
        ),
        ({"contrasts": [{"model.dropout=0": 1, "model.dropout=0.5": -0.5}]}, "sum to 0.5"),
        ({"contrasts": [{"model.dropout=0": "x"}]}, "could not convert"),
        # what no run could answer, however many there were
        ({"contrasts": [{"model.dropout=0": 1, "model.dropout=0.0": -1}]}, "compares runs with themselves"),
        ({"contrasts": [{"model.dropout=0": 1, "model.dropout=0.7": -1}]}, "no seed has all of"),
        ({"contrasts": [{"model=mnist": 1, "model.dropout=0": -1}]}, "leaves model.dropout open"),
        ({"contrasts": [PAIR], "claimed": []}, "a size is above 0"),
        ({"contrasts": [PAIR], "failed": float("nan")}, "failed=nan: expected a number"),
        ({"contrasts": [PAIR], "failed": 0, "scale": "ratio"}, "expected a number above 0"),
        ({"contrasts": [PAIR], "text": None}, "a claim has a text and a metric"),
        ({"metric": "test_acc", "contrast": [PAIR]}, "unknown key contrast"),
        ({"metric": "test_acc"}, "no contrasts"),
        ({"contrasts": [PAIR], "metric": None}, "a claim has a text and a metric"),
    ],
)
def test_what_cannot(jobs, claim, message):
    line, way_out = problems_of_claims([{"text": "so", "metric": "test_acc", **claim}], jobs)
    assert message in line
    assert way_out == "sweep.claims=null sweeps without asking"


def test_settings_that_change_together_are_no_claim_about_one_of_them(jobs):
    """Trained they would get no verdict."""
    longer = jobs[2][0].copy()
    longer.seed = 0
    pair = [jobs[0], (longer, {"model": "mnist"}, {"model.dropout": "0.7", "seed": "0"})]
    contrast = {"model.dropout=0": 1, "model.dropout=0.7": -1}
    claim = {"text": "so", "metric": "test_acc", "contrasts": [contrast]}
    line, _ = problems_of_claims([claim], pair)
    assert "differ in trainer.max_epochs, too" in line


def test_a_sweep_is_refused_before_it_trains_and_before_a_dry_run(run_entry_point, tmp_path):
    """Also in a dry run, which trains nothing."""
    file = tmp_path / "conf" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(
        "# @package _global_\nhydra: {sweeper: {params: {model.dropout: '0,0.5'}}}\n"
        "sweep:\n  claims:\n"
        "  - {text: so, metric: test_acc, contrasts: [{model.dropout=0: 1, model.dropout=3: -1}]}\n"
    )
    dry = ["-m", "experiment=mine", "sweep.dry_run=true", f"output_dir={tmp_path}"]
    done = run_entry_point("train.py", "--config-dir", tmp_path / "conf", *dry)
    assert done.code == 1
    assert "no job has model.dropout=3" in done.err
    assert run_entry_point("train.py", "--config-dir", tmp_path / "conf", *dry, "sweep.claims=null").code == 0


@pytest.mark.parametrize(
    ("max_seeds", "claims", "seeds", "status", "is_refused"),
    [
        (8, [HELPS], 4, "finished", False),
        (8, [HELPS | {"text": "In other words."}], 4, "finished", False),
        (10, [HELPS], 4, "finished", True),
        (5, [HELPS], 4, "interrupted", True),  # the first look is over
        (10, [HELPS], 3, "finished", True),
        (10, [HELPS], 3, "interrupted", False),  # nobody has looked yet
        (8, [HELPS, HELPS], 4, "finished", True),
        (8, [HELPS | {"claimed": 0.01}], 4, "finished", True),
    ],
)
def test_looks_are_agreed_on_before_the_first(
    jobs, tmp_path, max_seeds, claims, seeds, status, is_refused
):  # fmt: skip
    folder = write_sweep(tmp_path / "s", {"0.0": [0.9] * seeds, "0.5": [0.91] * seeds}, [HELPS])
    content = json.loads((folder / "sweep.json").read_text()) | {"until": "decided", "max_seeds": 8}
    (folder / "sweep.json").write_text(json.dumps(content))
    path = folder / "model.dropout=0.5,seed=0-00" / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": status}))
    said = problems_of_looks(folder, claims, max_seeds, jobs)
    assert bool(said) == is_refused
    if said:
        assert "has been looked at with sweep.max_seeds=8 and its own claims" in said[0]


def test_a_look_after_each_seed_asks_for_a_claim_and_for_one_split(jobs, tmp_path):
    assert "there is no claim" in problems_of_looks(tmp_path, [], 8, jobs)[0]
    run = jobs[0][0].copy()
    run.data.fold = 1
    assert "leave data.fold out" in problems_of_looks(tmp_path, [HELPS], 8, [(run, {}, {})])[0]
    assert problems_of_looks(tmp_path, [HELPS], 8, jobs) == []
