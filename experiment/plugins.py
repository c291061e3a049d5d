"""The launchers and sweepers of Hydra: which are there, and what they take."""

import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiment.knob import Knob, text
from experiment.schema import CONFIG_DIR, positive, unknown
from experiment.signature import definition, signature

HYDRA_KNOBS = {
    "hydra.sweeper.params": Knob("dict", "swept keys with their values", optional=True),
    "hydra.sweeper.max_batch_size": positive(
        "int", "jobs that the launcher is given at a time", optional=True
    ),
    "hydra.sweeper.factor": Knob("int", "one setting in so many is promoted", "[2, inf)"),
    "hydra.sweeper.n_trials": positive("int", "trials of this search"),
    "hydra.sweeper.n_jobs": positive("int", "trials at once"),
    "hydra.sweeper.max_failure_rate": Knob("float", "part of n_trials that may fail", "[0, 1]"),
    "hydra.launcher.n_jobs": Knob("jobs", "jobs at once"),
    "hydra.launcher.batch_size": positive("int", "jobs that a process is given at a time"),
    "hydra.launcher.pre_dispatch": Knob("str", "jobs given out in advance", choices=("all", "2*n_jobs")),
    "hydra.launcher.timeout_min": positive("int", "minutes that a job may take"),
    "hydra.launcher.cpus_per_task": positive("int", "cores of a job"),
    "hydra.launcher.tasks_per_node": Knob("int", "a job is one process", choices=(1,)),
    "hydra.launcher.nodes": Knob("int", "a job is one process", choices=(1,)),
    "hydra.launcher.mem_gb": positive("int", "GB of memory of a job", optional=True),
    "hydra.launcher.gpus_per_node": Knob("int", "GPUs of a job", "[0, inf)", optional=True),
    "hydra.launcher.array_parallelism": positive("int", "jobs at once"),
}
"""Of the sweepers and launchers, where they have them."""

_declared: dict[str, DictConfig] = {}
"""hydra/group/option → the keys that a plugin registered for it, with their types."""


def replace_options() -> None:
    """Let ``conf/hydra/`` replace what plugins register under the same names; Hydra would mix the two."""
    groups = ConfigStore.instance().repo["hydra"]
    for path in CONFIG_DIR.glob("hydra/*/*.yaml"):
        if option := groups[path.parent.name].pop(path.name, None):
            _declared[f"hydra/{path.parent.name}/{path.stem}"] = option.node


def missing(group: str, option: str) -> str:
    """Why a launcher or sweeper of ``conf/hydra/`` cannot be taken here; empty if it can."""
    file = CONFIG_DIR / group / f"{option}.yaml"
    if not group.startswith("hydra/") or not file.is_file():
        return ""
    is_there = all(find_spec(package) for package in re.findall(r"hydra_plugins\.\w+", file.read_text()))
    if option == "submitit_slurm" and is_there and not shutil.which("srun"):
        return "there is no srun here; start this where Slurm's jobs are started"
    extra = "hpo" if group == "hydra/sweeper" else "cluster"
    return "" if is_there else f"it is not installed: pip install -e '.[{extra}]'"


def problems_of_plugins(hydra_config: DictConfig) -> Iterator[str]:
    """What is wrong with the options of the launcher and the sweeper, one line each.

    Args:
        hydra_config: the ``hydra`` node of a configuration.
    """
    for part in ("launcher", "sweeper"):
        option = hydra_config.runtime.choices[f"hydra/{part}"]
        declared = _declared.get(f"hydra/{part}/{option}", OmegaConf.create())
        yield from _problems(f"hydra.{part}", hydra_config[part], declared)


def _problems(part: str, node: Any, declared: DictConfig) -> Iterator[str]:
    target = str(OmegaConf.is_dict(node) and node.get("_target_"))
    if not target.startswith(("hydra_plugins.", "hydra._internal.core_plugins.")) or not definition(target):
        yield f"{part}._target_={target}: Hydra has no such plugin; {part.replace('.', '/')}=… chooses one"
        return
    taken = signature(target)
    known = [f"{part}.{key}" for key in (*taken.knobs, *declared)]
    plain: Any = OmegaConf.to_container(node)  # not resolved: that makes a search's folder
    for key, value in plain.items():
        name = f"{part}.{key}"
        if key != "_target_" and name not in known and not (taken.is_open and not declared):
            yield unknown(name, known)
        elif name in HYDRA_KNOBS:
            yield from filter(None, [HYDRA_KNOBS[name].problem(name, value)])
        elif key in declared:
            try:
                OmegaConf.merge(declared, {key: value})
            except OmegaConfBaseException as mistake:
                yield f"{name}={text(value)}: {str(mistake).splitlines()[0]}"
