"""Evaluate a run from its folder alone: ``python evaluate.py run=outputs/NAME [ckpt=best]``."""

import sys
from pathlib import Path

from experiment.command_line import assignments
from experiment.entry_point import entry_point, invocation, loading
from experiment.run import Run
from experiment.schema import Knob

USAGE = f"{invocation('evaluate')} run=outputs/NAME [ckpt=best|last|PATH] [data.root=PATH]"
KNOBS = {
    "run": Knob("str", "folder of a run"),
    "ckpt": Knob("str", "checkpoint: best, last or a path; default best", optional=True),
    "data.root": Knob("str", "where the data is now, if it has moved", optional=True),
}


@entry_point
def main() -> None:
    """Rebuild the run, test it and write ``evaluation_<checkpoint>.json`` beside it."""
    given = assignments(sys.argv[1:], KNOBS, USAGE)
    run = Run.open(Path(given["run"]))
    checkpoint = run.checkpoint(given["ckpt"] or "best")
    with loading():
        from lightning_modules.training import evaluate

    tested = evaluate(run, checkpoint, given["data.root"])
    path = run.folder / f"evaluation_{checkpoint.stem}.json"
    run.write_json(path.name, {"checkpoint": str(checkpoint), **tested})
    print(f"{'test accuracy':<21}{tested['test_acc']:.2%}\n{'test loss':<21}{tested['test_loss']:.4f}")
    for name, accuracy in tested["test_acc_per_class"].items():
        print(f"  {name:<19.19}{'no images' if accuracy is None else f'{accuracy:.2%}'}")
    print(f"{'written to':<21}{path}")


if __name__ == "__main__":
    main()
