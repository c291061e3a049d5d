"""A learning rate that a short test finds, before the first step."""

import copy
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Annotated, Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from experiment.errors import UserError
from lightning_modules.classifier import Classifier
from lightning_modules.data.datamodule import Batch

log = logging.getLogger(__name__)


class LearningRateFinder(Callback):
    """Takes in place of ``optimizer.lr`` the rate of a range test (Smith, WACV 2017).

    A copy of the network is trained while the rate grows geometrically from step to step, until the loss
    rises; :func:`suggest` reads the rate off the losses. Then the training begins as if the rate had been
    given: the copy is forgotten, no random state is changed. The rate is part of the checkpoint.

    Args:
        lowest: rate of the first step.
        highest: rate of the last one.
        steps: of the test.
    """

    def __init__(
        self,
        lowest: Annotated[float, "(0, inf)"] = 1e-5,
        highest: Annotated[float, "(0, inf)"] = 1.0,
        steps: Annotated[int, "[10, inf)"] = 250,
    ) -> None:
        self.rates = [lowest * (highest / lowest) ** (step / (steps - 1)) for step in range(steps)]
        self.losses: list[float] = []
        self.rate: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """The rate that was found."""
        return {"rate": self.rate}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with the rate that was found, whatever the test would find now."""
        if saved := checkpoint["callbacks"].get(self.state_key):
            self._take(pl_module, saved["rate"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the rate, and build optimizer and schedule with it."""
        if self.rate is not None or trainer.global_step:
            return
        assert isinstance(pl_module, Classifier)
        with torch.random.fork_rng():
            self.losses = list(self._test(trainer, pl_module))
        self._take(pl_module, suggest(self.rates, self.losses))
        trainer.strategy.setup_optimizers(trainer)
        log.info(
            f"callbacks.lr_finder: optimizer.lr={self.rate:.3g}, after {len(self.losses)} steps of trial"
        )

    def _take(self, module: LightningModule, rate: float) -> None:
        assert isinstance(module, Classifier)
        self.rate, make = rate, cast(Callable[..., Optimizer], module.make_optimizer)
        module.make_optimizer = partial(make, lr=rate)

    def _test(self, trainer: Trainer, module: Classifier) -> Iterator[float]:
        """The smoothed loss before each step."""
        network = copy.deepcopy(module.network).train()
        optimizer = module.make_optimizer(network)
        lowest, total, weight = math.inf, 0.0, 0.0
        kept = 0.01 ** (12 / len(self.rates))  # a twelfth of the steps weighs almost all

        def gradients(images: Tensor, labels: Tensor) -> float:
            optimizer.zero_grad()
            with trainer.precision_plugin.forward_context():
                loss = module.criterion(network(module.normalised(images)), labels)
            loss.backward()
            value: float = loss.item()
            return value

        for rate, (images, labels) in zip(self.rates, self._batches(trainer), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = optimizer.step(partial(gradients, images, labels))
            total, weight = kept * total + loss, kept * weight + 1
            yield total / weight
            lowest = min(lowest, total / weight)
            if not total / weight <= 2 * lowest:
                return

    def _batches(self, trainer: Trainer) -> Iterator[Batch]:
        loader = trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
        while True:
            yield from islice(loader, int(trainer.num_training_batches))


def suggest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """A fifth of the rate at which the smoothed loss was lowest, which lags behind the loss itself.

    Args:
        rates: of the steps, growing.
        losses: smoothed, before each step, as many or fewer.

    Raises:
        UserError: if the loss does not fall.
    """
    lowest = min(range(len(losses)), key=losses.__getitem__)
    if lowest == 0 or not math.isfinite(losses[0]):
        raise UserError(
            f"callbacks.lr_finder: the loss falls at no rate from {rates[0]:.2g} to {rates[-1]:.2g}; look at "
            "the data, or choose callbacks.lr_finder.lowest and highest"
        )
    return float(f"{rates[lowest] / 5:.3g}")
