"""Two processes that torchrun or srun started train one run, exactly, and end with what started them."""

import contextlib
import os
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiment.run import Run
from experiment.worker import PARENT_VARIABLE, _is_alive
from lightning_modules.callbacks.interruption import Interruption
from tests.lightning_modules.test_training import AVERAGED, TINY, assert_same_training

SCRIPT = Path(__file__).with_name("two_processes.py")


def wait_for(condition, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """What the two processes leave when torchrun is killed while they train."""
    folder = tmp_path_factory.mktemp("outputs")
    knobs = [*TINY, "model.dropout=0.3", "model.batch_norm=true", "scheduler=onecycle", AVERAGED]
    knobs += ["data.batch_size=16", "trainer.max_epochs=2", "callbacks.checkpoint.every_minutes=60"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    this = f"{platform.node()}:{os.getpid()}"
    with (folder / "log").open("w") as log:
        agent = subprocess.Popen(
            [*torchrun, str(SCRIPT), str(folder), *knobs], stdout=log, stderr=log,
            # as from a process that has trained a run itself
            env=os.environ | {"PYTHONPATH": str(SCRIPT.parents[2]), PARENT_VARIABLE: this},
        )  # fmt: skip
    endless = folder / "endless" / "metrics.csv"
    wait_for(lambda: endless.exists() or agent.poll() is not None)
    agent.kill()
    agent.wait()
    text = (folder / "log").read_text()
    assert endless.exists(), text
    workers = re.findall(r"process \d is (\d+)", text)
    try:
        wait_for(lambda: not any(_is_alive(int(worker)) for worker in workers), 60)
    finally:
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(worker), signal.SIGKILL)
    return folder


def test_torchrun_and_srun_make_one_folder_that_the_first_process_writes(outputs: Path):
    runs = {path.parent.name: Run(path.parent) for path in outputs.glob("*/provenance.json")}
    assert {name: run.status for name, run in runs.items()} == {
        "whole": "finished", "interrupted": "finished", "srun": "finished", "endless": "interrupted",
        "diverged": "failed",
    }  # fmt: skip
    assert not list(outputs.glob(".launch-*"))
    text = (outputs / "log").read_text()
    assert text.count("test accuracy") == 3
    assert text.count(" parameters, on mnist_mini") == 6  # once each attempt
    assert len(runs["whole"].metrics) == 2


def test_a_signal_to_one_process_ends_both_and_they_go_on_at_the_very_step(outputs: Path):
    text = (outputs / "log").read_text()
    assert all(f"process {rank} ended with code 143" in text for rank in (0, 1))
    assert_same_training(Run(outputs / "interrupted"), Run(outputs / "whole"))


def test_a_loss_that_is_nan_in_one_process_ends_both_and_the_first_says_so(outputs: Path):
    text = (outputs / "log").read_text()
    assert "process 0 ended with the loss became nan at step 3 " in text
    assert "process 1 ended with 1\n" in text
    assert Run(outputs / "diverged").state == "diverged"


def test_processes_whose_launcher_is_killed_save_and_end(outputs: Path):
    endless = Run(outputs / "endless")
    assert endless.state == "interrupted"
    assert endless.checkpoint("last").exists()


def test_a_signal_during_the_agreement_waits_for_the_next_one():
    """Else one process would end alone, and the others fail at the connection that it closes."""
    interruption = Interruption()

    def decision(own: bool, all: bool) -> bool:
        interruption.received = signal.SIGTERM  # while the other process is waited for
        return own

    trainer = SimpleNamespace(
        strategy=SimpleNamespace(reduce_boolean_decision=decision), checkpoint_callbacks=[]
    )
    interruption._end(trainer)
    with pytest.raises(SystemExit):
        interruption._end(trainer)
