"""train.py and evaluate.py as users call them, each in a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiment.metrics import read_predictions

ROOT = Path(__file__).parents[1]
TINY = ["model.widths=[4,8]", "data.train_images=320", "data.batch_size=64", "logger=none"]


def call(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )


def only_run(folder: Path) -> Path:
    (provenance,) = folder.rglob("provenance.json")
    return provenance.parent


def status(run: Path) -> str:
    return json.loads((run / "provenance.json").read_text())["status"]


def test_train_then_evaluate_then_resume_what_is_finished(tmp_path, run_entry_point):
    done = call("train.py", "trainer=smoke", "model.widths=[4,8]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path / "outputs")
    assert re.fullmatch(r"mnist-mnist_mini-\d{8}-\d{6}", run.name)
    assert "test accuracy" in done.stdout
    assert f"{run}/figures/training_curves.png" in done.stdout

    evaluated = run_entry_point("evaluate.py", f"run={run}", "ckpt=last")
    assert not evaluated.code, evaluated.err
    assert (run / "evaluation_last.json").exists()

    again = run_entry_point("train.py", f"resume={run}")
    assert not again.code, again.err
    assert "finished" in again.out


def test_killed_at_random_and_resumed_ends_as_if_never_killed(tmp_path, run_entry_point):
    arguments = [*TINY, "trainer.max_epochs=10", f"output_dir={tmp_path}"]
    command = [sys.executable, str(ROOT / "train.py"), *arguments, "name=killed"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    killed = tmp_path / "killed"
    wait_for(lambda: len(lines(killed / "metrics.csv")) > 2)
    process.kill()
    process.wait()
    assert status(killed) == "running"
    for own in ([*arguments, "name=whole"], [f"resume={killed}"]):
        done = run_entry_point("train.py", *own)
        assert not done.code, done.err
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "killed")]
    for key in ("status", "epochs", "test_acc", "test_loss", "val_loss", "best_epoch", "final_train_loss"):
        assert results[0][key] == results[1][key]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_ctrl_c_says_how_to_go_on(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), *TINY, "trainer.max_epochs=500", "name=run"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # a background job of a shell inherits that Ctrl-C is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    run = tmp_path / "outputs" / "run"
    wait_for(lambda: len(lines(run / "metrics.csv")) > 2)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert f"continue with: python train.py resume={run}" in output
    assert status(run) == "interrupted"
    assert (run / "checkpoints" / "last.ckpt").exists()
    assert (run / "figures" / "training_curves.png").exists()


def test_two_processes_train_as_one_with_the_same_global_batch(tmp_path, run_entry_point):
    # each process would normalise over, and draw dropout for, its own half
    tiny = [*TINY, "trainer.max_epochs=1", "model.batch_norm=false", "model.dropout=0", "metrics=[acc,nll]"]
    tiny += ["trainer.limit_test_batches=3"]
    tiny += [f"output_dir={tmp_path}", "trainer.accelerator=cpu", "callbacks.figures=null"]
    own = ["trainer=ddp", "data.batch_size=32", "name=two", "logger=tensorboard"]
    two = call("train.py", *tiny, *own, cwd=tmp_path)
    assert two.returncode == 0, two.stderr
    assert "Traceback" not in two.stderr  # of the process whose exit code nobody sees
    assert two.stdout.count("test accuracy") == 1
    one = run_entry_point("train.py", *tiny, "data.batch_size=64", "name=one")
    assert not one.code, one.err
    folders = tmp_path / "two", tmp_path / "one"
    results = [json.loads((folder / "results.json").read_text()) for folder in folders]
    predictions = [read_predictions(folder / "predictions.npz") for folder in folders]
    (two, labels, indices), one = predictions
    assert len(two) == 3 * 64
    assert (labels == one.labels).all()
    assert (indices == one.indices).all()
    assert np.exp(two) == pytest.approx(np.exp(one.logits), abs=1e-2)
    for key in ("test_loss", "val_loss", "final_train_loss", "test_nll", "val_nll", "val_acc"):
        assert results[0][key] == pytest.approx(results[1][key], rel=1e-5)


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train.py", ["model=enhnced"], "Did you mean enhanced?"),
        ("train.py", ["resume=outputs/nothing"], "is not a run folder: it does not exist"),
        ("train.py", ["resume=outputs/nothing", "seed=3"], "resume= takes everything from the run"),
        ("train.py", ["data=cifar10", "data.download=false", "data.root=nowhere"], "data=mnist_mini"),
        ("train.py", ["model.widths=[8,8,8,8,8,8]"], "too deep for images of 28×28 pixels"),
        ("train.py", ["trainer=gpu", "trainer.devices=64"], "trainer.accelerator=gpu: there is none here"),
        ("evaluate.py", [], "run= is missing: folder of a run"),
        ("evaluate.py", ["run=nowhere"], "is not a run folder"),
    ],
)
def test_a_mistake_ends_with_its_message_and_code_1(
    tmp_path, monkeypatch, run_entry_point, script, arguments, message
):
    monkeypatch.chdir(tmp_path)
    done = run_entry_point(script, *arguments)
    assert done.code == 1
    assert message in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.rglob("provenance.json"))


@pytest.mark.parametrize(
    "words",
    [
        ("train.py", "--help"),
        ("train.py", "--cfg", "job"),
        ("train.py", "-m", "seed=0,1", "sweep.dry_run=true"),
        ("grade.py",),
    ],
    ids=" ".join,
)
def test_whoever_reads_no_further_sees_no_traceback(words, tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, str(ROOT / words[0]), *words[1:]], cwd=tmp_path, stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert done.stderr == b""
    assert done.returncode in (0, 141, -signal.SIGPIPE)


def test_the_light_packages_import_no_heavy_ones():
    """`experiment` imports neither torch nor lightning, `custom_backend` nothing of the project either."""
    spy = (
        "import sys, pkgutil, importlib\n"
        "for name in ('experiment', 'custom_backend'):\n"
        "    package = importlib.import_module(name)\n"
        "    for module in pkgutil.walk_packages(package.__path__, name + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "    print(name, sorted({'torch', 'lightning', 'lightning_modules'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", spy],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"MPLBACKEND": "agg"},
    )
    assert done.stdout == "experiment []\ncustom_backend []\n", done.stderr
