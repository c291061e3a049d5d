"""Run folders and sweeps as the project leaves them, for the tests of the report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

GIT = {"commit": "a" * 40, "changed_files": [], "diff_sha256": None}


def write_run(
    folder: Path,
    seed: int = 0,
    *,
    acc: float = 0.9,
    curve: Sequence[float] = (0.5, 0.7, 0.6),
    status: str = "finished",
    config: Mapping[str, Any] | None = None,
    choices: Mapping[str, str] | None = None,
    provenance: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
) -> Path:
    """A run folder as train.py leaves it; ``config`` has dotted keys."""
    folder.mkdir(parents=True)
    nested: dict[str, Any] = {"seed": seed, "name": None, "output_dir": str(folder.parent)}
    known = {
        "data.dataset": "mnist",
        "trainer.max_epochs": 3,
        "model._target_": "nets.mnist",
        "model.dropout": 0.0,
    }
    for key, value in {**known, **(config or {})}.items():
        *path, last = key.split(".")
        node = nested
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(nested))
    about = {
        "status": status, "git": GIT, "command": "python train.py",
        "choices": {"model": "mnist", "loss": "cross_entropy", **(choices or {})},
        "data": {"dataset": "mnist", "fingerprint": "f00"}, "packages": {"torch": "2.6"}, "threads": 2,
        "hardware": {"processor": "x", "cores": 2}, "start": "2026-01-01T00:00", "end": "2026-01-02T00:00",
    }  # fmt: skip
    (folder / "provenance.json").write_text(json.dumps(about | dict(provenance or {})))
    lines = ["epoch,train_loss,val_acc", *(f"{epoch},{1 / epoch},{v}" for epoch, v in enumerate(curve, 1))]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    measured = {"epochs": len(curve), "test_acc": acc, "val_acc": acc, "train_seconds": 6.0, "parameters": 10}
    measured |= {"flops_per_image": 20, "final_train_loss": 0.3, "images_per_second": 100.0, "status": status}
    if status != "pending":
        (folder / "results.json").write_text(json.dumps(measured | dict(results or {})))
    return folder


def write_sweep(
    folder: Path,
    values: Mapping[str, Sequence[float]],
    claims: Sequence[Any] = (),
    key: str = "model.dropout",
    **options: Any,
) -> Path:
    """A sweep over ``key`` with a run for each of the accuracies of its values, seeds 0, 1, …"""
    more = options.pop("config", {})
    jobs = []
    for value, accuracies in values.items():
        for seed, acc in enumerate(accuracies):
            overrides = {key: value, "seed": str(seed)}
            jobs.append({"folder": f"{key}={value},seed={seed}-00", "overrides": overrides})
            write_run(
                folder / jobs[-1]["folder"], seed, acc=acc, config={key: float(value), **more}, **options
            )
    write_definition(folder, [key, "seed"], jobs, claims)
    return folder


def write_definition(folder: Path, swept: list[str], jobs: list[Any], claims: Sequence[Any] = ()) -> None:
    session = {"start": "2026-01-01", "command": "python train.py -m", "git": GIT}
    content = {
        "name": folder.name,
        "swept": swept,
        "jobs": jobs,
        "claims": list(claims),
        "sessions": [session],
    }
    (folder / "sweep.json").write_text(json.dumps(content))


def claim(*contrasts: Mapping[str, float], metric: str = "test_acc", **more: Any) -> dict[str, Any]:
    return {"text": "It helps.", "metric": metric, "contrasts": list(contrasts), **more}


HELPS = claim({"model.dropout=0.5": 1, "model.dropout=0": -1})
