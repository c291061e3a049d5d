"""Report on runs and sweeps from their folders: ``python report.py outputs/NAME …``; see ``--help``."""

import math
import sys
from pathlib import Path

from experiment.command_line import assignments
from experiment.entry_point import entry_point, invocation
from experiment.errors import UserError
from experiment.schema import Knob
from experiment.terminal import loading

USAGE = (
    f"{invocation('report')} FOLDER … [out=FOLDER] [delta=0.005] (a sweep, a run, or a folder of either; of "
    "two runs it says first what differs)"
)
KNOBS = {
    "out": Knob("str", "where the report goes; default FOLDER/report", optional=True),
    "delta": Knob("str", "a difference in the metric within ±delta counts as none", optional=True),
}


@entry_point
def main() -> None:
    """Read the runs, write the report and print the verdicts."""
    options = [
        word for word in sys.argv[1:] if word.startswith(("out=", "delta=")) or word in ("-h", "--help")
    ]
    given = assignments(options, KNOBS, USAGE)
    folders = [Path(word) for word in sys.argv[1:] if word not in options]  # their names may hold a =
    if not folders:
        raise UserError(f"which runs? {USAGE}")
    delta = _positive(given["delta"])
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder")
    with loading("matplotlib"):
        from experiment.report.page import write_report

    print(write_report(folders, Path(given["out"]) if given["out"] else None, delta))


def _positive(delta: str | None) -> float | None:
    try:
        number = None if delta is None else float(delta)
    except ValueError:
        number = math.nan
    if number is not None and not 0 < number < math.inf:
        raise UserError(
            f"delta={delta}: expected a number above 0, such as 0.005 for half a point of accuracy"
        )
    return number


if __name__ == "__main__":
    main()
