"""Everything torch: networks, data, the LightningModule and what surrounds its training; also as a library.

:func:`compose` shows the configuration of a run, :func:`train` trains it and returns the :class:`Run`, which
is its folder: the same as that of ``python train.py``. Importing this package does not import torch yet.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from experiment.errors import UserError as UserError
from experiment.provenance import available_cores
from experiment.run import Run as Run
from lightning_modules.allocator import keep_large_blocks

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Before torch is imported: its OpenMP threads otherwise spin while they wait, and where the cores are shared
# (a sweep's other jobs, a browser, custom_backend's threads) take them from whoever has work to do.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if (limit := available_cores()) < (os.cpu_count() or 1):  # a container's share, of which OpenMP knows nothing
    os.environ.setdefault("OMP_NUM_THREADS", str(limit))
keep_large_blocks()


def compose(*overrides: str, config_dir: Path | None = None) -> "DictConfig":
    """The configuration of a run.

    Args:
        *overrides: ``group=option`` and ``knob=value`` as ``python train.py`` takes them.
        config_dir: a folder of configurations of your own, as ``--config-dir``.

    Raises:
        UserError: naming every unknown option, unknown key and value out of range, with what is allowed.
    """
    from experiment.command_line import compose_run
    from experiment.config import run_config

    return run_config(compose_run(overrides, config_dir))


def train(*overrides: str, config_dir: Path | None = None) -> Run:
    """Train and test a run as ``python train.py`` does; ``resume=FOLDER`` goes on with one.

    Nothing is printed but what ``logging`` is asked to show: the epochs are at level INFO. Arguments are
    those of :func:`compose`.

    Raises:
        UserError: for what the caller can mend, before torch is imported where that is possible.
        KeyboardInterrupt: after Ctrl-C, with the run's state saved.
    """
    from experiment.command_line import compose_run
    from experiment.worker import claim_run

    composed = compose_run(overrides, config_dir)
    run = claim_run(composed, composed.hydra)
    if run.status != "finished":
        from lightning_modules.training import train as fit

        fit(run.config, run)
    return run
