"""What of a composed configuration is a run's, the options it was composed of, and its digest."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiment import precision
from experiment.metrics import row
from experiment.schema import flatten, plain_values

# the name since omegaconf 2.4; before, that of an older function, which could not replace
is_new_name = "replace" in signature(OmegaConf.register_resolver).parameters
register_resolver: Callable[..., None] = (
    OmegaConf.register_resolver if is_new_name else OmegaConf.register_new_resolver
)

# ${direction:val_loss}, for searches: which way is better
register_resolver(
    "direction", lambda metric: "minimize" if row(metric).sign < 0 else "maximize", replace=True
)


def run_config(composed: DictConfig, sweep: Path | None = None) -> DictConfig:
    """What of a composed configuration is the run's: all but the sweep around it.

    Its paths are absolute, and its precision is what ``auto`` means here, or in the folder of its ``sweep``.
    """
    return OmegaConf.create(run_values(composed, sweep))


def run_values(composed: DictConfig, sweep: Path | None = None) -> dict[str, Any]:
    """The content of :func:`run_config`."""
    values = plain_values(composed, without=("sweep", "hydra"))
    for key in ("root", "cache"):
        if values["data"].get(key) is not None:
            values["data"][key] = str(Path(values["data"][key]).expanduser().absolute())
    precision.resolve(values, sweep)
    return values


def choices(hydra_config: DictConfig) -> dict[str, str]:
    """Group → option of a configuration, from its ``hydra`` node, without the groups of Hydra itself."""
    chosen = hydra_config.runtime.choices
    follows = "trainer/last"  # the choice of trainer once more
    return {
        str(group): option
        for group, option in chosen.items()
        if option and "hydra/" not in group and group != follows
    }


def monitor(config: DictConfig) -> str:
    """The metric that tells which epoch of a run, and so which run, is best."""
    checkpoint = config.callbacks.get("checkpoint") or {}
    return str(checkpoint.get("monitor", "val_acc"))


def digest(config: DictConfig) -> str:
    """Eight hexadecimal digits for all of ``config`` that a result depends on."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    for key in ("name", "output_dir", "resume"):
        del plain[key]
    plain.pop("metrics", None)  # they are asked of a result: no other training for another question
    del plain["data"]["download"]
    plain["data"].pop("cache", None)
    if plain["data"].get("fold") is None:  # so have sweeps of before there were any
        plain["data"] = {k: v for k, v in plain["data"].items() if k not in ("fold", "folds")}
    plain["callbacks"].pop("interruption", None)
    for key in ("every_minutes", "every_steps"):  # when something is saved changes nothing
        (plain["callbacks"].get("checkpoint") or {}).pop(key, None)
    if plain["data"]["dataset"] != "image_folder":  # a data set with a name is the same wherever it lies
        del plain["data"]["root"]
    trainer = plain["trainer"]
    trainer.pop("profiler", None)
    for key, value in {"check_val_every_n_epoch": 1, "fast_dev_run": False, "compile": False}.items():
        if trainer.get(key) == value:
            del trainer[key]
    for key in ("max_steps", "max_time", "overfit_batches"):  # younger than the digests of older sweeps
        if trainer.get(key, 0) is None:
            del trainer[key]
    for key, value in trainer.items():
        if isinstance(value, float) and key.endswith("_batches"):  # 1 is one batch and 1.0 is all
            trainer[key] = f"{value} of all"
    plain = json.loads(json.dumps(plain), parse_int=float)  # 0 and 0.0 mean the same
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]


def override_lists(
    params: Mapping[str, Any], cases: Sequence[str] | None, given: Sequence[str]
) -> list[list[str]]:
    """The overrides of a sweep, one list a case, each still with all its swept values.

    Args:
        params: swept keys of a named experiment with their values; ``given`` ones replace them.
        cases: overrides that go together, each with all swept; None for no such.
        given: those of the command line, which win.
    """
    return [
        [*(f"{key}={value}" for key, value in params.items()), *case.split(), *given]
        for case in cases or [""]
    ]


def options(composed: DictConfig, group: str) -> list[str]:
    """The options of a group, in ``conf/`` and folders of the user's."""
    sources = composed.hydra.runtime.config_sources
    folders = [Path(source.path, group) for source in sources if source.schema == "file"]
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def option_file(composed: DictConfig, group: str, option: str) -> Path | None:
    """The YAML file of a group's option, in ``conf/`` or a folder of the user's."""
    sources = composed.hydra.runtime.config_sources
    paths = (Path(source.path, group, f"{option}.yaml") for source in sources if source.schema == "file")
    return next(filter(Path.is_file, paths), None)


def files_of_keys(composed: DictConfig) -> dict[str, Path]:
    """Dotted key → the file of the chosen options that sets it; group → the file of its option."""
    files: dict[str, Path] = {}
    chosen = {"": "train", **choices(composed.hydra)}
    for group in sorted(chosen, key=lambda group: (group != "experiment", not group)):  # who wins is first
        options = [chosen[group]] if isinstance(chosen[group], str) else list(chosen[group])
        while options:
            file = option_file(composed, group, options.pop(0))
            if file is None:
                continue
            content: Any = OmegaConf.to_container(OmegaConf.load(file))
            defaults = [item for item in content.pop("defaults", []) if isinstance(item, str)]
            options += [item for item in defaults if item != "_self_"]
            is_global = not group or re.match(r"\s*#\s*@package _global_", file.read_text())
            for key in (group, *flatten(content, "" if is_global else f"{group}.")):
                files.setdefault(key, file)
    return files
