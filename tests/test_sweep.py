"""Sweeps as users call them: resumed, killed, failing, frozen, in parallel."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from experiment.command_line import CONFIG_DIR
from experiment.config import digest, run_config
from experiment.errors import UserError
from experiment.run import Busy, Run
from experiment.sweep import Job
from experiment.worker import claim_gpu

ROOT = Path(__file__).parents[1]
SMALL = ["model.widths=[4,8]", "data.train_images=320", "callbacks.figures=null", "logger=none"]
SEEDS = [*SMALL, "trainer.max_epochs=3", "model.dropout=0,0.3", "seed=0,1"]


@pytest.fixture
def sweep(run_entry_point, monkeypatch, tmp_path):
    """Start the sweep "s" in this process, in a folder of the test's."""
    monkeypatch.chdir(tmp_path)
    for variable in ("PYTHONPATH", "EXPERIMENT_PARENT"):  # the sweeper sets them
        monkeypatch.setenv(variable, os.environ.get(variable, ""))
    monkeypatch.delenv("EXPERIMENT_PARENT")

    def start(*arguments: str) -> tuple[int, str, str]:
        done = run_entry_point("train.py", "-m", *arguments, "sweep.name=s")
        return done.code or 0, done.out, done.err

    return start


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "-m", *arguments, "sweep.name=s"], cwd=cwd, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0,
    )  # fmt: skip


def runs(cwd: Path) -> dict[str, Run]:
    return {path.parent.name: Run(path.parent) for path in cwd.glob("outputs/s/*/provenance.json")}


def figures(cwd: Path) -> dict[str, list[object]]:
    keys = ("status", "epochs", "best_epoch", "val_loss", "test_loss", "test_acc", "final_train_loss")
    return {name: [run.results.get(key) for key in keys] for name, run in runs(cwd).items()}


def written(run: Run) -> int:
    """When the results were."""
    return (run.folder / "results.json").stat().st_mtime_ns


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_killed_and_repeated_ends_as_if_never_killed(tmp_path, sweep):
    code, output, errors = sweep(*SEEDS, "model.dropout=0,0.0,0.3")  # 0 and 0.0 are one job
    assert code == 0, errors
    assert output.count("test ") == 4
    whole = figures(tmp_path)
    assert len(whole) == 4
    (tmp_path / "outputs").rename(tmp_path / "whole")
    process = start(*SEEDS, cwd=tmp_path)
    wait_for(lambda: sum(run.status != "pending" for run in runs(tmp_path).values()) > 1)
    time.sleep(random.uniform(0, 0.5))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    stamps = {name: written(run) for name, run in runs(tmp_path).items() if run.status == "finished"}
    code, output, errors = sweep(*SEEDS)
    assert code == 0, errors
    assert figures(tmp_path) == whole
    for name, stamp in stamps.items():  # what was finished was not touched again
        assert written(runs(tmp_path)[name]) == stamp
    assert len(json.loads((tmp_path / "outputs" / "s" / "sweep.json").read_text())["sessions"]) == 2


def test_failures_are_told_when_they_happen_and_only_they_are_run_again(tmp_path, sweep):
    mixed = [*SMALL, "trainer.max_epochs=1", "optimizer=sgd", "optimizer.lr=0.01,1e30,0.02"]
    code, output, errors = sweep(*mixed)
    assert code == 1
    assert "Traceback" not in output + errors
    begin, *lines = output.splitlines()
    assert begin == "3 jobs → outputs/s"
    assert "[1/3] optimizer.lr=0.01  test" in lines[0]
    assert "[2/3] optimizer.lr=1e+30  FAILED UserError: the loss became" in lines[1]
    assert "[3/3] optimizer.lr=0.02  test" in lines[2]
    assert "2 finished, 1 failed" in output
    (failed,) = (run for run in runs(tmp_path).values() if run.status == "failed")
    assert f"see {failed.folder / 'run.log'}" in output
    assert "Traceback" in (failed.folder / "run.log").read_text()
    first_end = {name: written(run) for name, run in runs(tmp_path).items()}
    assert "continue with: python train.py -m" in output

    code, output, _ = sweep(*mixed, "sweep.dry_run=true")
    assert code == 0
    assert "failed      optimizer.lr=1e+30" in output
    assert "2 of 3 jobs finished" in output
    code, output, _ = sweep(*mixed)
    assert code == 1
    assert output.count("FAILED UserError") == 1
    assert "test" not in output.splitlines()[1]
    again = {name for name, run in runs(tmp_path).items() if written(run) != first_end[name]}
    assert again == {failed.folder.name}


def test_a_start_while_the_data_is_away_costs_nothing(tmp_path, monkeypatch, sweep):
    """A killed and a finished job, then a start that cannot begin, then one that can."""
    from lightning_modules.data import ImageDataModule

    arguments = [*SMALL, "trainer.max_epochs=2", "seed=0,1"]
    assert sweep(*arguments)[0] == 0
    whole = figures(tmp_path)
    killed, _ = (run for _, run in sorted(runs(tmp_path).items()))
    killed.record(status="running")
    (killed.folder / "results.json").unlink()
    kept = {path.name: path.read_bytes() for path in killed.folder.glob("*/*.ckpt")}

    def away(self) -> None:
        raise UserError("the data is away")

    with monkeypatch.context() as patched:
        patched.setattr(ImageDataModule, "load", away)
        code, output, _ = sweep(*arguments)
    assert code == 1
    assert "NOT STARTED UserError: the data is away (as before: running)" in output
    assert "KILLED" in output
    assert killed.state == "killed"
    assert {path.name: path.read_bytes() for path in killed.folder.glob("*/*.ckpt")} == kept
    assert len(killed.metrics) == 2

    code, output, errors = sweep(*arguments)
    assert code == 0, output + errors
    assert figures(tmp_path) == whole
    assert len(killed.provenance["resumed"]) == 1  # it went on from its checkpoint
    assert not (tmp_path / "outputs" / "s" / ".old").exists()


def test_who_loses_a_race_for_a_job_leaves_it_alone(tmp_path, monkeypatch, sweep):
    """Another process trains the job when this one's turn comes, and has finished it at the end."""
    from lightning_modules import training

    arguments = [*SMALL, "trainer.max_epochs=1", "seed=0"]
    train = training.train

    def race(config, run) -> float | None:
        with Run(run.folder).session():  # the other process
            with pytest.raises(Busy) as lost:
                train(config, run)
            run.write_json("results.json", {"status": "finished", "epochs": 1, "test_acc": 0.5})
            run.record(status="finished", end="now")
        raise lost.value

    monkeypatch.setattr(training, "train", race)
    code, output, _ = sweep(*arguments)
    (run,) = runs(tmp_path).values()
    assert run.state == "finished"
    assert run.results["test_acc"] == 0.5
    assert code == 0, output


def test_failed_folders_of_other_sweeps_do_not_stop_this_one(tmp_path, sweep):
    old = tmp_path / "outputs" / "s" / "seed=9-00000000"
    old.mkdir(parents=True)
    (old / "provenance.json").write_text('{"status": "failed"}')
    arguments = [*SMALL, "trainer.max_epochs=1", "seed=0", "sweep.fail_fast=true"]
    assert sweep(*arguments)[0] == 0


def test_fail_fast_starts_nothing_after_a_failure(tmp_path, sweep):
    code, output, _ = sweep(
        *SMALL, "trainer.max_epochs=1", "optimizer=sgd", "optimizer.lr=1e30,0.01", "sweep.fail_fast=true"
    )  # fmt: skip
    assert code == 1
    assert sorted(run.status for run in runs(tmp_path).values()) == ["failed", "pending"]
    assert "1 failed, 1 pending" in output


def test_ctrl_c_ends_with_a_summary_and_the_command_that_resumes(tmp_path, sweep, monkeypatch):
    from lightning_modules.callbacks import History

    arguments = [*SMALL, "seed=0,1", "trainer.max_epochs=3"]
    with monkeypatch.context() as patched:
        patched.setattr(
            History, "on_validation_start", lambda *_: signal.raise_signal(signal.SIGINT), raising=True
        )
        code, output, errors = sweep(*arguments)
    assert code == 130, errors
    assert "Traceback" not in errors
    assert "1 interrupted, 1 pending" in output
    assert "continue with: python train.py -m 'model.widths=[4,8]'" in output
    assert "sweep.name=s" in output
    code, output, errors = sweep(*arguments)
    assert code == 0, errors
    assert "INTERRUPTED" not in output  # that is how it ended before
    assert [line[:5] for line in output.splitlines()[1:3] if "test" in line] == ["[1/2]", "[2/2]"]


def test_the_configuration_is_fixed_when_the_sweep_starts(tmp_path, sweep, monkeypatch):
    from lightning_modules import training

    option = tmp_path / "conf" / "loss" / "mine.yaml"
    option.parent.mkdir(parents=True)
    option.write_text("_target_: torch.nn.CrossEntropyLoss\nlabel_smoothing: 0.2\n")
    arguments = ["--config-dir=conf", *SMALL, "loss=mine", "trainer.max_epochs=1", "seed=0,1"]
    train = training.train

    def change_then_train(config, run) -> float | None:
        option.write_text("_target_: torch.nn.CrossEntropyLoss\nlabel_smoothing: 0.0\n")
        return train(config, run)

    monkeypatch.setattr(training, "train", change_then_train)
    code, _, errors = sweep(*arguments)
    assert code == 0, errors
    assert [run.config.loss.label_smoothing for run in runs(tmp_path).values()] == [0.2, 0.2]
    code, output, _ = sweep(*arguments, "sweep.dry_run=true")
    assert (code, output.count("pending")) == (0, 2)  # what is in the file now is another job


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_jobs_in_processes_of_their_own(sweep, launcher):
    code, output, errors = sweep(*SMALL, "trainer.max_epochs=1", "seed=0,1", f"hydra/launcher={launcher}")
    assert code == 0, errors
    assert "2 finished" in output
    assert output.count("test ") == 2


def test_a_search_is_kept_and_goes_on(tmp_path, sweep, monkeypatch):
    """An interrupted trial is repeated by the next start; some may diverge, too many end the search."""
    import optuna

    from lightning_modules.callbacks import History

    arguments = [*SMALL, "trainer.max_epochs=1", "optimizer=sgd", "hydra/sweeper=optuna"]

    def states(folder: str = "outputs") -> list[str]:
        study = optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/s/study.db")
        return [trial.state.name for trial in study.trials]

    search = [*arguments, "optimizer.lr=interval(1e-3,1e-2)", "hydra.sweeper.n_trials=1"]
    with monkeypatch.context() as patched:
        patched.setattr(History, "on_train_batch_start", lambda *_: signal.raise_signal(signal.SIGINT))
        code, output, errors = sweep(*search)
    assert code == 130, errors
    assert "continue with: python train.py -m" in output
    assert states() == ["FAIL"]
    code, output, errors = sweep(*search)
    assert code == 0, errors
    assert states() == ["FAIL", "COMPLETE"]
    (run,) = runs(tmp_path).values()  # both trials are one run
    assert (run.state, len(run.provenance["resumed"])) == ("finished", 1)

    diverging = ["optimizer.lr=choice(1e30)", "hydra.sweeper.n_trials=3", "output_dir=other"]
    code, output, errors = sweep(*arguments, *diverging)
    assert code == 1
    assert states("other") == ["FAIL", "FAIL"]
    assert "2 failed trials are more than hydra.sweeper.max_failure_rate" in errors


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml")))
def test_every_claim_of_a_named_experiment_is_about_its_jobs(sweep, name):
    """A dry run refuses what they cannot answer; here, that there are seeds enough for an interval."""
    content = yaml.safe_load((CONFIG_DIR / "experiment" / f"{name}.yaml").read_text())
    if claims := content.get("sweep", {}).get("claims"):
        code, output, errors = sweep(f"experiment={name}", "sweep.dry_run=true")
        assert code == 0, errors
        seeds = {word for word in output.split() if word.startswith("seed=")}
        assert len(seeds) >= 3, (name, claims)


def test_a_job_is_its_configuration(tmp_path, configure):
    config = run_config(configure("data=cifar10"))
    job = Job(tmp_path, {"seed": "0"}, config, {})
    assert job.prepare()
    assert job.status == "pending"
    again = Job(tmp_path, {"other": "name"}, config, {})
    assert again.run.folder == job.run.folder
    assert digest(run_config(configure("data=cifar10", "data.root=elsewhere", "name=x"))) == digest(config)
    for change in ("seed=1", "optimizer.lr=0.1", "trainer.max_epochs=3"):
        assert digest(run_config(configure("data=cifar10", change))) != digest(config)
    folders = [configure("data=image_folder", f"data.root={root}") for root in "ab"]
    assert digest(run_config(folders[0])) != digest(run_config(folders[1]))


def test_a_job_that_another_process_trains_is_left_to_it(tmp_path, configure):
    job = Job(tmp_path, {"seed": "0"}, run_config(configure()), {})
    job.prepare()
    with job.run.session():
        job.run.begin()
        assert job.status == "running"
        assert not job.prepare()
    assert job.status == "killed"
    assert job.prepare()


def test_processes_of_a_sweep_share_out_the_gpus(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path; from experiment.worker import claim_gpu;"
        "claim_gpu(Path(sys.argv[1]), ['0', '1']); print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True);"
        "sys.stdin.read()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    claimed = [process.stdout.readline().strip() for process in processes]
    for process in processes:
        process.communicate("")
    assert sorted(claimed) == ["0", "1"]


def test_a_single_gpu_is_shared(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    claim_gpu(tmp_path, ["0"])
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_files_of_other_programs_do_not_break_a_dry_run(tmp_path, sweep):
    for name, text in (("csv_logger", "epoch,val\n1,2\n"), ("notes", "a,b\nx,y\n"), ("bytes", "\0")):
        folder = tmp_path / "outputs" / name
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(text)
    code, output, errors = sweep(*SMALL, "seed=0,1", "sweep.dry_run=true")
    assert code == 0, errors
    assert "0 of 2 jobs finished" in output


def test_to_another_sweeper_a_failed_job_returns_nothing(tmp_path, sweep):
    """A search counts it as a failed trial and goes on."""
    nan = [*SMALL, "trainer.max_epochs=1", "optimizer=sgd", "optimizer.lr=1e30,0.01"]
    _, output, _ = sweep(*nan, "hydra/sweeper=basic")
    assert "FAILED UserError: the loss became" in output
    assert sorted(run.status for run in runs(tmp_path).values()) == ["failed", "finished"]
