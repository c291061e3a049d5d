"""Optimizers that torch has not, and the groups that parameters fall into."""

from lightning_modules.optim.custom_adam import CustomAdam as CustomAdam
from lightning_modules.optim.muon import Muon as Muon
