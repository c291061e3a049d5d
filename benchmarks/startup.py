"""How long one waits: for help, an answer to a typo, a run, a sweep's job, a plan, a report, the end."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from benchmarks.timing import ROOT, Row, Settings, call

SMOKE = ("trainer=smoke", "data.train_images=640")
GRID = ("model.dropout=0,0.1,0.2,0.3,0.4,0.5", "data.batch_size=16,32,64,128,256", "seed=range(10)")
LEAVE = "import lightning_modules.training, time; print(time.perf_counter(), time.process_time())"


def measure(settings: Settings) -> list[Row]:
    """Every wait, in turn; figures of a sweep's job are those of six less those of one."""
    train = str(ROOT / "train.py")
    with TemporaryDirectory() as name:
        folder = Path(name)
        call(train, *SMOKE, "name=run", cwd=folder)
        many_runs(folder / "outputs" / "run", folder / "many", 300)

        def sweep(jobs: int) -> Callable[[], object]:
            def start() -> None:
                shutil.rmtree(folder / "outputs" / "jobs", ignore_errors=True)
                call(train, "-m", *SMOKE, f"seed=range({jobs})", "sweep.name=jobs", cwd=folder)

            return start

        times = settings.interleaved({
            "--help": lambda: call(train, "--help"),
            "a mistyped key": lambda: call(train, "model.droput=0.2", code=1),
            "a run of two batches, from the shell and back": lambda: call(train, *SMOKE, cwd=folder),
            "one job": sweep(1),
            "six jobs": sweep(6),
            "a dry run of 300 jobs": lambda: call(
                train, "-m", *GRID, "sweep.dry_run=true", "sweep.name=dry", cwd=folder
            ),
            "a report on 300 runs": lambda: call(str(ROOT / "report.py"), "many", cwd=folder),
            "the interpreter's end after torch and Lightning": lambda: None,
        })  # fmt: skip
    one, six = times.pop("one job"), times.pop("six jobs")
    times["a further job of a sweep"] = [(b - a) / 5 for a, b in zip(one, six, strict=True)]
    times["the interpreter's end after torch and Lightning"] = [leaving(settings) for _ in one]
    targets = {"a further job of a sweep": 1.0, "a dry run of 300 jobs": 5.0, "a report on 300 runs": 5.0}
    return [
        Row(what, values, "s", ("≤", targets[what]) if what in targets else None)
        for what, values in times.items()
    ]


def leaving(settings: Settings) -> float:
    """Seconds from the last statement of a process to its end."""
    found: list[str] = []
    seconds = settings.seconds(lambda: found.extend(call("-c", LEAVE).stdout.split()))
    if settings.clock == "cpu":
        return seconds - float(found[1])
    return settings.now() - float(found[0])  # the clock is the machine's


def many_runs(run: Path, folder: Path, number: int) -> None:
    """Lay copies of a finished run into ``folder``, with other seeds and accuracies; no checkpoints."""
    config, results = (yaml.safe_load((run / name).read_text()) for name in ("config.yaml", "results.json"))
    for index in range(number):
        copy = folder / f"run-{index}"
        shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints"))
        config["seed"], config["model"]["dropout"] = index % 10, round(index // 10 / 1000, 3)
        results["test_acc"] = results["val_acc"] = 0.5 + 0.3 * ((index * 7919) % 1000) / 1000
        (copy / "config.yaml").write_text(yaml.safe_dump(config))
        content: dict[str, Any] = results
        (copy / "results.json").write_text(json.dumps(content))
