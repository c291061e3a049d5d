"""The figures of a report: runs by setting, and curves over epochs. Made without pyplot, like a run's."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiment.figures import PALETTE, WIDTH, scale_of_losses
from experiment.report import units
from experiment.report.runs import Record, shorter
from experiment.report.statistics import estimate

# of Okabe and Ito, without the yellow that white swallows: told apart with every common colour blindness
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
COLUMNS = 4  # of small multiples
INK = {"color": PALETTE["ink"], "parse_math": False}


@dataclass(frozen=True)
class Panel:
    """A metric of ``metrics.csv`` over epochs, by setting; ``reference`` names a value to compare with."""

    heading: str
    metric: str
    settings: Mapping[str, Sequence[Record]]
    reference: tuple[str, float] | None = None


def dots(cells: Mapping[str, Mapping[Any, float]], metric: str, title: str) -> Figure:
    """A dot for each run beside the mean of its setting with the 95 % interval.

    ``cells`` map settings to pair → value; faint lines join the same pair over the settings.
    """
    figure, ((axes,),) = _figure(title, 3.9)
    labels, key = _labels(cells)
    scale = units.factor(metric)
    for pair in dict.fromkeys(pair for cell in cells.values() for pair in cell):
        path = [scale * cell.get(pair, math.nan) for cell in cells.values()]
        axes.plot(np.arange(len(path)) - 0.1, path, "-", color=PALETTE["muted"], alpha=0.35, linewidth=0.8)
    for place, cell in enumerate(cells.values()):
        values = [scale * value for value in cell.values()]
        axes.plot([place - 0.1] * len(values), values, "o", ms=6, alpha=0.6, mew=0, color=COLORS[0])
        found = estimate(values)
        half = None if math.isnan(found.low) else found.high - found.mean
        axes.errorbar([place + 0.1], [found.mean], half, fmt="D", ms=6, lw=1.8, capsize=4, color=COLORS[1])
    axes.set_xticks(range(len(labels)), labels, parse_math=False)
    if max(len(line) for label in labels for line in label.split("\n")) * len(labels) > 95:
        axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_xlabel(key, **INK)
    axes.set_ylabel(units.name(metric), **INK)
    axes.ticklabel_format(axis="y", useOffset=False)
    return figure


def curves(panels: Sequence[Panel], title: str) -> Figure:
    """Panels side by side; a line for the mean over the runs of a setting, a band from lowest to highest."""
    labels = list(dict.fromkeys(label for panel in panels for label in panel.settings))
    color = dict(zip(labels, COLORS, strict=False))
    figure, ((*every,),) = _figure(title, 3.3 + 0.2 * math.ceil(len(labels) / 2), columns=len(panels))
    for axes, panel in zip(every, panels, strict=True):
        means = [_draw(axes, panel.metric, runs, color[label]) for label, runs in panel.settings.items()]
        if panel.reference:
            text, value = panel.reference
            height = value * units.factor(panel.metric)
            line = axes.axhline(height, color=PALETTE["ink"], linewidth=1, linestyle="--")
            place = "upper right" if panel.metric.endswith("loss") else "lower right"
            axes.legend([line], [f"{text}: {height:g}{units.unit(panel.metric)}"], loc=place, fontsize=9)
        axes.set_title(panel.heading, loc="left", fontsize=10, **INK)
        axes.set_xlabel("epoch", **INK)
        _scale(axes, panel.metric, means)
    if len(labels) > 1:
        lines = every[0].lines[: len(labels)]
        legend = figure.legend(lines, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        for entry in legend.get_texts():
            entry.set_parse_math(False)
    return figure


def multiples(panel: Panel, title: str) -> Figure:
    """A small panel for each setting, the means of all others behind it in gray: for more than six."""
    rows = math.ceil(len(panel.settings) / COLUMNS)
    figure, grid = _figure(f"{title}: {panel.heading}", 1.6 * rows + 0.6, rows, COLUMNS)
    means = [
        _draw(axes, panel.metric, runs, COLORS[0])
        for axes, runs in zip(grid.flat, panel.settings.values(), strict=False)
    ]
    for axes, label in zip(grid.flat, panel.settings, strict=False):
        for mean in means:
            axes.plot(mean.keys(), mean.values(), color=PALETTE["grid"], linewidth=0.8, zorder=1)
        axes.set_title(fill(label, 34), loc="left", fontsize=7.5, **INK)
    _scale(grid[0, 0], panel.metric, means)
    figure.supxlabel("epoch", fontsize=9, **INK)
    for axes in grid.flat[len(means) :]:
        axes.set_visible(False)
    return figure


def _figure(title: str, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    """A figure with its title and a grid of axes in the style of the house; rows share their scales."""
    title = fill(title, 82)
    figure = Figure((WIDTH, height + 0.25 * title.count("\n")), layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, **INK)
    grid = figure.subplots(rows, columns, sharex=columns == COLUMNS, sharey=columns == COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.grid(axis="y", color=PALETTE["grid"], linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9, labelcolor=PALETTE["ink"])
    return figure, grid


def _draw(axes: Axes, metric: str, runs: Iterable[Record], color: str) -> dict[float, float]:
    """Draw the runs of a setting and return epoch → mean of the runs that reached it with a finite value."""
    reached: dict[float, list[float]] = {}
    for row in (row for run in runs for row in run.rows):
        if row.get(metric) is not None and math.isfinite(row[metric]):
            reached.setdefault(row["epoch"], []).append(units.factor(metric) * row[metric])
    epochs = sorted(reached)
    low, high, total = ([function(reached[epoch]) for epoch in epochs] for function in (min, max, math.fsum))
    mean = [value / len(reached[epoch]) for value, epoch in zip(total, epochs, strict=True)]
    axes.plot(epochs, mean, "o-" if len(epochs) <= 12 else "-", ms=3, lw=1.6, color=color, zorder=3)
    axes.fill_between(epochs, low, high, color=color, alpha=0.2, linewidth=0)
    return dict(zip(epochs, mean, strict=True))


def _scale(axes: Axes, metric: str, means: Iterable[Mapping[float, float]]) -> None:
    """Whole epochs, and a scale that fits the losses."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    losses = np.array([value for mean in means for value in mean.values()])
    if metric.endswith("loss") and losses.size:
        scale_of_losses(axes, losses)
        axes.minorticks_off()


def _labels(settings: Iterable[str]) -> tuple[list[str], str]:
    """Tick labels with a line for each key that varies; a single one stands below all instead."""
    chosen = [dict(token.split("=", 1) for token in setting.split()) for setting in settings]
    keys = list(dict.fromkeys(key for values in chosen for key in values))
    varying = [key for key in keys if len({values.get(key) for values in chosen}) > 1] or keys
    if len(varying) == 1:
        return [values.get(varying[0], "–") for values in chosen], varying[0]
    return ["\n".join(f"{shorter(k, varying)}={s[k]}" for k in varying if k in s) for s in chosen], ""
