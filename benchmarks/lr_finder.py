"""Whether ``callbacks=lr_finder`` finds a rate as good as the best of a grid of seven, for three networks."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.timing import ROOT, Row, Settings, call

NETWORKS = {
    "mnist": ("model.widths=[8,16,32]", "optimizer.lr=1e-4,3e-4,1e-3,3e-3,1e-2,3e-2,1e-1"),
    "enhanced": ("model.widths=[8,16,32,32,32]", "optimizer.lr=1e-4,3e-4,1e-3,3e-3,1e-2,3e-2,1e-1"),
    "baseline": ("model.widths=[8,16,32,32,32]", "optimizer.lr=3e-4,1e-3,3e-3,1e-2,3e-2,1e-1,3e-1"),
}
COMMON = ("data=mnist_mini", "trainer.max_epochs=15", "callbacks.figures=null", "logger=none")


def measure(settings: Settings) -> list[Row]:  # noqa: ARG001 – accuracies, not times
    """Test accuracies on the 5,000 digits; of the grid that of the rate with the best validation."""
    rows = []
    with TemporaryDirectory() as name:
        folder, train = Path(name), str(ROOT / "train.py")
        for model, (widths, grid) in NETWORKS.items():
            options = (f"model={model}", widths, *COMMON)
            call(
                train, *options, "callbacks=lr_finder", "callbacks.figures=null", f"name={model}", cwd=folder
            )
            call(train, "-m", *options, grid, f"sweep.name={model}-grid", cwd=folder, code=None)
            found = json.loads((folder / "outputs" / model / "results.json").read_text())
            runs = [json.loads(p.read_text()) for p in folder.glob(f"outputs/{model}-grid/*/results.json")]
            finished = [
                run for run in runs if run["status"] == "finished"
            ]  # a rate that is too high diverges
            best = max(finished, key=lambda run: run["val_acc"])
            rows += [
                Row(f"{model}: best of the grid", [100 * best["test_acc"]], "%"),
                Row(f"{model}: with the found rate {found['found_lr']:.3g}", [100 * found["test_acc"]], "%"),
                Row(f"{model}: below", [100 * (best["test_acc"] - found["test_acc"])], "points", ("≤", 1.0)),
            ]
    return rows
