"""An installed package works from an empty folder; without its packages it says what to do."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from experiment.entry_point import PACKAGES
from experiment.run import Run

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SCRIPTS = [f"{module}.py" for module in PROJECT["tool"]["setuptools"]["py-modules"]]
SOURCES = ("experiment", "hydra_plugins", "lightning_modules", "custom_backend", "benchmarks", "conf")
NO_ENVIRONMENT = {"PATH": os.environ["PATH"]}  # nothing that leads back to the checkout


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, env=NO_ENVIRONMENT, capture_output=True, text=True
    )


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of what is packed: building leaves files behind."""
    copy = tmp_path / "checkout"
    for folder in SOURCES:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*SCRIPTS, "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


def test_an_installed_package_trains_and_sweeps_from_an_empty_folder(checkout, tmp_path):
    """Built as a source distribution, of that a wheel, that installed on top of the tests' own packages."""
    build = (
        "import os, pathlib, shutil; from setuptools import build_meta\n"
        "archive = pathlib.Path('dist', build_meta.build_sdist('dist')).absolute()\n"
        "shutil.unpack_archive(archive); os.chdir(archive.name.removesuffix('.tar.gz'))\n"
        f"build_meta.build_wheel({str(tmp_path)!r})\n"
    )
    built = run(sys.executable, "-c", build, cwd=checkout)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    files = [path.relative_to(checkout) for folder in SOURCES for path in (checkout / folder).rglob("*.*")]
    wanted = {str(path).replace("conf/", "experiment/conf/", path.parts[0] == "conf") for path in files}
    assert {*SCRIPTS, *wanted} - packed == set()

    # a checkout of the user's own: its commit is not the package's
    run("git", "init", "--quiet", cwd=tmp_path)
    author = ("-c", "user.name=me", "-c", "user.email=me@home")
    assert run("git", *author, "commit", "--allow-empty", "-m", "mine", cwd=tmp_path).returncode == 0
    run(sys.executable, "-m", "venv", "--without-pip", "fresh", cwd=tmp_path)
    python = tmp_path / "fresh" / "bin" / "python"
    (site,) = (tmp_path / "fresh").glob("lib/python*/site-packages")
    (site / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib"))
    pip = run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=tmp_path,
    )
    assert pip.returncode == 0, pip.stderr
    shutil.rmtree(checkout)

    empty = tmp_path / "empty"
    empty.mkdir()
    tiny = ["trainer=smoke", "model.widths=[4,8]", "callbacks.figures=null", "logger=none"]
    sweep = run(python.with_name("lic-train"), "-m", *tiny, "seed=0", "sweep.name=seeds", cwd=empty)
    assert sweep.returncode == 0, sweep.stderr
    assert "report with: lic-report" in sweep.stdout
    (outputs,) = empty.iterdir()
    (trained,) = (Run(path.parent) for path in outputs.rglob("results.json"))
    assert trained.status == "finished"
    assert trained.provenance["git"] is None
    evaluated = run(python.with_name("lic-evaluate"), cwd=empty)
    assert evaluated.returncode == 1
    assert "lic-evaluate run=outputs/NAME" in evaluated.stderr


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("environment", [False, True], ids=["nothing installed", "outside of .venv"])
def test_a_script_without_its_packages_says_what_to_do(checkout, script, environment):
    if environment:
        (checkout / ".venv").mkdir()
    done = run(sys.executable, "-S", script, "seed=1", cwd=checkout)
    assert done.returncode == 1
    assert "lacks torch," in done.stderr
    assert ("source .venv/bin/activate" in done.stderr) is environment
    assert ("python -m pip install -e ." in done.stderr) is not environment
    assert f"python {script}" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_packages_looked_for_are_those_that_the_project_depends_on():
    names = [re.match(r"[\w-]+", line)[0] for line in PROJECT["project"]["dependencies"]]
    assert list(PACKAGES.values()) == names
