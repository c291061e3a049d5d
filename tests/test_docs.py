"""The commands and links of README and docs/ work as written, the trainings at a size for a test."""

import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from experiment.command_line import CONFIG_DIR, check
from experiment.run import Run

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("outputs/*.md")])
ENTRY_POINTS = ("train.py", "evaluate.py", "report.py", "predict.py", "export.py")
# tried in tests of their own, not to be had everywhere, or (bfloat16) twenty times slower on some processors
ELSEWHERE = ("ray", "submitit", "optuna", "halving", "lr_finder", "ddp", "bf16")


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]


def calls(page: Path) -> list[list[str]]:
    """The arguments, script first, of every call of an entry point on a page."""
    return [
        words[1:] for line in commands(page) if (words := shlex.split(line))[1:2] and words[1] in ENTRY_POINTS
    ]


TRAININGS = sorted({tuple(call[1:]) for page in PAGES for call in calls(page) if call[0] == "train.py"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if path.startswith(("https://", "http://")):
            continue
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_and_module_exists(page):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in commands(page):
        words = shlex.split(line)
        if words[0] == "make":
            assert words[1] in targets, line
        if words[:2] == ["python", "-m"] and words[2].startswith("benchmarks"):
            module = ROOT / words[2].replace(".", "/")
            assert module.with_suffix(".py").exists() or (module / "__main__.py").exists(), line


@pytest.mark.parametrize("arguments", TRAININGS, ids=" ".join)
def test_every_training_starts_as_written(arguments, tmp_path, monkeypatch, run_entry_point):
    """As written it passes the check of the command line; small, on digits, it trains."""
    if any(word.startswith("resume=") for word in arguments):
        return  # below, where there is something to resume
    for word in arguments:
        group, _, option = word.partition("=")
        if group.startswith("hydra/"):
            content = (CONFIG_DIR / group / f"{option}.yaml").read_text()
            for package in re.findall(r"hydra_plugins\.\w+", content):
                pytest.importorskip(package)
    with monkeypatch.context() as cluster:
        cluster.setattr("shutil.which", lambda name: name)  # there is a srun
        check(list(arguments))
    if any(name in word for word in arguments for name in ELSEWHERE):
        return
    monkeypatch.chdir(tmp_path)
    own = [re.sub(r"^data=\w+$", "data=mnist_mini", word) for word in arguments]
    small = ["logger=none", "callbacks.figures=null", "trainer.limit_test_batches=1"]
    small += [] if any(word.startswith("trainer=") for word in own) else ["trainer=smoke"]
    if any(word.startswith("experiment=") for word in own):
        small = ["sweep.dry_run=true"] if "-m" in own else ["data=mnist_mini", *small]
    done = run_entry_point("train.py", *own, *small)
    assert done.code in (0, None), done.err


def test_a_mistake_is_answered_as_written(run_entry_point):
    (shown,) = re.findall(
        r"```console\n\$ python (train.py .*)\n(error: .*)\n```", (ROOT / "README.md").read_text()
    )
    done = run_entry_point(*shown[0].split())
    assert (done.code, done.err) == (1, f"{shown[1]}\n")


def test_a_run_is_used_as_the_readme_says(tmp_path, monkeypatch, run_entry_point):
    monkeypatch.chdir(tmp_path)
    tiny = ["trainer=smoke", "model.widths=[4,8]", "name=NAME"]
    assert run_entry_point("train.py", *tiny).code in (0, None)
    sweep = ["-m", "trainer=smoke", "model.widths=[4,8]", "seed=0,1", "sweep.name=dropout_digits"]
    assert run_entry_point("train.py", *sweep).code in (0, None)
    (tmp_path / "photos").mkdir()
    Image.new("L", (40, 30), 200).save(tmp_path / "photos" / "one.png")
    used = [call for call in calls(ROOT / "README.md") if any("outputs/" in word for word in call)]
    assert {call[0] for call in used} == {*ENTRY_POINTS}
    for script, *arguments in used:
        done = run_entry_point(script, *arguments)
        assert done.code in (0, None), (script, arguments, done.err)


def blocks_with_a_place(text: str) -> dict[str, str]:
    """The Python and YAML blocks of a page that say which file they are."""
    blocks = re.findall(r"```(?:python|yaml)\n(.*?)```", text, re.DOTALL)
    return {match[1]: block for block in blocks if (match := re.search(r"# (.*\.(?:py|yaml))$", block, re.M))}


@pytest.fixture
def copy_of_checkout(tmp_path) -> Path:
    """A copy to which the README's tutorial has been applied."""
    for folder in ("conf", "custom_backend", "experiment", "hydra_plugins", "lightning_modules", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for place, block in blocks_with_a_place((ROOT / "README.md").read_text()).items():
        path = tmp_path / place.removeprefix("at the end of ")
        if path.stem != "mine":
            path.write_text((path.read_text() if path.exists() else "") + "\n\n" + block)
    return tmp_path


def test_a_model_and_a_data_set_are_added_as_the_readme_says(copy_of_checkout):
    (command,) = re.findall(r"`python (train.py model=tiny [^`]*)`", (ROOT / "README.md").read_text())
    done = subprocess.run(
        [sys.executable, *command.split(), "logger=none", "name=new"],
        cwd=copy_of_checkout, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = Run(copy_of_checkout / "outputs" / "new").results
    assert len(results["test_acc_per_class"]) == 2
    assert results["test_acc"] > 0.95


def test_the_tests_pick_up_what_the_readme_adds_and_pass(copy_of_checkout):
    picked = ["tests/experiment/test_schema.py", "tests/lightning_modules/test_networks.py"]
    picked += ["tests/lightning_modules/test_training.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-q", "-k", "tiny or stripes or test_schema", *picked],
        cwd=copy_of_checkout, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


def test_a_model_outside_of_the_checkout_works_as_the_readme_says(tmp_path, monkeypatch, run_entry_point):
    text = (ROOT / "README.md").read_text()
    placed = blocks_with_a_place(text)
    (command,) = re.findall(r"`TRUSTED_PACKAGES=mine lic-train ([^`]*)`", text)
    for path, place in (
        ("mine/networks.py", "lightning_modules/networks/tiny.py"),
        ("conf/model/mine.yaml",) * 2,
    ):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(placed[place])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("TRUSTED_PACKAGES", "mine")
    small = ["trainer=smoke", "logger=none", "callbacks.figures=null", "name=mine"]
    done = run_entry_point("train.py", *command.split(), *small)
    assert done.code in (0, None), done.err
    assert Run(tmp_path / "outputs" / "mine").results["parameters"] == 16 * 9 + 16 + 16 * 10 + 10


def test_the_ten_lines_of_a_library_run_in_one_process_and_leave_it_as_it_was(tmp_path, monkeypatch, capsys):
    (script,) = re.findall(
        r"```python\n(from lightning_modules .*?)```", (ROOT / "README.md").read_text(), re.S
    )
    assert len([line for line in script.splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    script = script.replace('"trainer.max_epochs=2"', '"trainer=smoke", "model.widths=[4,8]"')
    numbers = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]

    def state() -> tuple[object, ...]:
        root = logging.getLogger()
        return root.handlers[:], root.level, [signal.getsignal(n) for n in numbers], Path.cwd(), sys.argv[:]

    before = state()
    exec(script, found := {})
    assert [run.status for run in found["runs"]] == ["finished"] * 2
    assert found["classifier"](torch.zeros(3, 1, 28, 28)).shape == (3, 10)
    assert "notebook-1" in capsys.readouterr().out
    assert state() == before
    assert "EXPERIMENT_RUN_FOLDER" not in os.environ


def test_the_library_is_imported_without_torch_and_names_mistakes():
    spy = (
        "import sys, lightning_modules as library\n"
        "try: library.compose('modle=mnist')\n"
        "except library.UserError as error: print(error)\n"
        "print({'torch', 'lightning'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", spy], cwd=ROOT, capture_output=True, text=True)
    assert "Did you mean model" in done.stdout
    assert done.stdout.endswith("set()\n"), done.stderr
