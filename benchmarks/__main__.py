"""All questions in one run, ``python -m benchmarks``, or some, ``python -m benchmarks only=overhead``."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.timing import Row, Settings, require_gpu, table
from experiment.command_line import assignments
from experiment.entry_point import entry_point
from experiment.errors import UserError
from experiment.files import make_folder
from experiment.knob import nearest
from experiment.provenance import environment
from experiment.schema import Knob

QUICK = ("pipeline", "overhead", "peer", "startup")
LONG = ("halving", "lr_finder", "jobs", "machine", "images")
USAGE = "python -m benchmarks [only=overhead,peer] [rounds=5] [clock=cpu] [device=cuda] [out=FOLDER]"
KNOBS = {
    "only": Knob("str", f"of {', '.join((*QUICK, *LONG))}; default: the first {len(QUICK)}", optional=True),
    "rounds": Knob("int", "how often each is measured; default 5", "[1, inf)", optional=True),
    "clock": Knob(
        "str", "cpu: one thread's, where the machine is not quiet", choices=("wall", "cpu"), optional=True
    ),
    "device": Knob("str", "where to compute", choices=("cpu", "cuda"), optional=True),
    "out": Knob("path", "folder of table, numbers and picture; default outputs/benchmarks", optional=True),
}  # fmt: skip


@entry_point
def main() -> None:
    """Measure, print each question's table as it is answered, and write all with numbers and a picture."""
    given = assignments(sys.argv[1:], KNOBS, USAGE)
    names = given["only"].split(",") if given["only"] else list(QUICK)
    for name in names:
        if name not in (*QUICK, *LONG):
            raise UserError(f"only={name}: no such benchmark.{nearest(name, (*QUICK, *LONG))} {USAGE}")
    settings = Settings(given["rounds"] or 5, given["clock"] or "wall", given["device"] or "cpu")
    if settings.clock == "cpu":
        os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
    if settings.device == "cuda":
        require_gpu()
    folder = Path(given["out"] or "outputs/benchmarks")
    make_folder(folder)
    answers: dict[str, list[Row]] = {}
    for name in names:
        print(f"\n## {name}\n", flush=True)
        answers[name] = import_module(f"benchmarks.{name}").measure(settings)
        print(table(answers[name]), flush=True)
        write(answers, settings, folder)
    print(f"\n{folder}/benchmarks.md, .json and .png")


def write(answers: Mapping[str, Sequence[Row]], settings: Settings, folder: Path) -> None:
    """Write what is answered already: a question that fails takes nothing along."""
    about = environment()
    machine = f"{about['hardware']['processor']}, {about['hardware']['cores']} cores, {settings.device}"
    said = f"{machine}; {settings.clock} time, {settings.rounds} round{'s' * (settings.rounds > 1)}"
    sections = [f"## {name}\n\n{table(rows)}\n" for name, rows in answers.items()]
    (folder / "benchmarks.md").write_text("\n".join([f"{said}\n", *sections]))
    numbers = {name: [row.content() for row in rows] for name, rows in answers.items()}
    (folder / "benchmarks.json").write_text(
        json.dumps({"settings": settings._asdict(), "environment": about, "answers": numbers}, indent=2)
        + "\n"
    )
    draw(answers, said, folder / "benchmarks.png")


def draw(answers: Mapping[str, Sequence[Row]], said: str, path: Path) -> None:
    """A picture: how far each target is passed, medians with quartiles."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    from experiment.plots.style import INK, SERIES, axes_at, dress_graph, empty_figure, save

    rows = [(f"{name}: {row.what}", row) for name, found in answers.items() for row in found if row.target]
    if not rows:
        return
    height = 0.28 * len(rows)
    title = "What was to be reached, and what was"
    figure = empty_figure(10.0, height + 0.7, title, f"{said}. Right of the line: reached")
    axes = axes_at(figure, 5.2, 0.5, 4.5, height)
    dress_graph(axes)
    for place, (_, row) in enumerate(reversed(rows)):
        assert row.target
        way, wanted = row.target
        tiny = 1e-3  # of what is to be nothing
        ratios = [max(value, tiny) / max(wanted, tiny) for value in row.quartiles]
        low, middle, high = ratios if way == "≥" else [1 / ratio for ratio in ratios]
        color = SERIES[2] if row.is_reached else SERIES[1]
        axes.plot([low, high], [place, place], color=color, linewidth=2)
        axes.plot([middle], [place], "o", color=color, markersize=6)
    axes.axvline(1, color=SERIES[0], linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()
    axes.tick_params(axis="x", labelsize=8)
    axes.set_yticks(range(len(rows)), [label for label, _ in reversed(rows)])
    axes.tick_params(axis="y", labelsize=8, labelcolor=INK["color"])
    axes.set_xlabel("times the target", fontsize=9)
    axes.set_xlim(min(0.5, axes.get_xlim()[0]), max(2, axes.get_xlim()[1]))
    save(figure, path)


if __name__ == "__main__":
    main()
