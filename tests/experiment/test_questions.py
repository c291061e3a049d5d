"""Nothing is compared that differs in more than is said, and no verdict says more than the runs do."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import GIT, HELPS, claim, write_definition, write_run, write_sweep

from experiment.report.answers import Answer, answer, is_decided
from experiment.report.page import write_report
from experiment.report.questions import parse_claim, questions
from experiment.report.runs import Collection, read
from experiment.sweep import Job, Sweep


def ask(*folders: Path, delta: float | None = None) -> list[Answer]:
    runs = Collection(folders)
    return answer(questions(runs)[0], runs, delta)


def notes(*folders: Path) -> str:
    return "\n".join(questions(Collection(folders))[1])


def write_cases(folder: Path, cases: list[tuple[dict[str, Any], list[float]]], claims=()) -> Path:
    """A sweep of cases: overrides of each with the accuracies of seeds 0, 1, …; group options are choices."""
    jobs = []
    for number, (overrides, accuracies) in enumerate(cases):
        choices = {key: str(value) for key, value in overrides.items() if "." not in key}
        config = {key: value for key, value in overrides.items() if "." in key}
        for seed, acc in enumerate(accuracies):
            name = f"job{number}-{seed}"
            jobs.append(
                {
                    "folder": name,
                    "overrides": {**{k: str(v) for k, v in overrides.items()}, "seed": str(seed)},
                }
            )
            write_run(folder / name, seed, acc=acc, config=config, choices=choices)
    write_definition(folder, [*dict.fromkeys(key for case, _ in cases for key in case), "seed"], jobs, claims)
    return folder


# what is comparable


def test_runs_of_different_data_sets_are_never_compared(tmp_path):
    for seed in range(3):
        write_run(
            tmp_path / "o" / f"m{seed}",
            seed,
            acc=0.99 + seed / 1000,
            choices={"model": "mnist", "data": "mnist"},
        )
        other = {"data.dataset": "cifar10", "optimizer.lr": 0.1, "model._target_": "nets.baseline"}
        chosen = {"model": "baseline", "data": "cifar10"}
        write_run(tmp_path / "o" / f"c{seed}", seed, acc=0.5 + seed / 100, config=other, choices=chosen)
    assert ask(tmp_path / "o") == []
    assert "data" in Collection([tmp_path / "o"]).keys


def test_image_folders_with_other_images_are_different_data_sets(tmp_path):
    for number, fingerprint in enumerate(("aa", "bb")):
        for seed in range(3):
            write_run(
                tmp_path / "o" / f"{fingerprint}{seed}", seed, acc=0.5 + seed / 100,
                config={"data.dataset": "image_folder", "model.dropout": 0.5 * number},
                provenance={"data": {"dataset": "image_folder", "fingerprint": fingerprint}},
            )  # fmt: skip
    assert ask(tmp_path / "o") == []


def test_runs_on_other_images_have_rows_of_their_own(tmp_path):
    for fingerprint in ("aa", "bb"):
        data = {"data": {"dataset": "image_folder", "fingerprint": fingerprint}}
        write_run(tmp_path / "o" / fingerprint, config={"data.dataset": "image_folder"}, provenance=data)
    assert Collection([tmp_path / "o"]).keys == ["data.fingerprint"]


def test_settings_that_change_together_are_listed_and_none_of_them_gets_a_verdict(tmp_path):
    for seed in range(4):
        adam = {"optimizer._target_": "Adam", "optimizer.lr": 1e-3, "trainer.max_epochs": 3}
        sgd = {"optimizer._target_": "SGD", "optimizer.lr": 0.1, "trainer.max_epochs": 9}
        for name, config, acc in (("adam", adam, 0.9), ("sgd", sgd, 0.8)):
            write_run(tmp_path / "o" / f"{name}{seed}", seed, acc=acc + seed * (0.01 + (acc < 0.85) / 1e3),
                      config=config, choices={"optimizer": name})  # fmt: skip
    (given,) = ask(tmp_path / "o")
    assert (
        given.question.text == "Do these settings (optimizer, trainer.max_epochs) matter together on mnist?"
    )
    assert given.verdict.startswith(
        "decided: these settings change together (optimizer, trainer.max_epochs), no verdict on one of them: "
    )


def test_what_changes_one_by_one_is_asked_one_by_one(tmp_path):
    cases = [({"model.dropout": d, "optimizer.lr": r}, [0.9 + d / 10 + r, 0.91 + d / 9 + r, 0.92 + d / 8 + r])
             for d in (0.0, 0.5) for r in (0.01, 0.1)]  # fmt: skip
    asked = ask(write_cases(tmp_path / "s", cases))
    assert [given.question.text for given in asked] == [
        "Does model.dropout matter on mnist?", "Does optimizer.lr matter on mnist?",
    ]  # fmt: skip


def test_a_claim_about_one_setting_gets_no_verdict_where_others_change_with_it(tmp_path):
    cases = [
        ({"model": "mnist", "trainer.max_epochs": 10, "model.engine": "torch"}, [0.99, 0.991, 0.992, 0.993]),
        ({"model": "custom", "trainer.max_epochs": 5, "model.engine": "numpy"}, [0.97, 0.972, 0.971, 0.974]),
    ]
    engine = claim({"model.engine=torch": 1, "model.engine=numpy": -1})
    whole = claim({"model=mnist trainer.max_epochs=10": 1, "model=custom trainer.max_epochs=5": -1})
    alone, together = ask(write_cases(tmp_path / "s", cases, [engine, whole]))
    assert alone.verdict.startswith("no verdict: these settings change together: model.engine, ")
    assert "trainer.max_epochs" in alone.verdict
    assert together.verdict == "held"


def test_a_difference_of_differences_spans_data_sets_and_names_what_else_changes(tmp_path):
    cases = []
    for data, epochs, accs in (("cifar10", 10, {"0": [0.8, 0.81], "0.7": [0.7, 0.72]}),
                               ("mnist", 5, {"0": [0.99, 0.98], "0.7": [0.98, 0.975]})):  # fmt: skip
        cases += [
            (
                {"data": data, "data.dataset": data, "trainer.max_epochs": epochs, "model.dropout": float(d)},
                accs[d],
            )
            for d in accs
        ]
    terms = {"data=cifar10 model.dropout=0": 1, "data=cifar10 model.dropout=0.7": -1,
             "data=mnist model.dropout=0": -1, "data=mnist model.dropout=0.7": 1}  # fmt: skip
    across = {"data=cifar10 model.dropout=0": 1, "data=mnist model.dropout=0": -1}
    folder = write_cases(tmp_path / "s", cases, [claim(terms), claim(across)])
    (given,) = ask(folder)
    (contrast,) = given.question.contrasts
    # (0.8 − 0.7) − (0.99 − 0.98) and (0.81 − 0.72) − (0.98 − 0.975)
    assert list(contrast.values.values()) == pytest.approx([0.09, 0.085])
    assert contrast.across == ["trainer.max_epochs"]
    assert "it compares cifar10 with mnist: runs of one data set are comparable" in notes(folder)


def test_a_claim_that_names_no_data_set_is_asked_on_each(tmp_path):
    cases = [({"data.dataset": data, "model.dropout": d}, [acc + d / 10, acc + d / 9, acc + d / 8])
             for data, acc in (("cifar10", 0.6), ("mnist", 0.9)) for d in (0.0, 0.5)]  # fmt: skip
    (given,) = ask(write_cases(tmp_path / "s", cases, [HELPS]))
    assert [contrast.scope.partition(",")[0] for contrast in given.question.contrasts] == ["cifar10", "mnist"]
    assert [finding.found.n for finding in given.findings] == [3, 3]


def test_identical_runs_count_once(tmp_path):
    for value in (0.0, 0.5):
        for seed in (0, 1, 2):
            for copy in ("a", "b"):
                write_run(tmp_path / "o" / f"{copy}{value}{seed}", seed, acc=0.9 + value / 100 + seed / 1000,
                          config={"model.dropout": value, "name": copy})  # fmt: skip
    runs = Collection([tmp_path / "o"])
    assert (len(runs.records), len(runs.finished), len(runs.repeats)) == (12, 6, 6)
    (given,) = ask(tmp_path / "o")
    assert given.findings[0].found.n == 3


@pytest.mark.parametrize(
    ("provenance", "named"),
    [
        ({"git": GIT | {"commit": "b" * 40}}, "commit differs: aaaaaaaaaa (3 runs), bbbbbbbbbb (3 runs)"),
        (
            {"git": GIT | {"changed_files": ["M x"], "diff_sha256": "c" * 64}},
            "3 of 6 runs had uncommitted changes",
        ),
        (
            {"data": {"dataset": "mnist", "fingerprint": "bad"}},
            "data mnist differs: f00 (3 runs), bad (3 runs)",
        ),
        ({"packages": {"torch": "2.7"}}, "torch differs: 2.6 (3 runs), 2.7 (3 runs)"),
        (
            {"hardware": {"processor": "y", "cores": 2}},
            "processor differs: x, 2 cores (3 runs), y, 2 cores (3 runs)",
        ),
        ({"gpus": ["H100"]}, "GPUs differs: none (3 runs), H100 (3 runs)"),
    ],
)
def test_circumstances_that_differ_within_a_comparison_are_named(tmp_path, provenance, named):
    for seed in (0, 1, 2):
        write_run(tmp_path / "o" / f"a{seed}", seed, acc=0.9 + seed / 100)
        config = {"model.dropout": 0.5}
        write_run(
            tmp_path / "o" / f"b{seed}", seed, acc=0.91 + seed / 99, config=config, provenance=provenance
        )
    (given,) = ask(tmp_path / "o")
    what, _, values = named.partition(": ")
    (caveat,) = (
        given.question.contrasts[0].caveats
        if "uncommitted" not in named
        else given.question.contrasts[0].caveats[1:]
    )
    assert caveat.startswith(what)
    assert all(value in caveat for value in values.split("runs), "))


def test_precision_is_a_setting_like_any_other(tmp_path):
    for seed in (0, 1, 2):
        write_run(
            tmp_path / "o" / f"a{seed}", seed, acc=0.9 + seed / 100, config={"trainer.precision": "32-true"}
        )
        config = {"model.dropout": 0.5, "trainer.precision": "bf16-mixed"}
        write_run(tmp_path / "o" / f"b{seed}", seed, acc=0.91 + seed / 99, config=config)
    (given,) = ask(tmp_path / "o")
    assert given.question.changed == ("model.dropout", "trainer.precision")


def test_a_key_that_older_runs_did_not_know_is_as_good_as_null(tmp_path):
    write_run(tmp_path / "o" / "a", 0)
    write_run(tmp_path / "o" / "b", 1, acc=0.8, config={"data.new": None})
    write_run(tmp_path / "o" / "c", 2, acc=0.7, config={"data.new": 3})
    a, b, c = (read(tmp_path / "o" / name) for name in "abc")
    assert a.settings == b.settings != c.settings


# claims


def test_a_claim_that_holds_with_its_size(tmp_path):
    values = {"0.0": [0.90, 0.91, 0.92, 0.93], "0.5": [0.911, 0.919, 0.931, 0.941]}
    (given,) = ask(write_sweep(tmp_path / "s", values, [HELPS | {"claimed": 0.01}]))
    assert given.verdict == "held"
    assert given.findings[0].found.mean == pytest.approx(0.0105)
    assert "The claimed +1.00 is inside the interval" in given.effect(given.findings[0])
    for size, where, said in (
        (0.1, "larger than", "held in direction, smaller than claimed"),
        (0.001, "smaller than", "held: larger than claimed"),
        ([0.001, 0.1], "in part inside", "held"),
    ):
        (given,) = ask(write_sweep(tmp_path / f"s{size}", values, [HELPS | {"claimed": size}]))
        assert f"is {where} the interval" in given.effect(given.findings[0])
        assert given.verdict == said


def test_a_claimed_size_above_the_whole_interval_is_excluded(tmp_path):
    # pooling's differences on CIFAR-10: mean −1.50, interval −3.14 to +0.13, claimed +0.3
    differences = [-0.034, -0.004, -0.014, -0.02, -0.003]
    values = {"0.0": [0.6] * 5, "0.5": [0.6 + difference for difference in differences]}
    (given,) = ask(write_sweep(tmp_path / "s", values, [HELPS | {"claimed": 0.003}]))
    assert given.findings[0].found.high > 0
    assert given.verdict == "no such effect: the claimed size is excluded"


def test_an_effect_within_the_claimed_size_is_equivalence(tmp_path):
    values = {"0.0": [0.6] * 6, "0.5": [0.6005, 0.5995, 0.6008, 0.5991, 0.6002, 0.5998]}
    (given,) = ask(write_sweep(tmp_path / "s", values, [HELPS | {"claimed": 0.01}]))
    assert given.verdict.replace("\u00a0", " ") == "equivalent: within ±1.00 points"
    (given,) = ask(write_sweep(tmp_path / "t", values, [HELPS | {"delta": 0.02}]))
    assert given.verdict.replace("\u00a0", " ") == "equivalent: within ±2.00 points"
    (given,) = ask(write_sweep(tmp_path / "u", values), delta=0.005)
    assert given.verdict.startswith("equivalent: ")


def test_a_claim_is_contradicted_if_one_contrast_is_and_undecided_if_one_is(tmp_path):
    values = {"0.0": [0.90, 0.91, 0.92], "0.3": [0.89, 0.92, 0.921], "0.5": [0.95, 0.961, 0.97]}
    better = {"model.dropout=0.5": 1, "model.dropout=0": -1}
    worse = {"model.dropout=0": 1, "model.dropout=0.5": -1}
    open_ = {"model.dropout=0.3": 1, "model.dropout=0": -1}
    claims = [claim(better, worse), claim(better, open_), claim(better, better)]
    assert [given.verdict for given in ask(write_sweep(tmp_path / "s", values, claims))] == [
        "contradicted", "undecided: 1 held, 1 undecided", "held",
    ]  # fmt: skip


def test_a_ratio_is_a_factor(tmp_path):
    write_sweep(tmp_path / "s", {"0.0": [0.5, 0.5], "0.5": [0.5, 0.5]}, [])
    jobs = json.loads((tmp_path / "s" / "sweep.json").read_text())["jobs"]
    for job, speed in zip(jobs, (100.0, 110.0, 201.0, 219.0), strict=True):
        path = tmp_path / "s" / job["folder"] / "results.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"images_per_second": speed}))
    faster = claim({"model.dropout=0.5": 1, "model.dropout=0": -1}, metric="images_per_second", scale="ratio")
    write_definition(tmp_path / "s", ["model.dropout", "seed"], jobs, [faster | {"claimed": [5, 7]}])
    (given,) = ask(tmp_path / "s")
    text = given.effect(given.findings[0])
    assert text.startswith("×2 (×1.8")
    assert text.endswith("The claimed ×5 to ×7 is larger than the interval")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"metric": "test_acc"}, "a claim has a text and a metric"),
        ("nonsense", "a claim has a text and a metric"),
        (claim({"model.dropout=0.5": "much"}), "much"),
        (claim({"model.dropout=0.5": 1}), "compares nothing: it needs two settings"),
        (claim({"model.dropout=0.5": 2, "model.dropout=0": -1}), "sum to 1"),
        (claim({"model.dropout=0.5": 2, "model.dropout=0": -1}, scale="ratio"), "sum to 1"),
        (claim({"model.dropout=0.6": 1, "model.dropout=0": -1}), "no job has model.dropout=0.6"),
        (claim(), "no contrasts"),
        (HELPS | {"size": 1}, "unknown key size"),
        (HELPS | {"scale": "ratio", "claimed": -1}, "a size is above 1; turn the weights round"),
        (HELPS | {"scale": "ratio", "claimed": [0.5, 0.8]}, "a size is above 1"),
        (HELPS | {"claimed": -0.01}, "a size is above 0"),
        (HELPS | {"claimed": math.nan}, "a size is above 0"),
        (HELPS | {"delta": 0}, "delta=0: expected a number above 0"),
        (claim({"model.dropout=0.5": math.nan, "model.dropout=0": -1}), "compares nothing"),
        (claim({"model.dropout=0.5": math.inf, "model.dropout=0": -math.inf}), "compares nothing"),
        (claim({"model.dropout=0.5": 0, "model.dropout=0": 0}), "compares nothing"),
        (claim({}), "compares nothing"),
    ],
)
def test_a_claim_that_makes_no_sense_is_named(tmp_path, wrong, said):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.9, 0.91], "0.5": [0.91, 0.93]}, [wrong, HELPS])
    assert len(ask(folder)) == 1
    assert said in notes(folder)


def test_claims_are_read_without_torch_or_matplotlib():
    heavy = {"torch", "matplotlib", "scipy.special"}
    code = f"import sys, experiment.report.questions; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert parse_claim(HELPS).contrasts == ({"model.dropout=0.5": 1.0, "model.dropout=0": -1.0},)


# failures


def fail(folder: Path, overrides: dict[str, str], seeds: range) -> None:
    """Make jobs of a sweep failures."""
    content = json.loads((folder / "sweep.json").read_text())
    for job in content["jobs"]:
        if int(job["overrides"]["seed"]) in seeds and overrides.items() <= job["overrides"].items():
            for name in ("provenance.json", "results.json"):
                path = folder / job["folder"] / name
                path.write_text(
                    json.dumps(json.loads(path.read_text()) | {"status": "failed", "error": "NaN"})
                )


def test_survivors_alone_give_no_verdict(tmp_path):
    values = {"0.0": [0.90, 0.91, 0.92, 0.93, 0.94], "0.5": [0.911, 0.9205, 0.931, 0.9401, 0.951]}
    folder = write_sweep(tmp_path / "s", values, [HELPS])
    assert ask(folder)[0].verdict == "held"
    fail(folder, {"model.dropout": "0.5"}, range(2, 5))
    (given,) = ask(folder)
    assert given.verdict.startswith("no verdict: 3 of 5 runs of model.dropout=0.5 failed")
    told = HELPS | {"failed": 0.1}
    content = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps(content | {"claims": [told]}))
    (given,) = ask(folder)
    assert given.findings[0].found.n == 5
    assert given.findings[0].found.mean < 0


def test_a_comparison_without_a_claim_has_no_winner_among_survivors(tmp_path):
    values = {"0.0": [0.90, 0.91, 0.92], "0.5": [0.95, 0.961, 0.97]}
    folder = write_sweep(tmp_path / "s", values)
    assert "beats" in ask(folder)[0].verdict
    fail(folder, {"model.dropout": "0.5"}, range(1))
    assert ask(folder)[0].verdict.startswith("no verdict: 1 of 3 runs of model.dropout=0.5 failed")


def test_a_failure_that_finished_at_another_attempt_is_none(tmp_path):
    for seed in range(3):
        for value in (0.0, 0.5):
            config = {"model.dropout": value}
            write_run(
                tmp_path / "o" / f"{value}{seed}", seed, acc=0.9 + seed / 99 + value / 50, config=config
            )
    assert "no verdict" not in ask(tmp_path / "o")[0].verdict
    write_run(tmp_path / "o" / "lost", 0, status="failed", config={"model.dropout": 0.5})
    assert "no verdict" not in ask(tmp_path / "o")[0].verdict
    write_run(tmp_path / "o" / "diverged", 3, status="failed", config={"model.dropout": 0.5})
    assert ask(tmp_path / "o")[0].verdict.startswith("no verdict: 1 of 4 runs of model.dropout=0.5 failed")


def test_a_result_that_is_not_finite_is_a_failure(tmp_path):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.90, 0.91], "0.5": [0.95, math.nan]}, [HELPS])
    assert ask(folder)[0].verdict.startswith("no verdict: 1 of 2 runs of model.dropout=0.5 failed")


def test_jobs_still_to_come_are_no_failures(tmp_path):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.90, 0.91, 0.92], "0.5": [0.911, 0.92]}, [HELPS])
    content = json.loads((folder / "sweep.json").read_text())
    content["jobs"].append({"folder": "late", "overrides": {"model.dropout": "0.5", "seed": "2"}})
    (folder / "sweep.json").write_text(json.dumps(content))
    (given,) = ask(folder)
    assert given.findings[0].found.n == 2
    assert given.question.contrasts[0].unpaired == {("seed=2",): ["model.dropout=0.5"]}


@pytest.mark.parametrize("status", ["running", "interrupted", "pending"])
def test_a_verdict_while_runs_are_not_finished_is_one_so_far(tmp_path, status):
    """Killed runs may be survivors' brothers as failed ones are; they can still finish."""
    values = {"0.0": [0.90, 0.91, 0.92, 0.93], "0.5": [0.951, 0.96, 0.972, 0.98]}
    said = "so far: 1 of 4 runs of model.dropout=0.5 have no result yet"
    for name, claims in (("claimed", [HELPS]), ("compared", [])):
        folder = write_sweep(tmp_path / name, values, claims)
        path = folder / "model.dropout=0.5,seed=3-00" / "provenance.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": status}))
        (given,) = ask(folder)
        assert given.verdict.endswith(said)
        assert given.verdict.startswith(("held, ", "decided: model.dropout=0.5"))
        assert given.next_step == f"python train.py -m sweep.name={name}"


def test_attempts_at_one_run_count_once_whatever_they_knew_of_the_data(tmp_path):
    values = {"0.0": [0.90, 0.91, 0.92], "0.5": [0.95, 0.961, 0.97]}
    write_sweep(tmp_path / "o" / "s", values)
    before = {"status": "failed", "config": {"model.dropout": 0.5}, "provenance": {"data": {}}}
    write_run(tmp_path / "o" / "lost", 1, **before)  # failed before it read the data; finished in the sweep
    assert ask(tmp_path / "o")[0].verdict.startswith("decided")
    for attempt in ("a", "b"):
        write_run(tmp_path / "o" / attempt, 3, **before)
    assert ask(tmp_path / "o")[0].verdict.startswith("no verdict: 1 of 4 runs of model.dropout=0.5 failed")


def test_a_ratio_has_no_unit_and_none_of_a_value_that_is_zero(tmp_path):
    asked = HELPS | {"scale": "ratio"}
    (given,) = ask(write_sweep(tmp_path / "s", {"0.0": [0.4, 0.41], "0.5": [0.8, 0.83]}, [asked]))
    assert given.effect(given.findings[0]).endswith(")")
    folder = write_sweep(tmp_path / "t", {"0.0": [0.4, 0.41], "0.5": [0.8, 0.0]}, [asked])
    assert ask(folder) == []
    assert "seed=1-00 is 0, of which no ratio is formed" in notes(folder)


# seeds


def test_pairs_of_one_seed_count_as_their_mean(tmp_path):
    cases = [
        ({"model.dropout": d, "optimizer.lr": r}, [0.9, 0.91 + d * r, 0.92])
        for d in (0.0, 0.5)
        for r in (1.0, 2.0)
    ]
    (given,) = ask(write_cases(tmp_path / "s", cases, [HELPS]))
    (contrast,) = given.question.contrasts
    assert len(contrast.values) == 6
    assert list(contrast.seeds.values()) == pytest.approx([0, 0.75, 0])
    assert given.findings[0].found.n == 3


def test_an_effect_of_the_seed_gives_no_false_verdicts(tmp_path):
    """Three seeds, four values of another knob, no effect: 31 % false verdicts if each pair counted."""
    rng = np.random.default_rng(0)
    write_cases(tmp_path / "s", [({"model.dropout": d, "optimizer.lr": r}, [0.5] * 3)
                                 for d in (0.0, 0.5) for r in (1.0, 2.0, 3.0, 4.0)], [HELPS])  # fmt: skip
    runs = Collection([tmp_path / "s"])
    repetitions, false = 400, 0
    for _ in range(repetitions):
        of_seed = rng.normal(0, 0.01, (2, 3))  # how a seed treats each of the two values
        for run in runs.records:
            value = run.values["model.dropout"] == "0.5"
            run.results = {
                "test_acc": 0.5 + of_seed[int(value), int(run.values["seed"])] + rng.normal(0, 0.003)
            }
        (given,) = answer(questions(runs)[0], runs)
        false += given.verdict in ("held", "contradicted")
    assert false / repetitions < 0.08  # 5 % and three standard errors


# folds


def write_folds(folder: Path, seeds: int = 1) -> Path:
    """Two values of dropout on five folds, each with all seeds."""
    for fold in range(5):
        for seed in range(seeds):
            for value in (0.0, 0.5):
                config = {"model.dropout": value, "data.fold": fold, "data.folds": 5}
                acc = 0.9 + fold / 100 + value * (0.02 + fold / 400 + seed / 100)
                write_run(folder / f"{fold}-{seed}-{value}", seed, acc=acc, config=config)
    return folder


def test_folds_vary_the_split_and_are_no_question(tmp_path):
    (given,) = ask(write_folds(tmp_path / "o"))
    (contrast,) = given.question.contrasts
    assert given.question.text == "Does model.dropout matter on mnist in 5 folds?"
    assert (contrast.folds, list(contrast.values)) == (5, [("seed=0", f"data.fold={k}") for k in range(5)])
    values = [0.5 * (0.02 + fold / 400) for fold in range(5)]
    found = given.findings[0].found
    assert (found.n, found.mean) == (5, pytest.approx(np.mean(values)))
    # Nadeau and Bengio: 1/J + test images ÷ training images
    assert found.error == pytest.approx(np.std(values, ddof=1) * (1 / 5 + 1 / 4) ** 0.5)


def test_seeds_that_the_folds_share_widen_the_interval(tmp_path):
    one, three = (ask(write_folds(tmp_path / str(n), n))[0].findings[0].found for n in (1, 3))
    assert (one.n, three.n) == (5, 3)
    of_seeds = [0.5 * (0.025 + seed / 100) for seed in range(3)]
    assert three.error == pytest.approx((one.error**2 + np.var(of_seeds, ddof=1) / 3) ** 0.5)


def test_folds_and_one_split_are_two_questions_and_in_a_claim_folds_count(tmp_path):
    write_folds(tmp_path / "o")
    for seed in range(2):
        for value in (0.0, 0.5):
            config = {"model.dropout": value, "data.fold": None, "data.folds": 5}
            write_run(tmp_path / "o" / f"one{seed}-{value}", seed, acc=0.8 + value / 50, config=config)
    folds, one = sorted(ask(tmp_path / "o"), key=lambda given: -given.findings[0].found.n)
    assert (folds.question.text, folds.findings[0].found.n) == (
        "Does model.dropout matter on mnist in 5 folds?",
        5,
    )
    assert (one.question.text, one.findings[0].found.n) == ("Does model.dropout matter on mnist?", 2)
    jobs = [{"folder": path.parent.name, "overrides": {}} for path in (tmp_path / "o").glob("*/config.yaml")]
    write_definition(tmp_path / "o", ["model.dropout", "data.fold"], jobs, [HELPS])
    (given,) = ask(tmp_path / "o")
    assert given.findings[0].found.n == 5
    assert "2 without data.fold are left out, beside folds" in given.question.contrasts[0].caveats


def test_one_split_and_two_folds_are_different_runs(tmp_path):
    for fold in (None, 0, 1):
        config = {} if fold is None else {"data.fold": fold, "data.folds": 5}
        write_run(tmp_path / "o" / str(fold), 0, acc=0.9, config=config)
    assert len(Collection([tmp_path / "o"]).finished) == 3


# comparisons without a claim


def test_every_value_is_compared_with_every_other_and_the_winner_is_named(tmp_path):
    values = {"0.0": [0.90, 0.91, 0.92], "0.3": [0.95, 0.961, 0.97], "0.5": [0.905, 0.911, 0.935]}
    (given,) = ask(write_sweep(tmp_path / "s", values))
    assert [given.name(contrast) for contrast in given.question.contrasts] == [
        "model.dropout=0.3 − model.dropout=0", "model.dropout=0.5 − model.dropout=0",
        "model.dropout=0.3 − model.dropout=0.5",
    ]  # fmt: skip
    assert given.findings[0].verdict == "better"
    assert given.findings[1].verdict.startswith("undecided: about")
    assert given.findings[0].p == pytest.approx(3 * given.findings[0].found.p)
    verdict = given.verdict.replace("\u00a0", " ")
    assert verdict.startswith("decided: model.dropout=0.3 beats model.dropout=0.5 and all others: +4.33 (")


def test_where_chance_may_be_at_work_the_leaders_are_named(tmp_path):
    values = {"0.0": [0.90, 0.91, 0.92], "0.3": [0.95, 0.961, 0.97], "0.5": [0.951, 0.96, 0.972]}
    (given,) = ask(write_sweep(tmp_path / "s", values))
    verdict = given.verdict.replace("\u00a0", " ")
    assert verdict.startswith("undecided: model.dropout=0.5 leads model.dropout=0.3, by +0.07 (")
    assert verdict.endswith("but chance may do that; both beat model.dropout=0")


def test_the_winner_is_named_with_how_much_and_how_sure(tmp_path):
    values = {"0.0": [0.90, 0.91, 0.92, 0.93], "0.5": [0.951, 0.96, 0.972, 0.98]}
    (given,) = ask(write_sweep(tmp_path / "s", values))
    assert given.verdict.replace("\u00a0", " ").startswith(
        "decided: model.dropout=0.5 beats model.dropout=0: +5.07 ("
    )
    assert "p = " in given.verdict
    values = {"0.0": values["0.5"], "0.5": values["0.0"]}
    (given,) = ask(write_sweep(tmp_path / "t", values))
    assert given.verdict.replace("\u00a0", " ").startswith(
        "decided: model.dropout=0 beats model.dropout=0.5: +5.07 ("
    )


def test_an_undecided_question_says_what_to_run_next(tmp_path):
    values = {"0.0": [0.90, 0.91, 0.92], "0.5": [0.905, 0.911, 0.935]}
    folder = write_sweep(tmp_path / "s", values, [HELPS])
    content = json.loads((folder / "sweep.json").read_text())
    content["sessions"][0]["command"] = (
        "python3.11 train.py -m 'model.dropout=0,0.5' seed=range(3) sweep.name=s"
    )
    (folder / "sweep.json").write_text(json.dumps(content))
    (given,) = ask(folder)
    assert given.verdict.startswith("undecided: about")
    assert given.next_step.startswith("python train.py -m model.dropout=0,0.5 'seed=range(")
    assert given.next_step.endswith(")' sweep.name=s")
    told = write_report([folder], None)
    assert "sweep.until=decided adds them validly" in told


def test_the_next_step_of_a_decided_question_trains_with_the_winner(tmp_path):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.90, 0.91, 0.92, 0.93], "0.5": [0.951, 0.96, 0.972, 0.98]})
    content = json.loads((folder / "sweep.json").read_text())
    content["sessions"][0]["command"] = (
        "python train.py -m data=mnist model.dropout=0,0.5 seed=0,1 sweep.name=s"
    )
    (folder / "sweep.json").write_text(json.dumps(content))
    assert ask(folder)[0].next_step == "python train.py data=mnist model.dropout=0.5"


def test_single_runs_are_continued_as_a_sweep(tmp_path):
    for seed in (0, 1):
        for value in (0.0, 0.5):
            known = {"command": f"python train.py model.dropout={value} seed={seed} name=x"}
            write_run(tmp_path / "o" / f"{value}{seed}", seed, acc=0.9 + seed * (0.01 + value / 50),
                      config={"model.dropout": value}, provenance=known)  # fmt: skip
    (given,) = ask(tmp_path / "o")
    assert given.next_step.startswith("python train.py -m model.dropout=0.5,0 'seed=range(")


def test_two_sweeps_are_compared(tmp_path):
    a = write_sweep(tmp_path / "a", {"0.0": [0.9, 0.91], "0.5": [0.92, 0.94]})
    focal = {"config": {"loss.gamma": 2.0}, "choices": {"loss": "focal"}}
    b = write_sweep(tmp_path / "b", {"0.0": [0.8, 0.815], "0.5": [0.82, 0.84]}, **focal)
    assert [(given.question.changed, given.findings[0].found.n) for given in ask(a, b)] == [
        (("model.dropout",), 2), (("loss",), 2),
    ]  # fmt: skip


def test_derived_metrics(tmp_path):
    run = read(write_run(tmp_path / "run", curve=(0.5, 0.7, 0.6, 0.65, 0.6)))
    assert run.metric("val_acc_falls") == pytest.approx(0.15)
    assert run.metric("seconds_per_epoch") == pytest.approx(1.2)
    assert read(write_run(tmp_path / "diverged", curve=(0.5, math.nan, 0.4))).metric("val_acc_falls") is None


def write_values(folder: Path, values: dict[Any, dict[int, float]], key: str = "model.dropout") -> Path:
    """Single runs: value of a key → seed → accuracy."""
    for number, (value, accuracies) in enumerate(values.items()):
        for seed, acc in accuracies.items():
            write_run(folder / f"{number}-{seed}", seed, acc=acc, config={key: value},
                      provenance={"command": f"python train.py '{key}={value}' seed={seed}"})  # fmt: skip
    return folder


SLOPE = {0: 0.80, 1: 0.811, 2: 0.82, 3: 0.832}
LOWER = {seed: acc - 0.1 - seed / 1000 for seed, acc in SLOPE.items()}


def test_the_winner_may_be_null_and_a_setting_that_lacks_a_key_has_no_command(tmp_path):
    (given,) = ask(write_values(tmp_path / "a", {None: SLOPE, 500: LOWER}, "data.train_images"))
    assert given.verdict.startswith("decided: data.train_images=null beats data.train_images=500")
    assert given.next_step == "python train.py data.train_images=null"
    for seed, acc in SLOPE.items():
        write_run(tmp_path / "b" / f"none{seed}", seed, acc=acc)
        write_run(tmp_path / "b" / f"ema{seed}", seed, acc=LOWER[seed], config={"callbacks.ema.decay": 0.9})
    (given,) = ask(tmp_path / "b")
    assert given.verdict.startswith("decided: callbacks.ema.decay=– beats")
    assert given.next_step == ""


def test_a_winner_among_other_swept_keys_is_trained_with_each_of_them(tmp_path):
    cases = [({"model.dropout": d, "optimizer.lr": r}, [acc - d / 5 - d * acc * r for acc in SLOPE.values()])
             for d in (0.0, 0.5) for r in (0.01, 0.1)]  # fmt: skip
    folder = write_cases(tmp_path / "s", cases)
    content = json.loads((folder / "sweep.json").read_text())
    content["sessions"][0]["command"] = (
        "python3 train.py -m optimizer.lr=0.01,0.1 model.dropout=0,0.5 seed=0,1,2,3 hydra/launcher=joblib"
    )
    (folder / "sweep.json").write_text(json.dumps(content))
    given = ask(folder)[0]
    assert given.next_step == "python train.py -m optimizer.lr=0.01,0.1 hydra/launcher=joblib model.dropout=0"


@pytest.mark.parametrize(
    ("started", "next_step"),
    [
        (
            "python /usr/bin/lic-train -m 'model.dropout=0,0.5' seed=0,1",
            "lic-train -m model.dropout=0,0.5 'seed=range(",
        ),
        ("python3 notebook.py", ""),
        ("python -m ipykernel_launcher -f x.json", ""),
        ("", ""),
    ],
)
def test_a_next_command_is_one_that_trains(tmp_path, started, next_step):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.90, 0.91, 0.92], "0.5": [0.905, 0.911, 0.935]}, [HELPS])
    content = json.loads((folder / "sweep.json").read_text())
    content["sessions"][0]["command"] = started
    (folder / "sweep.json").write_text(json.dumps(content))
    assert ask(folder)[0].next_step.startswith(next_step)
    assert bool(ask(folder)[0].next_step) == bool(next_step)


def test_the_leader_is_ahead_in_pairs_not_in_what_its_seeds_happen_to_be(tmp_path):
    """The seeds of 0.5 are easy ones: its mean is the highest, and 0.3 is better on them."""
    easy = {3: 0.9, 4: 0.912, 5: 0.92}
    values = {0.0: {0: 0.51, 1: 0.52, 2: 0.53}, 0.3: {0: 0.54, 1: 0.551, 2: 0.56, **easy},
              0.5: {seed: acc - 0.01 - seed / 1e3 for seed, acc in easy.items()}}  # fmt: skip
    (given,) = ask(write_values(tmp_path / "a", values))
    assert given.verdict.startswith(
        "decided: model.dropout=0.3 beats model.dropout=0.5 and all others: +1.40"
    )
    values[0.3] = {seed: acc for seed, acc in values[0.3].items() if seed < 3} | {3: 0.88, 4: 0.89, 5: 0.9}
    (given,) = ask(write_values(tmp_path / "b", values))
    assert "no seed has it and model.dropout=" in given.verdict
    assert given.verdict.startswith("undecided")
    assert given.next_step == "python train.py -m model.dropout=0.3,0,0.5 'seed=range(6)'"


def test_where_each_is_beaten_by_another_none_leads(tmp_path):
    values = {0.0: {0: 0.9, 1: 0.913, 4: 0.5, 5: 0.51}, 0.3: {0: 0.8, 1: 0.81, 2: 0.9, 3: 0.914},
              0.5: {2: 0.8, 3: 0.81, 4: 0.6, 5: 0.613}}  # fmt: skip
    (given,) = ask(write_values(tmp_path / "o", values))
    assert "no setting is ahead of all others" in given.verdict


def test_it_is_said_who_beats_whom(tmp_path):
    close = {seed: acc - 0.001 * (-1) ** seed for seed, acc in SLOPE.items()}
    noisy = {0: 0.80, 1: 0.85, 2: 0.70, 3: 0.79}
    (given,) = ask(write_values(tmp_path / "a", {0.0: SLOPE, 0.1: close, 0.2: dict(close), 0.9: LOWER}))
    assert given.verdict.endswith("; all of them beat model.dropout=0.9")
    (given,) = ask(write_values(tmp_path / "b", {0.0: SLOPE, 0.1: noisy, 0.9: LOWER}))
    assert given.verdict.endswith("but chance may do that; model.dropout=0 beats model.dropout=0.9")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (SLOPE, "undecided: model.dropout=0.5 and model.dropout=0 are equal in all 4 seeds"),
        ({0: 0.8}, "undecided: model.dropout=0.5 and model.dropout=0 are equal in one seed"),
        ({seed: acc - 0.01 for seed, acc in SLOPE.items()}, "in all 4 seeds the settings differ by the same"),
    ],
)  # fmt: skip
def test_without_spread_nobody_leads_by_chance(tmp_path, other, said):
    (given,) = ask(write_values(tmp_path / "o", {0.0: SLOPE, 0.5: dict(other)}))
    assert said in given.verdict
    assert "chance" not in given.verdict


def test_values_with_spaces_are_drawn_and_named(tmp_path):
    folder = write_values(tmp_path / "o", {"leaky relu": SLOPE, "gelu": LOWER}, "model.activation")
    (given,) = ask(folder)
    assert given.next_step == "python train.py 'model.activation=leaky relu'"
    assert "model.activation=leaky relu beats model.activation=gelu" in write_report([folder], None)
    cases = [
        ({"model.activation": name}, list(accs.values()))
        for name, accs in (("leaky relu", SLOPE), ("gelu", LOWER))
    ]
    terms = {"model.activation=leaky relu": 1, "model.activation=gelu": -1}
    assert ask(write_cases(tmp_path / "s", cases, [claim(terms)]))[0].verdict == "held"


def test_a_metric_that_runs_lack_is_named_as_what_is_lacking(tmp_path):
    asked = claim({"model.dropout=0.5": 1, "model.dropout=0": -1}, metric="test_ece")
    (given,) = ask(write_sweep(tmp_path / "s", {"0.0": [0.9, 0.91], "0.5": [0.92, 0.93]}, [asked]))
    assert given.verdict == "undecided: no seed has test_ece of every setting"
    assert given.next_step == ""


# looking after each seed


def sequential(folder: Path, max_seeds: int) -> Path:
    content = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps(content | {"until": "decided", "max_seeds": max_seeds}))
    return folder


def test_seeds_after_a_decision_change_nothing(tmp_path):
    decided = [0.95, 0.9601, 0.9702, 0.9802]
    base = [0.90, 0.91, 0.92, 0.93]
    early = sequential(write_sweep(tmp_path / "a", {"0.0": base, "0.5": decided}, [HELPS]), 8)
    late = sequential(write_sweep(tmp_path / "b", {"0.0": [*base, 0.9], "0.5": [*decided, 0.1]}, [HELPS]), 8)
    (first,), (second,) = ask(early), ask(late)
    assert first.verdict == second.verdict == "held"
    assert first.findings[0].found == second.findings[0].found
    assert second.findings[0].found.n == 3
    assert is_decided([second.question], Collection([late]))


def test_before_a_decision_it_says_how_many_seeds_may_still_come(tmp_path):
    folder = sequential(
        write_sweep(tmp_path / "s", {"0.0": [0.9] * 4, "0.5": [0.91, 0.88, 0.93, 0.9]}, [HELPS]), 8
    )
    (given,) = ask(folder)
    assert given.verdict == "undecided: 4 more seeds until sweep.max_seeds"
    assert not is_decided([given.question], Collection([folder]))


def test_the_level_is_shared_out_among_the_contrasts_of_a_sweep(tmp_path):
    values = {"0.0": [0.90, 0.91, 0.92, 0.93], "0.5": [0.95, 0.962, 0.97, 0.985]}
    alone, many = (sequential(write_sweep(tmp_path / str(n), values, [HELPS] * n), 8) for n in (1, 20))
    assert ask(alone)[0].findings[0].level > 5 * ask(many)[0].findings[0].level > 0


def test_a_sequential_sweep_adds_seeds_until_its_claims_are_decided(tmp_path, configure):
    """The sweep hands out the jobs of a seed at a time; here they are trained by writing their results."""
    jobs = []
    for seed in range(8):
        for dropout in (0.0, 0.5):
            config = configure(f"seed={seed}", f"model.dropout={dropout}")
            jobs.append(Job(tmp_path / "s", {"model.dropout": str(dropout), "seed": str(seed)}, config, {}))
    sweep, rounds = Sweep(tmp_path / "s", jobs, [HELPS], max_seeds=8), []
    for todo in sweep.rounds():
        rounds.append(len(todo))
        for job in todo:
            dropout, seed = job.config.model.dropout, job.config.seed
            shutil.rmtree(job.run.folder)
            write_run(job.run.folder, seed, acc=0.5 + 0.1 * dropout * (1 + 0.3 * (seed % 2)) + seed / 99,
                      config={"model.dropout": dropout, "data.dataset": "mnist_mini"})  # fmt: skip
    assert rounds == [6, 2]
    content = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert (content["until"], content["max_seeds"], len(content["sessions"])) == ("decided", 8, 1)
    assert len(content["jobs"]) == 8
    assert ask(tmp_path / "s")[0].verdict == "held"


def test_a_report_whose_runs_are_gone_can_be_asked_again(tmp_path):
    values = {"0.0": [0.90, 0.91, 0.92, 0.93], "0.5": [0.951, 0.96, 0.972, 0.98]}
    folder = write_sweep(tmp_path / "s", values)
    write_report([folder], tmp_path / "old")
    shutil.rmtree(folder)
    (given,) = ask(tmp_path / "old")
    assert given.verdict.startswith("decided: model.dropout=0.5 beats model.dropout=0")
    assert given.findings[0].found.n == 4
    assert given.question.contrasts[0].scope.startswith("mnist")
