"""Whether ``hydra/sweeper=halving`` finds what the full grid finds, for what part of its processor time."""

import json
from functools import partial
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from benchmarks.timing import ROOT, Row, Settings, call

SETTINGS = (
    "model=mnist", "optimizer.lr=3e-4,1e-3,3e-3,1e-2", "model.dropout=0,0.3", "loss.label_smoothing=0,0.1",
    "trainer.max_epochs=10", "callbacks.figures=null", "logger=none",
)  # fmt: skip


def measure(settings: Settings) -> list[Row]:
    """16 settings of the 5,000 digits, a search for each seed: both train the same jobs.

    One of the 400 images to validate with is 0.25 points, and who is best of 16 is in part luck: what counts
    is the mean over the seeds.
    """
    settings = settings._replace(clock="cpu")
    sweepers = ("folder", "halving")
    seconds: dict[str, list[float]] = {sweeper: [] for sweeper in sweepers}
    best: dict[str, list[dict[str, float]]] = {sweeper: [] for sweeper in sweepers}
    with TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(settings.rounds):
            for sweeper in sweepers:
                sweep = f"{sweeper}-{seed}"
                options = f"hydra/sweeper={sweeper}", f"seed={seed}", f"sweep.name={sweep}"
                start = partial(call, str(ROOT / "train.py"), "-m", *options, *SETTINGS, cwd=folder)
                seconds[sweeper].append(settings.seconds(start))
                found = [
                    json.loads(p.read_text()) for p in (folder / "outputs" / sweep).glob("*/results.json")
                ]
                finished = [results for results in found if results["status"] == "finished"]
                best[sweeper].append(max(finished, key=lambda results: results["val_acc"]))
    rows = [Row(f"{sweeper}: processor time", values, "s") for sweeper, values in seconds.items()]
    parts = [100 * b / a for a, b in zip(*seconds.values(), strict=True)]
    rows.append(Row("of the grid's", parts, "%", ("≤", 40.0)))
    for key, target in (("val_acc", ("≤", 0.2)), ("test_acc", None)):
        values = {sweeper: [100 * one[key] for one in of_all] for sweeper, of_all in best.items()}
        rows += [Row(f"{sweeper}: best {key}", found, "%") for sweeper, found in values.items()]
        below = [a - b for a, b in zip(*values.values(), strict=True)]
        what = f"{key} below the grid's, mean of {len(below)} seeds"
        rows.append(Row(what, [fmean(below)], "points", target))  # type: ignore[arg-type]
    return rows
