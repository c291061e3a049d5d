"""Report on runs and sweeps from their folders: ``python report.py outputs/NAME …``; see ``--help``."""

import sys
from pathlib import Path

from experiment.command_line import assignments, door
from experiment.errors import UserError
from experiment.schema import Knob

USAGE = "python report.py FOLDER … [out=FOLDER] [delta=0.005] (a sweep, a run, or a folder of either)"
KNOBS = {
    "out": Knob("str", "where the report goes; default FOLDER/report", optional=True),
    "delta": Knob(
        "float", "a difference in the metric within ±delta counts as none", "(0, inf)", optional=True
    ),
}


def main() -> None:
    """Read the runs, write the report and print the verdicts."""
    options = [
        word for word in sys.argv[1:] if word.startswith(("out=", "delta=")) or word in ("-h", "--help")
    ]
    given = assignments(options, KNOBS, USAGE)
    folders = [Path(word) for word in sys.argv[1:] if word not in options]  # their names may hold a =
    if not folders:
        raise UserError(f"which runs? {USAGE}")
    from experiment.report.page import write_report  # after --help: matplotlib and scipy take a second

    print(write_report(folders, Path(given["out"]) if given["out"] else None, given["delta"]))


if __name__ == "__main__":
    door(main)
