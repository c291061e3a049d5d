"""Training as a whole, on few real digits: what a run leaves, exact resume, evaluation, bad endings."""

import functools
import hashlib
import io
import json
import math
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig
from PIL import Image

from experiment.command_line import CONFIG_DIR
from experiment.errors import UserError
from experiment.files import beside
from experiment.metrics import of_predictions
from experiment.results import table
from experiment.run import Run
from lightning_modules import training
from lightning_modules.build import build_classifier, build_data, build_trainer
from lightning_modules.data import ImageDataModule
from lightning_modules.training import evaluate, load_checkpoint, train
from tests.conftest import composed

MODELS = sorted(path.stem for path in (CONFIG_DIR / "model").glob("*.yaml"))
SILENT = ("logger=none", "callbacks.figures=null")
TINY = (*SILENT, "model.widths=[4,8,8]", "data.train_images=320", "data.batch_size=64", "data.augment=true")
TIMINGS = ("train_seconds", "seconds", "images_per_second")

Configure = Callable[..., DictConfig]


class StopAt(Callback):
    """Ends a training as a power cut would, seen from the run folder."""

    def __init__(self, epoch: int, failure: BaseException, batch: int = 1) -> None:
        self.epoch, self.failure, self.batch = epoch, failure, batch

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch, batch_idx: int
    ) -> None:
        if trainer.current_epoch == self.epoch and batch_idx == self.batch:
            raise self.failure


def start(config: DictConfig, name: str = "run") -> Run:
    run = Run.create(config, Path(config.output_dir), name)
    train(config, run)
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Callable[..., Run]:
    """A tiny run that nothing interrupted, the same one for the same overrides: not to be changed."""

    @functools.cache
    def train_once(*overrides: str) -> Run:
        return start(composed(f"output_dir={tmp_path_factory.mktemp('whole')}", *TINY, *overrides), "whole")

    return train_once


@pytest.fixture
def copied(whole: Callable[..., Run], tmp_path) -> Run:
    """A copy of a tiny run, which may be changed."""
    return Run(Path(shutil.copytree(whole("trainer.max_epochs=1").folder, tmp_path / "run")))


def stop_in_epoch(
    monkeypatch: pytest.MonkeyPatch, config: DictConfig, epoch: int, failure: BaseException, batch: int = 1
) -> Run:
    return train_with(StopAt(epoch, failure, batch), monkeypatch, config, type(failure))


def train_with(
    callback: Callback, monkeypatch: pytest.MonkeyPatch, config: DictConfig, ending: type[BaseException],
    run: Run | None = None,
) -> Run:  # fmt: skip
    build = training.build_trainer

    def with_callback(*args, **kwargs) -> Trainer:
        trainer = build(*args, **kwargs)
        trainer.callbacks.insert(0, callback)
        return trainer

    run = run or Run.create(config, Path(config.output_dir), "stopped")
    with monkeypatch.context() as patched:
        patched.setattr(training, "build_trainer", with_callback)
        with pytest.raises(ending) as ended:
            train(config, run)
    if ending is SystemExit:
        assert ended.value.code == 143
    return run


@pytest.mark.parametrize("model", MODELS)
def test_any_model_trains(configure: Configure, model: str):
    run = start(configure(f"model={model}", "trainer=smoke", "data.batch_size=4", *SILENT))
    assert run.status == "finished"
    assert math.isfinite(run.results["test_loss"])
    if model == "enhanced":
        # five convolutions at 28, 14, 7, 7 and 3 pixels, two fully connected layers; two operations a product
        widths, sides, channels, products = (64, 128, 256, 256, 256), (28, 14, 7, 7, 3), 1, 0
        for width, side in zip(widths, sides, strict=True):
            products += 9 * channels * width * side**2
            channels = width
        assert run.results["flops_per_image"] == 2 * (products + 256 * 128 + 128 * 10)


def test_a_run_leaves_everything(configure: Configure):
    run = start(configure("trainer=smoke", "model.widths=[4,8]"))
    results = run.results
    assert results["status"] == run.provenance["status"] == "finished"
    assert run.provenance["data"]["fingerprint"]
    for key in (
        "epochs", "best_epoch", "convergence_epoch", "final_train_loss", "val_acc", "val_loss",
        "test_acc", "test_loss", "test_acc_per_class", "train_seconds", "images_per_second", "parameters",
        "flops_per_image",
    ):  # fmt: skip
        assert results[key] is not None, key
    assert len(run.metrics) == 1
    names = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file()}
    assert {"config.yaml", "provenance.json", "metrics.csv", "results.json", "run.log"} <= names
    assert {"checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= names
    assert {"figures/training_curves.png", "figures/confusion_matrix.png", "figures/mistakes.png"} <= names
    assert any("tfevents" in name for name in names)
    assert not any(".part" in name for name in names)


def test_resume_equals_the_uninterrupted_run_bit_for_bit(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, whole: Callable[..., Run]
):
    knobs = ("trainer.max_epochs=3", "scheduler=onecycle")
    stopped = stop_in_epoch(monkeypatch, configure(*TINY, *knobs), epoch=2, failure=RuntimeError("power cut"))
    assert stopped.provenance["status"] == "failed"
    assert len(stopped.metrics) == 2
    train(stopped.config, stopped)

    assert_same_training(stopped, whole(*knobs))
    assert len(stopped.provenance["resumed"]) == 1


def assert_equal_tensors(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        if isinstance(value, dict):
            assert_equal_tensors(value, theirs[key])
        else:
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs[key])), key


def test_a_run_stopped_in_its_first_epoch_resumes_from_the_start(configure: Configure, monkeypatch, whole):
    config = configure(*TINY, "trainer.max_epochs=1")
    stopped = stop_in_epoch(monkeypatch, config, epoch=0, failure=RuntimeError("power cut"))
    train(stopped.config, stopped)
    assert stopped.results["test_loss"] == whole("trainer.max_epochs=1").results["test_loss"]


def test_a_moved_run_keeps_its_best_epoch(configure: Configure, monkeypatch, tmp_path):
    config = configure(*TINY, "trainer.max_epochs=2")
    stopped = stop_in_epoch(monkeypatch, config, epoch=1, failure=RuntimeError("power cut"))
    moved = Run.open(stopped.folder.rename(tmp_path / "moved"))
    checkpoint = torch.load(moved.checkpoint("last"), weights_only=True)
    # as if the first epoch had been unbeatable
    checkpoint["callbacks"]["BestAndLast"]["best_score"] = 2.0
    torch.save(checkpoint, moved.checkpoint("last"))
    beside(moved.checkpoint("last")).unlink()
    best = load_checkpoint(moved.checkpoint("best"))["global_step"]
    train(moved.config, moved)
    assert load_checkpoint(moved.checkpoint("best"))["global_step"] == best


def test_ctrl_c_leaves_a_resumable_run(configure: Configure, monkeypatch: pytest.MonkeyPatch):
    config = configure(*TINY, "trainer.max_epochs=2")
    stopped = stop_in_epoch(monkeypatch, config, epoch=1, failure=KeyboardInterrupt())
    assert stopped.results["status"] == stopped.provenance["status"] == "interrupted"
    assert load_checkpoint(stopped.checkpoint("last"))["epoch"] == 0
    train(stopped.config, stopped)
    assert stopped.results["status"] == "finished"
    assert stopped.results["epochs"] == 2


def test_ctrl_c_ends_a_training_even_where_python_drops_it(configure: Configure, monkeypatch):
    class Closing(io.IOBase):
        def close(self) -> None:
            signal.raise_signal(signal.SIGINT)

    class Drop(Callback):
        def on_train_batch_end(self, *_: object) -> None:
            Closing()  # dies here, and with it what its finalizer raises

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run = train_with(Drop(), monkeypatch, configure(*TINY, "trainer.max_epochs=2"), KeyboardInterrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert run.status == "interrupted"
    assert run.metrics == []


@pytest.fixture
def slurm_job(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Path:
    """As inside a Slurm job; returns the file in which a dummy scontrol notes what it is asked."""
    asked, scontrol = tmp_path / "asked", tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    for name in ("NTASKS", "NTASKS_PER_NODE", "NNODES"):
        monkeypatch.setenv(f"SLURM_{name}", "1")
    for name in ("PROCID", "LOCALID", "NODEID", "STEP_ID"):
        monkeypatch.setenv(f"SLURM_{name}", "0")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    return asked


class Signal(Callback):
    """Sends this process a signal in the middle of an epoch or, with ``in_validation``, of its validation."""

    def __init__(self, epoch: int, number: int, batch: int = 1, in_validation: bool = False) -> None:
        self.when, self.number = (epoch, batch, in_validation), number

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch, batch_idx: int):
        if (trainer.current_epoch, batch_idx, False) == self.when:
            signal.raise_signal(self.number)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx: int, dataloader_idx=0):
        if (trainer.current_epoch, batch_idx, True) == self.when:
            signal.raise_signal(self.number)


AVERAGED = "+callbacks.average={_target_:lightning.pytorch.callbacks.EMAWeightAveraging,decay:0.9}"


@pytest.mark.parametrize(
    "knobs",
    [
        ["data.batch_size=32", "model.dropout=0.3", "scheduler=onecycle"],
        ["data.batch_size=32", "model=custom", "trainer.accumulate_grad_batches=2"],
        ["data.val_fraction=0"],
        ["data.batch_size=32", "model.batch_norm=true", AVERAGED],
    ],
    ids=["torch", "numpy", "without validation", "weight averaging"],
)
def test_a_run_stopped_within_epochs_goes_on_at_the_very_step(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, whole: Callable[..., Run], knobs: list[str]
):
    config = configure(*TINY, *knobs, "trainer.max_epochs=3")
    stops = [Signal(0, signal.SIGTERM, 3), Signal(1, signal.SIGINT, 0), Signal(2, signal.SIGHUP, 1, True)]
    run, before = None, signal.signal(signal.SIGINT, signal.default_int_handler)
    for stop in stops[: 2 if config.data.val_fraction == 0 else 3]:
        ending = KeyboardInterrupt if stop.number == signal.SIGINT else SystemExit
        run = train_with(stop, monkeypatch, config, ending, run)
        content = load_checkpoint(run.checkpoint("last"))
        epoch, batch, in_validation = stop.when
        seen = content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["processed"]
        whole_steps = math.ceil((batch + 1) / config.trainer.accumulate_grad_batches)
        expected = 10 if in_validation else whole_steps * config.trainer.accumulate_grad_batches
        assert (content["epoch"], seen) == (epoch, expected)
    signal.signal(signal.SIGINT, before)
    assert run is not None
    train(config, run)
    assert_same_training(run, whole(*knobs, "trainer.max_epochs=3"))


@pytest.mark.parametrize("knob", ["every_steps=4", "every_minutes=1e-9"])
def test_a_checkpoint_within_an_epoch_comes_when_it_was_asked_for(
    configure: Configure, monkeypatch, whole, knob
):
    config = configure(*TINY, "trainer.max_epochs=2", f"callbacks.checkpoint.{knob}")
    run = stop_in_epoch(monkeypatch, config, epoch=1, failure=RuntimeError("power cut"), batch=3)
    assert load_checkpoint(run.checkpoint("last"))["global_step"] == 8  # five in the first epoch
    train(run.config, run)
    assert_same_training(run, whole("trainer.max_epochs=2"))


def assert_same_training(ours: Run, theirs: Run) -> None:
    """Bit for bit, in weights, optimizer, schedule, rows and test."""

    def rows(run: Run) -> list[dict]:
        return [{key: value for key, value in row.items() if key not in TIMINGS} for row in run.metrics]

    assert rows(ours) == rows(theirs)
    for name in ("best", "last"):
        mine, other = load_checkpoint(ours.checkpoint(name)), load_checkpoint(theirs.checkpoint(name))
        assert mine["epoch"] == other["epoch"]
        assert mine["lr_schedulers"] == other["lr_schedulers"]
        assert_equal_tensors(mine["state_dict"], other["state_dict"])
        assert_equal_tensors(mine["optimizer_states"][0]["state"], other["optimizer_states"][0]["state"])
    for key in ("test_acc", "test_loss", "best_epoch", "monitored", "convergence_epoch"):
        assert ours.results[key] == theirs.results[key]


@pytest.mark.parametrize("requeue", [False, True])
def test_slurm_s_warning_ends_a_run_that_resumes_to_the_same_results(
    configure: Configure, monkeypatch, whole, slurm_job: Path, requeue: bool, tmp_path: Path
):
    config = configure(*TINY, "trainer.max_epochs=2", f"callbacks.interruption.requeue={requeue}")
    complete = whole("trainer.max_epochs=2")
    stopped = train_with(Signal(1, signal.SIGUSR1), monkeypatch, config, SystemExit)
    assert stopped.status == "interrupted"
    assert not list(stopped.folder.rglob("hpc_ckpt*"))
    assert slurm_job.exists() == requeue
    if requeue:
        assert slurm_job.read_text() == "requeue 4711\n"
    # one that Lightning has written before, with other weights
    (stopped.folder / "hpc_ckpt_1.ckpt").write_bytes(complete.checkpoint("last").read_bytes())
    train(stopped.config, stopped)
    for key in ("test_acc", "test_loss", "val_loss", "best_epoch", "final_train_loss"):
        assert stopped.results[key] == complete.results[key]
    # neither does a run that has no checkpoints to test
    (stopped.folder / "hpc_ckpt_1.ckpt").rename(tmp_path / "hpc_ckpt_1.ckpt")
    module = build_classifier(config, data := build_data(config))
    found = training.test(build_trainer(config, tmp_path), module, data, None, None)
    assert found["test_loss"] == pytest.approx(math.log(10), rel=0.2)


def test_a_signal_during_the_final_test_leaves_the_test_to_be_done(configure: Configure, monkeypatch, whole):
    class InTest(Callback):
        def on_test_batch_start(self, *_: object) -> None:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    config = configure(*TINY, "trainer.max_epochs=2")
    run = train_with(InTest(), monkeypatch, config, SystemExit)
    assert signal.getsignal(signal.SIGTERM) == before
    assert run.status == "interrupted"
    assert "test_acc" not in run.results
    train(run.config, run)
    assert_same_training(run, whole("trainer.max_epochs=2"))


def test_the_seed_decides_everything(configure: Configure, whole):
    seeds = [start(configure(*TINY, "trainer.max_epochs=1", f"seed={seed}")) for seed in (0, 2)]
    losses = [run.results["test_loss"] for run in (whole("trainer.max_epochs=1"), *seeds)]
    assert losses[0] == losses[1] != losses[2]


def test_the_engines_give_the_same_curve(configure: Configure):
    knobs = ("model=custom", *TINY, "trainer.max_epochs=2", "model.dropout=0")
    ours = start(configure(*knobs), "custom")
    engine = ("model.engine=torch", "optimizer=adam", "loss=cross_entropy")
    theirs = start(configure(*knobs, *engine), "torch")
    for key in ("train_loss", "val_loss"):
        for own, other in zip(ours.metrics, theirs.metrics, strict=True):
            assert own[key] == pytest.approx(other[key], abs=1e-4)
    # a checkpoint of one engine is one of the other's
    (theirs.folder / "checkpoints" / "ours.ckpt").write_bytes(ours.checkpoint("best").read_bytes())
    found = evaluate(theirs, theirs.folder / "checkpoints" / "ours.ckpt")
    assert found["test_loss"] == pytest.approx(ours.results["test_loss"], abs=1e-5)
    assert found["test_acc"] == pytest.approx(ours.results["test_acc"], abs=2e-3)


def test_nan_stops_the_run_and_says_where(configure: Configure):
    config = configure(*TINY, "optimizer=sgd", "optimizer.lr=1e30", "trainer.max_epochs=2")
    run = Run.create(config, Path(config.output_dir), "nan")
    with pytest.raises(
        UserError, match=r"the loss became (nan|inf) at step \d+ \(epoch 1, learning rate 1e\+30\)"
    ):
        train(config, run)
    assert run.results["status"] == "failed"
    assert "learning rate" in run.results["error"]
    assert "Traceback" in (run.folder / "run.log").read_text()


def test_without_validation_the_last_weights_are_tested(configure: Configure):
    run = start(configure(*TINY, "data.val_fraction=0", "trainer.max_epochs=2"))
    assert run.results["val_acc"] is None
    assert run.results["best_epoch"] == 2
    best, last = (load_checkpoint(run.checkpoint(name)) for name in ("best", "last"))
    assert_equal_tensors(best["state_dict"], last["state_dict"])
    assert math.isfinite(run.results["monitored"])


def test_train_returns_the_monitored_metric(configure: Configure):
    config = configure(*TINY, "trainer.max_epochs=1", "callbacks.checkpoint.monitor=val_loss")
    run = Run.create(config, Path(config.output_dir), "run")
    assert train(config, run) == run.results["val_loss"] == run.results["monitored"]


def test_evaluate_rebuilds_the_run_from_its_folder(whole, tmp_path, monkeypatch):
    run = whole("model=enhanced", "trainer.max_epochs=1")
    monkeypatch.chdir(tmp_path)
    found = evaluate(Run.open(run.folder), run.checkpoint("best"))
    assert found["test_acc"] == run.results["test_acc"]
    assert found["test_acc_per_class"] == run.results["test_acc_per_class"]
    counts = list(found["test_acc_per_class"].values())
    assert sum(counts) / len(counts) == pytest.approx(found["test_acc"])  # each digit has 100 test images


def test_a_truncated_checkpoint_is_named(copied: Run):
    path = copied.checkpoint("best")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"best\.ckpt is damaged"):
        evaluate(copied, path)


def test_other_classes_than_the_checkpoint_s_are_refused(copied: Run):
    path = copied.checkpoint("best")
    checkpoint = torch.load(path, weights_only=True)
    torch.save(checkpoint | {"classes": ["cat", "dog"]}, path)
    beside(path).unlink()
    with pytest.raises(UserError, match=r"trained on 2 classes \(cat, dog, …\), the data has 10"):
        evaluate(copied, path)


def test_other_data_than_the_run_s_is_refused(copied: Run):
    copied.record(data={**copied.provenance["data"], "fingerprint": "0" * 64})
    with pytest.raises(UserError, match=r"mnist_mini is not what run was trained on"):
        evaluate(copied, copied.checkpoint("best"))


def test_the_test_set_decides_nothing(configure: Configure, monkeypatch: pytest.MonkeyPatch, whole):
    """Other test images: the same weights."""
    before = whole("trainer.max_epochs=2")
    load = ImageDataModule.test_dataloader

    class Black:
        def __init__(self, batches) -> None:
            self.batches = batches

        def __len__(self) -> int:
            return len(self.batches)

        def __iter__(self):
            return ((torch.zeros_like(images), labels) for images, labels in self.batches)

    monkeypatch.setattr(ImageDataModule, "test_dataloader", lambda self: Black(load(self)))
    after = start(configure(*TINY, "trainer.max_epochs=2"))
    assert before.results["test_loss"] != after.results["test_loss"]
    ours, theirs = (load_checkpoint(run.checkpoint("best"))["state_dict"] for run in (before, after))
    assert_equal_tensors(ours, theirs)


def test_every_callback_and_logger_can_be_switched_off(configure: Configure):
    off = [
        f"callbacks.{name}=null"
        for name in ("non_finite_loss", "history", "figures", "random_state", "checkpoint")
    ]
    run = start(configure(*TINY, "trainer.max_epochs=1", *off))
    assert run.results["test_acc"] > 0
    assert json.loads((run.folder / "results.json").read_text())["status"] == "finished"


def test_a_test_loss_that_is_not_finite_is_said_and_the_run_finishes(configure: Configure, monkeypatch):
    class Infinite(Callback):
        def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            pl_module.criterion.register_forward_hook(lambda module, given, loss: loss * math.inf)

    build = training.build_trainer

    def with_callback(*args, **kwargs) -> Trainer:
        trainer = build(*args, **kwargs)
        trainer.callbacks.append(Infinite())
        return trainer

    monkeypatch.setattr(training, "build_trainer", with_callback)
    run = start(configure(*TINY, "trainer.max_epochs=1"))
    assert run.status == "finished"
    assert run.results["test_loss"] is None
    assert run.results["not_finite"] == {"test_loss": "inf"}
    assert re.search(r"test loss +inf", table(run.results, run.folder))
    assert run.results["test_acc"] > 0


def test_missing_best_weights_are_an_error_and_what_was_tested_is_said(
    configure: Configure, monkeypatch, whole
):
    class Remove(Callback):
        def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            (Path(trainer.default_root_dir) / "checkpoints" / "best.ckpt").unlink()

    config = configure(*TINY, "trainer.max_epochs=1")
    stopped = train_with(Remove(), monkeypatch, config, UserError)
    assert "best.ckpt is missing" in stopped.results["error"]
    complete = whole("trainer.max_epochs=1")
    assert complete.results["tested"] == {
        "checkpoint": "checkpoints/best.ckpt",
        "epoch": 1,
        "sha256": hashlib.sha256(complete.checkpoint("best").read_bytes()).hexdigest(),
    }
    unsaved = start(configure(*TINY, "trainer.max_epochs=1", "callbacks.checkpoint=null"), "unsaved")
    assert unsaved.results["tested"] == {"checkpoint": None, "epoch": 1, "sha256": None}
    assert "checkpoints are switched off, epoch 1" in table(unsaved.results, unsaved.folder)


def test_a_metric_that_needs_more_classes_is_refused_before_the_training(configure: Configure, tmp_path):
    for part, split in (("train", 8), ("test", 2)):
        for label in ("a", "b"):
            folder = tmp_path / "images" / part / label
            folder.mkdir(parents=True)
            for index in range(split):
                Image.new("L", (16, 16), 20 * index + 100 * (label == "b")).save(folder / f"{index}.png")
    own = ("data=image_folder", f"data.root={tmp_path / 'images'}", "metrics=[acc,top5]", "trainer=smoke")
    config = configure(*own, "data.on_leak=warn")
    run = Run.create(config, Path(config.output_dir), "run")
    with pytest.raises(UserError, match=r"top-5 accuracy says nothing with fewer than 6 classes.*has 2"):
        train(config, run)
    assert run.metrics == []


def test_the_loss_of_an_epoch_is_a_mean_over_images(configure: Configure):
    """Of a smaller last batch, too; it is the negative log-likelihood, computed apart."""
    config = configure(*TINY, "metrics=[acc,nll]", "data.batch_size=300", "trainer.max_epochs=1")
    row = start(config).metrics[0]
    assert row["val_loss"] == pytest.approx(row["val_nll"], rel=1e-6)


def test_a_weight_file_from_elsewhere_leaves_the_own_evaluation(copied: Run, whole, run_entry_point):
    one, other = copied, whole("trainer.max_epochs=1")
    for checkpoint in (one.checkpoint("best"), other.checkpoint("best")):
        assert run_entry_point("evaluate.py", f"run={one.folder}", f"ckpt={checkpoint}").code in (0, None)
    names = sorted(path.stem for path in one.folder.glob("evaluation_*"))
    assert len(names) == 4
    assert names[:2] == ["evaluation_best"] * 2
    own = of_predictions(one.folder / "evaluation_best.npz", ["acc"])
    assert own["test_acc"] == pytest.approx(one.results["test_acc"], abs=1e-7)


def test_a_finished_run_is_extended_as_if_it_had_been_longer(whole, run_entry_point, tmp_path):
    run = Run(Path(shutil.copytree(whole("trainer.max_epochs=2").folder, tmp_path / "run")))
    done = run_entry_point("train.py", f"resume={run.folder}")
    assert "nothing to resume" in done.out
    done = run_entry_point("train.py", f"resume={run.folder}", "trainer.max_epochs=1")
    assert "has 2 epochs already" in done.err
    done = run_entry_point("train.py", f"resume={run.folder}", "trainer.max_epochs=4")
    assert done.code in (0, None), done.err
    assert "The schedule is laid out over all of them" in done.out
    assert_same_training(run, whole("trainer.max_epochs=4"))
    assert run.config.trainer.max_epochs == 4
    assert run.provenance["resumed"][0]["changes"] == {"trainer.max_epochs": 4}


def test_a_promoted_run_equals_the_uninterrupted_one_bit_for_bit(
    configure: Configure, run_entry_point, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    tiny = (*TINY, "logger=none", "callbacks.figures=null", "trainer.max_epochs=4", "scheduler=cosine")
    whole = start(configure(*tiny, "optimizer.lr=0.01"), "whole")
    search = ("hydra/sweeper=halving", "hydra.sweeper.factor=2", "sweep.name=s")
    done = run_entry_point("train.py", "-m", *tiny, "optimizer.lr=1e-5,0.01", *search)
    assert done.code in (0, None), done.err
    assert "rung 2 of 2: the best 1 to epoch 4" in done.out
    assert "1 stopped, 1 finished" in done.out
    promoted, stopped = (Run(next(tmp_path.glob(f"outputs/s/*lr-{rate}-*"))) for rate in ("0.01", "1e-05"))
    assert len(promoted.provenance["resumed"]) == 1
    assert_same_training(promoted, whole)
    assert not any(key.startswith("test_") for key in stopped.results)  # nothing was tested
    done = run_entry_point("train.py", f"resume={stopped.folder}")  # by hand it goes on to its end
    assert len(stopped.metrics) == 4, done.err


@pytest.mark.parametrize("optimizer", ["adam", "sam"])  # sam computes its gradients twice a step
def test_a_found_rate_is_as_good_as_a_given_one_and_stays_on_resume(configure, monkeypatch, optimizer):
    tiny = (*TINY, "logger=none", "trainer.max_epochs=2", "scheduler=onecycle", "model.dropout=0.3")
    tiny = (*tiny, f"optimizer={optimizer}")
    finder = ("callbacks=lr_finder", "callbacks.lr_finder.steps=30", "callbacks.figures=null")
    config = configure(*tiny, *finder)
    stopped = stop_in_epoch(monkeypatch, config, epoch=1, failure=RuntimeError("power cut"))
    with monkeypatch.context() as other_losses:  # what a test would find now counts no more
        other_losses.setattr("lightning_modules.callbacks.lr_finder.suggest", lambda *_: 1e-9)
        train(stopped.config, stopped)
    rate = stopped.results["found_lr"]
    assert 1e-5 < rate < 1.0
    assert_same_training(stopped, start(configure(*tiny, f"optimizer.lr={rate}", "callbacks.figures=null")))


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "step"])
def test_the_schedule_of_an_extended_run_is_that_of_its_new_length(configure, run_entry_point, schedule):
    tiny = (*TINY, f"scheduler={schedule}", "trainer.limit_test_batches=1")
    longer = start(configure(*tiny, "trainer.max_epochs=4"), "longer")
    run = start(configure(*tiny, "trainer.max_epochs=2"), "run")
    done = run_entry_point("train.py", f"resume={run.folder}", "trainer.max_epochs=4")
    assert done.code in (0, None), done.err
    for own, other in zip(run.metrics[2:], longer.metrics[2:], strict=True):
        assert own["lr"] == pytest.approx(other["lr"], rel=1e-6)


def test_a_damaged_last_checkpoint_is_named_and_the_best_taken_if_asked(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, run_entry_point
):
    config = configure(*TINY, "trainer.max_epochs=3")
    run = stop_in_epoch(monkeypatch, config, epoch=2, failure=RuntimeError("power cut"))
    last, best = run.checkpoint("last"), run.checkpoint("best")
    damaged = bytearray(last.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    last.write_bytes(damaged)
    names = ("provenance.json", "results.json", "metrics.csv", "config.yaml")
    kept = [last, best, *(run.folder / name for name in names)]
    before = {path: path.read_bytes() for path in kept}
    done = run_entry_point("train.py", f"resume={run.folder}")
    assert done.code == 1
    assert f"{last} is damaged" in done.err
    assert f"resume={best}" in done.err
    assert {path: path.read_bytes() for path in before} == before
    done = run_entry_point("train.py", f"resume={best}")
    assert done.code in (0, None), done.err
    assert run.status == "finished"
    assert len(run.metrics) == 3
