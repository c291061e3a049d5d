"""The pictures of a run: curves, confusion matrix, mistakes, predictions and augmented samples."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from experiment.metrics import row as metric_row
from experiment.metrics import units
from experiment.plots.style import (
    MARGIN,
    PALETTE,
    SHARES,
    WIDTH,
    axes_at,
    dress_graph,
    empty_figure,
    fit,
    scale_of_losses,
    text_width,
    write,
)  # fmt: skip

MAX_ANNOTATED = 20  # classes; with more, the counts of a confusion matrix would be too small to read
SCALE = 0.14  # inches across
MAX_MISTAKES = 24
MAX_PREDICTIONS = 36

Row = Mapping[str, float | None]
Pixels = NDArray[np.uint8 | np.floating]


def training_curves(
    rows: Sequence[Row], title: str, subtitle: str, metric: str = "acc", monitor: str = "val_acc"
) -> Figure:
    """The loss and another metric by epoch; the best epoch is marked where it was chosen, on `monitor`.

    `rows` are those of metrics.csv: `epoch`, `train_loss`, `val_loss`, `train_acc`, `val_acc` (accuracies in
    0..1). A value that is missing or None was not measured and the line passes over it; one that is not
    finite breaks the line and is counted below the panel. The best epoch is the first of the best value of
    `monitor`; the other panel has a thin line there. An empty `metric` leaves its panel out.
    """
    figure = empty_figure(WIDTH, 3.35, title, subtitle)
    sign = metric_row(monitor).sign
    finite = [row for row in rows if math.isfinite(_value(row, monitor))]
    best = max(finite, key=lambda row: sign * _value(row, monitor)) if finite else None
    for left, name in zip((0.6, 4.6), ["loss", *[metric] * bool(metric)], strict=False):
        known = metric_row(name)
        scale, heading = known.factor, units.name(name)
        heading = heading[0].upper() + heading[1:]
        axes = axes_at(figure, left, 0.55, WIDTH - MARGIN - 4.6, 2.5)
        _curves(axes, rows, name, scale)
        heading += ", log scale" if axes.get_yscale() == "log" else ""
        axes.set_title(heading, {"fontsize": 10, "color": PALETTE["ink"]}, loc="left", y=1)  # no search
        if best is None:
            continue
        axes.axvline(_value(best, "epoch"), color=PALETTE["validation"], lw=0.8, ls=":", zorder=1.9)
        if f"val_{name}" == monitor:
            value = scale * _value(best, monitor)
            number = f"{value:.2f} %" if known.unit == "%" else f"{value:#.3g}"
            _mark(axes, _value(best, "epoch"), value, number, at_top=known.better == "lower")
    return figure


def _value(row: Row, key: str) -> float:
    """`row[key]`, or NaN where it was not measured."""
    value = row.get(key)
    return math.nan if value is None else value


def _curves(axes: Axes, rows: Sequence[Row], name: str, scale: float) -> None:
    """Draw the training and the validation curve of one quantity, and set up the axes for them."""
    dress_graph(axes)
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


def _mark(axes: Axes, epoch: float, value: float, number: str, *, at_top: bool) -> None:
    """A dot at the best epoch; its label has a strip of its own, above the losses or below the accuracies."""
    color = PALETTE["validation"]
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
    """Which classes are taken for which on the test set: `counts` (K, K), a row for each true class.

    The colour is the share of its row, on a power scale that keeps single mistakes visible beside the
    diagonal; rows without samples are gray. Up to 20 classes the counts stand in the cells.
    """
    number = len(classes)
    share = 100.0 * counts / np.ma.masked_equal(counts.sum(axis=1, keepdims=True), 0)
    side = min(5.6, max(2.6, 0.56 * number))
    cell = side / number
    shown = range(0, number, math.ceil(number / MAX_ANNOTATED))
    labels = {index: fit(classes[index], 100, 9) for index in shown}
    longest = max(text_width(label, 9) for label in labels.values()) / 72
    slanted = longest > 0.9 * side / len(shown)
    left, bottom = 0.55 + longest, 0.5 + (0.72 * longest if slanted else 0.15)
    correct, total = int(np.trace(counts)), int(counts.sum())
    found = f"accuracy {100 * correct / total:.2f} %" if total else "no images"
    width = max(left + side + 1.0, 5.5)
    figure = empty_figure(
        width, bottom + side + 0.1, f"{title} on the test set: {found}",
        f"{correct:,} of {total:,} test images correct, {number} classes",
    )  # fmt: skip
    shade, colors = PowerNorm(0.4, 0, 100), SHARES.with_extremes(bad=PALETTE["grid"])
    scale = np.linspace(1, 0, 256)[:, None].repeat(max(1, round(256 * SCALE / side)), axis=1)
    # axes with their ticks would take twice the time
    for picture, at, across in ((shade(share), left, side), (scale, left + side + 0.2, SCALE)):
        figure.add_artist(Picture(colors(picture, bytes=True), at - (side - across) / 2, bottom, side))
        frame = Rectangle((at, bottom), across, side, fill=False, lw=0.6, ec=PALETTE["muted"])
        frame.set_transform(figure.dpi_scale_trans)
        figure.add_artist(frame)
    for index, label in labels.items():
        middle, ink = (index + 0.5) * cell, PALETTE["ink"]
        write(figure, left - 0.06, bottom + side - middle, label, 9, ink, ha="right")
        how = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {"ha": "center"}
        write(figure, left + middle, bottom - 0.06, label, 9, ink, va="top", **how)
    if number <= MAX_ANNOTATED:
        size = min(10.0, 0.85 * 72 * cell / text_width(str(counts.max()), 1))
        is_dark = shade(share) > 0.55
        for row, column in np.argwhere(counts):
            color = "white" if is_dark[row, column] else PALETTE["ink"]
            place = left + (column + 0.5) * cell, bottom + side - (row + 0.5) * cell
            write(figure, *place, str(counts[row, column]), size, color, ha="center")
    for tick in (0, 0.1, 1, 5, 10, 25, 50, 100):
        height = bottom + side * float(shade(tick))
        write(figure, left + side + 0.2 + SCALE, height, f"– {tick:g}", 9, PALETTE["ink"])
    muted = 9, PALETTE["muted"]
    write(figure, left + side / 2, 0.2, "predicted class", *muted, ha="center")
    for at, text in ((0.15, "true class"), (left + side + 0.85, "share of the true class, %")):
        write(figure, at, bottom + side / 2, text, *muted, ha="center", va="center", rotation=90)
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
            (true[index], PALETTE["train"]),
            (predicted[index], PALETTE["validation"]),
            (f"{100 * confidences[index]:.1f} %", PALETTE["ink"]),
        )
        for index in order
    ]
    subtitle = f"Wrongly classified images, {which}"
    return _sheet(images[order], captions, title, subtitle, ("true", "pred.", "conf."))


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
            (label, PALETTE["train"]),
            (f"{100 * confidence:.1f} %", PALETTE["ink"]),
            (fit(name[::-1], 72 * 1.1, 8)[::-1], PALETTE["muted"]),
        )
        for name, label, confidence in zip(names, predicted, confidences, strict=True)
    ]
    return _sheet(images, captions, title, subtitle)


Caption = Sequence[tuple[str, str]]
"""Lines below an image: text and colour."""


def _sheet(
    images: Pixels, captions: Sequence[Caption], title: str, subtitle: str, keys: Sequence[str] = ()
) -> Figure:
    """`images` (n, H, W, C) in rows, with three lines of caption below each; `keys` say what they are."""
    columns = 6 if len(images) > 4 else 4
    first = MARGIN + 0.4 * bool(keys)
    cell = (WIDTH - first - MARGIN + 0.15) / columns
    size, height = cell - 0.15, cell + 0.5
    rows = math.ceil(len(images) / columns)
    figure = empty_figure(WIDTH, rows * height, title, subtitle)
    for position, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left = first + position % columns * cell
        bottom = (rows - 1 - position // columns) * height + 0.6
        figure.add_artist(Picture(image, left, bottom, size))
        for line, (text, color) in enumerate(caption):
            write(figure, left, bottom - 0.11 - 0.14 * line, fit(text, 72 * size, 8), 8, color)
        for line, key in enumerate(keys if position % columns == 0 else ()):
            write(figure, MARGIN, bottom - 0.11 - 0.14 * line, key, 8, PALETTE["muted"])
    return figure


def augmented_samples(originals: Pixels, augmented: Pixels, names: Sequence[str], title: str) -> Figure:
    """What augmentation makes of images: a row for each, the original apart on the left.

    `originals` (n, H, W, C) uint8; `augmented` (k, n, H, W, C), k draws of each, uint8 or floats in 0..1,
    none where nothing is augmented; `names`, the n classes.
    """
    draws, number = augmented.shape[:2]
    labels = [fit(name, 100, 9) for name in names]
    first = MARGIN + 0.12 + max(text_width(label, 9) for label in labels) / 72
    cell = min(1.1, (WIDTH - MARGIN - 0.15 - first) / (draws + 1))
    subtitle = "Left: the image as stored; right: what training draws from it" if draws else "As stored"
    figure = empty_figure(WIDTH if draws else first + cell + 3.0, number * cell + 0.35, title, subtitle)
    for row, label in enumerate(labels):
        bottom = (number - 1 - row) * cell + 0.1
        write(figure, MARGIN, bottom + cell / 2, label, 9, PALETTE["ink"])
        for column, image in enumerate([originals[row], *augmented[:, row]]):
            left = first + column * cell + 0.15 * (column > 0)
            figure.add_artist(Picture(image, left, bottom, cell - 0.06))
        place = (first, bottom), cell - 0.06, cell - 0.06
        frame = Rectangle(*place, fill=False, ec=PALETTE["train"], lw=2, transform=figure.dpi_scale_trans)
        figure.add_artist(frame)
    write(figure, first, number * cell + 0.18, "original", 9, PALETTE["train"])
    if draws:
        write(figure, first + cell + 0.15, number * cell + 0.18, "random draws", 9, PALETTE["muted"])
    return figure


class Picture(Artist):
    """`image` (H, W, C), gray, RGB or RGBA, in a square at a place in inches, its pixels crisp.

    Axes for each of a sheet's images would take seconds, `imshow` on common ones a third of one.
    """

    def __init__(self, image: Pixels, left: float, bottom: float, size: float) -> None:
        super().__init__()
        if image.dtype != np.uint8:
            image = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
        self.image, self.left, self.bottom, self.size = image, left, bottom, size

    def draw(self, renderer: Any) -> None:
        """Large pixels stay squares, small ones are averaged."""
        assert self.figure
        rows, columns, channels = self.image.shape
        size, gc = self.size * self.figure.dpi, renderer.new_gc()
        width, height = (max(1, round(size * n / max(rows, columns))) for n in (columns, rows))
        picture = Image.fromarray(self.image[..., 0] if channels == 1 else self.image).convert("RGBA")
        how = Image.Resampling.NEAREST if width >= columns else Image.Resampling.BOX
        pixels = np.asarray(picture.resize((width, height), how))[::-1]
        left, bottom = self.left * self.figure.dpi, self.bottom * self.figure.dpi
        renderer.draw_image(gc, round(left + (size - width) / 2), round(bottom + (size - height) / 2), pixels)
