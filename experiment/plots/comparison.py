"""The pictures of a report: a question with its verdict, and curves over epochs by setting."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiment.metrics import units
from experiment.plots.style import (
    INK,
    NARROW,
    PALETTE,
    SERIES,
    WIDTH,
    dress_graph,
    pointed,
    scale_of_losses,
)  # fmt: skip
from experiment.schema import tokens

MAX_SETTINGS = 2 * len(SERIES)  # each colour as a full and as a dashed line
Rows = Sequence[Mapping[str, float | None]]
"""The rows of one ``metrics.csv``."""
Cells = Mapping[str, Mapping[str, float]]
"""Setting → pair → the metric."""


@dataclass(frozen=True)
class Panel:
    """A metric over epochs, by setting.

    Args:
        metric: a column of ``metrics.csv``.
        settings: name → the rows of its runs.
        reference: name and value of what to compare with.
        note: behind the name of the metric.
    """

    metric: str
    settings: Mapping[str, Sequence[Rows]]
    reference: tuple[str, float] | None = None
    note: str = ""


@dataclass(frozen=True)
class Effect:
    """A contrast: one value a seed, their mean and interval (NaN for none)."""

    name: str
    seeds: Mapping[str, float]
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The effects in a metric, and the runs that they were formed of.

    Args:
        metric: that is compared.
        runs: data set, size and network → setting → pair → its value.
        effects: differences of settings; logarithms of their ratios if ``is_ratio``.
        claimed: size of the effect, from–to, as the effects are.
        delta: effects within ±delta count as none, as well.
        is_ratio: whether an effect is a factor.
    """

    metric: str
    runs: dict[str, dict[str, dict[str, float]]]
    effects: list[Effect]
    claimed: tuple[float, float] | None = None
    delta: float | None = None
    is_ratio: bool = False

    def shown(self, effect: float) -> float:
        """An effect in the metric's unit, or as a factor."""
        return math.exp(effect) if self.is_ratio else units.factor(self.metric) * effect

    @property
    def unit(self) -> str:
        """What an effect is measured in."""
        return "times as much" if self.is_ratio else units.unit(self.metric, is_effect=True).strip()


def verdict(title: str, said: str, comparisons: Sequence[Comparison]) -> Figure:
    """A question and its verdict, and for each data set the runs and, below, the effects that decide.

    Of the effects, a dot is a seed, a diamond the mean with its interval; the claimed size is dashed, the
    region that counts as no effect is shaded.
    """
    heights = []
    for one in comparisons:
        lines = max(_wrapped(effect).count("\n") for effect in one.effects) + 1
        heights += [2.3] * len(one.runs) + [0.75 + max(0.5, 0.15 * lines) * len(one.effects)]
    above = fill(title.replace(" %", "\u00a0%"), 48).split("\n")
    below = fill(said, 60).split("\n")
    head = 0.27 * len(above) + 0.2 * len(below) + 0.15
    figure = Figure((NARROW, head + sum(heights) + 0.3 * len(heights)), facecolor=PALETTE["paper"])
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - head / figure.get_figheight()))
    top = figure.get_figheight()
    for number, line in enumerate(above):
        figure.text(0.02, (top - 0.2 - 0.27 * number) / top, line, fontsize=12, va="center", **INK)
    for number, line in enumerate(below):
        height = (top - 0.2 - 0.27 * len(above) - 0.2 * number) / top
        figure.text(0.02, height, line, fontsize=9.5, color=PALETTE["muted"], va="center", parse_math=False)
    panels = iter(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
    for one in comparisons:
        for heading, cells in one.runs.items():
            axes = next(panels)
            _runs(axes, one.metric, cells)
            axes.set_title(fill(heading, 36), loc="left", fontsize=10, **INK)
        _effects(next(panels), one)
    return figure


def _wrapped(effect: Effect) -> str:
    return fill(effect.name, 28, break_long_words=False)


def _runs(axes: Axes, metric: str, cells: Cells) -> None:
    """A dot a run, and the mean of each setting; faint lines join the runs of a pair.

    Runs without a partner decide nothing, and are shown only where there are no others.
    """
    dress_graph(axes)
    axes.grid(visible=False, axis="x")
    labels, key = _labels(cells)
    factor = units.factor(metric)
    partners = Counter(pair for cell in cells.values() for pair in cell)
    needed = min(2, max(partners.values(), default=0))
    pairs = [pair for pair, number in partners.items() if number >= needed]
    for pair in pairs:
        path = [factor * cell.get(pair, math.nan) for cell in cells.values()]
        axes.plot(np.arange(len(path)), path, "-", color=PALETTE["muted"], alpha=0.4, linewidth=0.8)
        say = pointed(pair, "{y:.4g}")
        axes.plot(np.arange(len(path)), path, "o", ms=6, alpha=0.7, mew=0, color=SERIES[0], gid=say)
    for place, cell in enumerate(cells.values()):
        if shown := [cell[pair] for pair in pairs if pair in cell]:
            mean = factor * math.fsum(shown) / len(shown)
            say = pointed(f"mean of {' '.join(labels[place].split())}", "{y:.4g}")
            axes.plot([place + 0.12], [mean], "D", ms=6, color=SERIES[1], gid=say)
    axes.set_xticks(range(len(labels)), labels, parse_math=False)
    if max(len(line) for label in labels for line in label.split("\n")) * len(labels) > 60:
        axes.set_xticks(range(len(labels)), labels, rotation=25, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_xlabel(key, **INK)
    axes.set_ylabel(units.name(metric), **INK)
    axes.ticklabel_format(axis="y", useOffset=False)


def _effects(axes: Axes, one: Comparison) -> None:
    """A row an effect."""
    dress_graph(axes)
    axes.grid(visible=False, axis="y")
    unit = one.unit
    axes.axvline(one.shown(0.0), color=PALETTE["ink"], linewidth=1)
    if one.delta:
        span = (one.shown(-one.delta), one.shown(one.delta))
        axes.axvspan(*span, color=PALETTE["muted"], alpha=0.15, linewidth=0, label="counts as none")
    for number, size in enumerate(dict.fromkeys(one.claimed or ())):
        label = "claimed" if number == 0 else None
        axes.axvline(one.shown(size), color=SERIES[2], linewidth=1.3, linestyle="--", label=label)
    for row, effect in enumerate(reversed(one.effects)):
        for seed, value in effect.seeds.items():
            say = pointed(seed, f"{{x:+.3g}} {unit}")
            axes.plot([one.shown(value)], [row + 0.12], "o", ms=6, alpha=0.7, mew=0, color=SERIES[0], gid=say)
        if not math.isnan(effect.low):
            ends = [one.shown(effect.low), one.shown(effect.high)]
            say = pointed("interval", "{x:+.3g}")
            axes.plot(ends, [row - 0.15] * 2, "|-", ms=8, lw=1.8, color=SERIES[1], gid=say)
        if not math.isnan(effect.mean):
            say = pointed("mean", f"{{x:+.3g}} {unit}")
            axes.plot([one.shown(effect.mean)], [row - 0.15], "D", ms=6, color=SERIES[1], gid=say)
    names = [_wrapped(effect) for effect in reversed(one.effects)]
    axes.set_yticks(range(len(names)), names, parse_math=False, fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel(f"difference, {unit}".removesuffix(", ") if not one.is_ratio else unit, **INK)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(  # above, where no interval is covered
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=2,
            fontsize=8,
            frameon=False,
            labelcolor=PALETTE["ink"],
        )


def curves(panels: Sequence[Panel], title: str) -> Figure:
    """Panels side by side; a line for the mean over the runs of a setting, a band from lowest to highest.

    At most :data:`MAX_SETTINGS` settings.
    """
    labels = list(dict.fromkeys(label for panel in panels for label in panel.settings))
    style = dict(zip(labels, product(("-", "--"), SERIES), strict=False))
    width = NARROW if len(panels) == 1 else WIDTH
    columns = 1 if len(panels) == 1 and max(map(len, labels), default=0) > 20 else 2
    height = 3.2 + 0.2 * math.ceil(len(labels) / columns) * (len(labels) > 1)
    title = fill(title, int(width * 10))
    size = (width, height + 0.25 * title.count("\n"))
    figure = Figure(size, layout="constrained", facecolor=PALETTE["paper"])
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, **INK)
    every = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(every, panels, strict=True):
        dress_graph(axes)
        axes.grid(visible=False, axis="x")
        means = [_draw(axes, panel, label, *style[label]) for label in panel.settings]
        if panel.reference:
            text, value = panel.reference
            value *= units.factor(panel.metric)
            line = axes.axhline(value, color=PALETTE["ink"], linewidth=1, linestyle="--")
            place = "upper right" if panel.metric.endswith("loss") else "lower right"
            axes.legend([line], [f"{text}: {value:g}"], loc=place, fontsize=9)
        heading = f"{_capital(units.name(panel.metric))}{panel.note}"
        axes.set_title(fill(heading, 46), loc="left", fontsize=10, **INK)
        axes.set_xlabel("epoch", **INK)
        _scale(axes, panel.metric, means)
    if len(labels) > 1:
        lines, options = every[0].lines[: len(labels)], {"frameon": False, "fontsize": 9}
        legend = figure.legend(lines, labels, loc="outside lower center", ncols=columns, **options)
        for entry in legend.get_texts():
            entry.set_parse_math(False)
            entry.set_color(PALETTE["ink"])
    return figure


def _draw(axes: Axes, panel: Panel, label: str, line: str, color: str) -> dict[float, float]:
    """Draw the runs of a setting and return epoch → mean of the runs that reached it with a finite value."""
    factor, reached = units.factor(panel.metric), dict[float, list[float]]()
    for row in (row for run in panel.settings[label] for row in run):
        value, epoch = row.get(panel.metric), row["epoch"]
        if value is not None and epoch is not None and math.isfinite(value):
            reached.setdefault(epoch, []).append(factor * value)
    epochs = sorted(reached)
    low, high, total = ([function(reached[epoch]) for epoch in epochs] for function in (min, max, math.fsum))
    mean = [value / len(reached[epoch]) for value, epoch in zip(total, epochs, strict=True)]
    say = pointed(label, "epoch {x:.0f}: {y:.4g}")
    marker = "o" if len(epochs) <= 12 else ""
    axes.plot(epochs, mean, marker + line, ms=3, lw=1.6, color=color, zorder=3, gid=say)
    axes.fill_between(epochs, low, high, color=color, alpha=0.2, linewidth=0)
    return dict(zip(epochs, mean, strict=True))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _scale(axes: Axes, metric: str, means: Iterable[Mapping[float, float]]) -> None:
    """Whole epochs, and a scale that fits the losses."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    losses = np.array([value for mean in means for value in mean.values()])
    if metric.endswith("loss") and losses.size:
        scale_of_losses(axes, losses)


def _labels(settings: Iterable[str]) -> tuple[list[str], str]:
    """Tick labels with a line for each key that varies; a single one stands below all instead."""
    chosen = [dict(tokens(setting)) for setting in settings]
    keys = list(dict.fromkeys(key for values in chosen for key in values))
    varying = [key for key in keys if len({values.get(key) for values in chosen}) > 1] or keys
    if len(varying) == 1:
        return [values.get(varying[0], "–") for values in chosen], varying[0]
    return ["\n".join(f"{k.rpartition('.')[2]}={s[k]}" for k in varying if k in s) for s in chosen], ""
