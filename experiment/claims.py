"""Whether the jobs of a sweep can answer what it claims; if not, none is trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from experiment import metrics
from experiment.instantiate import chosen_metrics
from experiment.knob import nearest
from experiment.report.questions import matches, parse_claim
from experiment.report.runs import DERIVED, plain
from experiment.schema import flatten

Job = tuple[DictConfig, Mapping[str, str]]
"""A run's configuration and what else a claim may name: options of groups and swept values."""


def problems_of_claims(claims: Sequence[Any], jobs: Sequence[Job]) -> list[str]:
    """What is wrong with the claims of a sweep, one line each."""
    if not claims:
        return []
    values = [{k: plain(v) for k, v in {**flatten(config), **more}.items()} for config, more in jobs]
    measured = set[str]().union(*(_measured(config) for config, _ in jobs))
    wrong = []
    for given in claims:
        try:
            claim = parse_claim(given)
        except (TypeError, ValueError) as mistake:
            wrong.append(f"claim {given}: {mistake}")
            continue
        if claim.metric not in measured:
            meant = nearest(claim.metric, sorted(measured)) or f" There are {', '.join(sorted(measured))}."
            wrong.append(f"claim {claim.text!r}: no metric {claim.metric}.{meant}")
        for setting in dict.fromkeys(setting for contrast in claim.contrasts for setting in contrast):
            if not any(matches(job, setting) for job in values):
                wrong.append(f"claim {claim.text!r}: no job has {setting}.{_way_out(setting, values)}")
    return [*wrong, "sweep.claims=null sweeps without asking"] if wrong else []


def _measured(config: DictConfig) -> set[str]:
    """The metrics that ``results.json`` of a run will have, and those that the report derives."""
    chosen = [*chosen_metrics(config).values(), metrics.TABLE["loss"]]
    names = {f"test_{row.key}" for row in chosen} | {
        f"val_{row.key}" for row in chosen if row.when == "epoch"
    }
    others = {key for key, row in metrics.TABLE.items() if row.function is None} - {"loss", "lr", "acc_falls"}
    return names | others | {"train_seconds", *DERIVED}


def _way_out(setting: str, values: Sequence[Mapping[str, str]]) -> str:
    """The nearest key to one that no job has, or the values that the jobs have."""
    for key, _, value in (token.partition("=") for token in setting.split()):
        there = list(dict.fromkeys(job[key] for job in values if key in job))
        if not there:
            return nearest(key, sorted({known for job in values for known in job}), f"={value}")
        if plain(value) not in there:
            return f" They have {key}={', '.join(there[:9])}"
    return " Each of these has jobs, all together have none"
