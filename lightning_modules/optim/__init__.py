"""Optimizers that torch has not, and the groups that parameters fall into."""

from lightning_modules.optim.custom_adam import CustomAdam as CustomAdam
from lightning_modules.optim.lion import Lion as Lion
from lightning_modules.optim.muon import Muon as Muon
from lightning_modules.optim.sam import SAM as SAM
