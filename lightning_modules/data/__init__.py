"""Images and labels: files to uint8 tensors, batched augmentation, and the Lightning data module of both."""

from lightning_modules.data.augment import Augmentation as Augmentation
from lightning_modules.data.datamodule import ImageDataModule as ImageDataModule
from lightning_modules.data.image_set import ImageSet as ImageSet
from lightning_modules.data.sources import SOURCES as SOURCES
