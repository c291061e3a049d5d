"""Which metrics a configuration chooses under ``metrics``, and what of them may be monitored."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

from experiment.errors import UserError
from experiment.metrics.acc import acc
from experiment.metrics.table import TABLE, Metric

Node = Mapping[str, Any] | None


def chosen(node: Node, refusal: Callable[[str], str | None]) -> dict[str, Metric]:
    """Key → row of the metrics of a configuration's ``metrics`` node, the options of each bound.

    A run of before there was a choice has none: its metric is accuracy.

    Args:
        node: key → ``_target_``, the dotted name of a metric, and options of its function.
        refusal: why a dotted name may not be imported; None if it may.

    Raises:
        UserError: for a name that is not allowed, does not exist or is no metric, or has other options.
    """
    if node is None:
        return {acc.key: acc}
    return {str(name): _row(str(name), dict(spec), refusal) for name, spec in node.items() if spec}


def _row(name: str, options: dict[str, Any], refusal: Callable[[str], str | None]) -> Metric:
    target = str(options.pop("_target_", ""))
    where = f"metrics.{name}._target_={target}"
    if reason := refusal(target):
        raise UserError(f"{where}: {reason}")
    module, _, attribute = target.rpartition(".")
    try:
        row = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as missing:
        raise UserError(f"{where}: there is no such thing ({missing})") from missing
    if not isinstance(row, Metric) or row.function is None:
        raise UserError(f"{where}: is not a metric: decorate its function with experiment.metrics.metric")
    if row.key != name:
        raise UserError(f"{where}: its key is {row.key}: write metrics.{row.key}")
    if not options:
        return row
    try:
        inspect.signature(row.function).bind(None, None, **options)
    except TypeError as mismatch:
        raise UserError(f"metrics.{name}: {mismatch}") from mismatch
    return replace(row, function=partial(row.function, **options))


def monitor_problems(callbacks: Node, metrics: Mapping[str, Metric]) -> list[str]:
    """What is wrong with the values that callbacks monitor, one line each.

    The loss and the chosen metrics of every epoch may be monitored, all of validation data.
    """
    possible = ["val_loss", *(f"val_{row.key}" for row in metrics.values() if row.when == "epoch")]
    choose = f"choose {' or '.join(possible[::-1])}"
    wrong = []
    for name, node in (callbacks or {}).items():
        monitor = node.get("monitor") if isinstance(node, Mapping) else None
        if monitor is None or monitor in possible:
            continue
        key = str(monitor).removeprefix("val_")
        if key in metrics:
            at_end = metrics[key].when == "end"
            why = f"{key} is computed at the end only" if at_end else "only validation is monitored"
        elif key in TABLE and TABLE[key].function:
            why = f"metrics=[{','.join(metrics)}] has no {key}"
        else:
            near = difflib.get_close_matches(str(monitor), possible, n=1)
            why = f"there is no such metric{f', did you mean {near[0]}?' if near else ''}"
        wrong.append(f"callbacks.{name}.monitor={monitor}: {why}; {choose}")
    return wrong
