"""Runs whose folders are gone, read again from ``results.csv`` and ``report.md`` of the report on them.

What such a report does not hold (curves, all of the configuration) is not there; the claims are those that
the experiment of the report's name makes today.
"""

import csv
import html
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from experiment.report.runs import Record, Sweep, plain
from experiment.schema import flatten


def read_reported(folder: Path) -> tuple[Sweep, dict[Path, Record]]:
    """The sweep that the report in ``folder`` is about, and a record of each of its runs."""
    from experiment.command_line import CONFIG_DIR

    text = html.unescape((folder / "report.md").read_text())
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    header = list(rows[0])
    swept = header[3 : header.index("seed")]
    settings, choices, claims = _experiment(CONFIG_DIR / "experiment", folder.name)
    commands = re.findall(r"<code>(\S+) at (\S+): (.*)</code>", text)
    for word in shlex.split(commands[-1][2])[2:] if commands else []:
        key, equals, value = word.partition("=")
        if equals and "." in key and not key.startswith(("hydra", "sweep")):
            settings[key] = value
    facts: dict[str, str] = dict(re.findall(r"^\| (\w[\w -]*) \| (.*) \|$", text, re.MULTILINE))
    data = {name.removeprefix("data "): found for name, found in facts.items() if name.startswith("data ")}
    names = ("torch", "torchvision", "lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy")
    packages = {name: _single(facts[name]) for name in names if name in facts}
    records, jobs = {}, {}
    for row in rows:
        path = folder / row["folder"]
        jobs[path] = {key: row[key] for key in (*swept, "seed") if row[key]}
        own = {key: value for key, value in jobs[path].items() if "." not in key and key != "seed"}
        dataset = own.get("data") or next(iter(data), "unknown data")
        config = settings | {key: value for key, value in jobs[path].items() if "." in key}
        config |= {"seed": int(row["seed"]), "data.dataset": dataset}
        numbers = {key: float(row[key]) for key in header[header.index("seed") + 1 :] if row[key]}
        provenance = {
            "choices": choices | own,
            "git": {"commit": _single(facts.get("commit", ""))} if "commit" in facts else None,
            "data": {"dataset": dataset, "fingerprint": _single(data.get(dataset, ""))},
            "packages": packages,
        }
        records[path] = Record(
            path, row["status"], row["reason"], jobs[path], config, numbers, (), provenance
        )
    sessions = [
        {"start": start, "git": {"commit": at}, "command": command} for start, at, command in commands
    ]
    return Sweep(folder.name, swept, claims, sessions, jobs), records


def _single(found: str) -> str:
    """A fact that all runs share; of several values, all of them."""
    values = re.sub(r" \(\d+ runs?\)", "", found)
    return values if ", " not in values else "several"


def _experiment(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, str], list[Any]]:
    """Settings, options and claims of an experiment and of those it builds on; empty for no such name."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        return {}, {}, []
    content = yaml.safe_load(path.read_text())
    settings: dict[str, Any] = {}
    choices: dict[str, str] = {}
    for entry in content.pop("defaults", []):
        if isinstance(entry, str):
            more, options, _ = _experiment(folder, entry)
            settings |= more
            choices |= options
        else:
            choices |= {key.removeprefix("override /"): option for key, option in entry.items()}
    claims = content.get("sweep", {}).get("claims", [])
    kept = {key: value for key, value in content.items() if key not in ("sweep", "hydra")}
    return settings | {key: plain(value) for key, value in flatten(kept).items()}, choices, claims
