"""All of it on a GPU: ``python -m benchmarks.gpu``; arguments go to ``python -m benchmarks``."""

import subprocess
import sys

from benchmarks.timing import ROOT, require_gpu
from experiment.entry_point import entry_point


@entry_point
def main() -> None:
    """The engines' steps, then every quick question, with the device in place of the processor."""
    require_gpu()
    out = ("out=outputs/benchmarks-gpu",) * (not any(word.startswith("out=") for word in sys.argv[1:]))
    commands = [
        ["benchmarks.engines", "--device", "cuda", "--network", name] for name in ("mnist", "cifar", "resnet")
    ]
    commands.append(["benchmarks", "device=cuda", *out, *sys.argv[1:]])
    for command in commands:
        print(f"python -m {' '.join(command)}", flush=True)
        if code := subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False).returncode:
            raise SystemExit(code)


if __name__ == "__main__":
    main()
