"""Everything torch: networks, data, the LightningModule and what surrounds its training; and use as a library.

>>> from lightning_modules import compose, train
>>> compose("model=enhanced", "data=cifar10").trainer.max_epochs
100
>>> run = train("trainer=smoke", "model.widths=[4,8]", "name=library")
>>> sorted(run.results)[:2], len(run.metrics)

:func:`train` leaves what ``python train.py`` leaves: a :class:`Run`, which is its folder.
"""

import os
from typing import TYPE_CHECKING

from experiment.errors import UserError as UserError
from experiment.run import Run as Run

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Before torch is imported: its OpenMP threads otherwise spin while they wait, and where the cores are shared
# (a sweep's other jobs, a browser, custom_backend's threads) take them from whoever has work to do.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


