"""What of a composed configuration is a run's, the options it was composed of, and its digest."""

import hashlib
import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf


def run_config(composed: DictConfig) -> DictConfig:
    """What of a composed configuration is the run's: all but the sweep around it, its paths absolute."""
    keys = [str(key) for key in composed if key not in ("sweep", "hydra")]
    config = OmegaConf.masked_copy(composed, keys)
    OmegaConf.resolve(config)
    for key in ("root", "cache"):
        if config.data.get(key) is not None:
            config.data[key] = str(Path(config.data[key]).expanduser().absolute())
    return config


def choices(hydra_config: DictConfig) -> dict[str, str]:
    """Group → option of a configuration, from its ``hydra`` node, without the groups of Hydra itself."""
    chosen = hydra_config.runtime.choices
    return {str(group): option for group, option in chosen.items() if "hydra/" not in group and option}


def digest(config: DictConfig) -> str:
    """Eight hexadecimal digits for all of ``config`` that a result depends on."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    for key in ("name", "output_dir", "resume"):
        del plain[key]
    plain.pop("metrics", None)  # they are asked of a result: no other training for another question
    del plain["data"]["download"]
    plain["data"].pop("cache", None)
    plain["callbacks"].pop("interruption", None)
    if plain["data"]["dataset"] != "image_folder":  # a data set with a name is the same wherever it lies
        del plain["data"]["root"]
    plain = json.loads(json.dumps(plain), parse_int=float)  # 0 and 0.0 mean the same
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]
