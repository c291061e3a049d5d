"""From a configuration to results: fit, test with the best weights, write everything down."""

import gc
import logging
import math
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig
from torch.utils.flop_counter import FlopCounterMode

from experiment.entry_point import argument
from experiment.errors import UserError
from experiment.files import sha256
from experiment.instantiate import chosen_metrics
from experiment.metrics import Predictions, rows, write_predictions
from experiment.metrics.logits import recalls
from experiment.precision import cpu_flags
from experiment.results import table
from experiment.run import Run
from experiment.schema import flatten
from experiment.sweep import swept
from experiment.terminal import loading
from experiment.worker import PREEMPTED, be_parent, end_with_parent, ending_on_signals, requeue_slurm_job
from lightning_modules.build import (
    build_classifier,
    build_data,
    build_trainer,
    compile_network,
    without_values,
)
from lightning_modules.callbacks.extension import Extension
from lightning_modules.callbacks.lr_finder import LearningRateFinder
from lightning_modules.callbacks.non_finite_loss import Diverged
from lightning_modules.callbacks.stop_after import StopAfter
from lightning_modules.classifier import Classifier
from lightning_modules.data import ImageDataModule
from lightning_modules.data.memory import memory_limit
from lightning_modules.loading import load_checkpoint, load_weights

log = logging.getLogger(__name__)

_forward_known: dict[str, tuple[int, int]] = {}


def train(config: DictConfig, run: Run) -> float | None:
    """Train and test as ``config`` says, leaving everything in the folder of ``run``.

    A run that has a ``last.ckpt`` goes on from it.

    Returns:
        The monitored metric at the best epoch, as ``results.json`` has it.

    Raises:
        UserError: for what the user can mend; the run's status is then ``failed``.
        KeyboardInterrupt: after Ctrl-C; the run's status is then ``interrupted``.
        SystemExit: with code 143 after another signal; the run's status is then ``interrupted``.
    """
    quieten_lightning()
    if not run.is_writer:
        logging.disable(logging.WARNING)  # the first process says the same
    end_with_parent()
    be_parent()
    with ending_on_signals(), run.session():
        if not (run.is_job and run.state == "finished"):  # by another process, while this one was starting
            try:
                measured = _fit_and_test(config, run)
            except (KeyboardInterrupt, SystemExit) as signal:
                if run.has_begun:
                    run.finish("interrupted")
                if not (isinstance(signal, SystemExit) and signal.code == PREEMPTED):
                    raise KeyboardInterrupt from signal  # Lightning turns Ctrl-C into an exit
                if (config.callbacks.get("interruption") or {}).get("requeue") and run.is_writer:
                    requeue_slurm_job()
                raise
            except BaseException as failure:
                run.fail(failure, diverged=isinstance(failure, Diverged))
                if isinstance(failure, Diverged) and not run.is_writer:
                    raise SystemExit(1) from failure  # the first process says the same
                raise
            if not run.is_writer:  # the results are the first process's to write
                return None
            if measured is None:
                run.finish("interrupted", stopped_after=run.stop_after)
                log.info(f"stopped after epoch {run.stop_after} by its sweep")
            else:
                run.finish("finished", **measured)
                log.info(table(run.results, run.folder))
        score: float | None = run.results.get("monitored")
    if run.is_job:
        gc.collect()  # Lightning leaves circles, which Python would keep for tens of jobs
    return score


def evaluate(
    run: Run, checkpoint: Path, data_root: str | None = None, predictions: Path | None = None
) -> dict[str, Any]:
    """Rebuild a run from its folder and test it with the weights of ``checkpoint``.

    Args:
        run: the run.
        checkpoint: one of its checkpoints.
        data_root: where the data is now, if not where the run found it.
        predictions: file for what the network says of each image.

    Returns:
        What :func:`test` returns.
    """
    quieten_lightning()
    config = run.config
    if data_root is not None:
        config.data.root = data_root
    # one device, and nothing written: the run's own figures and events stay as they are
    config.callbacks, config.logger = {}, {}
    config.trainer.update({"accelerator": "auto", "devices": 1, "strategy": "auto", "num_nodes": 1})
    config.trainer.profiler = None
    if config.trainer.precision == "16-mixed" and not torch.accelerator.is_available():
        config.trainer.precision = "32-true"  # on a CPU there is nothing else like it
    data = _load_data(config, run)
    trainer, module = build_trainer(config, run.folder), build_classifier(config, data)
    return test(trainer, module, data, checkpoint, predictions)


def quieten_lightning() -> None:
    """Leave out its advertisements and one deprecation that is not the user's."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # ours go on at any step, see TrainingBatches.start
    warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch")
    warnings.filterwarnings("ignore", message="`isinstance.treespec, LeafSpec")  # Lightning 2.6 on torch 2.14


def _fit_and_test(config: DictConfig, run: Run) -> dict[str, Any] | None:
    """Fit and test; returns what was measured, None if the run stopped at an epoch before its last."""
    seed_everything(config.seed, workers=True, verbose=False)
    data = _load_data(config, run)
    for metric in chosen_metrics(config).values():
        if len(data.classes) < metric.min_classes:
            raise UserError(
                f"metrics: {metric.words} says nothing with fewer than {metric.min_classes} classes, and "
                f"{data.dataset} has {len(data.classes)}: leave {metric.key} out"
            )
    for name, node in config.callbacks.items():
        monitor = str((node or {}).get("monitor"))
        # checkpoint takes the last epoch instead
        if monitor.startswith("val_") and not data.sizes["val"] and name != "checkpoint":
            raise UserError(
                f"callbacks.{name}.monitor={monitor}: {data.dataset} has no validation set, and "
                "data.val_fraction=0 makes none"
            )
    module = build_classifier(config, data)
    last = run.resumed_from or run.folder / "checkpoints" / "last.ckpt"
    step = _step(last) if last.exists() else None
    if step is None:
        module.initialise_from(data.training_images(5000))
    if config.trainer.precision == "64-true":  # Lightning would first round what a checkpoint holds
        module.double()
    compile_network(config, module.network)
    trainer = build_trainer(config, run.folder, purge_step=step)
    if "trainer.max_epochs" in run.changes:
        trainer.callbacks.insert(0, Extension())  # type: ignore[attr-defined]
        log.info(
            f"{run.folder.name} goes on to epoch {config.trainer.max_epochs}. The schedule is laid out over "
            "all of them: a constant one stays as it was, any other takes the rate that it has here in a run "
            "of this length"
        )
    parameters = sum(parameter.numel() for parameter in module.network.parameters())
    flops, outputs = _forward(config, data)
    cost = {"parameters": parameters, "flops_per_image": flops}
    sizes = " + ".join(f"{size:,} {part}" for part, size in data.sizes.items())
    log.info(
        f"{run.folder.name}: {_short_name(config.model)}, {parameters:,} parameters, on {data.dataset} "
        f"({sizes} images), {trainer.strategy.root_device}, {config.trainer.precision}"
    )
    # measured: the layers' outputs with their gradients, ten copies of the images, and torch itself
    needed = 2**29 + 4 * config.data.batch_size * (2 * outputs + 10 * math.prod(data.image_shape))
    if trainer.strategy.root_device.type == "cpu" and needed > (limit := memory_limit()):
        log.warning(
            f"warning: training on batches of {config.data.batch_size} such images takes about "
            f"{needed / 2**30:.1f} GiB of memory, this machine or container allows {limit / 2**30:.1f}: it "
            "may be killed without a word. A smaller data.batch_size takes less"
        )
    begin = _Begin(run, data)
    stop = StopAfter(run.stop_after)
    trainer.callbacks[:] = [begin, *trainer.callbacks, stop]  # type: ignore[attr-defined]
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last if step is not None else None, weights_only=True)
    except (MisconfigurationException, ModuleNotFoundError) as reason:  # a callback that cannot work, a limit
        raise UserError(f"Lightning cannot train so: {' '.join(str(reason).split())}") from reason
    if stop.has_stopped:
        return None
    begin.on_train_start(trainer, module)  # where all epochs were done and only the test is left
    # without checkpoints there are only the last weights, and the results say so
    best = run.folder / "checkpoints" / "best.ckpt" if config.callbacks.get("checkpoint") else None
    tested = test(trainer, module, data, best, run.folder / "predictions.npz")
    _log_hyperparameters(trainer, run, run.summary | tested)
    finder = next((c for c in trainer.callbacks if isinstance(c, LearningRateFinder)), None)  # type: ignore[attr-defined]
    return cost | ({"found_lr": finder.rate} if finder else {}) | tested


def _step(last: Path) -> int:
    """The step that a checkpoint was written at.

    Raises:
        UserError: if it is damaged, naming one that is whole.
    """
    try:
        return int(load_checkpoint(last)["global_step"])
    except UserError as damage:
        best = last.with_name("best.ckpt")
        if best == last or not best.exists():
            raise
        epoch = load_checkpoint(best)["epoch"] + 1
        raise UserError(
            f"{damage}. The one of epoch {epoch} is whole, go on from it with {argument('resume', str(best))}"
        ) from damage


def test(
    trainer: Trainer,
    module: Classifier,
    data: ImageDataModule,
    checkpoint: Path | None,
    predictions: Path | None,
) -> dict[str, Any]:
    """Test with the weights of ``checkpoint``, or of None with those that the module has.

    Args:
        trainer: that tests.
        module: that is tested.
        data: whose test set it is.
        checkpoint: file of a checkpoint.
        predictions: file for what the network says of each image, if it is to be kept.

    Returns:
        ``test_loss`` and ``test_<key>`` of every metric, ``test_acc_per_class`` in [0, 1], the rows of the
        ``metrics``, and what was ``tested``: the checkpoint's file, epoch and SHA-256.

    Raises:
        UserError: if there is no such file, or it does not fit.
    """
    tested: dict[str, Any] = {"checkpoint": None, "epoch": trainer.current_epoch, "sha256": None}
    if checkpoint is not None:
        if not checkpoint.is_file():
            raise UserError(
                f"{checkpoint} is missing: its weights were to be tested. Restore it, or test others with "
                "python evaluate.py run=FOLDER ckpt=last"
            )
        content, folder = load_weights(module, checkpoint), Path(trainer.default_root_dir)
        own = checkpoint.is_relative_to(folder)
        tested["checkpoint"] = str(checkpoint.relative_to(folder) if own else checkpoint)
        tested["epoch"] = content["epoch"] + 1 if content["global_step"] else 0
        tested["sha256"] = sha256(checkpoint)
    trainer.test(module, datamodule=data, verbose=False)
    assert module.tested is not None
    logits, labels, sizes = module.tested
    if predictions is not None and trainer.is_global_zero:
        write_predictions(predictions, Predictions(logits, labels, data.test_order(sizes).numpy()))
    return {
        **{name: value for name, value in module.measured.items() if name.startswith("test_")},
        # a smoke run may not meet every class
        "test_acc_per_class": {
            name: None if math.isnan(recall) else recall
            for name, recall in zip(data.classes, recalls(logits, labels).tolist(), strict=True)
        },
        "metrics": rows(module.metrics),
        "tested": tested,
    }


def _load_data(config: DictConfig, run: Run) -> ImageDataModule:
    """The data of a run.

    Raises:
        UserError: if it is not what the run was trained on.
    """
    data = build_data(config)
    with loading(data.dataset):
        data.load()
    before = run.provenance.get("data", {}).get("fingerprint", data.fingerprint)
    if before != data.fingerprint:
        raise UserError(
            f"{data.dataset} is not what {run.folder.name} was trained on: its fingerprint is now "
            f"{data.fingerprint[:12]}, was {before[:12]}. Restore the data or start a new run"
        )
    return data


class _Begin(Callback):
    """Notes in the run's folder that the training begins, when nothing more can keep it from that."""

    def __init__(self, run: Run, data: ImageDataModule) -> None:
        self.run, self.data = run, data

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.run.has_begun:
            return
        data = {name: getattr(self.data, name) for name in ("dataset", "fingerprint", "sizes")}
        devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        self.run.begin(
            data=data | self.data.notes,
            gpus=devices,
            threads=torch.get_num_threads(),
            precision=self.run.config.trainer.precision,
            bfloat16_units=sorted(flag for flag in cpu_flags() if "bf16" in flag),
        )


def _forward(config: DictConfig, data: ImageDataModule) -> tuple[int, int]:
    """Of one image's forward pass the floating-point operations, two for each product, and all outputs."""
    key = repr((config.model, data.image_shape, len(data.classes)))
    if key not in _forward_known:  # by an earlier job
        network, outputs = without_values(config, data.image_shape, len(data.classes)), list[int]()

        def note(_: torch.nn.Module, __: object, output: object) -> None:
            outputs.append(output.numel() if isinstance(output, torch.Tensor) else 0)

        for layer in network.modules():
            if not [*layer.children()]:
                layer.register_forward_hook(note)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, *data.image_shape, device="meta"))
        _forward_known[key] = int(counter.get_total_flops()), sum(outputs)
    return _forward_known[key]


def _short_name(node: DictConfig) -> str:
    return str(node["_target_"]).rpartition(".")[2]


def _log_hyperparameters(trainer: Trainer, run: Run, results: dict[str, Any]) -> None:
    """Show the run in TensorBoard's HPARAMS tab, a job of a sweep with as many columns as a single run."""
    from torch.utils.tensorboard.summary import hparams

    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    if not loggers or not trainer.is_global_zero:  # one of several processes writes
        return
    groups = ("model", "data", "optimizer", "scheduler", "loss")
    config = run.config
    flat = flatten(config)
    kept = (*(f"{group}." for group in groups), "seed", "trainer.max_epochs")
    left_out = ("_target_", "root", "download", "cache")
    shown: dict[str, Any] = {group: _short_name(config[group]) for group in groups if group != "data"}
    shown |= {k: v for k, v in flat.items() if k.startswith(kept) and not k.endswith(left_out)}
    shown |= {key: flat.get(key, text) for key, text in swept(run).items()}
    shown = {key: str(v) if isinstance(v, list) else v for key, v in shown.items() if v is not None}
    names = [f"{stage}_{key}" for stage in ("test", "val") for key in (*results["metrics"], "loss")]
    final = {f"final/{name}": results[name] for name in names if results.get(name) is not None}
    for logger in loggers:
        logger.log_hyperparams(shown)
        logger.log_metrics(final)
        # without the first summary, which one run would give for all, TensorBoard collects the columns
        for summary in hparams(shown, final)[1:]:  # type: ignore[no-untyped-call]
            logger.experiment._get_file_writer().add_summary(summary)
        logger.finalize("success")
