"""Report on runs and sweeps from their folders: ``python report.py outputs/NAME … [out=FOLDER]``."""

import sys
from pathlib import Path

from experiment.command_line import assignments
from experiment.entry_point import entry_point, invocation, loading
from experiment.errors import UserError
from experiment.schema import Knob

USAGE = f"{invocation('report')} FOLDER … [out=FOLDER] (a sweep, a run, or a folder of either)"
KNOBS = {"out": Knob("str", "where the report goes; default FOLDER/report", optional=True)}


@entry_point
def main() -> None:
    """Read the runs, write the report and print the verdicts."""
    options = [word for word in sys.argv[1:] if word.startswith("out=") or word in ("-h", "--help")]
    given = assignments(options, KNOBS, USAGE)
    folders = [Path(word) for word in sys.argv[1:] if word not in options]  # their names may hold a =
    if not folders:
        raise UserError(f"which runs? {USAGE}")
    with loading("matplotlib"):
        from experiment.report.page import write_report

    print(write_report(folders, Path(given["out"]) if given["out"] else None))


if __name__ == "__main__":
    main()
