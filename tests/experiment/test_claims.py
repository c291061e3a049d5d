"""A claim that no job can answer is told when the sweep is composed."""

import pytest
from hydra import compose, initialize_config_dir

from experiment.claims import problems_of_claims
from experiment.command_line import CONFIG_DIR

PAIR = {"seed=0": 1, "seed=1": -1}


@pytest.fixture(scope="module")
def jobs():
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        given = ["metrics=[acc,ece]", "optimizer.lr=1e-4"]
        runs = [compose("train", [*given, f"seed={seed}"]) for seed in (0, 1)]
    return [(run, {"model": "mnist", "seed": str(run.seed)}) for run in runs]


@pytest.mark.parametrize(
    "claim",
    [
        {"metric": "test_acc", "contrasts": [PAIR]},
        {"metric": "test_ece", "contrasts": [{"model=mnist seed=0": 2, "optimizer.lr=0.0001 seed=1": -2}]},
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
        ({"metric": "test_acc", "contrasts": [{"sede=0": 1, "seed=1": -1}]}, "Did you mean seed=0?"),
        ({"metric": "test_acc", "contrasts": [{"seed=0": 1, "seed=2": -1}]}, "They have seed=0, 1"),
        ({"metric": "test_acc", "contrasts": [{"model=mnits": 1, "seed=1": -1}]}, "They have model=mnist"),
        (
            {"metric": "test_acc", "contrasts": [{"seed=0 seed=1": 1, "seed=1": -1}]},
            "no job has seed=0 seed=1",
        ),
        ({"metric": "test_acc", "contrasts": [{"seed=0": 1, "seed=1": -0.5}]}, "sum to 0.5"),
        ({"metric": "test_acc", "contrasts": [{"seed=0": "x"}]}, "could not convert"),
        ({"metric": "test_acc", "contrast": [PAIR]}, "unknown key contrast"),
        ({"metric": "test_acc"}, "no contrasts"),
        ({"contrasts": [PAIR]}, "a claim has a text and a metric"),
    ],
)
def test_what_cannot(jobs, claim, message):
    line, way_out = problems_of_claims([{"text": "so", **claim}], jobs)
    assert message in line
    assert way_out == "sweep.claims=null sweeps without asking"


def test_a_sweep_is_refused_before_it_trains_and_before_a_dry_run(run_entry_point, tmp_path):
    """Also in a dry run, which trains nothing."""
    file = tmp_path / "conf" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(
        "# @package _global_\nhydra: {sweeper: {params: {seed: '0,1'}}}\n"
        "sweep: {claims: [{text: so, metric: test_acc, contrasts: [{seed=0: 1, seed=3: -1}]}]}\n"
    )
    dry = ["-m", "experiment=mine", "sweep.dry_run=true", f"output_dir={tmp_path}"]
    done = run_entry_point("train.py", "--config-dir", tmp_path / "conf", *dry)
    assert done.code == 1
    assert "no job has seed=3" in done.err
    assert run_entry_point("train.py", "--config-dir", tmp_path / "conf", *dry, "sweep.claims=null").code == 0
