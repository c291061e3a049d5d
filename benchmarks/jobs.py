"""Whether a sweep of 100 jobs grows from job to job, and whether a folder of 1,000 runs stays usable."""

import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.startup import GRID, SMOKE, many_runs
from benchmarks.timing import ROOT, Row, Settings, call

JOBS, RUNS, SETTLED = 100, 1000, 20
"""Jobs of the sweep, runs of the folder, and the jobs after which everything is loaded."""


def measure(settings: Settings) -> list[Row]:
    """Both, once; growth is that from jobs 20 to 40 to the last twenty, for each job between."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        samples = sweep(folder)
        rows = []
        for what, unit, limit in (("memory", "MB", 0.2), ("open files", "", 0), ("threads", "", 0),
                                  ("child processes", "", 0), ("temporary files", "", 0)):  # fmt: skip
            values = [sample[what] for sample in samples]
            early, late = (
                statistics.median(part) for part in (values[SETTLED : 2 * SETTLED], values[-SETTLED:])
            )
            growth = (late - early) / (len(values) - 2 * SETTLED)
            rows.append(Row(f"{JOBS} jobs: {what} more with each job", [growth], unit, ("≤", limit)))
            rows.append(Row(f"{JOBS} jobs: {what} at the end", [late], unit))
        return rows + usable(folder, settings)


def sweep(folder: Path) -> list[Mapping[str, float]]:
    """What the process of a sweep holds after each of its jobs."""
    temporary = folder / "tmp"
    temporary.mkdir()
    arguments = ["-m", *SMOKE, f"seed=range({JOBS})", "sweep.name=jobs"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments], cwd=folder, stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
    )  # fmt: skip
    samples: list[Mapping[str, float]] = []
    while process.poll() is None:
        time.sleep(0.05)
        if len(list(folder.glob("outputs/jobs/*/results.json"))) > len(samples):
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                samples.append(state(process.pid, temporary))
    if process.returncode:
        raise RuntimeError(f"the sweep ended with code {process.returncode}")
    return samples


def state(pid: int, temporary: Path) -> dict[str, float]:
    """Of a Linux process."""
    home = Path(f"/proc/{pid}")
    status = dict(
        line.split(":\t", 1) for line in (home / "status").read_text().splitlines() if ":\t" in line
    )
    return {
        "memory": int(status["VmRSS"].split()[0]) / 1024,
        "open files": len(list((home / "fd").iterdir())),
        "threads": int(status["Threads"]),
        "child processes": len((home / "task" / str(pid) / "children").read_text().split()),
        "temporary files": sum(1 for _ in temporary.rglob("*")),
    }


def usable(folder: Path, settings: Settings) -> list[Row]:
    """Report, dry run and TensorBoard's start where there are 1,000 runs."""
    many_runs(next(folder.glob("outputs/jobs/*/results.json")).parent, folder / "outputs", RUNS)
    report = settings.seconds(lambda: call(str(ROOT / "report.py"), "outputs", cwd=folder))
    plan = settings.seconds(
        lambda: call(str(ROOT / "train.py"), "-m", *GRID, "sweep.dry_run=true", "sweep.name=dry", cwd=folder)
    )
    rows = [
        Row(f"{RUNS:,} runs: report", [report], "s"),
        Row(f"{RUNS:,} runs: dry run of 300 jobs", [plan], "s"),
    ]
    begun = time.monotonic()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", "outputs", "--port", "6099"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while time.monotonic() - begun < 120:
            with suppress(OSError):
                urllib.request.urlopen("http://localhost:6099/data/environment", timeout=60).read()
                break
            time.sleep(0.1)
        rows.append(Row(f"{RUNS:,} runs: TensorBoard answers", [time.monotonic() - begun], "s"))
    finally:
        process.terminate()
        process.wait()
    return rows
