"""The commands and links of README and docs/ work as written, the trainings at a size for a test."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from experiment.command_line import CONFIG_DIR, check
from experiment.run import Run

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("outputs/*.md")])
DOORS = ("train.py", "evaluate.py", "report.py", "predict.py", "export.py")
ELSEWHERE = ("ray", "submitit", "optuna", "ddp")  # tried in tests of their own, or not to be had everywhere


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]


def calls(page: Path) -> list[list[str]]:
    """The arguments, script first, of every call of a door on a page."""
    return [words[1:] for line in commands(page) if (words := shlex.split(line))[1:2] and words[1] in DOORS]


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
            assert (ROOT / f"{words[2].replace('.', '/')}.py").exists(), line


@pytest.mark.parametrize("arguments", TRAININGS, ids=" ".join)
def test_every_training_starts_as_written(arguments, tmp_path, monkeypatch, run_door):
    """As written it passes the check of the command line; small, on digits, it trains."""
    if any(word.startswith("resume=") for word in arguments):
        return  # below, where there is something to resume
    for word in arguments:
        group, _, option = word.partition("=")
        if group.startswith("hydra/"):
            content = (CONFIG_DIR / group / f"{option}.yaml").read_text()
            pytest.importorskip(re.search(r"_target_: (hydra_plugins\.\w+)", content)[1])
    check(list(arguments))
    if any(name in word for word in arguments for name in ELSEWHERE):
        return
    monkeypatch.chdir(tmp_path)
    own = [re.sub(r"^data=\w+$", "data=mnist_mini", word) for word in arguments]
    small = ["logger=none", "callbacks.figures=null", "trainer.limit_test_batches=1"]
    small += [] if any(word.startswith("trainer=") for word in own) else ["trainer=smoke"]
    if any(word.startswith("experiment=") for word in own):
        small = ["sweep.dry_run=true"] if "-m" in own else ["data=mnist_mini", *small]
    done = run_door("train.py", *own, *small)
    assert done.code in (0, None), done.err


def test_a_run_is_used_as_the_readme_says(tmp_path, monkeypatch, run_door):
    monkeypatch.chdir(tmp_path)
    tiny = ["trainer=smoke", "model.widths=[4,8]", "name=NAME"]
    assert run_door("train.py", *tiny).code in (0, None)
    sweep = ["-m", "trainer=smoke", "model.widths=[4,8]", "seed=0,1", "sweep.name=dropout_digits"]
    assert run_door("train.py", *sweep).code in (0, None)
    (tmp_path / "photos").mkdir()
    Image.new("L", (40, 30), 200).save(tmp_path / "photos" / "one.png")
    used = [call for call in calls(ROOT / "README.md") if any("outputs/" in word for word in call)]
    assert {call[0] for call in used} == {*DOORS}
    for script, *arguments in used:
        done = run_door(script, *arguments)
        assert done.code in (0, None), (script, arguments, done.err)


def test_a_model_and_a_data_set_are_added_as_the_readme_says(tmp_path):
    for room in ("conf", "custom_backend", "experiment", "hydra_plugins", "lightning_modules"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", tmp_path)
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```(?:python|yaml)\n(.*?)```", text, re.DOTALL)
    placed = {
        match[1]: block for block in blocks if (match := re.search(r"# (.*\.(?:py|yaml))$", block, re.M))
    }
    assert len(placed) == 4
    for place, block in placed.items():
        path = tmp_path / place.removeprefix("at the end of ")
        path.write_text((path.read_text() if path.exists() else "") + "\n\n" + block)
    (command,) = re.findall(r"`python (train.py model=tiny [^`]*)`", text)
    done = subprocess.run(
        [sys.executable, *command.split(), "trainer.max_epochs=2", "logger=none", "name=new"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(Run(tmp_path / "outputs" / "new").results["test_acc_per_class"]) == 2
