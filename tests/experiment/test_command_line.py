"""The command line as users call it: help, mistakes and their messages, before torch is imported."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from experiment.command_line import CONFIG_DIR, assignments, check
from experiment.config import options
from experiment.errors import UserError
from experiment.help import GROUPS, help_text
from experiment.schema import Knob

ROOT = Path(__file__).parents[2]
MISTAKES = {
    "model=enhnced": ["model=enhnced", "Did you mean enhanced?", "baseline, custom, enhanced, "],
    "model.droput=0.2": ["model.droput=0.2: no such key", "Did you mean model.dropout=0.2?"],
    "+model.droput=0.2": ["no such key", "model.dropout"],
    "++model.droput=0.2": ["no such key", "model.dropout"],
    "~model.droput": ["no such key", "model.dropout"],
    "label_smoothing=0.1": ["Did you mean loss.label_smoothing=0.1?"],
    "model.dropout=1.5": ["model.dropout=1.5", "float in [0, 1)"],
    "trainer.max_epochs=-1": ["trainer.max_epochs=-1", "int in [1, inf)"],
    "model.pooling=max": ["adaptive_avg | fixed_avg | fixed_max"],
    "seed=one": ["seed=one", "int in"],
    "optimizer.momentum=0.9": ["no such key. optimizer has: "],
    "model.dropout=0,0.5": ["several values are a sweep: add -m"],
    "+callbacks.mine._target_=os.system": ["only classes of torch.nn"],
    "callbacks.figures.colour=red": ["no such key"],
    "model.dropout": ["model.dropout"],
    "model=null": ["no such option"],
    "model=3": ["no such option"],
    "-m model=mnist,enhanced model.dropout=0,1": ["model.dropout=1"],
    "-m model=mnist,enhnced": ["model=enhnced"],
    "-m seed=range(3) model.dropout=choice(0.1,2)": ["model.dropout=2"],
}  # fmt: skip


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_named_with_what_is_allowed(arguments):
    with pytest.raises(UserError) as error:
        check(arguments.split())
    for part in MISTAKES[arguments]:
        assert part in str(error.value)


def test_all_mistakes_are_reported_at_once():
    with pytest.raises(UserError, match=r"(?s)seed=-1.*model\.dropout=2"):
        check(["model.dropout=2", "seed=-1"])


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "model=enhanced data=cifar10 optimizer=sgd optimizer.momentum=0.8",
        "-m model=mnist,enhanced model.dropout=0,0.3 seed=range(3)",
        "callbacks.figures=null ~callbacks.history",
        "callbacks=early_stopping callbacks.early_stopping.patience=3",
        "+callbacks.timer._target_=lightning.pytorch.callbacks.Timer",
        "model.widths=[8,16] optimizer.betas=[0.8,0.9]",
        "experiment=cifar10_quick",
        "-m seed=0,1 hydra/launcher=joblib +hydra.launcher.verbose=1",
    ],
)
def test_what_is_right_passes(arguments):
    check(arguments.split())


GLOBAL = "# @package _global_\n"
OWN_FILES = {  # file: content, what else is given, what the message says
    "experiment/mine.yaml": [
        (GLOBAL + "seeds: 5\n", ["seeds: no such key. Did you mean seed?"]),
        (GLOBAL + "optimiser: {lr: 0.1}\n", ["optimiser.lr: no such key. Did you mean optimizer.lr"]),
        (GLOBAL + "model: {drpout: 0.1}\n", ["model.drpout: no such key. Did you mean model.dropout?"]),
        (GLOBAL + "model.drpout: 0.1\n", ["model.drpout: no such key. Did you mean model.dropout?"]),
        ("model: {dropout: 0.1}\n", ["experiment.model.dropout: no such key", "# @package _global_"]),
        (GLOBAL + "model: {dropout: 2}\n", ["model.dropout=2: expected float in [0, 1)"]),
        (GLOBAL + "trainer: {plugins: x}\n", ["trainer.plugins: no such key"]),
        (GLOBAL + "trainer: null\n", ["trainer.max_epochs is missing"]),
        (GLOBAL + "data: 5\n", ["data=5: data is a group of keys"]),
        (GLOBAL + "sweep: {case: [a]}\n", ["sweep.case: no such key. Did you mean sweep.cases"]),
        (GLOBAL + "callbacks: {figures: {sample: 1}}\n", ["Did you mean callbacks.figures.samples?"]),
        (GLOBAL + "logger: {tensorboard: {name: ../up}}\n", ["must lie in the run folder"]),
    ],
    "optimizer/mine.yaml": [
        ("_target_: torch.optim.RMSprop\nlr: 0.1\nalfa: 0.9\n", ["Did you mean optimizer.alpha?"]),
        ("_target_: torch.optim.RMSprop\nlr: high\n", ["optimizer.lr=high: expected float"]),
        ("optimizer: {_target_: torch.optim.SGD, lr: 0.1}\n", ["needs a _target_"]),
        ("lr: 0.1\n", ["optimizer needs a _target_"]),
    ],
    "model/mine.yaml": [
        ("_target_: lightning_modules.networks.mnist.mnist\nwidths: [4]\n", ["model.dropout is missing"]),
        ("model: {_target_: lightning_modules.networks.mnist.mnist}\n", ["@package _global_"]),
    ],
    "data/mine.yaml": [("dataset: cifar10\n", ["data.crop_padding is missing"])],
    "trainer/mine.yaml": [("max_epochs: 1\n", ["trainer.devices is missing"])],
    "callbacks/mine.yaml": [("history: true\n", ["callbacks.history=true: expected null or keys"])],
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "content", "parts"), [(path, *case) for path, cases in OWN_FILES.items() for case in cases]
)
def test_a_file_of_the_user_s_own_is_checked_whole_and_named(path, content, parts, tmp_path):
    file = tmp_path / path
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(UserError) as error:
        check(["--config-dir", str(tmp_path), f"{file.parent.name}=mine"])
    for part in [str(file), *parts]:
        assert part in str(error.value)


def test_a_class_of_torch_brings_its_keys(tmp_path):
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "mine.yaml").write_text("_target_: torch.optim.RMSprop\nlr: 0.1\nalpha: 0.9\n")
    start = ["--config-dir", str(tmp_path), "optimizer=mine"]
    assert check([*start, "optimizer.alpha=0.5"])[-1] == "optimizer.alpha=0.5"
    assert check([*start, "optimizer.centered=true"])[-1] == "++optimizer.centered=true"  # not in the file
    with pytest.raises(UserError, match="expected float"):
        check([*start, "optimizer.alpha=high"])


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["model.droput=1"]])
def test_answers_come_without_torch(arguments):
    spy = (
        "import sys, runpy\n"
        f"sys.argv = ['train.py', *{arguments}]\n"
        "try:\n"
        "    runpy.run_path('train.py', run_name='__main__')\n"
        "except SystemExit as exit:\n"
        "    print('code', exit.code)\n"
        "print('heavy', sorted({'torch', 'lightning', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", spy], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("heavy []\n")
    assert ("code 1" in done.stdout) == (arguments == ["model.droput=1"])
    if arguments == ["--help"]:
        for part in (
            "adam* | adamw | custom_adam | fast_muon | lion | muon | sam | sgd",
            "model.dropout=0.3",
            "float in [0, 1)",
            "data.root",
        ):
            assert part in done.stdout
    if arguments == ["--cfg", "job"]:
        assert "label_smoothing: 0.0" in done.stdout


@pytest.mark.parametrize("group", GROUPS)
def test_help_says_of_each_option_what_it_is_in_two_lines_at_most(group):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        composed = compose("train", return_hydra_config=True)
    shown = help_text(composed, [group], is_full=True).split("\n\n")[1].splitlines()
    texts = re.split(r"\n    (?=\S)", "\n".join(shown[1:]))[1:]
    assert len(texts) == len(options(composed, group))
    for text in texts:
        assert re.match(r"[\w*]+  +\S", text)
        assert len(text.splitlines()) <= 2
        assert max(map(len, text.splitlines())) <= 100


def test_help_lists_our_own_knobs_of_foreign_classes_with_their_meaning(capsys):
    with pytest.raises(SystemExit):
        check(["help=optimizer"])
    assert "learning rate of norms and biases" in capsys.readouterr().out


KNOBS = {"run": Knob("str", "a run"), "ckpt": Knob("str", "a checkpoint", optional=True)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["rum=x"], "Did you mean run?"), ([], "run= is missing: a run"), (["run"], "expected key=value")],
)
def test_assignments_name_the_mistake(arguments, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        assignments(arguments, KNOBS, "usage")


def test_assignments():
    assert assignments(["run=a=b"], KNOBS, "usage") == {"run": "a=b", "ckpt": None}


def test_a_launcher_that_is_not_installed_is_told_with_its_extra(monkeypatch):
    monkeypatch.setattr("experiment.plugins.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"hydra/launcher=ray: it is not installed: .*'.\[cluster\]'"):
        check(["-m", "seed=0,1", "hydra/launcher=ray"])
    with pytest.raises(UserError, match=r"'.\[hpo\]'"):
        check(["-m", "hydra/sweeper=optuna"])
