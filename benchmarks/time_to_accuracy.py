"""Accuracy against time and training FLOPs, of finished runs: ``python -m benchmarks.time_to_accuracy``."""

import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from experiment.command_line import assignments
from experiment.entry_point import entry_point
from experiment.errors import UserError
from experiment.plots.style import SERIES, axes_at, dress_graph, empty_figure, save
from experiment.report.runs import Collection, Record, shorter
from experiment.schema import Knob

USAGE = "python -m benchmarks.time_to_accuracy runs=outputs [reach=0.9] [out=time_to_accuracy.png]"
KNOBS = {
    "runs": Knob("path", "folder with finished runs of one data set"),
    "reach": Knob(
        "float", "accuracy on the validation set that is to be reached; default 0.9", "(0, 1)", optional=True
    ),
    "out": Knob("path", "the picture; default time_to_accuracy.png", optional=True),
}
FORWARD_AND_BACKWARD = 3
"""Forward passes that a step costs: the backward pass takes two."""


def curve(record: Record, images: int) -> list[tuple[float, float, float]]:
    """Seconds, PFLOP and validation accuracy after each epoch of a run."""
    points, seconds = [], 0.0
    step = FORWARD_AND_BACKWARD * float(record.results["flops_per_image"]) * images / 1e15
    for number, row in enumerate(record.rows, 1):
        seconds += float(row["train_seconds"] or 0)
        points.append((seconds, number * step, float(row.get("val_acc") or 0)))
    return points


@entry_point
def main() -> None:
    """Print a line for each setting, and draw its first seed's way to its accuracy."""
    given = assignments(sys.argv[1:], KNOBS, USAGE)
    runs = Collection([Path(given["runs"])])
    if len({record.dataset for record in runs.finished}) > 1:
        raise UserError("runs of several data sets: name a folder with one")
    reach = given["reach"] or 0.9
    settings: dict[str, list[Record]] = defaultdict(list)
    for record in runs.finished:
        values = [f"{shorter(key, runs.keys)}={record.values.get(key)}" for key in runs.keys if key != "seed"]
        settings[" ".join(values) or record.folder.name].append(record)
    figure = empty_figure(8.0, 3.4, f"Accuracy against time, {runs.finished[0].dataset}", "")
    axes = axes_at(figure, 0.7, 0.6, 7.0, 2.6)
    dress_graph(axes)
    print(f"| | runs | seconds until {reach:.1%} validated | PFLOP until then | test accuracy |")
    print("|---|---|---|---|---|")
    for index, (label, records) in enumerate(settings.items()):
        curves = [curve(record, _images(record)) for record in records]
        reached = [next((point for point in points if point[2] >= reach), None) for points in curves]
        found = [point for point in reached if point is not None]
        seconds, cost = (f"{fmean(p[i] for p in found):.3g}" if found else "–" for i in (0, 1))
        missed = f" ({len(found)} of {len(records)})" if len(found) < len(records) else ""
        test = fmean(float(record.results["test_acc"]) for record in records)
        print(f"| {label} | {len(records)} | {seconds}{missed} | {cost} | {test:.2%} |")
        times, _, accuracies = zip(*curves[0], strict=True)
        axes.plot(times, accuracies, color=SERIES[index % len(SERIES)], label=label, linewidth=1.5)
    axes.set(xlabel="seconds of training", ylabel="validation accuracy")
    axes.legend(frameon=False, fontsize=8)
    save(figure, Path(given["out"] or "time_to_accuracy.png"))


def _images(record: Record) -> int:
    """Training images of an epoch."""
    sizes: Any = record.provenance.get("data", {}).get("sizes", {})
    return int(sizes.get("train", 0))


if __name__ == "__main__":
    main()
