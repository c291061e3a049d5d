"""Sharpness-aware minimisation: the gradient of a step is taken where the loss nearby is highest."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import SGD
from torch.optim.optimizer import ParamsT

from lightning_modules.optim.closure import evaluated


class SecondGradient(Callback):
    """Gives :class:`SAM` the gradient of a step anew, at the weights as they are then.

    Lightning's closure computes the last of the batches that make a step. Here all of them are kept until
    the step is made, so that accumulated gradients are those of one point. Running statistics stay as the
    first pass has left them, metrics do not see the second.
    """

    def __init__(self) -> None:
        self.earlier: list[Any] = []
        """Of the step under way, all batches but the last."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give it to the optimizer."""
        (optimizer,) = trainer.optimizers
        assert isinstance(optimizer, SAM)
        optimizer.second_gradient = lambda: self._compute(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch until its step is made."""
        is_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
        self.earlier = [] if is_step else [*self.earlier, pl_module.learned_from]

    def _compute(self, trainer: Trainer, pl_module: Any) -> None:
        (optimizer,) = trainer.optimizers
        parts = trainer.accumulate_grad_batches  # by which Lightning divides each loss
        with _same_buffers(pl_module):
            for images, labels in [*self.earlier, pl_module.learned_from]:
                with trainer.precision_plugin.forward_context():
                    loss = pl_module.criterion(pl_module(images), labels) / parts
                loss.backward()
        if trainer.world_size > 1:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad = trainer.strategy.reduce(parameter.grad, reduce_op="mean")
        if trainer.gradient_clip_val:
            pl_module.clip_gradients(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)


@contextmanager
def _same_buffers(module: torch.nn.Module) -> Iterator[None]:
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


class SAM(SGD):
    """SGD with the gradients of w + ρ g / ‖g‖ in place of those of w, at the price of a second pass.

    Source: Foret et al., Sharpness-Aware Minimization, 2021.

    Args:
        params: as torch takes them.
        lr: learning rate, in (0, inf).
        rho: how far away the loss is looked at, in (0, inf).
        momentum: part of the last step that is taken again, in [0, 1).
        nesterov: Nesterov momentum.
        weight_decay: multiple of the weights that is added to their gradient, in [0, inf).
    """

    companion = SecondGradient
    """The callback without which it cannot work."""

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.02,
        rho: float = 0.05,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, momentum, nesterov=nesterov, weight_decay=weight_decay)
        self.rho = rho
        self.second_gradient: Callable[[], Any] | None = None
        """Computes the gradients of the whole step anew; by default ``closure`` does."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Climb, take the gradient there, go back and descend by it.

        Args:
            closure: computes the gradients, and returns the loss.

        Returns:
            The loss at the weights where the step began.
        """
        if closure is None:
            raise ValueError("SAM.step: expected a closure that computes loss and gradients, got None")
        loss = evaluated(closure)
        moved = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in moved]).norm()
        before = [p.clone() for p in moved]
        for p in moved:
            p.add_(p.grad * (self.rho / (norm + 1e-12)))
        self.zero_grad()
        evaluated(self.second_gradient or closure)
        for p, value in zip(moved, before, strict=True):
            p.copy_(value)
        super().step()
        return loss
