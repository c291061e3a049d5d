"""Where a run comes from: command, code, versions, hardware, time."""

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from experiment.entry_point import trusted_packages

PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy")
"""Whose versions a run notes."""


def environment() -> dict[str, Any]:
    """What trains here and now: command, commit, versions, hardware."""
    return {
        "version": version(),
        "command": command(),
        "git": _git_at_first(),
        "packages": {name: _installed(name) for name in PACKAGES},
        "trusted_packages": trusted_packages(),
        "python": platform.python_version(),
        "hardware": hardware(),
    }


def version() -> str:
    """Of this project, as it is installed."""
    try:
        return _installed("lightning-image-classifiers")
    except metadata.PackageNotFoundError:
        return "unknown"


@cache
def _git_at_first() -> dict[str, Any] | None:
    """The code that this process has imported, whatever is changed meanwhile."""
    return git_state()


@cache
def _installed(package: str) -> str:
    return metadata.version(package)


def inexact(first: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In what two attempts at a run differ so that their arithmetic may: a phrase for each."""
    paths = (("threads",), ("hardware", "processor"), ("gpus",), ("packages", "torch"), ("packages", "numpy"))
    lines = []
    for path in paths:
        old: Any = first
        new: Any = now
        for key in path:
            old, new = (known.get(key) if isinstance(known, Mapping) else None for known in (old, new))
        if None not in (old, new) and old != new:
            lines.append(f"{path[-1]}: {old}, now {new}")
    return lines


def command() -> str:
    """The command line of this process."""
    return shlex.join([Path(sys.executable).name, *sys.argv])


def now() -> str:
    """The time as ISO 8601 with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def git_state() -> dict[str, Any] | None:
    """Commit of the code and what differs from it; ``None`` outside its git checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not just an environment inside a checkout
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain").splitlines()
        digest = hashlib.sha256(git("diff", "HEAD").encode()).hexdigest() if changed else None
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "changed_files": changed, "diff_sha256": digest}


def hardware() -> dict[str, Any]:
    """Platform, processor, cores that this process may use, and host name."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if "model name" in line
        ]
        processor = names[0] if names else processor
    return {
        "platform": platform.platform(),
        "processor": processor,
        "cores": available_cores(),
        "host": platform.node(),
    }


def available_cores() -> int:
    """How many processors this process may keep busy, by its affinity and its container."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")  # "200000 100000": microseconds of time in each period, or "max"
    time, _, period = quota.read_text().strip().partition(" ") if quota.exists() else ("max", "", "")
    return min(cores, max(1, int(time) // int(period))) if time.isdigit() else cores
