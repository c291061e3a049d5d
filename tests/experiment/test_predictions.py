"""What is read from predictions.npz is what the formulas say, and needs neither torch nor the data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import write_run
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar

from experiment.metrics import Predictions, write_predictions
from experiment.report.page import write_report
from experiment.report.predictions import agreement, calibration, ensemble_accuracy, of_run, temperature
from experiment.report.runs import read

N, CLASSES = 4000, 5
labels = np.random.default_rng(0).integers(0, CLASSES, N)


def predictions(seed: int, sharpness: float = 1.0) -> Predictions:
    """Well calibrated logits, multiplied by ``sharpness``."""
    rng = np.random.default_rng(seed)
    noisy = rng.normal(size=(N, CLASSES))
    noisy[np.arange(N), labels] += 1.5  # of unit normals a shift of 1.5 has the log-odds 1.5 x
    return Predictions((1.5 * sharpness * noisy).astype(np.float32), labels, np.arange(N))


def test_the_temperature_undoes_what_made_the_network_overconfident():
    assert temperature(predictions(1).logits, labels) == pytest.approx(1, abs=0.06)
    assert temperature(predictions(1, 3.0).logits, labels) == pytest.approx(3, abs=0.18)


def test_a_scaled_network_is_better_calibrated_and_as_accurate():
    plain, sharp = calibration([predictions(1)]), calibration([predictions(1, 3.0)])
    assert plain.ece < 0.03 < sharp.ece
    assert sharp.scaled_ece < 0.03
    assert sharp.scaled_nll == pytest.approx(plain.nll, abs=0.02)
    assert sharp.temperature > 2.5


def test_an_ensemble_is_the_mean_of_probabilities():
    members = [predictions(seed) for seed in range(4)]
    alone = [ensemble_accuracy([member]) or 0.0 for member in members]
    assert (ensemble_accuracy(members) or 0.0) > max(alone) + 0.02
    other = members[0]._replace(indices=np.arange(N)[::-1])
    assert ensemble_accuracy([members[0], other]) is None


def test_two_runs_are_compared_image_by_image():
    a, b = predictions(1), predictions(2)
    found = agreement(a, b)
    assert found is not None
    assert found.both + found.first + found.second + found.neither == N
    known = mcnemar([[found.both, found.first], [found.second, found.neither]], exact=True)
    assert found.p == pytest.approx(known.pvalue)
    assert found.p == pytest.approx(binomtest(found.first, found.first + found.second).pvalue)
    same = agreement(a, a)
    assert same is not None
    assert (same.first, same.second, same.p) == (0, 0, 1.0)


def test_a_report_on_two_runs_says_first_what_differs_and_then_what_came_out(tmp_path: Path):
    for name, seed, dropout in (("a", 0, 0.0), ("b", 0, 0.5)):
        known = {"packages": {"torch": "2.6" if name == "a" else "2.7"}}
        folder = write_run(
            tmp_path / name, seed, acc=0.9 + dropout / 10, config={"model.dropout": dropout}, provenance=known
        )
        write_predictions(folder / "predictions.npz", predictions(int(10 * dropout)))
    told = (
        write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out").replace("\u00a0", " ").splitlines()
    )
    assert told[:2] == ["model.dropout: 0 → 0.5", "torch: 2.6 → 2.7"]
    assert "test_acc: 90.00 % → 95.00 %, +5.00 points" in told
    assert any(line.startswith("image by image: both right") for line in told)
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.index("## What differs") < text.index("## What came out") < text.index("## Results")
    assert "calibration error" in text


def test_two_runs_that_are_the_same_or_failed_are_told_apart_as_well(tmp_path: Path):
    write_run(tmp_path / "a", acc=0.9)
    write_run(tmp_path / "b", acc=0.91, provenance={"git": {"commit": "b" * 40}})
    told = write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out").splitlines()
    assert told[0] == "commit: aaaaaaaaaa → bbbbbbbbbb"
    assert told[1].replace("\u00a0", " ") == "test_acc: 90.00 % → 91.00 %, +1.00 points"
    assert "2 of 2 runs finished, 1 of them repeated" in told
    write_run(
        tmp_path / "c", config={"optimizer.lr": 9}, status="failed", results={"error": "the loss is NaN"}
    )
    told = write_report([tmp_path / "a", tmp_path / "c"], tmp_path / "out").splitlines()
    assert told[:2] == ["optimizer.lr: – → 9", "c: failed the loss is NaN"]


def test_two_runs_are_compared_by_image_whatever_the_order_and_only_on_the_same_images(tmp_path: Path):
    first, second = predictions(1), predictions(2)
    order = np.random.default_rng(0).permutation(N)
    a, b = (write_run(tmp_path / name, seed, acc=0.9) for seed, name in enumerate("ab"))
    write_predictions(a / "predictions.npz", first)

    def told(other: Predictions, **provenance: Any) -> list[str]:
        """What is said beside ``b`` with the predictions of others, in the order that they were given."""
        names = ("logits", "labels", "indices")
        np.savez(b / "predictions.npz", **dict(zip(names, other, strict=True)))
        known = json.loads((b / "provenance.json").read_text())
        (b / "provenance.json").write_text(json.dumps(known | provenance))
        lines = write_report([a, b], tmp_path / "out").splitlines()
        return [line for line in lines if line.startswith("image by image")]

    as_stored = told(second)
    assert "McNemar p" in as_stored[0]
    assert told(Predictions(*(part[order] for part in second))) == as_stored
    elsewhere = ["image by image: not compared, the two were tested on different images"]
    assert told(Predictions(*(part[: N // 2] for part in second))) == elsewhere
    assert told(second, data={"dataset": "mnist", "fingerprint": "other"}) == elsewhere


def test_damaged_predictions_are_as_good_as_none(tmp_path: Path):
    folder = write_run(tmp_path / "a")
    (folder / "predictions.npz").write_bytes(b"PK")
    assert of_run(read(folder)) is None
