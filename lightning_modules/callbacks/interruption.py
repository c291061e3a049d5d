"""Makes sure that Ctrl-C ends a training."""

import signal
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Interruption(Callback):
    """Raises KeyboardInterrupt before the next step where the first one was lost.

    Python drops an exception that a signal raises inside a finalizer, such as that of a file being closed,
    without a word; the training would go on as if nobody had pressed a key.
    """

    def __init__(self) -> None:
        self.noted = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note SIGINT from now on, unless this process ignores it, as a background job of a shell does."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.noted = True
        raise KeyboardInterrupt

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Raise what was lost.

        Raises:
            KeyboardInterrupt: if a SIGINT has come.
        """
        if self.noted:
            raise KeyboardInterrupt

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave signals as they were."""
        if signal.getsignal(signal.SIGINT) == self._note:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """As :meth:`teardown`, which Lightning leaves out after a failure."""
        self.teardown(trainer, pl_module, "fit")
