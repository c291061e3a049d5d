"""What happens around a training, one concern a file."""

from lightning_modules.callbacks.checkpoint import BestAndLast as BestAndLast
from lightning_modules.callbacks.figures import Figures as Figures
from lightning_modules.callbacks.history import History as History
from lightning_modules.callbacks.interruption import Interruption as Interruption
from lightning_modules.callbacks.lr_finder import LearningRateFinder as LearningRateFinder
from lightning_modules.callbacks.non_finite_loss import NonFiniteLoss as NonFiniteLoss
from lightning_modules.callbacks.progress import Progress as Progress
from lightning_modules.callbacks.random_state import RandomState as RandomState
