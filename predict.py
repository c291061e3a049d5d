"""Classify images with a trained run: ``python predict.py run=outputs/NAME images=PATH [ckpt=best]``."""

import sys
from pathlib import Path

from experiment.command_line import assignments
from experiment.entry_point import entry_point, invocation
from experiment.errors import UserError
from experiment.run import Run
from experiment.schema import Knob
from experiment.terminal import loading

USAGE = f"{invocation('predict')} run=outputs/NAME images=PATH [ckpt=best|last|PATH] [out=FOLDER]"
KNOBS = {
    "run": Knob("str", "folder of a run"),
    "images": Knob("str", "an image or a folder of images, of any depth, size and mode"),
    "ckpt": Knob("str", "checkpoint: best, last or a path; default best", optional=True),
    "invert": Knob(
        "str",
        "turn dark and light; auto, the default: where an image then is more like those trained on",
        choices=("auto", "true", "false"),
        optional=True,
    ),
    "center": Knob(
        "str",
        "cut out what is drawn, scale and centre it as MNIST does; auto, the default: for such digits",
        choices=("auto", "true", "false"),
        optional=True,
    ),
    "out": Knob("str", "folder of predictions.csv and .png; default predictions/ of the run", optional=True),
}


@entry_point
def main() -> None:
    """Classify, print the table; an image that cannot be read costs the exit code, not the others."""
    given = assignments(sys.argv[1:], KNOBS, USAGE)
    run = Run.open(Path(given["run"]))
    checkpoint = run.checkpoint(given["ckpt"] or "best")
    images = Path(given["images"])
    if not images.exists():
        raise UserError(f"images={given['images']} does not exist: give an image or a folder of images")
    folder = Path(given["out"]) if given["out"] else run.folder / "predictions"
    with loading():
        from lightning_modules.prediction import predict, table

    is_asked = {"true": True, "false": False}  # else None: auto
    rows, problems = predict(
        run, checkpoint, images, folder, is_asked.get(given["invert"]), is_asked.get(given["center"])
    )
    print(table(rows, images if images.is_dir() else images.parent))
    print(f"\n{'all of them':<21}{folder / 'predictions.csv'}")
    print(f"{'contact sheet':<21}{folder / 'predictions.png'}")
    if problems:
        count = f"{len(problems):,} of {len(rows) + len(problems):,} images were skipped"
        raise UserError("\n       ".join([count, *problems]))


if __name__ == "__main__":
    main()
