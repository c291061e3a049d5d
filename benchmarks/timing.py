"""What the benchmarks share: interleaved rounds, medians and quartiles, ratios, one table."""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import lightning_modules  # noqa: F401 – before torch: sets up threads and memory as for train.py
from experiment.errors import UserError
from experiment.terminal import ERASE

ROOT = Path(__file__).resolve().parent.parent
Times: TypeAlias = dict[str, list[float]]
"""Name of a contestant → seconds of each round."""


class Settings(NamedTuple):
    """How a benchmark measures.

    On a machine that does other work, too, the ratio of processor times of one thread still tells something.
    """

    rounds: int = 5
    clock: Literal["wall", "cpu"] = "wall"
    device: Literal["cpu", "cuda"] = "cpu"

    def seconds(self, function: Callable[[], object]) -> float:
        """The seconds that a call takes, until the device has finished; processes started in it count."""
        begun = self.now()
        function()
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()
        return self.now() - begun

    def now(self) -> float:
        """Seconds on the clock; with ``cpu`` those of this process and of its children that have ended."""
        if self.clock == "wall":
            return time.perf_counter()
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime

    def interleaved(self, contestants: Mapping[str, Callable[[], object]]) -> Times:
        """The seconds that each takes, see :meth:`in_turn`."""
        return self.in_turn({name: partial(self.seconds, call) for name, call in contestants.items()})

    def in_turn(self, contestants: Mapping[str, Callable[[], float]]) -> Times:
        """What each says it took, round by round, so that what else the machine does falls on all alike.

        A first round, in which things are loaded and compiled, is not counted.
        """
        times: Times = {name: [] for name in contestants}
        for number in range(self.rounds + 1):
            for name, measured in contestants.items():
                if sys.stderr.isatty():
                    said = f"{name}, round {number} of {self.rounds}" if number else f"{name}, warming up"
                    print(f"{ERASE}{said}", end="", file=sys.stderr, flush=True)
                seconds = measured()
                if number:
                    times[name].append(seconds)
        if sys.stderr.isatty():
            print(ERASE, end="", file=sys.stderr, flush=True)
        return times


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        what: is measured.
        values: one a round.
        unit: of the values.
        target: what is to be reached, with the way that is better; None = there is none.
    """

    what: str
    values: Sequence[float]
    unit: str
    target: tuple[Literal["≤", "≥"], float] | None = None

    @property
    def quartiles(self) -> list[float]:
        """The lower quartile, the median and the upper quartile."""
        if len(self.values) == 1:
            return [self.values[0]] * 3
        return statistics.quantiles(self.values, n=4, method="inclusive")

    @property
    def median(self) -> float:
        """Of the rounds."""
        return self.quartiles[1]

    @property
    def is_reached(self) -> bool | None:
        """Whether the median is where it is to be; None without a target."""
        if self.target is None:
            return None
        way, wanted = self.target
        return self.median <= wanted if way == "≤" else self.median >= wanted

    def line(self) -> str:
        """As a line of a Markdown table."""
        low, middle, high = (_text(value) for value in self.quartiles)
        spread = "" if len(self.values) == 1 else f"{low}–{high}"
        verdict = {None: "", True: "yes", False: "no"}[self.is_reached]
        wanted = f"{self.target[0]} {_text(self.target[1])}" if self.target else ""
        return f"| {self.what} | {middle} {self.unit} | {spread} | {wanted} | {verdict} |"

    def content(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def _text(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ratio(
    what: str,
    above: Sequence[float],
    below: Sequence[float],
    target: tuple[Literal["≤", "≥"], float] | None = None,
) -> Row:
    """How many times as much, round by round."""
    return Row(what, [a / b for a, b in zip(above, below, strict=True)], "×", target)


def table(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    head = "| | median | quartiles | to reach | reached |\n|---|---|---|---|---|"
    return "\n".join([head, *(row.line() for row in rows)])


def require_gpu() -> None:
    """Refuse to measure a GPU where torch can use none.

    Raises:
        UserError: saying so.
    """
    import torch

    if not torch.cuda.is_available():
        raise UserError("there is no GPU that torch can use: python -m benchmarks measures the processor")


def call(*arguments: str, cwd: Path | None = None, code: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run a Python script or module of this project in a process of its own.

    Raises:
        RuntimeError: if it ends with another exit code than ``code`` (None = any), with what it said.
    """
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd or ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if code is not None and done.returncode != code:
        raise RuntimeError(
            f"{' '.join(arguments)} ended with code {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done
