"""Kill trainings at random, also within epochs, and compare the resumed ones with whole ones, bit by bit.

``python -m benchmarks.soak kills=50``: on each engine, torch and the one from scratch, as many times.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import ROOT
from experiment.command_line import assignments
from experiment.entry_point import entry_point
from experiment.schema import Knob

USAGE = "python -m benchmarks.soak kills=50 [engine=torch|numpy] [seed=0]"
KNOBS = {
    "kills": Knob("int", "how often trainings are killed on each engine", "[1, inf)"),
    "engine": Knob("str", "only this one", choices=("torch", "numpy"), optional=True),
    "seed": Knob("int", "of when and how they are killed", optional=True),
}
SMALL = [
    "model.widths=[4,8,8]", "data.train_images=1280", "data.batch_size=16", "trainer.max_epochs=4",
    "scheduler=onecycle", "model.dropout=0.3", "logger=none", "callbacks.figures=null",
    "callbacks.checkpoint.every_steps=5",
]  # fmt: skip
ENGINES = {"torch": "model=mnist", "numpy": "model=custom"}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TIMINGS = ("train_seconds", "seconds", "images_per_second")


@entry_point
def main() -> None:
    """Soak each engine; print a line for each run."""
    given = assignments(sys.argv[1:], KNOBS, USAGE)
    chance, kills = random.Random(given["seed"] or 0), given["kills"]
    differing = 0
    with tempfile.TemporaryDirectory() as folder:
        for engine, model in ENGINES.items():
            if given["engine"] not in (None, engine):
                continue
            whole = start(folder, f"name={engine}-whole", model, *SMALL)
            if whole.wait():
                raise SystemExit(f"the whole run on {engine} failed")
            done = within = runs = 0
            while done < kills:
                name = f"{engine}-{runs}"
                runs, process = runs + 1, start(folder, f"name={name}", model, *SMALL)
                run = Path(folder) / "outputs" / name
                while True:
                    wait_for_checkpoint(run, process)
                    time.sleep(chance.uniform(0, 1.5))
                    if process.poll() is not None or done >= kills:
                        break
                    process.send_signal(chance.choice(SIGNALS))
                    process.wait()
                    done += 1
                    within += is_within_epoch(run / "checkpoints" / "last.ckpt")
                    process = start(folder, f"resume={run}")
                if process.wait():
                    raise SystemExit(f"{run.name} could not be resumed")
                differing += differences(run, Path(folder) / "outputs" / f"{engine}-whole")
                print(
                    f"{engine}: {done} kills, {within} leaving a checkpoint within an epoch, in {runs} runs; "
                    f"{differing} differing values so far",
                    flush=True,
                )
    raise SystemExit(differing > 0)


def start(folder: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Train in ``folder``; a background job of a shell would otherwise ignore Ctrl-C."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments], cwd=folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )  # fmt: skip


def wait_for_checkpoint(run: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until this attempt at a run has written a checkpoint, or has ended."""
    last, begun = run / "checkpoints" / "last.ckpt", time.time()
    while process.poll() is None and not (last.exists() and last.stat().st_mtime >= begun - 1):
        time.sleep(0.02)


def is_within_epoch(path: Path) -> bool:
    """Whether a checkpoint was written between two steps of one epoch."""
    epoch = torch.load(path, weights_only=True)["loops"]["fit_loop"]["epoch_progress"]["current"]
    return bool(epoch["processed"] < epoch["started"])


def differences(ours: Path, theirs: Path) -> int:
    """How many tensors of the last checkpoints, rows of metrics.csv and results of two runs differ."""
    mine, other = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (ours, theirs))
    pairs = [(mine["state_dict"][name], value) for name, value in other["state_dict"].items()]
    for state, wanted in zip(mine["optimizer_states"], other["optimizer_states"], strict=True):
        for index, entries in wanted["state"].items():
            pairs += [(state["state"][index][key], value) for key, value in entries.items()]
    count = sum(not torch.equal(torch.as_tensor(one), torch.as_tensor(two)) for one, two in pairs)
    rows: list[Any] = []
    for content in (mine, other):
        history = content["callbacks"]["History"]["rows"]
        rows.append([{k: v for k, v in row.items() if k not in TIMINGS} for row in history])
    results = [json.loads((run / "results.json").read_text()) for run in (ours, theirs)]
    count += sum(a != b for a, b in zip(*rows, strict=True))
    for key in ("test_loss", "test_acc", "best_epoch"):
        count += results[0][key] != results[1][key]
    return int(count)


if __name__ == "__main__":
    main()
