"""Evaluate a run from its folder alone: ``python evaluate.py run=outputs/NAME [ckpt=best]``."""

import sys
from pathlib import Path

from experiment.command_line import assignments
from experiment.entry_point import entry_point, invocation
from experiment.metrics import row
from experiment.run import Run
from experiment.schema import Knob
from experiment.terminal import loading

USAGE = f"{invocation('evaluate')} run=outputs/NAME [ckpt=best|last|PATH] [data.root=PATH]"
KNOBS = {
    "run": Knob("str", "folder of a run"),
    "ckpt": Knob("str", "checkpoint: best, last or a path; default best", optional=True),
    "data.root": Knob("str", "where the data is now, if it has moved", optional=True),
}


@entry_point
def main() -> None:
    """Rebuild the run, test it and write ``evaluation_<checkpoint>.json`` and ``.npz`` into its folder."""
    given = assignments(sys.argv[1:], KNOBS, USAGE)
    run = Run.open(Path(given["run"]))
    checkpoint = run.checkpoint(given["ckpt"] or "best")
    with loading():
        from lightning_modules.training import evaluate

    path = run.folder / f"{run.evaluation_name(checkpoint)}.json"
    tested = evaluate(run, checkpoint, given["data.root"], path.with_suffix(".npz"))
    run.write_json(path.name, {"checkpoint": str(checkpoint), **tested})
    for key in (*tested["metrics"], "loss"):
        column = row(f"test_{key}")
        print(f"{column.words:<32}{column.short(tested[f'test_{key}'])}")
    for name, accuracy in tested["test_acc_per_class"].items():
        print(f"  {name:<30.30}{'no images' if accuracy is None else f'{accuracy:.2%}'}")
    print(f"{'written to':<32}{path}")


if __name__ == "__main__":
    main()
