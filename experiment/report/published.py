"""Published results beside ours: the tables and figures in an experiment's ``NAME.report`` (YAML).

``conf/experiment/homework.report`` shows what can stand there; Hydra takes it for no option.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from experiment.metrics import units
from experiment.plots.comparison import Panel
from experiment.report.questions import matches
from experiment.report.runs import Record
from experiment.schema import CONFIG_DIR


def published(runs: Iterable[Record]) -> Mapping[str, Any]:
    """What is published of the experiment that ``runs`` were composed of; empty where nothing is."""
    names = dict.fromkeys(run.choices["experiment"] for run in runs if run.choices.get("experiment"))
    paths = [CONFIG_DIR / "experiment" / f"{Path(name).name}.report" for name in names]
    found: list[Mapping[str, Any]] = [yaml.safe_load(path.read_text()) for path in paths if path.is_file()]
    return found[0] if found else {}


def tables(content: Mapping[str, Any], runs: Sequence[Record]) -> dict[str, list[list[str]]]:
    """Title → header and rows, what is published beside ours: mean ± standard deviation over seeds."""
    made = {}
    for title, table in content.get("tables", {}).items():
        header = [""]
        rows = [[units.name(metric).partition(",")[0]] for metric in table["metrics"]]
        for column in table["columns"]:
            ours = _of(column["runs"], runs)
            header += [f"{column['name']}: published", f"ours (mean ± sd, n = {len(ours)})"]
            for row, metric, theirs in zip(rows, table["metrics"], column["published"], strict=True):
                row += [str(theirs), units.spread(metric, [run.metric(metric) for run in ours])]
        made[title] = [header, *rows]
    return made


def figures(content: Mapping[str, Any], runs: Sequence[Record]) -> dict[str, list[Panel]]:
    """Title → panels with our curves and the published value, as far as there are runs."""
    made = {}
    for title, figure in content.get("figures", {}).items():
        ours = {setting: [run.rows for run in of] for setting in figure["runs"] if (of := _of(setting, runs))}
        if ours:
            made[title] = [
                Panel(metric, ours, (figure["reference"], value))
                for metric, value in figure["panels"].items()
            ]
    return made


def _of(setting: str, runs: Iterable[Record]) -> list[Record]:
    return [run for run in runs if run.status == "finished" and matches(run.values, setting)]
