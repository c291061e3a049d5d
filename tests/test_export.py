"""export.py: files that other programs can use and that compute what the run does, or no file."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from experiment.run import Run
from lightning_modules import export
from lightning_modules.build import build_network
from lightning_modules.loading import load_checkpoint, load_classifier

ROOT = Path(__file__).parents[1]
EntryPoint = Callable[..., SimpleNamespace]
FACTS = ("classes", "image_shape", "mean", "std", "config", "run", "checkpoint")


@pytest.fixture
def run(trained: Callable[..., Run]) -> Run:
    return trained()


def moved(run: Run, to: Path) -> Path:
    """A copy of a run folder that finds no data set."""
    shutil.copytree(run.folder, to)
    config = run.config
    config.data.update({"dataset": "cifar10", "root": str(to / "nowhere")})
    Run(to).configure(config)
    return to


def use_onnx(path: Path, images: Tensor, run: Run) -> tuple[np.ndarray, dict[str, str]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    return logits, session.get_modelmeta().custom_metadata_map


def use_torch_export(path: Path, images: Tensor, run: Run) -> tuple[np.ndarray, dict[str, str]]:
    facts = dict.fromkeys(FACTS, "")
    program = torch.export.load(path, extra_files=facts)
    return program.module()(images).detach().numpy(), facts


def use_safetensors(path: Path, images: Tensor, run: Run) -> tuple[np.ndarray, dict[str, str]]:
    with safetensors.safe_open(path, "pt") as file:
        facts = file.metadata()
    config = run.config
    config.model.engine = "torch"
    network = build_network(
        config, json.loads(facts["image_shape"]), len(json.loads(facts["classes"]))
    ).eval()
    network.load_state_dict(safetensors.torch.load_file(path))
    mean, std = (torch.tensor(json.loads(facts[name])).view(-1, 1, 1) for name in ("mean", "std"))
    return network((images - mean) / std).detach().numpy(), facts


@pytest.mark.parametrize("engine", ["torch", "numpy"])
@pytest.mark.parametrize(
    ("kind", "suffix", "use"),
    [
        ("onnx", "onnx", use_onnx),
        ("torch_export", "pt2", use_torch_export),
        ("safetensors", "safetensors", use_safetensors),
    ],
)
def test_the_file_computes_what_the_run_does(
    trained: Callable[..., Run],
    run_entry_point: EntryPoint,
    tmp_path: Path,
    engine: str,
    kind: str,
    suffix: str,
    use: Callable,
):
    run = trained(f"model.engine={engine}")
    path = tmp_path / "new" / f"digits.{suffix}"
    done = run_entry_point("export.py", f"run={run.folder}", f"format={kind}", f"out={path}", "ckpt=last")
    assert (done.code, done.err) == (0, "")
    compared, difference, written = done.out.splitlines()
    assert compared.endswith("128 validation images of mnist_mini")
    assert "tolerance 1.0e-04" in difference
    assert f"{path} ({path.stat().st_size:,} bytes)" in written
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode == (run.folder / "config.yaml").stat().st_mode

    images = torch.rand(7, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    logits, facts = use(path, images, run)
    with torch.no_grad():
        expected = load_classifier(run, run.checkpoint("last"))(images).numpy()
    assert logits == pytest.approx(expected, abs=1e-5)
    told = {name: json.loads(facts[name]) for name in FACTS}
    assert told["classes"] == [str(digit) for digit in range(10)]
    assert told["image_shape"] == [1, 28, 28]
    assert told["config"]["model"]["engine"] == engine
    assert (told["run"], told["checkpoint"]) == (run.folder.name, "last")
    assert str(ROOT).encode() not in path.read_bytes()  # nor where it was made


def test_compared_on_images_of_the_users_own(run: Run, run_entry_point: EntryPoint, tmp_path: Path):
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((40, 60, 3), 99, dtype=np.uint8)).save(tmp_path / name)
    without = moved(run, tmp_path / "moved")
    given = (f"run={without}", "format=safetensors")
    done = run_entry_point("export.py", *given, f"images={tmp_path / 'a.png'}")
    assert (done.code, done.err) == (0, "")
    assert f"1 images of {tmp_path / 'a.png'}" in done.out
    assert (without / "export" / "best.safetensors").exists()
    (tmp_path / "a.png").write_text("no image")
    done = run_entry_point("export.py", *given, f"images={tmp_path / 'a.png'}", "ckpt=last")
    assert done.code == 1
    assert "none of the first 128 can be read" in done.err
    assert not (without / "export" / "last.safetensors").exists()


def test_without_a_validation_set_the_test_set_is_taken(
    run: Run, run_entry_point: EntryPoint, tmp_path: Path
):
    shutil.copytree(run.folder, tmp_path / "copy")
    config = run.config
    config.data.val_fraction = 0.0
    Run(tmp_path / "copy").configure(config)
    done = run_entry_point("export.py", f"run={tmp_path / 'copy'}", "format=safetensors")
    assert "128 test images of mnist_mini" in done.out


def test_without_any_data_it_warns_and_takes_random_images(run: Run, tmp_path: Path):
    """In a process of its own: nothing else is printed, by none of the packages."""
    without = moved(run, tmp_path / "moved")
    done = subprocess.run(
        [sys.executable, str(ROOT / "export.py"), f"run={without}", "format=onnx"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("warning: compared on random images, which say less")
    assert "CIFAR10 is not under" in warning
    assert len(done.stdout.splitlines()) == 3
    assert "128 random images" in done.stdout


@pytest.mark.parametrize("kind", ["onnx", "safetensors", "torch_export"])
def test_a_file_that_is_not_as_good_is_not_kept(
    run: Run, run_entry_point: EntryPoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    suffix = export.KINDS[kind][0]
    path = tmp_path / f"kept{suffix}"
    path.write_text("an earlier one")
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    done = run_entry_point("export.py", f"run={run.folder}", f"format={kind}", f"out={path}")
    assert done.code == 1
    assert "error: the exported file was not kept: on 128 validation images" in done.err
    assert path.read_text() == "an earlier one"
    assert list(tmp_path.iterdir()) == [path]


def test_weights_that_are_not_finite_are_refused(run: Run, run_entry_point: EntryPoint, tmp_path: Path):
    content = load_checkpoint(run.checkpoint("best"))
    content["state_dict"]["network.conv1.weight"] = torch.full((4, 1, 3, 3), torch.nan)
    torch.save(content, tmp_path / "diverged.ckpt")
    diverged = (f"ckpt={tmp_path / 'diverged.ckpt'}", f"out={tmp_path / 'a.safetensors'}")
    done = run_entry_point("export.py", f"run={run.folder}", "format=safetensors", *diverged)
    assert done.code == 1
    assert "its logits are nan off" in done.err


def test_every_bit_of_the_weights_counts(
    run: Run, run_entry_point: EntryPoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = safetensors.torch.save

    def rounded(weights: dict[str, Tensor], facts: dict[str, str]) -> bytes:
        return whole(weights | {"conv1.weight": weights["conv1.weight"] * (1 + 2**-22)}, facts)

    monkeypatch.setattr(safetensors.torch, "save", rounded)
    done = run_entry_point(
        "export.py", f"run={run.folder}", "format=safetensors", f"out={tmp_path / 'a.safetensors'}"
    )
    assert done.code == 1
    assert "read back, network.conv1.weight differ" in done.err
    assert not list(tmp_path.iterdir())


def test_a_crash_leaves_no_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def crash(classifier: object, facts: object, path: Path) -> None:
        path.write_text("half a fi")
        raise RuntimeError("crashed")

    monkeypatch.setitem(export.KINDS, "onnx", (".onnx", (), crash))
    with pytest.raises(RuntimeError, match="crashed"):
        export.export(run, run.checkpoint("best"), "onnx", tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "package"),
    [("onnx", "onnx"), ("onnx", "onnxscript"), ("onnx", "onnxruntime"), ("safetensors",) * 2],
)
def test_a_missing_package_is_one_line(
    run: Run, run_entry_point: EntryPoint, monkeypatch: pytest.MonkeyPatch, kind: str, package: str
):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.torch", None)
    done = run_entry_point("export.py", f"run={run.folder}", f"format={kind}")
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert line.startswith(f"error: format={kind} needs {package}")
    assert line.endswith("pip install -e '.[export]'")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"run": "nowhere"}, "nowhere is not a run folder: it does not exist"),
        ({"format": "onxx"}, "format=onxx: expected onnx | safetensors | torch_export"),
        ({"format": None}, "format= is missing: format of the file"),
        ({"ckpt": "nowhere.ckpt"}, "no checkpoint nowhere.ckpt"),
        ({"out": "model.pt"}, "out=model.pt: a file of format=safetensors needs to end with .safetensors"),
        ({"out": f"{__file__}/a.safetensors"}, "a.safetensors cannot be written: "),
        ({"images": "nowhere"}, "images=nowhere does not exist"),
        ({"root": "nowhere"}, "root=nowhere: no such key. Did you mean data.root?"),
    ],
)
def test_a_mistake_ends_with_its_message_and_code_1(
    run: Run, run_entry_point: EntryPoint, changed: dict[str, str | None], message: str
):
    given = {"run": str(run.folder), "format": "safetensors"} | changed
    done = run_entry_point(
        "export.py", *(f"{key}={value}" for key, value in given.items() if value is not None)
    )
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert message in done.err


def test_a_data_root_without_the_data_is_a_mistake(run: Run, run_entry_point: EntryPoint, tmp_path: Path):
    without = moved(run, tmp_path / "moved")
    done = run_entry_point("export.py", f"run={without}", "format=safetensors", f"data.root={tmp_path}")
    assert done.code == 1
    assert "CIFAR10 is not under" in done.err
    assert not (without / "export").exists()
