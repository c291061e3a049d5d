"""Whether ``hydra/sweeper=halving`` finds what the full grid finds, for what part of its processor time."""

import json
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.timing import ROOT, Row, Settings, call

SETTINGS = (
    "model=mnist", "optimizer.lr=3e-4,1e-3,3e-3,1e-2", "model.dropout=0,0.3", "loss.label_smoothing=0,0.1",
    "trainer.max_epochs=10", "callbacks.figures=null", "logger=none",
)  # fmt: skip


def measure(settings: Settings) -> list[Row]:
    """16 settings of the 5,000 digits, once: both train the same jobs with the same seed."""
    settings = settings._replace(clock="cpu")
    seconds, best = {}, {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        for sweeper in ("folder", "halving"):
            train = (str(ROOT / "train.py"), "-m", f"hydra/sweeper={sweeper}", *SETTINGS)
            start = partial(call, *train, f"sweep.name={sweeper}", cwd=folder)
            seconds[sweeper] = settings.seconds(start)
            found = [json.loads(p.read_text()) for p in (folder / "outputs" / sweeper).glob("*/results.json")]
            finished = [results for results in found if results["status"] == "finished"]
            best[sweeper] = max(finished, key=lambda results: results["val_acc"])
    rows = [Row(f"{sweeper}: processor time", [value], "s") for sweeper, value in seconds.items()]
    rows.append(Row("of the grid's", [100 * seconds["halving"] / seconds["folder"]], "%", ("≤", 40.0)))
    for key, target in (("val_acc", ("≤", 0.2)), ("test_acc", None)):
        values = {sweeper: 100 * results[key] for sweeper, results in best.items()}
        rows += [Row(f"{sweeper}: best {key}", [value], "%") for sweeper, value in values.items()]
        rows.append(Row(f"{key} below the grid's", [values["folder"] - values["halving"]], "points", target))  # type: ignore[arg-type]
    return rows
