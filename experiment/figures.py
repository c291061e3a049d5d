"""The figures of a run: curves, confusion matrix, mistakes, predictions and augmented samples.

Every function returns a `Figure` of its own, drawn without pyplot or rcParams: safe in threads and headless.
Lengths are in inches from the bottom left corner, font sizes in points; shown at 100 px an inch all text is
readable. Class names are drawn literally (a `$` starts no formula) and cut with … where they do not fit.
"""

import math
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from numpy.typing import NDArray

from experiment.metrics import row as metric_row
from experiment.metrics import units

# Blue and vermilion of Okabe and Ito: told apart with every common form of colour blindness.
PALETTE = {"train": "#0072B2", "validation": "#D55E00"}
PALETTE |= {"ink": "#1F2933", "muted": "#6B7580", "grid": "#E4E7EB"}
COLORS = LinearSegmentedColormap.from_list("shares", ["white", "#56B4E9", "#0072B2", "#06304F"])
WIDTH = 8.0
MARGIN = 0.2
LOG_DECADES = 1.5  # a loss that spans more is drawn on a log scale
MAX_ANNOTATED = 20  # classes; with more, the counts of a confusion matrix would be too small to read
MAX_MISTAKES = 24
MAX_PREDICTIONS = 36

Row = Mapping[str, float | None]
Pixels = NDArray[np.uint8 | np.floating]


def save(figure: Figure, path: Path) -> None:
    """Write `figure` to `path` as PNG, whole or not at all: until then `path` keeps its old content."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        figure.savefig(temporary, format="png", dpi=200)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def training_curves(rows: Sequence[Row], title: str, subtitle: str, metric: str = "acc") -> Figure:
    """The loss and another metric by epoch, with the best validation epoch marked in both panels.

    `rows` are those of metrics.csv: `epoch`, `train_loss`, `val_loss`, `train_acc`, `val_acc` (accuracies in
    0..1). A value that is missing or None was not measured and the line passes over it; one that is not
    finite breaks the line and is counted below the panel. The best epoch is the first of the best value of
    `metric` in validation, or of the lowest validation loss where that was not measured; an empty `metric`
    leaves its panel out.
    """
    figure = empty_figure(WIDTH, 3.35, title, subtitle)
    best: Row = {}
    names = ["loss", *[metric] * bool(metric)]
    for name in names:
        column, choose = f"val_{name}", min if metric_row(name).better == "lower" else max
        if finite := [row for row in rows if math.isfinite(_value(row, column))]:
            best = choose(finite, key=partial(_value, key=column))
    for left, name in zip((0.6, 4.6), names, strict=False):
        known = metric_row(name)
        scale, heading = known.factor, units.name(name)
        heading = heading[0].upper() + heading[1:]
        axes = axes_at(figure, left, 0.55, WIDTH - MARGIN - 4.6, 2.5)
        _curves(axes, rows, name, scale)
        heading += ", log scale" if axes.get_yscale() == "log" else ""
        axes.set_title(heading, {"fontsize": 10, "color": PALETTE["ink"]}, loc="left")
        value = scale * _value(best, f"val_{name}")
        if math.isfinite(value):
            number = f"{value:.2f} %" if known.unit == "%" else f"{value:#.3g}"
            _mark(axes, _value(best, "epoch"), value, number, at_top=known.better == "lower")
    return figure


def _value(row: Row, key: str) -> float:
    """`row[key]`, or NaN where it was not measured."""
    value = row.get(key)
    return math.nan if value is None else value


def _curves(axes: Axes, rows: Sequence[Row], name: str, scale: float) -> None:
    """Draw the training and the validation curve of one quantity, and set up the axes for them."""
    axes.grid(color=PALETTE["grid"], linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    drawn = np.empty(0)
    for split, key in (("train", f"train_{name}"), ("validation", f"val_{name}")):
        if measured := [row for row in rows if row.get(key) is not None]:
            epochs = [_value(row, "epoch") for row in measured]
            values = scale * np.array([_value(row, key) for row in measured])
            style = "o-" if len(measured) <= 12 else "-"
            axes.plot(epochs, values, style, ms=3.5, lw=1.6, color=PALETTE[split], label=split)
            drawn = np.append(drawn, values)
    finite = drawn[np.isfinite(drawn)]
    if not finite.size:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no finite value", color=PALETTE["muted"], ha="center", transform=axes.transAxes)
    elif metric_row(name).better == "lower" and not metric_row(name).unit:
        scale_of_losses(axes, finite)
    else:
        axes.ticklabel_format(axis="y", useOffset=False)
    if finite.size:
        axes.legend(
            loc="lower right", bbox_to_anchor=(1.02, 0.99), borderaxespad=0.2, ncols=2, frameon=False,
            fontsize=9, labelcolor=PALETTE["ink"], handlelength=1.3, columnspacing=1.2,
        )  # fmt: skip
    first, last = (_value(rows[0], "epoch"), _value(rows[-1], "epoch")) if rows else (1.0, 1.0)
    axes.set_xlim(first - 0.5, last + max(0.5, 0.02 * (last - first)))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    lost = drawn.size - finite.size
    axes.set_xlabel(f"epoch ({lost} of {drawn.size} values not finite)" if lost else "epoch")


def scale_of_losses(axes: Axes, losses: NDArray[np.float64]) -> None:
    """Set the y-axis up for finite `losses`: logarithmic where they span more than 1.5 decades."""
    if losses.min() <= 0 or math.log10(losses.max() / losses.min()) <= LOG_DECADES:
        axes.ticklabel_format(axis="y", useOffset=False)
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _mark(axes: Axes, epoch: float, value: float, number: str, *, at_top: bool) -> None:
    """A dot at the best epoch; its label has a strip of its own, above the losses or below the accuracies."""
    color = PALETTE["validation"]
    axes.axvline(epoch, color=color, linewidth=0.8, linestyle=":", zorder=1.9)
    axes.plot([epoch], [value], "o", color=color, markersize=7, markeredgecolor="white", zorder=4)
    scale = axes.yaxis.get_transform()
    low, high = scale.transform(axes.get_ylim())
    strip = 0.12 * (high - low)
    bottom, top = scale.inverted().transform([low - strip * (not at_top), high + strip * at_top])
    axes.set_yticks([tick for tick in axes.get_yticks() if max(bottom, 0) <= tick <= top])
    axes.set_ylim(bottom, top)
    side, gap = ("right", -4) if epoch > sum(axes.get_xlim()) / 2 else ("left", 4)
    axes.annotate(
        f"best epoch {epoch:.0f}: {number}", (epoch, 0.97 if at_top else 0.03), (gap, 0),
        xycoords=axes.get_xaxis_transform(), textcoords="offset points",
        ha=side, va="top" if at_top else "bottom", fontsize=9, color=color,
    )  # fmt: skip


def confusion_matrix(counts: NDArray[np.integer], classes: Sequence[str], title: str) -> Figure:
    """Which classes are taken for which: `counts` (K, K), integers, a row for each true class.

    The colour is the share of its row, on a power scale that keeps single mistakes visible beside the
    diagonal; rows without samples are gray. Up to 20 classes the counts stand in the cells.
    """
    number = len(classes)
    share = 100.0 * counts / np.ma.masked_equal(counts.sum(axis=1, keepdims=True), 0)
    side = min(5.6, max(2.6, 0.56 * number))
    shown = range(0, number, math.ceil(number / MAX_ANNOTATED))
    labels = [fit(classes[index], 100, 8) for index in shown]
    longest = max(text_width(label, 8) for label in labels) / 72
    slanted = longest > 0.9 * side / len(shown)
    left, bottom = 0.55 + longest, 0.5 + (0.72 * longest if slanted else 0.15)
    correct, total = int(np.trace(counts)), int(counts.sum())
    accuracy = f"{100 * correct / total:.2f} %" if total else "none, no samples"
    figure = empty_figure(
        max(left + side + 1.0, 5.5), bottom + side + 0.1, f"{title}: accuracy {accuracy}",
        f"{correct:,} of {total:,} samples correct, {number} classes",
    )  # fmt: skip
    axes = axes_at(figure, left, bottom, side, side)
    norm = PowerNorm(0.4, 0, 100)
    axes.set_facecolor(PALETTE["grid"])  # seen through the masked rows
    image = axes.imshow(share, cmap=COLORS, norm=norm, interpolation="nearest")
    axes.set_xticks(shown, labels, parse_math=False)
    axes.set_yticks(shown, labels, parse_math=False)
    axes.set(xlabel="predicted class", ylabel="true class")
    if slanted:
        for label in axes.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")
    if number <= MAX_ANNOTATED:
        axes.tick_params(length=0)
        size = min(10.0, 0.85 * 72 * side / number / text_width(str(counts.max()), 1))
        for row, column in np.argwhere(counts):
            color = "white" if norm(share[row, column]) > 0.55 else PALETTE["ink"]
            axes.text(column, row, counts[row, column], ha="center", va="center", fontsize=size, color=color)
    scale = axes_at(figure, left + side + 0.2, bottom, 0.14, side)
    colorbar = figure.colorbar(image, cax=scale, ticks=[0, 0.1, 1, 5, 10, 25, 50, 100], format="%g")
    colorbar.outline.set(linewidth=0.6, edgecolor=PALETTE["muted"])
    scale.set_ylabel("share of the true class, %")
    return figure


def mistakes(
    images: Pixels,
    true: Sequence[str],
    predicted: Sequence[str],
    confidences: Sequence[float],
    title: str,
    total: int,
) -> Figure:
    """The most confident mistakes, at most 24 of them, most confident first.

    `images` (n, H, W, C) uint8 are the most confident of `total` mistakes, with the names of their true and
    predicted classes and the probabilities (0..1) given to the latter. Without any the figure says so.
    """
    if not total:
        return empty_figure(WIDTH, 0.1, title, "No mistakes: every image was classified correctly.")
    order = np.argsort(-np.asarray(confidences, np.float64), kind="stable")[:MAX_MISTAKES]
    which = (
        f"the {MAX_MISTAKES} most confident of {total:,}" if total > MAX_MISTAKES else "most confident first"
    )
    captions = [
        (
            ("true", true[index], PALETTE["train"]),
            ("pred.", predicted[index], PALETTE["validation"]),
            ("conf.", f"{100 * confidences[index]:.1f} %", PALETTE["ink"]),
        )
        for index in order
    ]
    return _sheet(images[order], captions, title, f"Wrongly classified images, {which}")


def predictions(
    images: Pixels,
    names: Sequence[str],
    predicted: Sequence[str],
    confidences: Sequence[float],
    title: str,
    total: int,
) -> Figure:
    """What a network takes images for, in the order given.

    `images` (n, H, W, C) uint8, n at least 1, are some of `total`, with the names of their files, the
    predicted classes and the probabilities (0..1) given to these. Long names keep their end.
    """
    number = len(images)
    count = f"{number} of {total:,}, spread evenly over the list" if total > number else f"all {total}"
    subtitle = f"Predicted class, its probability and the file; {count}"
    captions = [
        (
            ("", label, PALETTE["train"]),
            ("", f"{100 * confidence:.1f} %", PALETTE["ink"]),
            ("", fit(name[::-1], 72 * 1.1, 8)[::-1], PALETTE["muted"]),
        )
        for name, label, confidence in zip(names, predicted, confidences, strict=True)
    ]
    return _sheet(images, captions, title, subtitle)


Caption = Sequence[tuple[str, str, str]]
"""Lines below an image: key, which may be empty; text; colour."""


def _sheet(images: Pixels, captions: Sequence[Caption], title: str, subtitle: str) -> Figure:
    """`images` (n, H, W, C) in rows, with three lines of caption below each."""
    columns = 6 if len(images) > 4 else 4
    cell = (WIDTH - 2 * MARGIN + 0.15) / columns
    size, height = cell - 0.15, cell + 0.5
    rows = math.ceil(len(images) / columns)
    figure = empty_figure(WIDTH, rows * height, title, subtitle)
    for position, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left = MARGIN + position % columns * cell
        bottom = (rows - 1 - position // columns) * height + 0.6
        _show(figure, image, left, bottom, size)
        for line, (key, text, color) in enumerate(caption):
            middle, indent = bottom - 0.11 - 0.14 * line, 0.38 if key else 0.0
            _text(figure, left, middle, key, 8, PALETTE["muted"])
            _text(figure, left + indent, middle, fit(text, 72 * (size - indent), 8), 8, color)
    return figure


def augmented_samples(originals: Pixels, augmented: Pixels, names: Sequence[str], title: str) -> Figure:
    """What augmentation makes of images: a row for each, the original apart on the left.

    `originals` (n, H, W, C) uint8; `augmented` (k, n, H, W, C), k draws of each, uint8 or floats in 0..1;
    `names`, the n classes.
    """
    draws, number = augmented.shape[:2]
    labels = [fit(name, 100, 9) for name in names]
    first = MARGIN + 0.12 + max(text_width(label, 9) for label in labels) / 72
    cell = min(1.1, (WIDTH - MARGIN - 0.15 - first) / (draws + 1))
    subtitle = "Left: the image as stored; right: what training draws from it"
    figure = empty_figure(WIDTH, number * cell + 0.35, title, subtitle)
    for row, label in enumerate(labels):
        bottom = (number - 1 - row) * cell + 0.1
        _text(figure, MARGIN, bottom + cell / 2, label, 9, PALETTE["ink"])
        for column, image in enumerate([originals[row], *augmented[:, row]]):
            axes = _show(figure, image, first + column * cell + 0.15 * (column > 0), bottom, cell - 0.06)
            if column == 0:
                axes.spines[:].set(visible=True, edgecolor=PALETTE["train"], linewidth=2)
    _text(figure, first, number * cell + 0.18, "original", 9, PALETTE["train"])
    _text(figure, first + cell + 0.15, number * cell + 0.18, "random draws", 9, PALETTE["muted"])
    return figure


def empty_figure(width: float, body: float, title: str, subtitle: str) -> Figure:
    """An empty figure with its header above a `body` of that height; long titles take several lines."""
    lines = [(text, 13.0, PALETTE["ink"], 0.27) for text in wrap(title, int(width * 8))]
    lines += [(text, 9.5, PALETTE["muted"], 0.19) for text in wrap(subtitle, int(width * 12))]
    top = body + 0.08 + sum(line[-1] for line in lines)
    figure = Figure((width, top + 0.1), facecolor="white")
    for text, size, color, height in lines:
        _text(figure, MARGIN, top - height / 2, text, size, color)
        top -= height
    return figure


def axes_at(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes in the style of the house at a place in inches."""
    across, up = figure.get_size_inches()
    axes = figure.add_axes((left / across, bottom / up, width / across, height / up), facecolor="white")
    axes.spines[:].set(linewidth=0.6, edgecolor=PALETTE["muted"])
    axes.tick_params(labelsize=8, width=0.6, color=PALETTE["muted"], labelcolor=PALETTE["ink"])
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(fontsize=9, color=PALETTE["muted"])
    return axes


def _text(figure: Figure, left: float, middle: float, text: str, size: float, color: str) -> None:
    """One line of text at a place in inches."""
    x, y = np.array([left, middle]) / figure.get_size_inches()
    figure.text(x, y, text, va="center_baseline", fontsize=size, color=color, parse_math=False)


def _show(figure: Figure, image: Pixels, left: float, bottom: float, size: float) -> Axes:
    """`image` (H, W, C), gray, RGB or RGBA, in a square at a place in inches, its pixels crisp."""
    axes = axes_at(figure, left, bottom, size, size)
    if image.dtype != np.uint8:
        image = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
    gray = image.shape[-1] == 1
    axes.imshow(image[..., 0] if gray else image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=False)
    return axes


def text_width(text: str, size: float) -> float:
    """The width of `text` in points."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return float(width)


def fit(text: str, width: float, size: float) -> str:
    """`text`, its end replaced by … where it is wider than `width` points."""
    kept = text
    while text_width(kept, size) > width:
        kept = kept.removesuffix("…")[:-1] + "…"
    return kept
