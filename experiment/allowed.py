"""Which dotted names a configuration may build. Looks at source texts, imports nothing."""

import ast
import sys
from importlib.util import find_spec
from pathlib import Path

from experiment.entry_point import TRUSTED_PACKAGES, invocation, trusted_packages
from experiment.knob import nearest
from experiment.signature import Definition, ancestors, definition, names_of, qualified

CLASSES = {
    "torch.nn": "torch.nn.Module",
    "torch.optim": "torch.optim.Optimizer",
    "lightning.pytorch.callbacks": "lightning.pytorch.callbacks.Callback",
    "lightning.pytorch.loggers": "lightning.pytorch.loggers.Logger",
    "lightning_modules.data": "lightning.pytorch.LightningDataModule",
}
"""Package → the class from which those derive that a ``_target_`` may name in it."""

UNSUITABLE = {
    "StochasticWeightAveraging": "the test would not use its weights; EMAWeightAveraging's are tested",
    "BatchSizeFinder": "the size of a batch is part of what a run is; try data.batch_size=…",
    "LearningRateFinder": "it looks for a model.lr; ours is exact on resume: callbacks=lr_finder",
    "ModelPruning": "it renames the weights, and no checkpoint could be read again",
    "BaseFinetuning": "it needs a network of a backbone and a head",
    "OnExceptionCheckpoint": "checkpoints/last.ckpt is written anyway",
    "ThroughputMonitor": "it takes a function; metrics.csv has images a second",
}
"""Class of lightning.pytorch.callbacks → why it, and what derives from it, cannot work here."""

FUNCTIONS = ("lightning_modules.networks", "lightning_modules.schedule")
"""Modules of this project whose functions a ``_target_`` may name."""


def refusal(target: str) -> str | None:
    """Why a ``_target_`` is not to be built; None if it may be.

    A configuration may come from a stranger. It names kinds of things, not whatever can be called: networks,
    schedules and classes of this project, public classes of torch and Lightning that are a Module, an
    Optimizer, a Callback or a Logger, and what a package provides that the user trusts.
    """
    package, _, name = target.rpartition(".")
    if not all(part.isidentifier() and not part.startswith("_") for part in target.split(".")):
        return f"{target!r} is no public name"
    root = package.partition(".")[0]
    own = ("lightning_modules", *trusted_packages())
    if package not in CLASSES and root not in own and not package.startswith("experiment.metrics."):
        if not root or root in (*sys.stdlib_module_names, "torch", "lightning", "experiment"):
            return f"only classes of {', '.join(CLASSES)} and what lightning_modules/ defines can be built"
        command = Path(sys.argv[0]).stem.removeprefix("lic-")
        call = invocation(command if command in ("evaluate", "predict", "export") else "train")
        named = f"{TRUSTED_PACKAGES}={','.join([*own[1:], root])} {call} …"
        return f"{root} is not a package that is trusted here. If you trust its code: {named}"
    found = definition(target)
    if found is None:
        there = names_of(package)
        if there is not None:
            return f"there is no such thing: {package} has no {name}.{nearest(name, there)}"
        if find_spec(root) is not None:
            return f"there is no such thing: no module {package}"
        places = "looked for in this folder, in PYTHONPATH and among what is installed"
        return f"there is no such thing: no package {root}, {places}"
    home = found.module.partition(".")[0]
    if isinstance(found.node, ast.FunctionDef):
        is_registered = f"{found.module}.".startswith(tuple(f"{module}." for module in FUNCTIONS))
        if is_registered or home in own[1:] or is_metric(found):
            return None
        return f"of functions only those of {', '.join(FUNCTIONS)} and metrics can be built"
    bases = [CLASSES[package]] if package in CLASSES else [*CLASSES.values()]
    wanted = {full.name for base in bases if (full := definition(base))}
    is_of_kind = not ancestors(target).isdisjoint(wanted) and (package in CLASSES or home in own)
    for unsuitable, reason in UNSUITABLE.items():
        full = definition(f"lightning.pytorch.callbacks.{unsuitable}")
        if full and full.name in ancestors(target):
            return f"it cannot work here: {reason}"
    if is_of_kind or (isinstance(found.node, ast.ClassDef) and home in own[1:]):
        return None
    return f"it is no {' or '.join(base.rpartition('.')[2] for base in bases)}"


def is_metric(found: Definition) -> bool:
    """Whether what is defined there is a function with the decorator of a metric."""
    decorators = getattr(found.node, "decorator_list", [])
    calls = [qualified(call.func, found.module) or "" for call in decorators if isinstance(call, ast.Call)]
    names = {full.name for call in calls if (full := definition(call))}
    return "experiment.metrics.table.metric" in names
