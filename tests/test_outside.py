"""A package and a configuration folder of the user's own, outside the checkout."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from experiment import signature
from experiment.command_line import CONFIG_DIR, check
from experiment.config import choices
from experiment.errors import UserError
from experiment.run import Run

PARTS = '''
from typing import Annotated, Literal

import torch
from lightning.pytorch import Callback
from torch.optim.lr_scheduler import LambdaLR

from experiment.metrics import metric
from lightning_modules.data.image_set import ImageSet, hold_out_test


def build(
    nn, image_shape, num_classes,
    width: Annotated[int, "[1, inf)", "channels of the convolution"],
    pooling: Literal["avg", "max"] = "avg",
    head=torch.nn.Linear,
):
    """A network.

    Args:
        pooling: before the classifier.
    """
    pool = nn.AdaptiveAvgPool2d(1) if pooling == "avg" else torch.nn.AdaptiveMaxPool2d(1)
    convolution = nn.Conv2d(image_shape[0], width, 3, padding=1)
    return nn.Sequential(convolution, nn.ReLU(), pool, nn.Flatten(), head(width, num_classes))


def dots() -> ImageSet:
    images = torch.arange(200).reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8).byte().clone()
    return hold_out_test(("dark", "bright"), images, (torch.arange(200) >= 100).long(), fraction=0.2)


class Scaled(torch.nn.Module):
    """Another loss, scaled.

    Args:
        base: the other loss.
        factor: of scale, in (0, inf).
    """

    def __init__(self, base: torch.nn.Module, factor: float = 1.0) -> None:
        super().__init__()
        self.base, self.factor = base, factor

    def forward(self, logits, labels):
        return self.factor * self.base(logits, labels)


class Heavy(torch.optim.SGD):
    def __init__(self, params, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr, momentum=0.9)


def flat(optimizer, total_steps):
    return LambdaLR(optimizer, lambda step: 1.0)


class Say(Callback):
    def __init__(self, word: str = "hello") -> None:
        self.word = word

    def on_train_start(self, trainer, pl_module) -> None:
        print("says", self.word)


@metric("error", "error", better="lower")
def error(logits, labels):
    return float((logits.argmax(axis=1) != labels).mean())
'''
FILES = {
    "own/__init__.py": "",
    "own/parts.py": PARTS,
    "conf/model/own.yaml": "# @package _global_\n# A network of mine.\nmodel:\n  _target_: own.parts.build\n"
    "  width: 4\ntrainer:\n  max_epochs: 1\n",
    "conf/data/dots.yaml": "dataset: own.parts.dots\n"
    "crop_padding: 0\nflip: 0.5\njitter: 0.0\nrotation: 0.0\n",
    "conf/loss/scaled.yaml": "_target_: own.parts.Scaled\nbase:\n  _target_: torch.nn.CrossEntropyLoss\n",
    "conf/optimizer/heavy.yaml": "_target_: own.parts.Heavy\nlr: 0.1\n",
    "conf/scheduler/flat.yaml": "_target_: own.parts.flat\n",
    "conf/metrics/error.yaml": "error:\n  _target_: own.parts.error\n",
    "conf/experiment/widths.yaml": "# @package _global_\n# Does the width matter?\ndefaults:\n"
    "  - override /model: own\n  - override /trainer: smoke\n  - override /hydra/launcher: basic\n"
    "trainer:\n  max_epochs: 7\n  gradient_clip_val: 1.5\nsweep:\n  name: widths\n  claims:\n"
    "    - {text: It does., metric: test_acc, contrasts: [{model.width=2: 1, model.width=3: -1}]}\n"
    "hydra:\n  sweeper:\n    params: {model.width: '2,3', seed: '0,1,2'}\n",
    "conf/callbacks/say.yaml": "defaults: [default]\nsay:\n  _target_: own.parts.Say\n",
}  # fmt: skip
ALL = ["model=own", "data=dots", "loss=scaled", "optimizer=heavy", "scheduler=flat", "callbacks=say"]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which the package and the configurations lie."""
    folder = tmp_path_factory.mktemp("outside")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    yield folder
    for name in ("own", "own.parts"):
        sys.modules.pop(name, None)
    cached = (
        signature.definition,
        signature.ancestors,
        signature.signature,
        signature.names_of,
        signature._spec,
        signature._read,
    )
    for function in cached:
        function.cache_clear()


@pytest.fixture
def outside(package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(package)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("TRUSTED_PACKAGES", "own")
    return package


def test_all_of_one_s_own_is_trained_evaluated_and_swept(outside, run_entry_point, monkeypatch):
    small = ["callbacks.figures=null", "logger=none", "metrics=[acc,error]", "data.on_leak=drop"]
    nested = "model.head={_target_:torch.nn.Linear,_partial_:true,bias:false}"
    start = ["--config-dir", "conf", *ALL, *small]
    done = run_entry_point("train.py", *start, "callbacks.say.word=so", "loss.factor=2", nested, "name=run")
    assert done.code == 0, done.err
    assert "says so" in done.out
    run = Run.open(outside / "outputs" / "run")
    assert run.results["parameters"] == 4 * 9 + 4 + 4 * 2
    assert run.results["test_error"] == pytest.approx(1 - run.results["test_acc"])
    assert run.provenance["trusted_packages"] == ["own"]
    assert run_entry_point("evaluate.py", "run=outputs/run").code == 0
    done = run_entry_point("train.py", *start, "-m", "model.width=2,3", "sweep.name=widths")
    assert done.code == 0, done.err
    jobs = {path.parent.name.rpartition("-")[0] for path in outside.glob("outputs/widths/*/results.json")}
    assert jobs == {"model.width-2", "model.width-3"}
    # the folder says what it needs, and cannot trust on anyone's behalf
    monkeypatch.delenv("TRUSTED_PACKAGES")
    done = run_entry_point("evaluate.py", "run=outputs/run")
    assert done.code == 1
    assert "model._target_=own.parts.build" in done.err
    assert "TRUSTED_PACKAGES=own" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("model=own model.widht=3", "no such key. Did you mean model.width=3?"),
        ("model=own model.width=0", "expected int in [1, inf) (channels of the convolution)"),
        ("model=own model.pooling=mox", "expected avg | max (before the classifier). Did you mean max?"),
        ("model=own ~model.width", "a run needs it"),
        ("loss=scaled loss.factor=-1", "expected float in (0, inf) (of scale)"),
        ("loss=scaled ~loss.base", "a run needs it"),
        ("loss=scaled loss.base._target_=os.system", "loss.base._target_=os.system"),
        ("loss=scaled loss.base._target_=own.parts.torch.load", "no such thing"),
        ("loss=scaled loss.base.smoothing=0.1", "Did you mean loss.base.label_smoothing?"),
        ("model=own model._target_=own.parts.biuld", "own.parts has no biuld. Did you mean build?"),
        ("model=own model._target_=own.prats.build", "no module own.prats"),
        ("callbacks=say callbacks.say.wrod=x", "Did you mean callbacks.say.word=x?"),
        ("data=dots data.dataset=own.parts.dits", "own.parts has no dits"),
        ("metrics=[acc,err]", "Did you mean error?"),
        ("callbacks.checkpoint.monitor=val_error", "choose val_acc or val_loss"),
    ],
)
def test_its_mistakes_are_named_like_those_of_the_project(outside, arguments, message, monkeypatch):
    monkeypatch.syspath_prepend(outside)
    with pytest.raises(UserError) as error:
        check(["--config-dir", "conf", *arguments.split()])
    assert message in str(error.value)


def test_an_experiment_of_one_s_own_chooses_trainer_and_launcher(outside):
    def composed(*overrides: str) -> DictConfig:
        path = f"hydra.searchpath=[file://{outside}/conf]"
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            return compose("train", [path, "experiment=widths", *overrides], return_hydra_config=True)

    config, full = composed(), composed("trainer=cpu")
    assert config.hydra.runtime.choices["hydra/launcher"] == "basic"
    assert (config.trainer.limit_train_batches, config.trainer.max_epochs) == (2, 1)
    assert (full.trainer.limit_train_batches, full.trainer.max_epochs) == (None, 7)
    assert config.trainer.gradient_clip_val == 1.5
    assert choices(full.hydra)["trainer"] == "cpu"
    assert not any("/" in group for group in choices(full.hydra))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("/trainer: smoke", "/trainer: smoek", "names trainer=smoek: no such option. Did you mean smoke?"),
        (
            "/trainer: smoke",
            "/trianer: smoke",
            "wrong.yaml: override trianer: there is no such group. Did you",
        ),
        ("# @package _global_", "#", "wrong.yaml: its first line must be: # @package _global_"),
        ("claims:", "claim:", "wrong.yaml: sweep.claim: no such key. Did you mean sweep.claims?"),
        ("max_epochs: 7", "max_epohcs: 7", "wrong.yaml: trainer.max_epohcs: no such key"),
        ("test_acc", "test_ac", "no metric test_ac. Did you mean test_acc?"),
        ("model.width=3: -1", "model.widht=3: -1", "no job has model.widht=3. Did you mean model.width=3?"),
        ("[{model.width=2: 1, model.width=3: -1}]", "[[a, b]]", "contrasts is a list of comparisons such as"),
    ],
)
def test_a_mistake_in_an_experiment_is_named_before_any_job(outside, run_entry_point, old, new, message):
    content = FILES["conf/experiment/widths.yaml"].replace(old, new)
    (outside / "conf" / "experiment" / "wrong.yaml").write_text(content)
    done = run_entry_point("train.py", "--config-dir=conf", "-m", "experiment=wrong", "sweep.dry_run=true")
    assert done.code == 1
    assert message in done.err
    assert len(done.err.splitlines()) <= 2


def test_help_lists_its_knobs(outside, capsys, monkeypatch):
    monkeypatch.syspath_prepend(outside)
    with pytest.raises(SystemExit):
        check(["--config-dir", "conf", "help=model", "model=own"])
    text = capsys.readouterr().out
    for part in (
        "own*",
        "A network of mine",
        "model.width=4",
        "channels of the convolution",
        "model.pooling=avg",
    ):
        assert part in text


def test_without_trust_the_message_says_what_to_do(outside, monkeypatch):
    monkeypatch.delenv("TRUSTED_PACKAGES")
    with pytest.raises(
        UserError, match=r"(?s)own.yaml: model._target_=own.*TRUSTED_PACKAGES=own python train.py"
    ):
        check(["--config-dir", "conf", "model=own"])


def test_a_trusted_package_is_not_a_way_to_others(outside, monkeypatch):
    monkeypatch.syspath_prepend(outside)
    (outside / "own" / "more.py").write_text("from shutil import rmtree as system\nfrom torch import load\n")
    for name in ("system", "load"):
        with pytest.raises(
            UserError, match=r"loss\._target_=own\.more\.(system: there is no such|load: of func|load: it is)"
        ):
            check(["--config-dir", "conf", f"loss._target_=own.more.{name}"])
