"""The table of metrics and its rows, each against another implementation, and predictions read back."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
)

from experiment.command_line import CONFIG_DIR
from experiment.errors import UserError
from experiment.instantiate import chosen_metrics
from experiment.metrics import TABLE, Metric, learn, metric, of_predictions, row, rows, units
from experiment.metrics.logits import centred, confusion, log_probabilities, predicted
from experiment.metrics.predictions import Predictions, read_predictions, write_predictions

SHIPPED = sorted(path.stem for path in (CONFIG_DIR / "metrics").glob("*.yaml"))
K = 12


def fractions(metric: str, logits: torch.Tensor, labels: torch.Tensor) -> float:
    """What torchmetrics or torch makes of it."""
    theirs = {
        "acc": lambda: multiclass_accuracy(logits, labels, K, average="micro"),
        "balanced_acc": lambda: multiclass_accuracy(logits, labels, K, average="macro"),
        "macro_f1": lambda: multiclass_f1_score(logits, labels, K, average="macro"),
        "top5": lambda: multiclass_accuracy(logits, labels, K, average="micro", top_k=5),
        "nll": lambda: cross_entropy(logits, labels),
        "ece": lambda: multiclass_calibration_error(logits.softmax(1), labels, K, n_bins=15),
    }
    return float(theirs[metric.removesuffix("_tta")]())  # the same, of other logits


@pytest.fixture
def outputs() -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of 500 images, classes of unequal size."""
    generator = np.random.default_rng(0)
    labels = generator.choice(K, 500, p=np.arange(1, K + 1) / (K * (K + 1) / 2))
    logits = generator.normal(size=(500, K)).astype(np.float32) * 2
    logits[np.arange(500), labels] += 1.5
    return logits, labels


@pytest.mark.parametrize("key", SHIPPED)
def test_a_shipped_metric_is_what_others_compute(key: str, outputs):
    logits, labels = outputs
    theirs = fractions(key, torch.tensor(logits), torch.tensor(labels))
    assert TABLE[key](logits, labels) == pytest.approx(theirs, abs=2e-6)


def test_by_hand():
    """Three images of class 0, one of class 1; one of class 0 is taken for 1."""
    logits = np.log(np.array([[0.8, 0.2], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]]))
    labels = np.array([0, 0, 0, 1])
    found = {key: TABLE[key](logits, labels) for key in ("acc", "balanced_acc", "macro_f1", "nll", "ece")}
    assert found["acc"] == 0.75
    assert found["balanced_acc"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert found["nll"] == pytest.approx(-math.log(0.8 * 0.8 * 0.4 * 0.7) / 4)
    assert found["ece"] == pytest.approx((2 * 0.2 + 0.6 + 0.3) / 4)


@pytest.mark.parametrize("key", SHIPPED)
def test_logits_that_are_not_finite(key: str, outputs):
    logits, labels = (array.copy() for array in outputs)
    fine = TABLE[key](logits[1:], labels[1:])
    logits[0] = np.nan
    value = TABLE[key](logits, labels)
    if key in ("nll", "ece"):
        assert math.isnan(value)
    elif key in ("acc", "top5"):
        assert value == pytest.approx(fine * 499 / 500)  # the image counts as wrong
    else:
        assert 0 <= value <= fine
    logits[0], logits[0, labels[0]] = 0.0, np.inf
    assert math.isfinite(TABLE[key](logits, labels))  # certain, and right
    logits[0, labels[0]] = -np.inf
    assert TABLE[key](logits, labels) == (math.inf if key == "nll" else pytest.approx(fine, abs=0.02))


def test_equal_logits_are_the_first_class():
    assert predicted(np.zeros((1, 8))) == 0
    ranked = [TABLE["top5"](np.zeros((1, 8)), np.array([label])) for label in range(8)]
    assert ranked == [1, 1, 1, 1, 1, 0, 0, 0]


def test_confusion_is_what_others_count(outputs):
    logits, labels = outputs
    theirs = multiclass_confusion_matrix(torch.tensor(logits), torch.tensor(labels), K).numpy()
    assert (confusion(logits, labels) == theirs).all()


def test_large_logits_do_not_overflow():
    logits = np.array([[1e30, 0.0], [-1e30, 0.0]], dtype=np.float32)
    assert np.exp(log_probabilities(logits)) == pytest.approx(np.array([[1, 0], [0, 1]]))
    assert centred(np.array([[np.inf, 1.0]])).tolist() == [[0, -math.inf]]


@pytest.mark.parametrize("key", SHIPPED)
def test_every_shipped_metric_is_chosen_by_its_name(key: str, configure):
    config = configure(f"metrics=[{key}]")
    (found,) = chosen_metrics(config).values()
    assert found.key == key
    assert found.words


def test_a_row_speaks_for_its_columns():
    assert row("val_acc").words == "validation accuracy"
    assert row("val_ece").sign == row("train_loss").sign == -1
    assert units.name("test_top5") == "test top-5 accuracy, %"
    assert units.name("val_acc_falls") == "validation accuracy falls, points"
    assert units.number("test_ece", 0.01234) == "1.23\u00a0%"
    assert units.number("test_nll", 0.012345) == "0.01235"
    assert units.unit("test_acc", is_effect=True) == "\u00a0points"
    assert units.name("what_nobody_knows") == "what nobody knows"


def test_rows_are_read_without_their_code():
    written = rows([Metric("kappa", "Cohen's kappa", better="lower")])
    try:
        learn(written)
        assert row("val_kappa").words == "validation Cohen's kappa"
        assert row("val_kappa").sign == -1
        learn({"acc": {**written["kappa"], "key": "acc"}})
        assert row("acc").words == "accuracy"  # what is known stays
    finally:
        del TABLE["kappa"]


def test_options_of_a_metric_are_bound(outputs):
    node = {"ece": {"_target_": "experiment.metrics.ece.ece", "bins": 1}}
    (ece,) = chosen_metrics(OmegaConf.create({"metrics": node})).values()
    logits, labels = outputs
    confidence = np.exp(log_probabilities(logits).max(axis=1)).mean()
    assert ece(logits, labels) == pytest.approx(abs(TABLE["acc"](logits, labels) - confidence))
    node["ece"]["bin"] = 1
    with pytest.raises(UserError, match=r"metrics.ece: got an unexpected keyword argument 'bin'"):
        chosen_metrics(OmegaConf.create({"metrics": node}))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"acc": {"_target_": "os.system"}}, "os.system"),
        ({"acc": {"_target_": "experiment.metrics.predictions.write_predictions"}}, "of functions only"),
        ({"acc": {"_target_": "experiment.metrics.acc.ac"}}, "there is no such thing"),
        ({"acc": {"_target_": "experiment.metrics.ece.ece"}}, "is ece: write metrics.ece"),
        ({"acc": {}}, "acc"),
    ],
)
def test_what_is_no_metric_is_refused(node, message):
    if not node["acc"]:
        assert chosen_metrics(OmegaConf.create({"metrics": node})) == {}  # switched off
        return
    with pytest.raises(UserError, match=message):
        chosen_metrics(OmegaConf.create({"metrics": node}))


def test_a_run_of_before_there_was_a_choice_has_accuracy():
    assert [*chosen_metrics(OmegaConf.create({}))] == ["acc"]


@pytest.mark.parametrize("key", ["acc", "loss", "test_acc", "two words"])
def test_a_key_is_taken_once(key: str):
    with pytest.raises(UserError, match=r"already|cannot be called"):
        metric(key, "mine")(lambda logits, labels: 0.0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "metrics=[ece]",
            "callbacks.checkpoint.monitor=val_acc: metrics=[ece] has no acc; choose val_ece or",
        ),
        ("metrics=[acc,eec]", "metrics=eec: no such option. Did you mean ece?"),
        (
            "callbacks.checkpoint.monitor=val_los",
            "there is no such metric; choose val_acc or val_loss. Did you mean val_loss?",
        ),
        ("callbacks.checkpoint.monitor=test_acc", "choose val_acc or val_loss"),
        ("callbacks=early_stopping callbacks.early_stopping.monitor=val_ece", "has no ece"),
        ("metrics=[acc,ece] metrics.ece.bins=many", "metrics.ece.bins=many: expected int"),
        ("model=[mnist,baseline]", "takes one option"),
    ],
)
def test_a_wrong_choice_is_answered_before_anything_begins(overrides: str, message: str, run_entry_point):
    done = run_entry_point("train.py", *overrides.split())
    assert done.code == 1
    assert message in done.err


def test_predictions_are_read_back(tmp_path: Path):
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(10_000, 10)).astype(np.float32) * 8
    labels = generator.integers(10, size=10_000)
    order = generator.permutation(10_000)
    path = tmp_path / "predictions.npz"
    write_predictions(path, Predictions(logits, labels, order))
    assert path.stat().st_size < 1_000_000
    with np.load(path) as content:
        assert content["logits"].dtype == np.float16
    read = read_predictions(path)
    assert (read.indices == np.arange(10_000)).all()  # in the order of the set, however it was tested
    assert (read.labels == labels[np.argsort(order)]).all()
    found = of_predictions(path, ["acc", "ece", "nll", TABLE["top5"]])
    assert found["test_acc"] == TABLE["acc"](logits, labels)
    assert found["test_ece"] == pytest.approx(TABLE["ece"](logits, labels), abs=1e-4)
    assert found["test_nll"] == pytest.approx(TABLE["nll"](logits, labels), rel=1e-4)
    with pytest.raises(UserError, match=r"kapa is no metric of predictions; there are acc"):
        of_predictions(path, ["kapa"])
    with pytest.raises(UserError, match="acc_tta is no metric of predictions"):
        of_predictions(path, ["acc_tta"])  # the views of an image are not kept
    assert [*tmp_path.iterdir()] == [path]


def damaged(kind: str, path: Path) -> None:
    good = path.read_bytes()
    arrays = {"logits": np.zeros((3, 2), np.float16), "labels": np.zeros(3, int), "indices": np.arange(3)}
    wrong = {
        "labels": arrays | {"labels": np.full(3, 7)},
        "shapes": arrays | {"indices": np.arange(2)},
        "keys": {"logits": arrays["logits"]},
        "objects": arrays | {"labels": np.array([None, 1, 2])},
    }
    if kind in wrong:
        np.savez(path, **wrong[kind])
    else:
        path.write_bytes({"empty": b"", "cut": good[: len(good) // 2], "text": b"logits"}[kind])


@pytest.mark.parametrize("kind", ["empty", "cut", "text", "labels", "shapes", "keys", "objects"])
def test_damaged_predictions_are_named(kind: str, tmp_path: Path):
    path = tmp_path / "predictions.npz"
    write_predictions(path, Predictions(np.eye(3, dtype=np.float32), np.arange(3), np.arange(3)))
    damaged(kind, path)
    with pytest.raises(UserError, match=r"predictions\.npz does not hold predictions"):
        read_predictions(path)


def test_missing_predictions_say_how_to_make_them(tmp_path: Path):
    with pytest.raises(UserError, match=r"python evaluate\.py"):
        read_predictions(tmp_path / "predictions.npz")


def test_the_table_needs_no_torch():
    code = "import sys, experiment.metrics; assert not {'torch', 'lightning'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("monitor", "direction"), [("val_acc", "maximize"), ("val_ece", "minimize")])
def test_a_search_looks_the_way_in_which_the_monitored_metric_is_better(monitor: str, direction: str):
    sweeper = OmegaConf.load(CONFIG_DIR / "hydra" / "sweeper" / "optuna.yaml")
    given = {"direction": OmegaConf.to_container(sweeper, resolve=False)["direction"]}
    config = OmegaConf.create({"callbacks": {"checkpoint": {"monitor": monitor}}, **given})
    assert config.direction == direction
    assert OmegaConf.create({"callbacks": {}, **given}).direction == "maximize"
