"""Which floating-point format a run computes in where ``trainer.precision=auto`` leaves that to the machine.

A wrong choice is expensive: processors with units for bfloat16 train about twice as fast in it, others 11 to
22 times slower. What the choice is made from needs no torch; where that does not suffice, each machine
measures once, for a second, in a process of its own.
"""

import functools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiment.files import CannotWrite, make_folder, write_atomically

SINGLE, BFLOAT16, FLOAT16 = "32-true", "bf16-mixed", "16-mixed"
WORTH_IT = 1.2
"""How much faster than float32 bfloat16 must have been measured to be."""


def resolve(config: DictConfig | dict[str, Any], sweep: Path | None = None) -> None:
    """Replace ``auto`` in a run's configuration by what it means here; the jobs of a ``sweep`` share it.

    The from-scratch engine computes in float32, whatever there is.
    """
    trainer = config["trainer"]
    if trainer.get("precision") != "auto":
        return
    if config["model"].get("engine", "torch") != "torch":
        trainer["precision"] = SINGLE
    else:
        shared = of_sweep(sweep) if sweep else None
        trainer["precision"] = shared or of_machine(trainer["accelerator"])[0]


@functools.cache
def of_sweep(folder: Path) -> str | None:
    """What the jobs compute in that a sweep has already, of those that torch computes."""
    for path in sorted(folder.glob("*/config.yaml")):
        config = OmegaConf.load(path)
        is_given = re.search(r"trainer\.precision=(?!auto)", path.parent.name)  # swept, and no choice of ours
        if not is_given and OmegaConf.select(config, "model.engine", default="torch") == "torch":
            return str(OmegaConf.select(config, "trainer.precision", default=SINGLE))
    return None


@functools.cache
def of_machine(accelerator: str) -> tuple[str, str]:
    """The format that is fastest here on ``accelerator`` (``auto``, ``cpu`` or ``gpu``), and why."""
    if accelerator != "cpu" and (capability := gpu_capability()):
        named = f"GPU of compute capability {capability}"
        return (BFLOAT16 if capability >= 8 else FLOAT16 if capability >= 7 else SINGLE), named
    if accelerator == "gpu" or (accelerator == "auto" and platform.system() == "Darwin"):
        return SINGLE, "GPU of unknown speed in other formats"
    flags, limits = cpu_flags(), {"ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"} & os.environ.keys()
    if units := flags & {"amx_bf16", "avx512_bf16"}:
        if not limits:
            return BFLOAT16, " and ".join(sorted(units))
    elif "sse2" in flags or (flags and "bf16" not in flags):  # an x86 or ARM processor that tells what it has
        return SINGLE, "no bfloat16 units"
    ratio = measured_ratio()
    faster = "not measurable" if ratio is None else f"measured {ratio:.2f} times as fast as float32"
    return (BFLOAT16 if ratio is not None and ratio >= WORTH_IT else SINGLE), f"bfloat16 {faster}"


def problems_without_gpu(trainer: DictConfig) -> list[str]:
    """What of a run's ``trainer`` cannot be where there is no GPU, one line each."""
    found = {
        "accelerator=gpu": "there is none here; auto takes what there is",
        "precision=16-mixed": "needs a GPU; auto takes what is fastest here",  # Lightning would take bfloat16
        "sync_batchnorm=True": "needs GPUs: torch cannot synchronise it on CPUs",
    }
    given = (f"{key}={trainer.get(key)}" for key in ("accelerator", "precision", "sync_batchnorm"))
    return [f"trainer.{item.replace('T', 't')}: {found[item]}" for item in given if item in found]


def problems_here(trainer: DictConfig) -> list[str]:
    """As :func:`problems_without_gpu`, where it is known without torch that none is or is to be used."""
    devices = ("nvidia*", "kfd", "dri", "dxg", "accel")  # of NVIDIA, AMD, Intel, Windows' Linux
    is_there = platform.system() != "Linux" or any(any(Path("/dev").glob(name)) for name in devices)
    return [] if is_there and trainer.accelerator != "cpu" else problems_without_gpu(trainer)


def cpu_flags() -> set[str]:
    """What the processor can do, in Linux's words; empty where nothing tells."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return set(line[1].split()) if line else set()


def gpu_capability() -> float | None:
    """The compute capability of the weakest NVIDIA GPU, if torch can use them; None without one."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or not shutil.which("nvidia-smi"):
        return None
    spec = find_spec("torch")  # its text says for what it was built
    version = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    if version is None or not re.search(r"^cuda\b[^=\n]*= *['\"]", version.read_text(), re.MULTILINE):
        return None
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        return min(map(float, told.split()), default=None)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def measured_ratio() -> float | None:
    """How many times as fast as in float32 a training step is in bfloat16; None if it cannot be told.

    Measured once for each processor and version of torch, and kept in the user's cache folder.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning-image-classifiers"
    cache = folder / "bfloat16.json"
    limits = [os.environ.get(name, "") for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")]
    key = " ".join([platform.node(), platform.machine(), metadata.version("torch"), *limits])
    try:
        known = json.loads(cache.read_text())
    except (OSError, ValueError):
        known = {}
    if key not in known:
        print("measuring once how fast this processor is in bfloat16 …", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "lightning_modules.bfloat16"]
        here = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            told = subprocess.run(
                command, capture_output=True, text=True, check=True, timeout=120, env=os.environ | here
            ).stdout
            known[key] = float(told.split()[-1])
        except (OSError, subprocess.SubprocessError, ValueError, IndexError):
            return None
        with suppress(CannotWrite):  # measured again next time
            make_folder(folder)
            write_atomically(cache, json.dumps(known))
    return float(known[key])
