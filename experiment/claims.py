"""Whether the jobs of a sweep can answer what it claims; if not, none is trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiment import metrics
from experiment.files import read_json
from experiment.instantiate import chosen_metrics
from experiment.knob import nearest
from experiment.report.questions import ask_claim, matches, parse_claim
from experiment.report.runs import DERIVED, REPEATED, Record, plain
from experiment.run import Run
from experiment.schema import flatten, tokens
from experiment.sweep import jobs_in

Job = tuple[DictConfig, Mapping[str, str], Mapping[str, str]]
"""A run's configuration, the options of groups that it was composed of, and its swept values."""


def problems_of_claims(claims: Sequence[Any], jobs: Sequence[Job]) -> list[str]:
    """What is wrong with the claims of a sweep, one line each."""
    if not claims:
        return []
    configs = [flatten(config) for config, *_ in jobs]
    values = [
        {key: plain(value) for key, value in {**config, **options, **overrides}.items()}
        for config, (_, options, overrides) in zip(configs, jobs, strict=True)
    ]
    swept = [key for key in dict.fromkeys(key for *_, given in jobs for key in given) if key not in REPEATED]
    measured = set[str]().union(*(_measured(config) for config, *_ in jobs))
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
        settings = dict.fromkeys(setting for contrast in claim.contrasts for setting in contrast)
        if absent := [setting for setting in settings if not any(matches(job, setting) for job in values)]:
            wrong += [f"claim {claim.text!r}: no job has {s}.{_way_out(s, values)}" for s in absent]
            continue
        runs = [  # as they will be, for all that is known now
            Record(Path(str(n)), "finished", "", job, config, {claim.metric: 1.0}, (), {"choices": options})
            for n, (job, config, (_, options, _)) in enumerate(zip(values, configs, jobs, strict=True))
        ]
        try:
            for contrast in ask_claim(claim, swept, runs).contrasts:
                if not contrast.seeds:
                    wrong.append(f"claim {claim.text!r}: no seed has all of {', '.join(contrast.terms)}")
                if contrast.along:
                    along = ", ".join(contrast.along)
                    wrong.append(f"claim {claim.text!r}: {', '.join(contrast.terms)} differ in {along}, too")
        except ValueError as mistake:
            wrong.append(f"claim {claim.text!r}: {mistake}")
    return [*wrong, "sweep.claims=null sweeps without asking"] if wrong else []


def problems_of_looks(folder: Path, claims: Sequence[Any], max_seeds: int, jobs: Sequence[Job]) -> list[str]:
    """What keeps a sequential sweep from the 5 % of false verdicts that it promises, one line each.

    Its levels follow from ``max_seeds`` and the claims: with others after the first look, that look would be
    one too many.
    """
    from experiment.report.sequential import FIRST_LOOK

    if not max_seeds:
        return []
    if not claims:
        return ["sweep.until=decided: there is no claim to decide; experiment=… brings one"]
    if any(config.data.get("fold") is not None for config, *_ in jobs):
        return ["sweep.until=decided looks after each seed, not after folds: leave data.fold out"]
    known = read_json(folder / "sweep.json")
    before = known.get("claims", [])
    asked, known_to_ask = ([{**claim, "text": ""} for claim in of if claim] for of in (claims, before))
    is_same = known.get("max_seeds") == max_seeds and asked == known_to_ask
    trained = jobs_in(folder)
    is_first = len({values.get("seed") for values in trained.values()}) <= FIRST_LOOK
    is_first &= any(Run(run).state not in ("finished", "failed", "diverged") for run in trained)
    if known.get("until") != "decided" or is_same or is_first:
        return []
    return [
        f"{folder} has been looked at with sweep.max_seeds={known.get('max_seeds')} and its own claims: the "
        "level of 5 % was shared out among them. Leave them as they were, or give another sweep.name"
    ]


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
    for key, value in tokens(setting):
        there = list(dict.fromkeys(job[key] for job in values if key in job))
        if not there:
            return nearest(key, sorted({known for job in values for known in job}), f"={value}")
        if plain(value) not in there:
            return f" They have {key}={', '.join(there[:9])}"
    return " Each of these has jobs, all together have none"
