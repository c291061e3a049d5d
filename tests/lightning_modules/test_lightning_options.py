"""Trainer options, callbacks and loggers of Lightning's own, as a user sets them."""

import csv
import logging

import pytest

import lightning_modules
from experiment.config import digest
from experiment.errors import UserError
from experiment.run import Run
from lightning_modules.training import train

SMALL = ("model.widths=[4,8]", "data.train_images=160", "data.batch_size=32", "callbacks.figures=null")
CALLBACKS = "lightning.pytorch.callbacks"


@pytest.fixture
def trained_with(configure, tmp_path):
    def trained_with(*overrides: str) -> Run:
        logger = [] if any("logger" in override for override in overrides) else ["logger=none"]
        epochs = [] if any("epochs" in override for override in overrides) else ["trainer.max_epochs=2"]
        config = configure(*SMALL, *logger, *epochs, *overrides)
        run = Run.create(config, tmp_path, "run")
        train(run.config, run)
        assert run.status == "finished"
        return run

    return trained_with


def test_parts_of_all_batches_and_numbers_of_them(trained_with):
    run = trained_with("trainer.limit_train_batches=0.4", "trainer.limit_val_batches=1.0")
    assert [row["step"] for row in run.metrics] == [2, 4]
    assert len({row["val_loss"] for row in run.metrics}) == 2


def test_one_batch_is_another_run_than_all_batches(configure):
    one, every = (digest(configure(f"trainer.limit_train_batches={value}")) for value in ("1", "1.0"))
    assert one != every


@pytest.mark.parametrize("step", [3, 7])
def test_a_training_that_ends_within_an_epoch_is_measured_and_tested(trained_with, step):
    run = trained_with(f"trainer.max_steps={step}")
    assert [row["step"] for row in run.metrics] == ([3] if step == 3 else [5, 7])
    assert all(row["train_seconds"] > 0 and row["images_per_second"] > 0 for row in run.metrics)
    assert run.metrics[-1]["val_loss"] is None
    assert run.results["best_epoch"] == 1
    assert run.results["test_acc"] is not None


def test_a_training_ends_when_its_time_is_over(trained_with):
    run = trained_with("trainer.max_time=00:00:00:01", "trainer.max_epochs=5000")
    assert 0 < len(run.metrics) < 5000
    assert run.results["train_seconds"] > 0


def test_epochs_without_validation_are_no_best_ones(trained_with):
    run = trained_with("trainer.check_val_every_n_epoch=2", "trainer.max_epochs=3")
    assert [row["val_loss"] is None for row in run.metrics] == [True, False, True]
    assert run.results["best_epoch"] == 2
    assert run.results["tested"]["epoch"] == 2


def test_the_same_batches_again_are_learnt_by_heart(trained_with):
    run = trained_with("trainer.overfit_batches=1", "trainer.max_epochs=40", "optimizer.lr=0.02")
    assert run.results["final_train_loss"] < 0.1


def test_a_dry_run_and_a_profile(trained_with):
    run = trained_with("trainer.fast_dev_run=true", "trainer.profiler=simple")
    assert [row["step"] for row in run.metrics] == [1]
    assert "run_training_batch" in (run.folder / "fit-profile.txt").read_text()


def test_a_part_that_is_no_batch_is_said_so(trained_with):
    with pytest.raises(UserError, match="Please increase the `limit_val_batches`"):
        trained_with("trainer.limit_val_batches=0.001")


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("limit_train_batches", "1.5"), ("limit_val_batches", "0"), ("max_time", "'1:00'"),
        ("max_steps", "-1"), ("profiler", "simpel"), ("fast_dev_run", "2"), ("overfit_batches", "0.0"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_before_torch(knob, value):
    from experiment.command_line import check

    with pytest.raises(UserError, match=rf"trainer\.{knob}="):
        check([f"trainer.{knob}={value}"])


@pytest.mark.parametrize(
    "callback",
    [
        "ModelCheckpoint",
        "ModelCheckpoint,monitor:val_acc,dirpath:mine",
        "LearningRateMonitor",
        "EarlyStopping,monitor:val_loss",
        "GradientAccumulationScheduler,scheduling:{0:2}",
        "ModelSummary",
        "DeviceStatsMonitor,cpu_stats:false",
        "Timer,duration:'00:00:10:00'",
        "TQDMProgressBar",
        "LambdaCallback",
        "EMAWeightAveraging",
    ],
)
def test_a_callback_of_lightnings_own_works(trained_with, callback):
    name, _, options = callback.partition(",")
    entry = f"+callbacks.mine={{_target_:{CALLBACKS}.{name}{',' if options else ''}{options}}}"
    run = trained_with("logger=tensorboard", entry)
    assert len(run.metrics) == 2


@pytest.mark.parametrize(
    ("callback", "reason"),
    [
        ("StochasticWeightAveraging,swa_lrs:0.01", "the test would not use its weights"),
        ("BatchSizeFinder", r"data\.batch_size"),
        ("LearningRateFinder", "callbacks=lr_finder"),
        ("ModelPruning,pruning_fn:l1_unstructured", "renames the weights"),
        ("BackboneFinetuning", "backbone"),
        ("OnExceptionCheckpoint,dirpath:mine", r"last\.ckpt"),
        ("ThroughputMonitor,batch_size_fn:len", "takes a function"),
        ("EarlyStopping,monitor:val_lss", "Did you mean val_loss"),
        ("LearningRateMonitor,logging_interval:never", "logging_interval"),
        ("RichProgressBar", "rich"),
        ("DeviceStatsMonitor", "has no logger|logger=False"),
    ],
)
def test_a_callback_that_cannot_work_ends_in_one_line(monkeypatch, tmp_path, callback, reason):
    monkeypatch.setattr("lightning.pytorch.callbacks.progress.rich_progress._RICH_AVAILABLE", False)
    name, _, options = callback.partition(",")
    entry = f"+callbacks.mine={{_target_:{CALLBACKS}.{name}{',' if options else ''}{options}}}"
    with pytest.raises(UserError, match=reason):
        lightning_modules.train(*SMALL, "logger=none", entry, f"output_dir={tmp_path}")
    assert not list(tmp_path.iterdir())


def test_a_monitor_without_a_logger_ends_in_one_line(trained_with):
    with pytest.raises(UserError, match="LearningRateMonitor` callback with `Trainer` that has no logger"):
        trained_with(f"+callbacks.mine={{_target_:{CALLBACKS}.LearningRateMonitor}}")


def test_lightnings_csv_logger_does_not_replace_the_runs_own_metrics(trained_with, configure, tmp_path):
    run = trained_with("logger=csv")
    with (run.folder / "csv" / "metrics.csv").open() as file:
        assert {"epoch", "step", "lr"} <= set(next(csv.reader(file)))
    assert [row["epoch"] for row in run.metrics] == [1, 2]
    with pytest.raises(UserError, match="would replace the run's own"):
        lightning_modules.train("logger=csv", "logger.csv.name=''", f"output_dir={tmp_path}")


@pytest.mark.parametrize(("package", "logger"), [("mlflow", "mlflow"), ("wandb", "wandb")])
def test_a_logger_of_another_package_writes_into_the_run_folder_or_says_what_to_install(
    trained_with, package, logger, caplog
):
    try:
        __import__(package)
    except ModuleNotFoundError:
        with pytest.raises(UserError, match=package):
            trained_with(f"logger={logger}")
        return
    logging.getLogger(package).setLevel(logging.ERROR)
    run = trained_with(f"logger={logger}")
    assert any(package in path.name or "mlruns" in path.name for path in run.folder.iterdir())
