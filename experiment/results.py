"""What the epochs of a run amount to, and the table that says so."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
"""One row of ``metrics.csv``: numbers, or ``None`` where a value was not measured."""


def summary(rows: Sequence[Row], monitor: str) -> dict[str, Any]:
    """What the rows of ``metrics.csv`` amount to.

    Args:
        rows: one an epoch.
        monitor: ``val_acc`` or ``val_loss``; without validation ``train_acc`` or ``train_loss`` stands in
            and the last epoch counts as the best.

    Returns:
        ``epochs`` finished, ``best_epoch``, ``monitored`` (the metric's value there), ``convergence_epoch``
        (the first whose accuracy is within 0.5 points of the highest), ``val_acc`` and ``val_loss`` at the
        best epoch, ``final_train_loss``, ``train_seconds``, ``seconds`` (with validation) and
        ``images_per_second``; empty without rows.
    """
    if not rows:
        return {"epochs": 0}
    is_validated = rows[-1]["val_acc"] is not None
    if is_validated:
        sign = -1 if monitor.endswith("loss") else 1
        best = max(rows, key=lambda row: sign * row[monitor])
    else:
        best, monitor = rows[-1], monitor.replace("val", "train")
    accuracy = "val_acc" if is_validated else "train_acc"
    highest = max(row[accuracy] for row in rows)
    seconds = sum(row["train_seconds"] for row in rows)
    images = sum(row["images_per_second"] * row["train_seconds"] for row in rows)
    return {
        "epochs": len(rows),
        "best_epoch": int(best["epoch"]),
        "monitored": best[monitor],
        "convergence_epoch": int(next(row["epoch"] for row in rows if row[accuracy] >= highest - 0.005)),
        "final_train_loss": rows[-1]["train_loss"],
        "val_acc": best["val_acc"],
        "val_loss": best["val_loss"],
        "train_seconds": round(seconds, 3),
        "seconds": round(sum(row["seconds"] for row in rows), 3),
        "images_per_second": round(images / seconds, 1),
    }


def table(results: Mapping[str, Any], folder: Path) -> str:
    """The content of ``results.json`` for a person, with the paths of the run ``folder`` and its pictures."""
    lines = {"status": results["status"], "test accuracy": f"{results['test_acc']:.2%}"}
    lines["test loss"] = f"{results['test_loss']:.4f}"
    if results.get("val_acc") is not None:
        when = f"at epoch {results['best_epoch']} of {results['epochs']}"
        lines["validation"] = f"{results['val_acc']:.2%} {when}"
    if results["epochs"]:
        speed = f"{results['images_per_second']:,.0f} images/s"
        lines |= {
            "final training loss": f"{results['final_train_loss']:.4f}",
            "converged": f"at epoch {results['convergence_epoch']} (within 0.5 points of the best)",
            "training": f"{results['train_seconds']:.1f} s, {speed}",
        }
    lines |= {
        "parameters": f"{results['parameters']:,}",
        "FLOPs an image": f"{results['flops_per_image']:,}",
        "run folder": str(folder),
    }
    pictures = sorted(folder.glob("figures/*.png"))
    rows = [f"{name:<21}{value}" for name, value in lines.items()]
    rows += [f"{'pictures' if i == 0 else '':<21}{path}" for i, path in enumerate(pictures)]
    return "\n".join(rows)
