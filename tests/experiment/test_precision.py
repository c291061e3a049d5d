"""What trainer.precision=auto stands for on machines of all kinds, and who keeps it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiment import precision
from experiment.command_line import CONFIG_DIR
from experiment.config import digest, run_config
from experiment.files import CannotWrite

of_machine = precision.of_machine.__wrapped__  # as it was before conftest.py replaced it for other tests


@pytest.fixture
def machine(monkeypatch):
    """A machine with these flags of the processor, and this GPU."""

    def be(flags: str, gpu: float | None = None, ratio: float | None = None) -> None:
        monkeypatch.setattr(precision, "cpu_flags", lambda: set(flags.split()))
        monkeypatch.setattr(precision, "gpu_capability", lambda: gpu)

        def measured() -> float | None:
            assert ratio is not None, "measures where the flags say all"
            return ratio

        monkeypatch.setattr(precision, "measured_ratio", measured)
        monkeypatch.setattr(precision.platform, "system", lambda: "Linux")

    for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"):
        monkeypatch.delenv(name, raising=False)
    return be


@pytest.mark.parametrize(
    ("flags", "gpu", "ratio", "accelerator", "chosen"),
    [
        ("sse2 avx2", None, None, "auto", "32-true"),
        ("sse2 avx2 avx512f avx512_vnni", None, None, "auto", "32-true"),
        ("sse2 avx2 avx512f avx512_bf16", None, None, "auto", "bf16-mixed"),
        ("sse2 amx_bf16 amx_tile", None, None, "cpu", "bf16-mixed"),
        ("fp asimd", None, None, "auto", "32-true"),
        ("fp asimd bf16", None, 2.0, "auto", "bf16-mixed"),
        ("fp asimd bf16", None, 1.1, "auto", "32-true"),
        ("", None, 0.1, "auto", "32-true"),
        ("sse2 avx2", 9.0, None, "auto", "bf16-mixed"),
        ("sse2 avx2", 7.5, None, "gpu", "16-mixed"),
        ("sse2 avx2", 6.1, None, "auto", "32-true"),
        ("sse2 amx_bf16", 7.5, None, "cpu", "bf16-mixed"),
        ("sse2 amx_bf16", None, None, "gpu", "32-true"),
    ],
)
def test_bfloat16_only_where_it_is_fast(machine, flags, gpu, ratio, accelerator, chosen):
    machine(flags, gpu, ratio)
    assert of_machine(accelerator)[0] == chosen


def test_units_that_are_switched_off_are_measured_not_believed(machine, monkeypatch):
    machine("sse2 amx_bf16", ratio=0.1)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert of_machine("cpu")[0] == "32-true"


def test_a_measurement_is_made_once(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def told(command, **options):
        calls.append(command)
        return subprocess.CompletedProcess(command, 0, "2.5\n", "")

    monkeypatch.setattr(precision.subprocess, "run", told)
    assert [precision.measured_ratio() for _ in range(2)] == [2.5, 2.5]
    assert len(calls) == 1

    def full(path, text):
        raise CannotWrite(f"{path} cannot be written: no space left on device")

    # where nothing can be kept, whatever the reason, it is made again
    (tmp_path / "lightning-image-classifiers" / "bfloat16.json").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(precision, "write_atomically", full)
        assert [precision.measured_ratio() for _ in range(2)] == [2.5, 2.5]
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert precision.measured_ratio() == 2.5
    assert len(calls) == 4


def test_the_measurement_gives_a_ratio():
    from lightning_modules.bfloat16 import bfloat16_ratio

    ratio, flags = bfloat16_ratio(1), precision.cpu_flags()
    assert ratio > 0
    if "avx2" in flags and not flags & {"amx_bf16", "avx512_bf16"}:
        assert ratio < 1  # by a factor of ten and more: no load of the machine hides that


def composed(*overrides: str):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("train", [*overrides])


def test_the_choice_is_the_run_s_the_engine_of_ours_computes_in_single_precision(monkeypatch):
    monkeypatch.setattr(precision, "of_machine", lambda accelerator: ("bf16-mixed", "told so"))
    assert composed().trainer.precision == "auto"
    assert run_config(composed()).trainer.precision == "bf16-mixed"
    assert run_config(composed("model.engine=numpy")).trainer.precision == "32-true"
    assert run_config(composed("trainer.precision=64-true")).trainer.precision == "64-true"


def test_a_run_in_float32_keeps_the_digest_it_had_before_there_was_a_choice():
    old = run_config(composed("trainer.precision=32-true"))
    del old.trainer["compile"]
    assert digest(run_config(composed())) == digest(old)
    assert digest(run_config(composed("trainer.compile=true"))) != digest(old)


@pytest.mark.parametrize("kept", ["32-true", "bf16-mixed"])
def test_the_jobs_of_a_sweep_share_what_the_first_was_given(monkeypatch, tmp_path, kept):
    monkeypatch.setattr(precision, "of_machine", lambda accelerator: ("16-mixed", "another machine"))
    for name, engine, value in (
        ("a", "numpy", "32-true"),
        ("b_trainer.precision=64-true", "torch", "64-true"),
        ("c", "torch", kept),
    ):
        (tmp_path / name).mkdir()
        job = {"model": {"engine": engine}, "trainer": {"precision": value}}
        OmegaConf.save(job, tmp_path / name / "config.yaml")
    precision.of_sweep.cache_clear()
    assert run_config(composed(), tmp_path).trainer.precision == kept
    assert run_config(composed(), tmp_path / "none").trainer.precision == "16-mixed"


def test_nothing_of_it_imports_torch():
    code = (
        "import sys; from experiment import precision; precision.of_machine('auto');"
        "print('torch' in sys.modules)"
    )
    here = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": here},
    )  # fmt: skip
    assert done.stdout.split()[-1] == "False"


def test_large_blocks_are_kept():
    """Without it, each step takes its pages from the system anew: about 100,000 faults here."""
    code = (
        "import resource, json, lightning_modules, numpy as np\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(3): np.ones(2**25)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "print(json.dumps([faults(), faults()]))"
    )
    if precision.platform.libc_ver()[0] != "glibc":
        pytest.skip("another allocator")
    here = str(Path(__file__).parents[2])
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=clean | {"PYTHONPATH": here},
    )  # fmt: skip
    _, later = json.loads(done.stdout)
    assert later < 1000
