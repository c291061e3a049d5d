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

from experiment.provenance import PACKAGES
from experiment.report.runs import Record, Sweep, plain
from experiment.schema import CONFIG_DIR, flatten


def read_reported(folder: Path) -> tuple[Sweep, dict[Path, Record]]:
    """The sweep that the report in ``folder`` is about, and a record of each of its runs."""
    text = html.unescape((folder / "report.md").read_text())
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    before, _, numbers = ",".join(rows[0]).partition(",seed,")
    swept = before.split(",")[3:]
    settings, choices, claims = _experiment(CONFIG_DIR / "experiment", folder.name)
    commands = re.findall(r"<code>(\S+) at (\S+): (.*)</code>", text)
    for word in shlex.split(commands[-1][2])[2:] if commands else []:
        key, equals, value = word.partition("=")
        if equals and "." in key and not key.startswith(("hydra", "sweep")):
            settings[key] = value
    facts = {name: _single(value) for name, value in re.findall(r"^\| (\w[\w -]*) \| (.*) \|$", text, re.M)}
    data = {name.removeprefix("data "): found for name, found in facts.items() if name.startswith("data ")}
    known = {
        "git": {"commit": facts["commit"]} if "commit" in facts else None,
        "packages": {name: facts[name] for name in PACKAGES if name in facts},
    }
    records, jobs = {}, {}
    for row in (row for row in rows if row["seed"]):  # a damaged run has none
        path = folder / row["folder"]
        jobs[path] = {key: row[key] for key in (*swept, "seed") if row[key]}
        options = {key: value for key, value in jobs[path].items() if "." not in key and key != "seed"}
        dataset = options.get("data") or next(iter(data), "unknown data")
        config = settings | {key: value for key, value in jobs[path].items() if "." in key}
        config |= {"seed": int(row["seed"]), "data.dataset": dataset}
        results = {key: float(row[key]) for key in numbers.split(",") if row[key]}
        provenance = known | {"choices": choices | options}
        provenance["data"] = {"dataset": dataset, "fingerprint": data.get(dataset, "")}
        status, reason = row["status"], row["reason"]
        records[path] = Record(path, status, reason, jobs[path], config, results, (), provenance)
    sessions = [{"start": start, "git": {"commit": at}, "command": line} for start, at, line in commands]
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
