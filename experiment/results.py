"""What the epochs of a run amount to, and the table that says so."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiment.metrics import row as metric_row

Row = Mapping[str, Any]
"""One row of ``metrics.csv``: numbers, or ``None`` where a value was not measured."""


CONVERGED = 0.005
"""How close to the highest accuracy a training counts as converged."""


def summary(rows: Sequence[Row], monitor: str) -> dict[str, Any]:
    """What the rows of ``metrics.csv`` amount to.

    Args:
        rows: one an epoch.
        monitor: ``val_loss`` or another column of validation; of a run without validation that of training
            stands in and the last epoch counts as the best.

    Returns:
        ``epochs`` finished, ``best_epoch``, ``monitored`` (the metric's value there), ``convergence_epoch``
        (the first whose accuracy is within 0.5 points of the highest; None where no accuracy was measured),
        every ``val_…`` column at the best epoch, ``final_train_loss``, ``train_seconds``, ``seconds`` (with
        validation) and ``images_per_second``; without rows ``epochs`` alone.
    """
    if not rows:
        return {"epochs": 0}
    measured = [row for row in rows if row.get(monitor) is not None]
    numbers = [row for row in measured if not math.isnan(row[monitor])]
    if numbers:
        sign = metric_row(monitor).sign
        best = max(numbers, key=lambda row: sign * row[monitor])
    else:
        best, monitor = rows[-1], monitor if measured else f"train_{monitor.removeprefix('val_')}"
    seconds = sum(row["train_seconds"] for row in rows)
    images = sum(row["images_per_second"] * row["train_seconds"] for row in rows)
    return {
        "epochs": len(rows),
        "best_epoch": int(best["epoch"]),
        "monitored": best.get(monitor),
        "convergence_epoch": _convergence_epoch(rows, "val_acc") or _convergence_epoch(rows, "train_acc"),
        "final_train_loss": rows[-1]["train_loss"],
        **{name: value for name, value in best.items() if name.startswith("val_")},
        "train_seconds": round(seconds, 3),
        "seconds": round(sum(row["seconds"] for row in rows), 3),
        "images_per_second": round(images / seconds, 1),
    }


def _convergence_epoch(rows: Sequence[Row], accuracy: str) -> int | None:
    values = {int(row["epoch"]): row[accuracy] for row in rows if row.get(accuracy) is not None}
    highest = max(values.values(), default=0.0)
    return next((epoch for epoch, value in values.items() if value >= highest - CONVERGED), None)


def json_numbers(content: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` as JSON can hold it: ``null`` for what is not finite, whose words ``not_finite`` keeps."""
    lost: dict[str, str] = {}

    def plain(value: Any, name: str) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(item, f"{name}.{key}" if name else str(key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item, f"{name}.{index}") for index, item in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            lost[name] = str(value)
            return None
        return value

    made: dict[str, Any] = plain(content, "")
    return made | ({"not_finite": lost} if lost else {})


def shown(results: Mapping[str, Any], name: str) -> str:
    """A metric of ``results.json`` for the terminal; ``nan`` or ``inf`` where it is no finite number."""
    value = results.get(name)
    if not isinstance(value, int | float):
        return str(results.get("not_finite", {}).get(name, "–"))
    return metric_row(name).short(value)


def metric_keys(results: Mapping[str, Any]) -> list[str]:
    """Keys of the metrics that a run chose; one of before there was a choice has accuracy."""
    return list(results.get("metrics", ["acc"]))


def headline(results: Mapping[str, Any]) -> str:
    """The key of the metric that speaks for a run: the first that it chose, else its loss."""
    return next(iter(metric_keys(results)), "loss")


def table(results: Mapping[str, Any], folder: Path) -> str:
    """The content of ``results.json`` for a person, with the paths of the run ``folder`` and its pictures."""
    keys = [*metric_keys(results), "loss"]
    lines = {"status": results["status"]}
    lines |= {metric_row(f"test_{key}").words: shown(results, f"test_{key}") for key in keys}
    if any(results.get(f"val_{key}") is not None for key in keys):
        values = [f"{key} {shown(results, f'val_{key}')}" for key in keys if f"val_{key}" in results]
        lines["validation"] = f"{'  '.join(values)} at epoch {results['best_epoch']} of {results['epochs']}"
    if results["epochs"]:
        lines["final training loss"] = shown(results, "final_train_loss")
        if results.get("convergence_epoch") is not None:
            lines["converged"] = f"at epoch {results['convergence_epoch']} (within 0.5 points of the best)"
        lines["training"] = f"{results['train_seconds']:.1f} s, {results['images_per_second']:,.0f} images/s"
    if "tested" in results:
        what = results["tested"]["checkpoint"] or "the last weights: checkpoints are switched off"
        lines["tested"] = f"{what}, epoch {results['tested']['epoch']}"
    lines |= {
        "parameters": f"{results['parameters']:,}",
        "FLOPs an image": f"{results['flops_per_image']:,}",
        "run folder": str(folder),
    }
    pictures = sorted(folder.glob("figures/*.png"))
    width = max(20, *map(len, lines)) + 1
    rows = [f"{name:<{width}}{value}" for name, value in lines.items()]
    rows += [f"{'pictures' if i == 0 else '':<{width}}{path}" for i, path in enumerate(pictures)]
    return "\n".join(rows)
