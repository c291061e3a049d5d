"""Where a run comes from: command, code, versions, hardware, time."""

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from experiment.entry_point import trusted_packages

PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy")
"""Whose versions a run notes."""


def environment() -> dict[str, Any]:
    """What trains here and now: command, commit, versions, hardware."""
    return {
        "command": command(),
        "git": git_state(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "trusted_packages": trusted_packages(),
        "python": platform.python_version(),
        "hardware": hardware(),
    }


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
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"platform": platform.platform(), "processor": processor, "cores": cores, "host": platform.node()}
