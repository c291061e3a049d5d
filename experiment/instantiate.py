"""From a configuration to objects; the only place that turns a dotted name into what it names."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiment.allowed import refusal
from experiment.errors import UserError
from experiment.metrics import Metric
from experiment.metrics.acc import acc


def instantiate(node: DictConfig | Mapping[str, Any], *args: Any, **extra: Any) -> Any:
    """Call ``node._target_`` with ``args``, the other keys of ``node`` and ``extra``, which wins.

    A value that has a ``_target_`` itself is built first. With ``_partial_: true`` nothing is called yet:
    what comes back takes the arguments that are left.

    Raises:
        UserError: if a target is refused (see :func:`refusal`) or does not take these keys or values.
    """
    plain: Any = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
    options = {str(key): _built(value) for key, value in plain.items()} | extra
    name, is_partial = str(options.pop("_target_")), options.pop("_partial_", False)
    target = load(name)
    if is_partial:
        return partial(target, *args, **options)
    try:
        inspect.signature(target).bind(*args, **options)
    except TypeError as mismatch:
        raise UserError(f"{name} cannot be built from {options}: {mismatch}") from mismatch
    try:
        return target(*args, **options)
    except ValueError as refused:
        raise UserError(f"{name} cannot be built from {options}: {refused}") from refused


def load(name: str) -> Callable[..., Any]:
    """What a dotted name stands for.

    Raises:
        UserError: if it is refused (see :func:`refusal`) or cannot be imported.
    """
    if reason := refusal(name):
        raise UserError(f"_target_={name}: {reason}")
    module, _, attribute = name.rpartition(".")
    try:
        found: Callable[..., Any] = getattr(import_module(module), attribute)
    except Exception as failure:  # whatever a package of the user's own does when it is imported
        raise UserError(f"_target_={name}: {type(failure).__name__}: {failure}") from failure
    return found


def chosen_metrics(config: DictConfig) -> dict[str, Metric]:
    """Key → row of the metrics of a run, the options of each bound; of before there was a choice, accuracy.

    Raises:
        UserError: for a name that is not allowed, does not exist or is no metric, or has other options.
    """
    if "metrics" not in config:
        return {acc.key: acc}
    node: Any = OmegaConf.to_container(config.metrics, resolve=True)
    return {str(name): _metric(str(name), dict(spec)) for name, spec in node.items() if spec}


def _metric(name: str, options: dict[str, Any]) -> Metric:
    where = f"metrics.{name}"
    try:
        target = str(options.pop("_target_", ""))
        row: Any = load(target)
        if not isinstance(row, Metric) or row.function is None:
            raise UserError(f"{target} is no metric: decorate its function with experiment.metrics.metric")
        inspect.signature(row.function).bind(None, None, **options)
    except (UserError, TypeError) as mistake:
        raise UserError(f"{where}: {mistake}") from mistake
    if row.key != name:
        raise UserError(f"{where}: the key of {target} is {row.key}: write metrics.{row.key}")
    return replace(row, function=partial(row.function, **options)) if options else row


def _built(value: Any) -> Any:
    if isinstance(value, Mapping):
        return instantiate(value) if "_target_" in value else {k: _built(v) for k, v in value.items()}
    return [_built(item) for item in value] if isinstance(value, list) else value
