"""Where a training is, on one line of a terminal."""

import logging
import sys
import time
import warnings
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, Timer

from experiment.terminal import ERASE, width

REFRESH = 0.1
"""Seconds between two pictures of the line; each looks at a loss, which waits for the device."""


def seconds_left(trainer: Trainer, seconds: float, steps: int) -> float | None:
    """What is left of a training of which ``steps`` took ``seconds``; None where it has no end."""
    limits = [timer.time_remaining() for timer in trainer.callbacks if isinstance(timer, Timer)]  # type: ignore[attr-defined]
    total = trainer.estimated_stepping_batches
    if steps and total != float("inf"):
        limits.append(seconds / steps * max(total - trainer.global_step, 0))
    return min((limit for limit in limits if limit is not None), default=None)


def epoch_name(trainer: Trainer) -> str:
    """Which epoch the trainer is in, such as ``epoch  7/20``."""
    epochs = trainer.max_epochs
    if epochs is None or epochs < 0:
        return f"epoch {trainer.current_epoch + 1}"
    return f"epoch {trainer.current_epoch + 1:>{len(str(epochs))}}/{epochs}"


class Progress(ProgressBar):
    """Shows epoch, part of it that is done, loss, speed and what time is left.

    The line is there only while batches run: it is erased before a log record, a warning and the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_on, self._is_drawn = True, False
        self._drawn_at = self._began = self._epoch_began = 0.0
        self._first_step = self._images = 0

    def enable(self) -> None:
        """Show the line."""
        self._is_on = True

    def disable(self) -> None:
        """Show nothing, in a process that is not the first."""
        self._is_on = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Erase the line from now on before others print."""
        super().setup(trainer, pl_module, stage)
        for handler in logging.getLogger().handlers:
            handler.addFilter(self._erase)
        self._show_warning = warnings.showwarning
        warnings.showwarning = self._warn

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the terminal and the logging as they were."""
        self._erase()
        for handler in logging.getLogger().handlers:
            handler.removeFilter(self._erase)
        if warnings.showwarning == self._warn:
            warnings.showwarning = self._show_warning

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """As :meth:`teardown`, which Lightning leaves out after a failure."""
        self.teardown(trainer, pl_module, "")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._began, self._first_step = time.monotonic(), trainer.global_step
        self._epoch_began = self._began  # a run that goes on within an epoch does not start it

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock."""
        self._epoch_began, self._images = time.monotonic(), 0
        self._draw(epoch_name(trainer), 0, self.total_train_batches)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show how far the epoch is."""
        self._images += len(batch[1]) * trainer.world_size
        if not self._is_due():
            return
        now = time.monotonic()
        left = seconds_left(trainer, now - self._began, trainer.global_step - self._first_step)
        self._draw(
            epoch_name(trainer),
            batch_idx + 1,
            self.total_train_batches,
            f"loss {float(outputs['loss']):.4f}",
            f"{self._images / (now - self._epoch_began):,.0f} images/s",
            "" if left is None else f"{timedelta(seconds=round(left))} left",
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Erase the line: the epoch's figures follow."""
        self._erase()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Show how far the validation is."""
        if self._is_due():
            total = trainer.num_val_batches[dataloader_idx]
            self._draw(f"{epoch_name(trainer)}, validation", batch_idx + 1, total)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Erase the line."""
        self._erase()

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Show how far the test is."""
        if self._is_due():
            self._draw("test", batch_idx + 1, trainer.num_test_batches[dataloader_idx])

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Erase the line."""
        self._erase()

    def _is_due(self) -> bool:
        return self._is_on and time.monotonic() - self._drawn_at >= REFRESH

    def _draw(self, name: str, done: int, total: float, *figures: str) -> None:
        """Replace the line; figures that find no room on it are left out, the last ones first."""
        if not self._is_on:
            return
        most = width()
        shown = [figure for figure in figures if figure]
        while shown and len("  ".join([name, "100%", *shown])) + 10 > most:
            shown.pop()
        part = done / total if total and total != float("inf") else 0.0
        text = "  ".join([f"{part:>4.0%}", *shown])
        length = max(0, min(30, most - len(name) - len(text) - 2))
        filled = round(part * length)
        line = f"{name} {'━' * filled}{'─' * (length - filled)} {text}"[:most]
        print(f"{ERASE}{line}", end="", file=sys.stderr, flush=True)
        self._is_drawn, self._drawn_at = True, time.monotonic()

    def _erase(self, record: logging.LogRecord | None = None) -> bool:
        """Erase the line; as a filter of a log handler, let the record pass."""
        if self._is_drawn:
            print(ERASE, end="", file=sys.stderr, flush=True)
            self._is_drawn = False
        return True

    def _warn(self, *arguments: Any, **options: Any) -> None:
        self._erase()
        self._show_warning(*arguments, **options)
