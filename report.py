"""Report on runs and sweeps from their folders: ``python report.py outputs/NAME …``; see ``--help``."""

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
    "delta": Knob(
        "float", "a difference in the metric within ±delta counts as none", "(0, inf)", optional=True
    ),
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
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder")
    with loading("matplotlib"):
        from experiment.report.page import write_report

    print(write_report(folders, Path(given["out"]) if given["out"] else None, given["delta"]))


if __name__ == "__main__":
    main()
