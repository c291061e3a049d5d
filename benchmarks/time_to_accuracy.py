"""Accuracy against training FLOPs and time of finished runs: ``python -m benchmarks.time_to_accuracy``.

CIFAR-10 has public records drawn beside. FLOPs are those of matrix products in forward and backward passes of
training; times are the runs' own, the records' those of their GPU.
"""

import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

from experiment.command_line import assignments
from experiment.entry_point import entry_point
from experiment.errors import UserError
from experiment.plots.style import NARROW, PALETTE, SERIES, axes_at, dress_graph, empty_figure, save
from experiment.report.runs import Collection, Record, shorter
from experiment.schema import Knob

USAGE = (
    "python -m benchmarks.time_to_accuracy runs=outputs,docs/reports/homework [data=cifar10] [reach=0.9] "
    "[out=time_to_accuracy.png]"
)
KNOBS = {
    "runs": Knob("str", "folders with finished runs or reports, separated by commas"),
    "data": Knob("str", "of runs on this data set; default cifar10", optional=True),
    "reach": Knob(
        "float", "accuracy on the validation set that is to be reached; default 0.9", "(0, 1)", optional=True
    ),
    "out": Knob("path", "the picture; default time_to_accuracy.png", optional=True),
}


class Published(NamedTuple):
    """Somebody else's mean accuracy on CIFAR-10, with views averaged at test time; an A100's minutes."""

    name: str
    accuracy: float
    pflop: float
    minutes: float


RECORDS = (
    Published("airbench94", 0.9401, 0.29, 2.59 / 60),
    Published("airbench95", 0.9501, 1.4, 10.4 / 60),
    Published("airbench96", 0.9600, 3.1, 27.3 / 60),
    Published("ResNet-18", 0.96, 32.3, 7.0),
)
"""Jordan: cifar10-airbench, as of Muon and data filtering; on one A100."""
COURSE_REPORT = 0.8978


def forward_passes(record: Record) -> float:
    """What a training image costs, in forward passes: its own and a backward pass, which takes two.

    A look for the hardest of a batch is one more, and only these are learned from; SAM learns twice.
    """
    kept = float(record.config.get("loss.keep_hardest") or 1)
    learned = 3 * kept * (2 if "SAM" in str(record.config.get("optimizer._target_")) else 1)
    return learned + (kept < 1)


def image_part(record: Record) -> float:
    """The mean area of the training images, as a part of the largest: a convolution's cost."""
    heights = record.config.get("data.size_schedule") or [1]
    return fmean((height / max(heights)) ** 2 for height in heights)


def cost(record: Record) -> float:
    """PFLOP of a training."""
    images = record.results["images_per_second"] * record.results["train_seconds"]
    each = forward_passes(record) * image_part(record) * record.results["flops_per_image"]
    return float(images * each / 1e15)


def curve(record: Record) -> list[tuple[float, float, float]]:
    """PFLOP, minutes and validation accuracy after each epoch that was validated."""
    whole = cost(record), record.results["train_seconds"] / 60
    parts = ((number / len(record.rows), row.get("val_acc")) for number, row in enumerate(record.rows, 1))
    return [(part * whole[0], part * whole[1], acc) for part, acc in parts if acc is not None]


def recipes(runs: Collection, dataset: str) -> dict[str, list[Record]]:
    """Name of an experiment or a model, with what else tells it from others → its runs, one a seed."""
    settings: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in runs.finished:
        if record.dataset == dataset:
            values = (f"{shorter(key, runs.keys)}={record.values.get(key)}" for key in runs.keys)
            settings[tuple(value for value in values if not value.startswith("seed="))].append(record)
    named: dict[str, list[Record]] = {}
    first: dict[str, tuple[str, ...]] = {}
    for further, records in settings.items():
        choices = records[0].choices
        experiment = choices.get("experiment", "null")
        name = choices.get("model", "") if experiment in ("null", "homework") else experiment
        own = [
            value for value in further if value not in first.get(name, ())
        ]  # what its namesake does not have
        named[" ".join([name, *own]) if name in first or not name else name] = records
        first.setdefault(name, further)
    return named


def draw(axes: Axes, place: int, named: dict[str, list[Record]], has_records: bool) -> None:
    """Accuracy against FLOPs (``place`` 0) or minutes (1)."""
    dress_graph(axes)
    axes.set_xscale("log")
    axes.margins(x=0.14)
    if has_records:
        axes.axhline(COURSE_REPORT, color=PALETTE["muted"], linewidth=1, linestyle=":")
        at = [(record.pflop, record.minutes)[place] for record in RECORDS]
        accuracies = [record.accuracy for record in RECORDS]
        axes.plot(at, accuracies, "D", color=PALETTE["muted"], markersize=5, markerfacecolor="none")
        for x, record in zip(at, RECORDS, strict=True):
            axes.annotate(
                record.name.removeprefix("airbench"), (x, record.accuracy), (0, 6), fontsize=8, ha="center",
                textcoords="offset points", color=PALETTE["muted"],
            )  # fmt: skip
    for (name, records), color in zip(named.items(), SERIES * len(named), strict=False):
        x = fmean((cost(r), r.results["train_seconds"] / 60)[place] for r in records)
        plain = fmean(r.results["test_acc"] for r in records)
        if points := curve(records[0]):
            axes.plot([p[place] for p in points], [p[2] for p in points], color=color, linewidth=1, alpha=0.7)
        axes.plot([x], [plain], "o", color=color, markersize=6, label=f"{name}, {plain:.1%}")
        if all("test_acc_tta" in r.results for r in records):
            views = fmean(r.results["test_acc_tta"] for r in records)
            axes.plot([x], [views], "o", color=color, markersize=6, markerfacecolor="none")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.0%}"))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


@entry_point
def main() -> None:
    """Print a line for each recipe, and draw what it came to and how its first seed went there."""
    given = assignments(sys.argv[1:], KNOBS, USAGE)
    runs, dataset = Collection([Path(name) for name in given["runs"].split(",")]), given["data"] or "cifar10"
    named = recipes(runs, dataset)
    if not named:
        there = ", ".join(dict.fromkeys(record.dataset for record in runs.finished))
        raise UserError(f"data={dataset}: no finished run of it there, only of {there}")
    reach = given["reach"] or 0.9
    print(
        f"| {dataset} | runs | test accuracy | with views | PFLOP | minutes | until {reach:.1%} validated |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, records in named.items():
        shown: list[str] = []
        for key in ("test_acc", "test_acc_tta"):
            values: list[Any] = [record.results.get(key) for record in records]
            shown.append("–" if None in values else f"{fmean(values):.2%}")
        minutes = fmean(record.results["train_seconds"] / 60 for record in records)
        found = [p for r in records if (p := next((p for p in curve(r) if p[2] >= reach), None))]
        until = (
            f"{fmean(p[0] for p in found):.3g} PFLOP, {fmean(p[1] for p in found):.3g} min" if found else "–"
        )
        pflop = fmean(map(cost, records))
        print(f"| {name} | {len(records)} | {' | '.join(shown)} | {pflop:.3g} | {minutes:.3g} | {until} |")
    is_cifar = dataset == "cifar10"
    beside = (
        "; ◇ public records, airbench94 to 96 and a ResNet-18 (with views; an A100's minutes); dotted: "
        "the course report"
    ) * is_cifar
    subtitle = f"● test accuracy, ○ with views averaged, lines: validation{beside}"
    figure = empty_figure(NARROW, 6.0, f"What an accuracy on {dataset} costs", subtitle)
    for place, (bottom, label) in enumerate(((3.55, "training PFLOP"), (0.5, "minutes of training"))):
        axes = axes_at(figure, 0.55, bottom, NARROW - 0.75, 2.4)
        draw(axes, place, named, is_cifar)
        low = min(r.results["test_acc"] for records in named.values() for r in records)
        axes.set(xlabel=label, ylim=(low - 0.25 * (1 - low), 1 - 0.1 * (1 - low)))
        if not place:
            axes.legend(frameon=False, fontsize=8, loc="lower right")
    save(figure, Path(given["out"] or "time_to_accuracy.png"))


if __name__ == "__main__":
    main()
