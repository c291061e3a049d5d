"""A report says of runs what they allow to be said, and names every one that it leaves out."""

import csv
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy.stats import ttest_rel

from experiment.errors import UserError
from experiment.report.page import escape, table, write_report
from experiment.report.questions import questions
from experiment.report.runs import Collection, plain, read
from experiment.report.statistics import Estimate, estimate, holm, pairs_needed, verdict

ROOT = Path(__file__).parents[2]
GIT = {"commit": "a" * 40, "changed_files": [], "diff_sha256": None}
CLAIM = ("held", "contradicted")


@pytest.fixture(autouse=True)
def _coarse_figures(monkeypatch):
    """Draw everything, on few pixels."""
    monkeypatch.setattr("experiment.report.page.save", lambda figure, path: figure.savefig(path, dpi=20))


def write_run(
    folder: Path,
    seed: int = 0,
    *,
    acc: float = 0.9,
    curve: Sequence[float] = (0.5, 0.7, 0.6),
    status: str = "finished",
    config: Mapping[str, Any] | None = None,
    choices: Mapping[str, str] | None = None,
    provenance: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
) -> Path:
    """A run folder as train.py leaves it; ``config`` has dotted keys."""
    folder.mkdir(parents=True)
    nested: dict[str, Any] = {"seed": seed, "name": None, "output_dir": str(folder.parent)}
    known = {
        "data.dataset": "mnist",
        "trainer.max_epochs": 3,
        "model._target_": "nets.mnist",
        "model.dropout": 0.0,
    }
    for key, value in {**known, **(config or {})}.items():
        *path, last = key.split(".")
        node = nested
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(nested))
    about = {
        "status": status, "git": GIT, "command": "python train.py",
        "choices": {"model": "mnist", "loss": "cross_entropy", **(choices or {})},
        "data": {"dataset": "mnist", "fingerprint": "f00"}, "packages": {"torch": "2.6"}, "threads": 2,
        "hardware": {"processor": "x", "cores": 2}, "start": "2026-01-01T00:00", "end": "2026-01-02T00:00",
    }  # fmt: skip
    (folder / "provenance.json").write_text(json.dumps(about | dict(provenance or {})))
    lines = ["epoch,train_loss,val_acc", *(f"{epoch},{1 / epoch},{v}" for epoch, v in enumerate(curve, 1))]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    measured = {"epochs": len(curve), "test_acc": acc, "val_acc": acc, "train_seconds": 6.0, "parameters": 10}
    measured |= {"flops_per_image": 20, "final_train_loss": 0.3, "images_per_second": 100.0, "status": status}
    if status != "pending":
        (folder / "results.json").write_text(json.dumps(measured | dict(results or {})))
    return folder


def write_sweep(
    folder: Path,
    values: Mapping[str, Sequence[float]],
    claims: Sequence[Any] = (),
    key: str = "model.dropout",
    **options: Any,
) -> Path:
    """A sweep over ``key`` with a run for each of the accuracies of its values, seeds 0, 1, …"""
    jobs = []
    for value, accuracies in values.items():
        for seed, acc in enumerate(accuracies):
            overrides = {key: value, "seed": str(seed)}
            jobs.append({"folder": f"{key}={value},seed={seed}-00", "overrides": overrides})
            write_run(folder / jobs[-1]["folder"], seed, acc=acc, config={key: float(value)}, **options)
    write_definition(folder, [key, "seed"], jobs, claims)
    return folder


def write_definition(folder: Path, swept: list[str], jobs: list[Any], claims: Sequence[Any] = ()) -> None:
    session = {"start": "2026-01-01", "command": "python train.py -m", "git": GIT}
    content = {
        "name": folder.name,
        "swept": swept,
        "jobs": jobs,
        "claims": list(claims),
        "sessions": [session],
    }
    (folder / "sweep.json").write_text(json.dumps(content))


def claim(*contrasts: Mapping[str, float], metric: str = "test_acc", **more: Any) -> dict[str, Any]:
    return {"text": "It helps.", "metric": metric, "contrasts": list(contrasts), **more}


HELPS = claim({"model.dropout=0.5": 1, "model.dropout=0": -1})


def ask(*folders: Path) -> list[Any]:
    return questions(Collection(folders))[0]


def report(*folders: Path) -> str:
    """The Markdown of a report on the folders."""
    write_report(folders, folders[0].parent / "out")
    return (folders[0].parent / "out" / "report.md").read_text()


# statistics


def test_the_interval_and_p_are_those_of_the_paired_t_test():
    a, b = [0.91, 0.93, 0.92, 0.95], [0.90, 0.90, 0.93, 0.91]
    known = ttest_rel(a, b)
    interval = known.confidence_interval(0.95)
    found = estimate([x - y for x, y in zip(a, b, strict=True)], 0.95)
    assert found.p == pytest.approx(known.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("values", [[], [0.1]])
def test_less_than_two_values_give_no_interval(values):
    found = estimate(values)
    assert found.n == len(values)
    assert all(math.isnan(number) for number in (found.sd, found.low, found.high, found.p))


def test_differences_that_float32_cannot_tell_apart_have_no_spread():
    found = estimate([0.1, 0.1 + 3e-8, 0.1 - 3e-8], 0.9)
    assert found.sd == 0
    assert math.isnan(found.p)
    assert estimate([1e-8, -1e-8], 0.9).mean == 0


def test_holm_by_hand():
    # sorted 0.01 0.02 0.03 0.04, times 4 3 2 1: 0.04 0.06 0.06 0.04, made monotone: 0.04 0.06 0.06 0.06
    assert holm([0.03, 0.01, math.nan, 0.04, 0.02])[:2] == pytest.approx([0.06, 0.04])
    assert holm([0.03, 0.01, math.nan, 0.04, 0.02])[3:] == pytest.approx([0.06, 0.06])
    assert math.isnan(holm([0.03, 0.01, math.nan])[2])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_number_of_pairs_is_the_known_one():
    assert math.ceil(pairs_needed(1.0, 1.0, 1)) == 10  # Cohen's d = 1, 80 % power: n = 10
    assert math.ceil(pairs_needed(0.5, 1.0, 1)) == 34
    assert pairs_needed(0.5, 1.0, 10) > pairs_needed(0.5, 1.0, 1)


@pytest.mark.parametrize(
    ("found", "p", "said"),
    [
        (Estimate(5, 0.01, 0.001, 0.009, 0.011, 0.001), 0.01, "held"),
        (Estimate(5, -0.01, 0.001, -0.011, -0.009, 0.001), 0.01, "contradicted"),
        (Estimate(5, 0.01, 0.01, -0.002, 0.022, 0.03), 0.09, "undecided: about 5 more seeds needed"),
        (Estimate(5, -0.01, 0.02, -0.03, 0.01, 0.3), 0.3, "undecided: so far the mean goes the other way"),
        (Estimate(5, 1e-5, 0.02, -0.03, 0.03, 0.9), 0.9, "undecided: more than 1000 more seeds needed"),
        (Estimate(5, 0.0, 0.02, -0.03, 0.03, 1.0), 1.0, "undecided: more than 1000 more seeds needed"),
        (Estimate(1, 0.01), math.nan, "undecided: one pair gives no interval, at least 1 more seed needed"),
        (Estimate(0, math.nan), math.nan, "undecided: no seed has a finished run of every setting"),
        (Estimate(3, 0.01, 0.0), math.nan, "undecided: all 3 pairs differ by the same amount"),
        (Estimate(3, 0.0, 0.0), math.nan, "undecided: all 3 pairs are equal"),
    ],
)
def test_verdicts(found, p, said):
    assert verdict(found, p, 1, found.n, CLAIM, False).startswith(said)


def test_a_metric_without_chance_needs_no_test():
    assert verdict(Estimate(1, 5.0), math.nan, 0, 1, CLAIM, True) == "held"
    assert verdict(Estimate(3, -5.0, 0.0), math.nan, 0, 3, CLAIM, True) == "contradicted"
    assert verdict(Estimate(1, 0.0), math.nan, 0, 1, CLAIM, True) == "undecided: no difference"


def test_a_seed_brings_as_many_pairs_as_there_are_other_settings():
    found = Estimate(10, 0.01, 0.02, -0.004, 0.024, 0.15)
    assert verdict(found, 0.15, 1, 10, CLAIM, False) == "undecided: about 24 more seeds needed"
    assert verdict(found, 0.15, 1, 5, CLAIM, False) == "undecided: about 12 more seeds needed"


# questions


def test_a_claim_that_holds_with_its_size(tmp_path):
    values = {"0.0": [0.90, 0.91, 0.92, 0.93], "0.5": [0.911, 0.919, 0.931, 0.941]}
    (question,) = ask(write_sweep(tmp_path / "s", values, [HELPS | {"claimed": 0.01}]))
    (contrast,) = question.contrasts
    assert question.verdict == "held"
    assert contrast.found.mean == pytest.approx(0.0105)
    assert "The claimed +1.00 is inside the interval" in question.effect(contrast)
    beyond = "held in direction: the effect is {} than claimed".format
    for size, where, said in (
        (0.1, "larger than", beyond("smaller")), (0.001, "smaller than", beyond("larger")),
        ([0.001, 0.1], "inside", "held"),
    ):  # fmt: skip
        (question,) = ask(write_sweep(tmp_path / f"s{size}", values, [HELPS | {"claimed": size}]))
        assert f"is {where} the interval" in question.effect(question.contrasts[0])
        assert question.verdict == said
    twice = {setting: 2 * weight for setting, weight in HELPS["contrasts"][0].items()}
    both = HELPS | {"claimed": 0.02, "contrasts": [*HELPS["contrasts"], twice]}
    (question,) = ask(write_sweep(tmp_path / "both", values, [both]))
    assert question.verdict.startswith("held in direction: not all")


def test_a_claim_is_contradicted_if_one_contrast_is_and_undecided_if_one_is(tmp_path):
    values = {"0.0": [0.90, 0.91, 0.92], "0.3": [0.89, 0.92, 0.921], "0.5": [0.95, 0.961, 0.97]}
    better = {"model.dropout=0.5": 1, "model.dropout=0": -1}
    worse = {"model.dropout=0": 1, "model.dropout=0.5": -1}
    open_ = {"model.dropout=0.3": 1, "model.dropout=0": -1}
    assert [
        question.verdict
        for question in ask(
            write_sweep(
                tmp_path / "s", values, [claim(better, worse), claim(better, open_), claim(better, better)]
            )
        )
    ] == ["contradicted", "undecided: 1 held, 1 undecided", "held"]


def test_an_interaction_is_formed_seed_by_seed_across_cases(tmp_path):
    jobs = []
    for data, epochs, accs in (("cifar10", 10, {"0": (0.8, 0.81), "0.7": (0.7, 0.72)}),
                               ("mnist", 5, {"0": (0.99, 0.98), "0.7": (0.98, 0.975)})):  # fmt: skip
        for dropout, pair in accs.items():
            for seed, acc in enumerate(pair):
                overrides = {"data": data, "trainer.max_epochs": str(epochs), "model.dropout": dropout}
                jobs.append(
                    {"folder": f"{data}-{dropout}-{seed}", "overrides": overrides | {"seed": str(seed)}}
                )
                config = {"model.dropout": float(dropout), "trainer.max_epochs": epochs}
                write_run(
                    tmp_path / "s" / jobs[-1]["folder"], seed, acc=acc, config=config, choices={"data": data}
                )
    terms = {"data=cifar10 model.dropout=0": 1, "data=cifar10 model.dropout=0.7": -1,
             "data=mnist model.dropout=0": -1, "data=mnist model.dropout=0.7": 1}  # fmt: skip
    write_definition(
        tmp_path / "s", ["data", "trainer.max_epochs", "model.dropout", "seed"], jobs, [claim(terms)]
    )
    (question,) = ask(tmp_path / "s")
    # (0.8 − 0.7) − (0.99 − 0.98) and (0.81 − 0.72) − (0.98 − 0.975)
    assert list(question.contrasts[0].values.values()) == pytest.approx([0.09, 0.085])


def test_a_ratio_is_a_factor(tmp_path):
    write_sweep(tmp_path / "s", {"0.0": [0.5, 0.5], "0.5": [0.5, 0.5]}, [])
    jobs = json.loads((tmp_path / "s" / "sweep.json").read_text())["jobs"]
    for job, speed in zip(jobs, (100.0, 110.0, 201.0, 219.0), strict=True):
        path = tmp_path / "s" / job["folder"] / "results.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"images_per_second": speed}))
    faster = claim({"model.dropout=0.5": 1, "model.dropout=0": -1}, metric="images_per_second", scale="ratio")
    write_definition(tmp_path / "s", ["model.dropout", "seed"], jobs, [faster | {"claimed": [5, 7]}])
    (question,) = ask(tmp_path / "s")
    text = question.effect(question.contrasts[0])
    assert text.startswith("×2 (×1.8")
    assert text.endswith("The claimed ×5 to ×7 is larger than the interval")


def test_derived_metrics(tmp_path):
    run = read(write_run(tmp_path / "run", curve=(0.5, 0.7, 0.6, 0.65, 0.6)))
    assert run.metric("val_acc_falls") == pytest.approx(0.15)
    assert run.metric("seconds_per_epoch") == pytest.approx(1.2)
    assert read(write_run(tmp_path / "diverged", curve=(0.5, math.nan, 0.4))).metric("val_acc_falls") is None


def test_without_claims_each_value_is_compared_with_the_first_and_corrected(tmp_path):
    values = {"0.0": [0.90, 0.91, 0.92], "0.3": [0.95, 0.961, 0.97], "0.5": [0.905, 0.911, 0.935]}
    (question,) = ask(write_sweep(tmp_path / "s", values))
    assert [question.name(contrast) for contrast in question.contrasts] == [
        "model.dropout=0.3 − model.dropout=0", "model.dropout=0.5 − model.dropout=0",
    ]  # fmt: skip
    assert question.contrasts[0].verdict == "better"
    assert question.contrasts[1].verdict.startswith("undecided: about")
    assert question.contrasts[0].corrected == pytest.approx(2 * question.contrasts[0].found.p)


def test_unpaired_seeds_are_named_and_other_knobs_paired_over(tmp_path):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.9, 0.91, 0.92], "0.5": [0.91, 0.93]}, [HELPS])
    (question,) = ask(folder)
    assert question.contrasts[0].unpaired == {("seed=2",): ["model.dropout=0.5"]}
    assert "1 without partner: seed=2 (no model.dropout=0.5)" in report(folder)


def test_claims_that_make_no_sense_are_named(tmp_path):
    claims = [
        {"metric": "test_acc"},
        "nonsense",
        claim({"a=1": "much"}),
        claim(metric="benchmark.wall.x.ratio"),
        HELPS,
    ]
    runs = Collection([write_sweep(tmp_path / "s", {"0.0": [0.9], "0.5": [0.91]}, claims)])
    asked, notes = questions(runs)
    assert len(asked) == 1
    assert len(notes) == 4


def test_a_benchmark_is_evidence(tmp_path):
    measured = claim(metric="benchmark.wall.numpy.ratio", claimed=[5, 7])
    folder = write_sweep(tmp_path / "s", {"0.0": [0.9], "0.5": [0.91]}, [measured])
    content = {
        "wall": {"numpy": {"ratio": 1.05}}, "cpu": {"numpy": {"ratio": 1.4}},
        "layers": {"numpy_layers": {"Conv2d": 3.0, "BatchNorm2d": 1.0}},
    }  # fmt: skip
    (folder / "benchmark.json").write_text(json.dumps(content))
    text = report(folder)
    assert "| measured | 1.05. The claimed 5 to 7 is larger than the measured value |" in text
    assert "| numpy\\_layers.BatchNorm2d | 0.25 |" in text.replace("benchmark.", "").replace(
        "numpy_", "numpy\\_"
    )


# what is found


def test_everything_that_is_not_reported_is_named(tmp_path):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.9, 0.91], "0.5": [0.92, 0.93]}, [HELPS])
    jobs = json.loads((folder / "sweep.json").read_text())["jobs"]
    write_run(folder / "failed-00", 2, status="failed", results={"error": "RuntimeError: a | b\n<c> *d*"})
    write_run(folder / "nan-00", 3, acc=math.nan)
    write_run(folder / "waits-00", 4, status="pending")
    write_run(folder / "earlier", 5)
    jobs += [{"folder": f"{name}-00", "overrides": {"model.dropout": "0", "seed": "9"}}
             for name in ("failed", "nan", "waits", "absent")]  # fmt: skip
    write_definition(folder, ["model.dropout", "seed"], jobs, [HELPS])
    text = report(folder)
    assert "5 of 8 runs finished, 1 failed, 1 pending, 1 missing, 1 left out" in text
    assert r"| failed-00 | failed | RuntimeError: a \| b &#60;c> \*d\* |" in text
    assert "| nan-00 | finished | no finite test_acc |" in text
    assert "| absent-00 | missing | has no folder: never started |" in text
    assert "| earlier | left out | is no job of the sweep as it is defined now |" in text
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows].count("finished") == 5
    assert len(rows) == 9
    assert rows[0]["test_acc"] == "0.9"


def damage(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(run: Path) -> None:
        (run / name).write_text(change((run / name).read_text()))

    return apply


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (damage("provenance.json", lambda text: text[:40]), "provenance.json is damaged"),
        (damage("provenance.json", lambda text: "[]"), "TypeError"),
        (damage("results.json", lambda text: text[:-5]), "results.json is damaged"),
        (damage("metrics.csv", lambda text: text[:-3]), "metrics.csv is half-written"),
        (damage("metrics.csv", lambda text: text.rsplit("\n", 2)[0] + "\n"), "metrics.csv has 2 epochs"),
        (damage("metrics.csv", lambda text: text.replace("0.7", "what")), "what"),
        (damage("config.yaml", lambda text: "seed: [1"), "ParserError"),
        (damage("config.yaml", lambda text: ""), "seed"),
        (lambda run: (run / "config.yaml").unlink(), "has no config.yaml"),
        (lambda run: (run / "results.json").unlink(), "epochs"),
    ],
)
def test_a_damaged_run_costs_itself_alone(tmp_path, harm, reason):
    write_run(tmp_path / "o" / "good")
    harm(write_run(tmp_path / "o" / "bad", 1))
    (tmp_path / "o" / "foreign" / "deep").mkdir(parents=True)
    found = {
        path.name: (r.status, r.reason) for r in Collection([tmp_path / "o"]).records for path in [r.folder]
    }
    assert found["good"][0] == "finished"
    assert found["bad"][0] == "skipped"
    assert reason in found["bad"][1]
    assert found["deep"][0] == "skipped"
    assert "is no run folder" in found["deep"][1]


def test_the_runs_of_a_sweep_whose_file_is_damaged_count_as_single_ones(tmp_path):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.9], "0.5": [0.91]})
    (folder / "sweep.json").write_text("{")
    text = report(folder)
    assert "2 of 2 runs finished, 1 skipped" in text
    assert "its runs count as single ones" in text


def test_a_folder_named_twice_counts_once_and_a_report_is_no_run(tmp_path):
    folder = write_sweep(tmp_path / "o" / "s", {"0.0": [0.9, 0.91], "0.5": [0.91, 0.93]})
    write_report([folder], None)
    runs = Collection([tmp_path / "o", folder, next(folder.glob("*-00"))])
    assert len(runs.records) == 4


def test_nothing_to_report_is_said_with_its_reasons(tmp_path):
    write_run(tmp_path / "o" / "a", status="failed", results={"error": "ValueError: no"})
    with pytest.raises(UserError, match=r"no finished run to report\n.*a: failed ValueError: no"):
        Collection([tmp_path / "o"])
    with pytest.raises(UserError, match="there is no such folder"):
        Collection([tmp_path / "nowhere"])


def test_single_runs_are_told_apart_by_as_few_keys_as_do(tmp_path):
    adam = {"optimizer._target_": "torch.optim.Adam", "optimizer.eps": 1e-8}
    sgd = {"optimizer._target_": "torch.optim.SGD", "optimizer.momentum": 0.9}
    by_adam, by_sgd = ({"choices": {"model": "mnist", "optimizer": name}} for name in ("adam", "sgd"))
    for seed in (0, 1):
        write_run(tmp_path / "o" / f"a{seed}", seed, config=adam, provenance=by_adam)
        write_run(tmp_path / "o" / f"b{seed}", seed, acc=0.95 + seed / 100, config=sgd, provenance=by_sgd)
        config = sgd | {"model.dropout": 0.5, "trainer.max_epochs": 4}
        write_run(tmp_path / "o" / f"c{seed}", seed, config=config, provenance=by_sgd)
    runs = Collection([tmp_path / "o"])
    assert runs.keys == ["optimizer", "model.dropout"]
    assert [question.text for question in questions(runs)[0]] == [
        "Does optimizer matter?",
        "Does model.dropout matter?",
    ]
    assert "trainer.max_epochs differs though it was not swept: 3 (4 runs), 4 (2 runs)" in report(
        tmp_path / "o"
    )


def test_two_sweeps_are_compared(tmp_path):
    a = write_sweep(tmp_path / "a", {"0.0": [0.9, 0.91], "0.5": [0.92, 0.94]})
    b = write_sweep(tmp_path / "b", {"0.0": [0.8, 0.815], "0.5": [0.82, 0.84]}, choices={"loss": "focal"})
    runs = Collection([a, b])
    assert runs.keys == ["model.dropout", "loss"]
    asked, _ = questions(runs)
    assert [(question.text, question.contrasts[0].found.n) for question in asked] == [
        ("Does model.dropout matter?", 4), ("Does loss matter?", 4),
    ]  # fmt: skip
    text = report(a, b)
    assert "# a, b" in text
    assert "## Results: a" in text
    assert "## Results: b" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0, "0"), ("1e-4", "0.0001"), (True, "true"), ("True", "true"), (None, "null"), ([], "[]"),
     ("[4, 8.0]", "[4,8]"), ([4, 8], "[4,8]"), ("4294967295", "4294967295"), ("a_b", "a_b"), ("'x'", "x")],
)  # fmt: skip
def test_equal_values_have_equal_texts(value, text):
    assert plain(value) == text


# provenance


def test_runs_that_differ_in_more_than_what_was_swept_are_flagged(tmp_path):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.9, 0.91], "0.5": [0.92, 0.93]})
    assert "Nothing flagged" in report(folder)
    jobs = json.loads((folder / "sweep.json").read_text())["jobs"]
    dirty = {"commit": "b" * 40, "changed_files": ["M x"], "diff_sha256": "c" * 64}
    provenance = {
        "git": GIT,
        "resumed": [{"at": "x", "git": dirty}],
        "data": {"dataset": "mnist", "fingerprint": "bad"},
    }
    write_run(folder / "other-00", 2, config={"data.batch_size": 7, "name": "other"}, provenance=provenance)
    jobs.append({"folder": "other-00", "overrides": {"model.dropout": "0", "seed": "2"}})
    write_definition(folder, ["model.dropout", "seed"], jobs)
    text = report(folder)
    assert "- Flagged: commit differs: aaaaaaaaaa (4 runs), aaaaaaaaaa, then bbbbbbbbbb + uncommitted" in text
    assert "- Flagged: 1 of 5 runs had uncommitted changes" in text
    assert "- Flagged: data mnist differs: f00 (4 runs), bad (1 run)" in text
    assert "- Flagged: data.batch_size differs though it was not swept: absent (4 runs), 7 (1 run)" in text
    assert text.count("- Flagged") == 4


def test_what_a_swept_option_brings_along_is_not_flagged(tmp_path):
    jobs = []
    for scheduler, extra in (("step", {"scheduler.gamma": 0.1}), ("cosine", {"scheduler.final_lr": 0.0})):
        for seed in (0, 1):
            jobs.append(
                {"folder": f"{scheduler}{seed}", "overrides": {"scheduler": scheduler, "seed": str(seed)}}
            )
            write_run(tmp_path / "s" / f"{scheduler}{seed}", seed, acc=0.9 + seed / 99, config=extra,
                      choices={"scheduler": scheduler})  # fmt: skip
    write_definition(tmp_path / "s", ["scheduler", "seed"], jobs)
    assert "Nothing flagged" in report(tmp_path / "s")


# the page


class Page(HTMLParser):
    """What a browser would load, and the text it would show."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


NASTY = "a <script>alert(1)</script> | *b* _c_ [d](http://x) `e` ![f](y) &amp; $1$ ~~g~~ \\h # snake_case"


def test_the_page_needs_nothing_else_and_shows_text_as_it_is(tmp_path):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.9, 0.91], "0.5": [0.92, 0.93]}, [HELPS | {"text": NASTY}])
    write_run(tmp_path / "o" / "x|<b>y&lt;", status="failed", results={"error": NASTY})
    write_report([folder, tmp_path / "o"], tmp_path / "out")
    page = Page()
    page.feed((tmp_path / "out" / "report.html").read_text())
    assert page.text.count(NASTY) >= 3  # verdicts, heading, failure
    assert "x|<b>y&lt;" in page.text
    assert page.loaded
    assert all(link.startswith("data:image/png;base64,") for link in page.loaded)
    assert not {"script", "link", "a", "em", "code"} & (page.tags - {"code"})
    markdown = (tmp_path / "out" / "report.md").read_text()
    for picture in re.findall(r"\]\((figures/[^)]*)\)", markdown):
        assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")


def test_tables_keep_their_columns():
    lines = table([["a|b", "c"], ["x\ny", "1 | 2"]]).splitlines()
    assert lines == [r"| a\|b | c |", "| --- | --- |", r"| x y | 1 \| 2 |"]
    assert escape("snake_case _emphasis_") == r"snake_case \_emphasis\_"


def test_many_settings_and_long_names_are_drawn(tmp_path):
    values = {str(0.01 * n): [0.9, 0.91] for n in range(9)}
    text = report(write_sweep(tmp_path / "s", values, curve=(0.5,)))
    assert "val_acc-1.png" in text
    assert "question-1.png" in text


def test_the_course_report_stands_beside_ours(tmp_path):
    jobs = []
    for model, acc in (("mnist", 0.991), ("custom", 0.98), ("enhanced", 0.9)):
        for seed in (0, 1):
            jobs.append({"folder": f"{model}{seed}", "overrides": {"model": model, "seed": str(seed)}})
            write_run(
                tmp_path / "homework" / f"{model}{seed}",
                seed,
                acc=acc + seed / 1000,
                choices={"model": model},
            )
    write_definition(tmp_path / "homework", ["model", "seed"], jobs)
    text = report(tmp_path / "homework").replace("\u00a0", " ")
    assert "| test accuracy | 89.78 % | 90.05 ± 0.07 % | 99.05 % | 99.15 ± 0.07 % | 86.50 % | – |" in text
    assert "| test accuracy | 99.05 % | 99.15 ± 0.07 % | 97.59 % | 98.05 ± 0.07 % |" in text
    assert text.count("figures/course-report-") == 3


# the door


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    spy = (
        "import sys, runpy; sys.argv = sys.argv[1:]\ntry: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    spy += "finally: assert 'torch' not in sys.modules"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", spy, ROOT / "report.py", *arguments],
        capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, timeout=60,
    )  # fmt: skip


def test_the_door_writes_the_report_and_replaces_an_earlier_one(tmp_path):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.9, 0.91], "0.5": [0.92, 0.931]}, [HELPS])
    write_report([folder], None)
    (folder / "report" / "report.md").write_text("old")
    done = call(folder)
    assert done.returncode == 0, done.stderr
    assert "It helps.  held" in done.stdout
    assert f"report: {folder / 'report' / 'report.html'}" in done.stdout
    names = {"report.md", "report.html", "results.csv", "figures"}
    assert {path.name for path in (folder / "report").iterdir()} == names
    assert (folder / "report" / "report.md").read_text() != "old"
    assert not list(folder.glob(".report-*"))


def test_the_door_refuses_with_a_message(tmp_path):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.9]})
    for arguments, message in (
        ([], "which runs?"),
        ([folder, f"out={folder}"], "is something else than a report"),
    ):
        done = call(*arguments)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert (folder / "sweep.json").exists()
    assert "FOLDER" in call("--help").stdout


def test_a_failure_halfway_leaves_the_earlier_report(tmp_path, monkeypatch):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.9]})
    write_report([folder], None)
    before = (folder / "report" / "report.md").read_text()

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("experiment.report.page._write_csv", full)
    with pytest.raises(UserError, match="no space left on device"):
        write_report([folder], None)
    assert (folder / "report" / "report.md").read_text() == before
    assert not list(folder.glob(".report-*"))
