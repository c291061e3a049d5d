"""Every knob of a run: its type, its range and its meaning; and what is wrong with a configuration.

This table is the only place where a knob is declared. ``conf/`` gives the values, ``--help`` prints both,
and :func:`problems` holds a composed configuration against the table before torch is imported.
"""

import ast
import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiment import metrics
from experiment.errors import UserError
from experiment.signature import Definition, ancestors, definition, qualified

CLASSES = {
    "torch.nn": "torch.nn.Module",
    "torch.optim": "torch.optim.Optimizer",
    "lightning.pytorch.callbacks": "lightning.pytorch.callbacks.Callback",
    "lightning.pytorch.loggers": "lightning.pytorch.loggers.Logger",
    "lightning_modules.data": "lightning.pytorch.LightningDataModule",
}
"""Package → the class from which those derive that a ``_target_`` may name in it."""

FUNCTIONS = ("lightning_modules.networks", "lightning_modules.schedule")
"""Modules of this project whose functions a ``_target_`` may name."""

OPEN_NODES = ("callbacks", "logger")
"""Dictionaries to which a command line may add entries of its own."""


@dataclass(frozen=True)
class Knob:
    """One value that a user can set.

    Args:
        kind: ``"int"``, ``"float"``, ``"bool"``, ``"str"``, ``"path"`` (not empty), ``"name"`` (of a
            folder), ``"list[int]"`` or ``"list[float]"``.
        meaning: one line for ``--help``.
        interval: the allowed numbers as a mathematician writes them, such as ``"[0, 1)"``.
        choices: the allowed strings; empty for any.
        optional: whether ``null`` is allowed.
    """

    kind: str
    meaning: str
    interval: str = "(-inf, inf)"
    choices: tuple[str, ...] = ()
    optional: bool = False

    @property
    def allowed(self) -> str:
        """What may be given, in words: ``a float in [0, 1)``."""
        if self.kind == "name":
            return "a folder's name without '/', at most 200 bytes" + " or null" * self.optional
        if self.choices:
            words = " | ".join(self.choices)
        elif self.interval != "(-inf, inf)":
            words = f"{self.kind} in {self.interval}"
        else:
            words = self.kind
        return f"{words} or null" if self.optional else words

    def accepts(self, value: Any) -> bool:
        """Whether ``value`` has the type and lies in the range."""
        if value is None:
            return self.optional
        if self.kind.startswith("list["):
            element = Knob(self.kind[5:-1], self.meaning, self.interval)
            return isinstance(value, list) and bool(value) and all(element.accepts(item) for item in value)
        if self.kind == "bool":
            return isinstance(value, bool)
        if self.kind in ("path", "name"):
            return isinstance(value, str) and (
                _is_name(value) if self.kind == "name" else bool(value.strip())
            )
        if self.kind == "str":
            return isinstance(value, str) and (not self.choices or value in self.choices)
        numbers = (int,) if self.kind == "int" else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool) and self._contains(value)

    def _contains(self, number: float) -> bool:
        low, high = (float(bound) for bound in self.interval[1:-1].split(","))
        above = low <= number if self.interval[0] == "[" else low < number
        below = number <= high if self.interval[-1] == "]" else number < high
        return above and below and not math.isnan(number)


def _is_name(text: str) -> bool:
    """Whether ``text`` names a folder inside another one: no path, and short enough for what is appended."""
    is_plain = text.isprintable() and text.strip() == text and not set(text) & set("/\\\0")
    return is_plain and text not in ("", ".", "..") and len(text.encode(errors="replace")) <= 200


def _leaves_run_folder(value: object) -> bool:
    """Whether a value of a callback or logger names a place other than one in the run folder."""
    if isinstance(value, Mapping | list):
        return any(map(_leaves_run_folder, value.values() if isinstance(value, Mapping) else value))
    if not isinstance(value, str):
        return False
    path = PureWindowsPath(value)  # takes / and \ for separators
    return bool(path.anchor or ".." in path.parts or re.match(r"~|\w+:", value))


def _positive(kind: str, meaning: str, **options: Any) -> Knob:
    return Knob(kind, meaning, "[1, inf)" if kind.endswith(("int", "int]")) else "(0, inf)", **options)


KNOBS: dict[str, Knob] = {
    "seed": Knob("int", "seed of weights, batch order, augmentation and dropout", "[0, 4294967295]"),
    "name": Knob("name", "name of the run folder; null = model-data-time", optional=True),
    "output_dir": Knob("path", "where run folders go"),
    "resume": Knob("path", "folder of a run to continue from its last checkpoint", optional=True),
    # sweep
    "sweep.name": Knob("name", "name of the sweep's folder; the same name again resumes it"),
    "sweep.dry_run": Knob(
        "bool", "say which jobs a sweep has, which are done and what time is left; no training"
    ),
    "sweep.cases": Knob(
        "list[str]",
        "overrides that go together ('model=mnist data=mnist'), each with all swept",
        optional=True,
    ),
    "sweep.fail_fast": Knob("bool", "start no further job after one has failed"),
    # model
    "model.engine": Knob(
        "str",
        "who computes the layers: torch, or custom_backend on NumPy, CuPy or what fits the device",
        choices=("torch", "auto", "numpy", "cupy"),
    ),
    "model.widths": _positive("list[int]", "output channels of each convolution"),
    "model.pooling": Knob(
        "str", "last pooling before the classifier", choices=("adaptive_avg", "fixed_avg", "fixed_max")
    ),
    "model.dropout": Knob("float", "probability of zeroing an activation in the classifier", "[0, 1)"),
    "model.batch_norm": Knob("bool", "batch normalisation after every convolution"),
    "model.activation": Knob(
        "str", "nonlinearity of every layer", choices=("relu", "leaky_relu", "selu", "sigmoid")
    ),
    "model.init": Knob("str", "initial weights: torch's default or He's normal", choices=("torch", "he")),
    # data
    "data.dataset": Knob("str", "which data set; set by data=…"),
    "data.root": Knob("str", "folder of the data; default: $DATA_ROOT, else data/", optional=True),
    "data.download": Knob("bool", "download the data set if it is not under data.root"),
    "data.batch_size": _positive("int", "images a step and device"),
    "data.val_fraction": Knob("float", "part of the training set kept for validation; 0 = none", "[0, 1)"),
    "data.train_images": _positive(
        "int", "train on so many images only, equally of each class", optional=True
    ),
    "data.augment": Knob("bool", "augment training images as the four knobs below say"),
    "data.crop_padding": Knob("int", "random crop: pixels of padding on each side", "[0, inf)"),
    "data.flip": Knob("float", "probability of a horizontal flip", "[0, 1]"),
    "data.jitter": Knob("float", "brightness, contrast and saturation change by up to this factor", "[0, 1]"),
    "data.rotation": Knob("float", "largest random rotation, in degrees", "[0, 180]"),
    "data.image_size": _positive("int", "resize a folder's images to this many pixels a side", optional=True),
    "data.channels": Knob("int", "channels of a folder's images: 1, 3 or 4", "[1, 4]", optional=True),
    "data.test_fraction": Knob("float", "part of a folder without test/ that becomes the test set", "(0, 1)"),
    "data.background": Knob("str", "colour behind transparent images", choices=("white", "black", "grey")),
    "data.cache": Knob(
        "str", "folder of decoded images; null = beside the images; default: $DATA_CACHE", optional=True
    ),
    "data.on_leak": Knob(
        "str",
        "a test image is also a training image, or one image has two classes: warn, stop, or leave it out",
        choices=("warn", "error", "drop"),
    ),
    # optimizer
    "optimizer.lr": Knob("float", "learning rate", "(0, inf)"),
    "optimizer.weight_decay": Knob("float", "weight decay", "[0, inf)"),
    "optimizer.momentum": Knob("float", "momentum", "[0, 1)"),
    "optimizer.nesterov": Knob("bool", "Nesterov momentum"),
    "optimizer.betas": Knob("list[float]", "decay rates of Adam's two moments", "[0, 1)"),
    "optimizer.eps": Knob("float", "added to Adam's denominator", "(0, inf)"),
    # scheduler
    "scheduler.milestones": Knob("list[float]", "parts of the training after which lr falls", "(0, 1)"),
    "scheduler.gamma": Knob("float", "factor by which lr falls at a milestone", "(0, 1]"),
    "scheduler.final_lr": Knob("float", "learning rate at the end", "[0, inf)"),
    "scheduler.warmup": Knob("float", "part of the training in which lr rises to its peak", "(0, 1)"),
    # loss
    "loss.label_smoothing": Knob("float", "probability mass moved from the target to all classes", "[0, 1)"),
    "loss.alpha": Knob("float", "weight of the focal loss", "(0, inf)"),
    "loss.gamma": Knob("float", "focusing exponent of the focal loss; 0 = cross-entropy", "[0, inf)"),
    # trainer
    "trainer.max_epochs": _positive("int", "epochs to train"),
    "trainer.accelerator": Knob("str", "where to compute", choices=("auto", "cpu", "gpu")),
    "trainer.devices": _positive("int", "devices on each node"),
    "trainer.num_nodes": _positive("int", "nodes of a cluster"),
    "trainer.strategy": Knob("str", "how devices share the work", choices=("auto", "ddp")),
    "trainer.sync_batchnorm": Knob("bool", "normalise over the batches of all devices (GPUs only)"),
    "trainer.precision": Knob(
        "str", "floating-point format", choices=("32-true", "64-true", "bf16-mixed", "16-mixed")
    ),
    "trainer.deterministic": Knob("bool", "only algorithms that give the same bits again on a GPU"),
    "trainer.gradient_clip_val": Knob("float", "largest gradient norm", "(0, inf)", optional=True),
    "trainer.accumulate_grad_batches": _positive("int", "batches whose gradients make one step"),
    "trainer.limit_train_batches": Knob(
        "int", "train on so many batches an epoch", "[1, inf)", optional=True
    ),
    "trainer.limit_val_batches": Knob("int", "validate on so many batches", "[1, inf)", optional=True),
    "trainer.limit_test_batches": Knob("int", "test on so many batches", "[1, inf)", optional=True),
    # callbacks
    "callbacks.checkpoint.monitor": Knob(
        "str", "what the best epoch is best in: val_loss, or val_ with one of the metrics of metrics=…"
    ),
    "callbacks.early_stopping.monitor": Knob("str", "what must improve, as of callbacks.checkpoint.monitor"),
    "callbacks.early_stopping.mode": Knob(
        "str", "which way is better; null = that of the metric", choices=("max", "min"), optional=True
    ),
    "callbacks.interruption.requeue": Knob("bool", "hand a Slurm job back when a signal ended its run"),
    "callbacks.early_stopping.patience": _positive("int", "epochs without improvement before it stops"),
}


def flatten(config: DictConfig | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key → plain value, interpolations resolved; lists are values, empty or null nodes too."""
    plain: Any = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else config
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nearest(name: str, known: Iterable[str]) -> str:
    """``" Did you mean a or b?"`` for the known names most like ``name``; empty if none is."""
    known = list(known)
    # a dotted key may be right but for its group: compare last parts too
    leaf = {key.rpartition(".")[2]: key for key in known}
    matches = difflib.get_close_matches(name, known, n=2, cutoff=0.75 if "." in name else 0.6)
    matches += [
        leaf[hit] for hit in difflib.get_close_matches(name.rpartition(".")[2], leaf, n=2, cutoff=0.75)
    ]
    unique = list(dict.fromkeys(matches))[:3]
    return f" Did you mean {' or '.join(unique)}?" if unique else ""


def refusal(target: str) -> str | None:
    """Why a ``_target_`` is not to be built; None if it may be. Looks at source texts, imports nothing.

    A configuration may come from a stranger. It names kinds of things, not whatever can be called: networks,
    schedules and classes of this project, public classes of torch and Lightning that are a Module, an
    Optimizer, a Callback or a Logger.
    """
    package, _, name = target.rpartition(".")
    if not all(part.isidentifier() and not part.startswith("_") for part in target.split(".")):
        return f"{target!r} is no public name"
    if package.split(".")[0] in os.environ.get("TRUSTED_PACKAGES", "").split(","):
        return None
    is_ours = package.split(".")[0] == "lightning_modules" or package.startswith("experiment.metrics.")
    if package not in CLASSES and not is_ours:
        return f"only classes of {', '.join(CLASSES)} and what lightning_modules/ defines can be built"
    found = definition(target)
    if found is None:
        return f"there is no such thing: {package} has no {name}"
    if isinstance(found.node, ast.FunctionDef):
        is_registered = f"{found.module}.".startswith(tuple(f"{module}." for module in FUNCTIONS))
        if is_registered or is_metric(found):
            return None
        return f"of functions only those of {', '.join(FUNCTIONS)} and metrics can be built"
    bases = [CLASSES[package]] if package in CLASSES else [*CLASSES.values()]
    wanted = {full.name for base in bases if (full := definition(base))}
    is_foreign = is_ours and not found.module.startswith("lightning_modules.")
    if is_foreign or ancestors(target).isdisjoint(wanted):
        return f"it is no {' or '.join(base.rpartition('.')[2] for base in bases)}"
    return None


def is_metric(found: Definition) -> bool:
    """Whether what is defined there is a function with the decorator of a metric."""
    decorators = getattr(found.node, "decorator_list", [])
    calls = [qualified(call.func, found.module) or "" for call in decorators if isinstance(call, ast.Call)]
    names = {full.name for call in calls if (full := definition(call))}
    return "experiment.metrics.table.metric" in names


def problem(key: str, value: object, default: object = None) -> str | None:
    """What is wrong with ``key=value``; ``None`` if nothing is.

    A key that is not declared above (a network or an optimizer of the user's own brings it) must have the
    type of its ``default``.
    """
    if key.endswith("_target_"):
        reason = refusal(str(value))
        return reason and f"{key}={value}: {reason}"
    if key.startswith(("callbacks.", "logger.")) and _leaves_run_folder(value):
        return f"{key}={value}: must lie in the run folder; give a name or a path relative to it"
    if key in KNOBS:
        knob = KNOBS[key]
    elif default is None or isinstance(default, (list, dict)):
        return None
    else:
        knob = Knob(type(default).__name__, "set by its YAML file")
    if knob.accepts(value):
        return None
    given = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
    hint = nearest(str(value), knob.choices) if knob.choices else ""
    return f"{key}={given}: expected {knob.allowed} ({knob.meaning}).{hint}"


def problems(config: DictConfig) -> list[str]:
    """Everything that is wrong with the values of a composed configuration, one line each."""
    wrong = [line for key, value in flatten(config).items() if (line := problem(key, value)) is not None]
    if wrong:
        return wrong
    plain: Any = OmegaConf.to_container(config, resolve=True)
    try:
        return metrics.monitor_problems(plain["callbacks"], chosen_metrics(config))
    except UserError as mistake:
        return [str(mistake)]


def chosen_metrics(config: DictConfig) -> dict[str, metrics.Metric]:
    """Key → row of the metrics of a run.

    Raises:
        UserError: see :func:`experiment.metrics.chosen`.
    """
    node: Any = OmegaConf.to_container(config.metrics, resolve=True) if "metrics" in config else None
    return metrics.chosen(node, refusal)
