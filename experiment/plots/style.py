"""The look that all pictures share: palette, fonts and axes, and the ways out of a figure."""

import io
import json
import math
import re
import uuid
from functools import lru_cache
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, LogLocator
from numpy.typing import NDArray
from PIL import Image

# of Okabe and Ito, without the yellow that white swallows: told apart with every common colour blindness
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
PALETTE = {"train": SERIES[0], "validation": SERIES[1]}
PALETTE |= {"ink": "#1F2933", "muted": "#6B7580", "grid": "#E4E7EB", "paper": "#FFFFFF"}
SHARES = LinearSegmentedColormap.from_list("shares", ["white", "#56B4E9", "#0072B2", "#06304F"])
INK: dict[str, Any] = {"color": PALETTE["ink"], "parse_math": False}
WIDTH = 8.0
NARROW = 4.4  # of a picture that is readable on a phone
MARGIN = 0.2
DPI = 200
LOG_DECADES = 1.5  # a loss that spans more is drawn on a log scale


def png(figure: Figure, dpi: float = DPI) -> bytes:
    """`figure` as the content of a PNG file."""
    content, before = io.BytesIO(), figure.dpi
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    # without the transparency that savefig writes, a seventh smaller and sooner
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])  # type: ignore[no-untyped-call]
    pixels.save(content, "png", compress_level=3, dpi=(dpi, dpi))
    figure.set_dpi(before)
    return content.getvalue()


def write_png(content: bytes, path: Path) -> None:
    """Write a PNG file whole or not at all: until then `path` keeps its old content."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save(figure: Figure, path: Path) -> None:
    """Write `figure` to `path` as PNG, whole or not at all."""
    write_png(png(figure), path)


def svg(figure: Figure, title: str) -> str:
    """`figure` as an element of an HTML page that gives it its colours and shows values under the pointer.

    Colours of the palette become the page's variables ``--ink``, ``--muted``, ``--grid``, ``--paper`` and
    ``--series-0`` …. The points of lines that :func:`pointed` marked are listed in ``data-points``: x, y and
    what to say.
    """
    content = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report"}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    width, height = 72 * figure.get_size_inches()
    points = []
    for line in figure.findobj(Line2D):
        assert isinstance(line, Line2D)
        what, _, say = str(line.get_gid()).partition(" ")
        places = line.get_transform().transform(line.get_xydata()) * 72 / figure.dpi
        for (x, y), (left, up) in zip(np.asarray(line.get_xydata()), places, strict=True):
            if what == "point" and math.isfinite(left) and math.isfinite(up):
                points.append([round(left, 1), round(height - up, 1), say.format(x=x, y=y)])
    body = content.getvalue()
    body = body[body.index(">", body.index("<svg")) + 1 : body.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'(<g) id="[^"]*"', r"\1", body)  # nothing refers to groups, and a page has several figures
    names = {name: PALETTE[name] for name in ("ink", "muted", "grid", "paper")}
    names |= {f"series-{index}": color for index, color in enumerate(SERIES)}
    for name, color in names.items():
        body = re.sub(color, f"var(--{name})", body, flags=re.IGNORECASE)
    body = re.sub(r"\s*\n\s*", "\n", body)
    told = escape(json.dumps(points, ensure_ascii=False))
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {width:g} {height:g}" '
        f'style="width:{width / 0.72:.0f}px" data-points="{told}">{body}</svg>'
    )


def pointed(label: str, values: str) -> str:
    """A ``gid`` for a line whose points say, under the pointer of an HTML page, ``label`` and ``values``.

    ``values`` has the point's coordinates as ``{x}`` and ``{y}``.
    """
    return f"point {label.replace('{', '{{').replace('}', '}}')}: {values}"


def empty_figure(width: float, body: float, title: str, subtitle: str) -> Figure:
    """An empty figure with its header above a `body` of that height; long titles take several lines."""
    lines = [(text, 13.0, PALETTE["ink"], 0.27) for text in wrap(title, int(width * 8))]
    lines += [(text, 9.5, PALETTE["muted"], 0.19) for text in wrap(subtitle, int(width * 12))]
    top = body + 0.08 + sum(line[-1] for line in lines)
    figure = Figure((width, top + 0.1), facecolor=PALETTE["paper"])
    for line, size, color, height in lines:
        write(figure, MARGIN, top - height / 2, line, size, color)
        top -= height
    return figure


def axes_at(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches."""
    across, up = figure.get_size_inches()
    axes = figure.add_axes((left / across, bottom / up, width / across, height / up))
    dress(axes)
    return axes


def dress(axes: Axes) -> None:
    """Give axes the look."""
    axes.set_facecolor(PALETTE["paper"])
    axes.spines[:].set(linewidth=0.6, edgecolor=PALETTE["muted"])
    axes.tick_params(labelsize=9, width=0.6, color=PALETTE["muted"], labelcolor=PALETTE["ink"])
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(fontsize=9, color=PALETTE["muted"])


def dress_graph(axes: Axes) -> None:
    """Give axes that show a graph the look: a grid behind it, and no frame."""
    dress(axes)
    axes.grid(color=PALETTE["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def scale_of_losses(axes: Axes, losses: NDArray[np.float64]) -> None:
    """Set the y-axis up for finite `losses`: logarithmic where they span more than 1.5 decades."""
    if losses.min() <= 0 or math.log10(losses.max() / losses.min()) <= LOG_DECADES:
        axes.ticklabel_format(axis="y", useOffset=False)
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()


def write(figure: Figure, left: float, middle: float, text: str, size: float, color: str, **how: Any) -> None:
    """One line of text at a place in inches, centred there from top to bottom if not told ``how`` else."""
    x, y = np.array([left, middle]) / figure.get_size_inches()
    how = {"va": "center_baseline"} | how
    figure.text(x, y, text, fontsize=size, color=color, parse_math=False, **how)


@lru_cache(10_000)
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
