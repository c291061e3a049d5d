"""One row and one line an epoch."""

import csv
import io
import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from experiment.files import write_atomically
from experiment.metrics import row as metric_row
from lightning_modules.callbacks.progress import epoch_name, seconds_left
from lightning_modules.classifier import Classifier

log = logging.getLogger(__name__)


class History(Callback):
    """Writes ``metrics.csv`` and logs a line after every epoch.

    A row has a column for the loss and each of the metrics, of training and of validation. ``epoch`` and
    ``step`` count what is finished, ``lr`` is the rate of the epoch's last step,
    ``train_seconds`` are those of training alone, ``seconds`` of the whole epoch with its validation.
    The rows are part of the checkpoint: a resumed run goes on where its checkpoint was written.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._lr = 0.0
        self._images = 0
        self._start = self._train_end = 0.0
        self._loss: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, and what is known of the epoch under way."""
        now = time.perf_counter()
        epoch = {"lr": self._lr, "images": self._images, "seconds": now - self._start}
        return {"rows": self.rows, "epoch": epoch | {"train_seconds": self._train_end - self._start}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from saved rows."""
        self.rows = state_dict["rows"]
        if epoch := state_dict.get("epoch"):  # counts where the checkpoint was written within an epoch
            self._lr, self._images = epoch["lr"], epoch["images"]
            self._start = time.perf_counter() - epoch["seconds"]
            self._train_end = self._start + epoch["train_seconds"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._images, self._loss = 0, None
        self._start = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the images and note the rate of this step, before the schedule moves on."""
        self._images += len(batch[1]) * trainer.world_size
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep what there is to wait for."""
        self._loss = outputs["loss"]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock of training, unless that is done."""
        if self._loss is not None:
            self._loss.item()  # wait for the device
            self._train_end, self._loss = time.perf_counter(), None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row."""
        self.on_validation_start(trainer, pl_module)  # there was none
        pl_module.log("lr", self._lr, sync_dist=True)
        assert isinstance(pl_module, Classifier)
        pl_module.measure("train")
        keys = ["loss", *(metric.key for metric in pl_module.metrics if metric.when == "epoch")]
        columns = [f"{stage}_{key}" for stage in ("train", "val") for key in keys]
        train_seconds = self._train_end - self._start
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "lr": self._lr,
            **{name: pl_module.measured.get(name) for name in columns},
            "train_seconds": round(train_seconds, 3),
            "seconds": round(time.perf_counter() - self._start, 3),
            "images_per_second": round(self._images / train_seconds, 1),
        }
        self.rows.append(row)
        if trainer.is_global_zero:
            self._write(Path(trainer.default_root_dir) / "metrics.csv")
            self._log_line(row, keys, trainer)

    def _write(self, path: Path) -> None:
        text = io.StringIO()
        columns = dict.fromkeys(column for row in (self.rows[-1], *self.rows) for column in row)
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(path, text.getvalue())

    def _log_line(self, row: dict[str, Any], keys: list[str], trainer: Trainer) -> None:
        figures = ""
        for stage in ("train", "val"):
            values = {key: row[f"{stage}_{key}"] for key in keys if row[f"{stage}_{key}"] is not None}
            parts = [f"{key} {metric_row(key).short(value)}" for key, value in values.items()]
            figures += f"{stage} {' '.join(parts)}  " if parts else ""
        earlier = self.rows[-2]["step"] if len(self.rows) > 1 else 0
        left = seconds_left(trainer, row["seconds"], row["step"] - earlier)
        log.info(
            f"{epoch_name(trainer)}  {figures}lr {row['lr']:.2e}  "
            f"{row['seconds']:.1f} s  {row['images_per_second']:.0f} images/s"
            + (f"  {timedelta(seconds=round(left))} left" if left else "")
        )
