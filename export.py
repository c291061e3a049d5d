"""Export a trained run for other programs: ``python export.py run=outputs/NAME format=onnx [ckpt=best]``."""

import sys
from pathlib import Path

from experiment.command_line import assignments
from experiment.entry_point import entry_point, invocation
from experiment.errors import UserError
from experiment.run import Run
from experiment.schema import Knob
from experiment.terminal import loading

USAGE = f"{invocation('export')} run=outputs/NAME format=onnx|safetensors|torch_export [ckpt=best] [out=FILE]"
KNOBS = {
    "run": Knob("str", "folder of a run"),
    "format": Knob("str", "format of the file", choices=("onnx", "safetensors", "torch_export")),
    "ckpt": Knob("str", "checkpoint: best, last or a path; default best", optional=True),
    "out": Knob("str", "the file; default export/ of the run", optional=True),
    "images": Knob("str", "an image or a folder of them to compare on; default the run's", optional=True),
    "data.root": Knob("str", "where the data is now, if it has moved", optional=True),
}


@entry_point
def main() -> None:
    """Export, compare with the classifier and say how far apart the two are."""
    given = assignments(sys.argv[1:], KNOBS, USAGE)
    run = Run.open(Path(given["run"]))
    checkpoint = run.checkpoint(given["ckpt"] or "best")
    images, out = (Path(given[key]) if given[key] else None for key in ("images", "out"))
    if images and not images.exists():
        raise UserError(f"images={images} does not exist: give an image or a folder of images")
    with loading():
        from lightning_modules.export import export

    done = export(run, checkpoint, given["format"], out, images, given["data.root"])
    print(f"{'compared on':<21}{done.images}")
    print(f"{'largest difference':<21}{done.difference:.1e} between logits, tolerance {done.tolerance:.1e}")
    print(f"{'written to':<21}{done.path} ({done.path.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
