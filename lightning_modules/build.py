"""From a configuration to the objects of a run: data, network, classifier, trainer."""

import os
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import AdvancedProfiler, PassThroughProfiler, SimpleProfiler
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer

from experiment.errors import UserError
from experiment.instantiate import chosen_metrics, instantiate, load
from experiment.launch import launched
from experiment.metrics import row as metric_row
from experiment.precision import problems_without_gpu, resolve
from experiment.run import Run
from experiment.schema import NEEDS_PROBABILITIES, own_keys
from experiment.sweep import swept
from lightning_modules.bridge import namespace
from lightning_modules.callbacks import Interruption, Progress
from lightning_modules.classifier import Classifier
from lightning_modules.data import ImageDataModule
from lightning_modules.networks.blocks import Shape
from lightning_modules.optim.groups import parameter_groups

PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler}


def build_data(config: DictConfig) -> ImageDataModule:
    """The data of a run."""
    data: ImageDataModule = instantiate(config.data, seed=config.seed)
    return data


def build_network(config: DictConfig, image_shape: Shape, num_classes: int) -> nn.Module:
    """The network of a run for images of ``image_shape`` = (channels, height, width).

    Raises:
        UserError: if the engine cannot work here or the network does not fit the images.
    """
    engine = config.model.get("engine", "torch")  # a model of the user's own need not name it
    node, _ = own_keys("model", config.model)
    try:
        layers: Any = nn if engine == "torch" else namespace(engine)
    except RuntimeError as reason:
        raise UserError(f"model.engine={engine}: {reason}. model.engine=auto takes what fits") from reason
    network: nn.Module = instantiate(node, layers, image_shape, num_classes)
    # on a CPU torch's convolutions are 20–25 % faster when the channels of a pixel are neighbours
    return network.to(memory_format=torch.channels_last) if engine == "torch" else network


class ImageFacts(NamedTuple):
    """What a classifier must know of its images; an :class:`ImageDataModule` knows it, too."""

    image_shape: Shape
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def build_classifier(config: DictConfig, data: ImageDataModule | ImageFacts) -> Classifier:
    """The LightningModule of a run: its network, loss, optimizer and schedule."""
    node, own = own_keys("loss", config.loss)
    criterion, classes = instantiate(node), len(data.classes)
    _check_loss(config, criterion, classes)
    for height in config.data.get("size_schedule") or ():
        _require_size(config, data.image_shape, classes, height)
    return Classifier(
        build_network(config, data.image_shape, classes),
        criterion,
        partial(build_optimizer, config.optimizer),
        partial(instantiate, config.scheduler),
        image_shape=data.image_shape,
        classes=data.classes,
        mean=data.mean,
        std=data.std,
        metrics=chosen_metrics(config).values(),
        mirrors=bool(config.data.get("augment") and config.data.get("flip")),
        keep_hardest=own.get("keep_hardest", 1.0),
        weighs_batches_alike="metrics" not in config,  # a run of version 0.1
    )


def _check_loss(config: DictConfig, criterion: nn.Module, classes: int) -> None:
    """Try the loss on what it will be given, labels and perhaps probabilities.

    Raises:
        UserError: if it does not take them.
    """
    logits, labels = torch.zeros(classes + 1, classes), torch.zeros(classes + 1, dtype=torch.long)
    given = {"loss": ("needs to take labels, such as loss=cross_entropy", labels)}
    if mix := config.data.get("mix"):
        given[f"data.mix={mix}"] = NEEDS_PROBABILITIES, torch.full_like(logits, 1 / classes)
    for key, (needs, targets) in given.items():
        try:
            with torch.no_grad():
                float(criterion(logits, targets))
        except Exception as failure:  # whatever it says of targets that it does not know
            reason = f"{key} {needs}, not {config.loss._target_}: {str(failure).splitlines()[0]}"
            raise UserError(reason) from failure


def without_values(config: DictConfig, image_shape: Shape, num_classes: int) -> nn.Module:
    """The network of a run in torch's layers on the device ``meta``, which knows shapes and no values."""
    reference = config.copy()
    OmegaConf.update(reference, "model.engine", "torch", force_add=True)
    with torch.device("meta"):
        return build_network(reference, image_shape, num_classes).eval()


def _require_size(config: DictConfig, image_shape: Shape, num_classes: int, height: int) -> None:
    """Refuse a height of images that the network of a run cannot take.

    Raises:
        UserError: naming it.
    """
    width = round(height * image_shape[2] / image_shape[1])
    images = torch.zeros(1, image_shape[0], height, width, device="meta")
    try:
        with torch.no_grad():
            without_values(config, image_shape, num_classes)(images)
    except Exception as failure:  # whatever a layer says of too small an image
        raise UserError(
            f"data.size_schedule: this network takes no images of {height}×{width} pixels "
            f"({str(failure).splitlines()[0]}). Give larger ones, or a network that averages over any size, "
            "as with model.pooling=adaptive_avg"
        ) from failure


def compile_network(config: DictConfig, network: nn.Module) -> None:
    """Have torch compile a network, if the run is to.

    Raises:
        UserError: if there is no compiler.
    """
    if not config.trainer.get("compile"):
        return
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++", "cl"))):
        raise UserError(
            "trainer.compile=true needs a C++ compiler, such as g++: install one, or leave it out"
        )
    network.compile()


def build_optimizer(config: DictConfig, network: nn.Module, **extra: Any) -> Optimizer:
    """The optimizer of what is trained of a network: the run's ``optimizer``, but for ``extra`` settings."""
    node, grouping = own_keys("optimizer", config)
    is_grouped = any(value not in (None, False) for value in grouping.values())
    is_grouped |= any(hasattr(parameter, "until") for parameter in network.parameters())
    parameters = parameter_groups(network, **grouping) if is_grouped else network.parameters()
    optimizer: Optimizer = instantiate(node, parameters, **extra)
    return optimizer


def build_trainer(config: DictConfig, folder: Path, purge_step: int | None = None) -> Trainer:
    """The Trainer of a run, which writes into ``folder``.

    Args:
        config: the run's configuration.
        folder: the run folder, where callbacks find it as ``trainer.default_root_dir``.
        purge_step: first step whose TensorBoard events an earlier attempt may have left.
    """
    on_cpu = config.trainer.accelerator == "cpu" or not torch.accelerator.is_available()
    if on_cpu and (wrong := problems_without_gpu(config.trainer)):
        raise UserError("\n       ".join(wrong))
    callbacks: list[Callback] = [_callback(node, folder) for node in config.callbacks.values() if node]
    if companion := getattr(load(config.optimizer._target_), "companion", None):
        callbacks.append(companion())
    if not any(isinstance(callback, Interruption) for callback in callbacks):
        callbacks.append(Interruption())
    shows_progress = any(isinstance(callback, ProgressBar) for callback in callbacks)  # one of the user's
    if sys.stderr.isatty() and not shows_progress and not swept(Run(folder)):  # a sweep prints a line a job
        callbacks.insert(0, Progress())  # its line is gone before the others print
        shows_progress = True
    loggers = [_logger(node, folder, purge_step) for node in config.logger.values() if node]
    resolve(config)
    plain = cast(dict[str, Any], OmegaConf.to_container(config.trainer, resolve=True))
    options = {key: value for key, value in plain.items() if value is not None}
    options.pop("compile", None)  # the network is compiled before, see compile_network
    if "profiler" in options:
        options["profiler"] = PROFILERS[options["profiler"]](dirpath=folder, filename="profile")
    else:
        options["profiler"] = _Unprofiled()
    try:
        trainer = Trainer(
            **options,
            plugins=_environment(config),
            default_root_dir=folder,
            callbacks=callbacks,
            logger=loggers,
            enable_progress_bar=shows_progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,  # nothing is logged in a step; a larger number is warned about
            use_distributed_sampler=False,  # the data module shares batches out itself
        )
    except (MisconfigurationException, ValueError) as reason:
        raise UserError(f"this trainer cannot work here: {reason} (trainer=cpu works everywhere)") from reason
    trainer._checkpoint_connector = _NothingUnasked(trainer)
    return trainer


class _Unprofiled(PassThroughProfiler):
    """Profiles nothing. Lightning's own makes a context of a generator for each of 55 calls a step."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return _NOTHING


_NOTHING = nullcontext()


def _environment(config: DictConfig) -> list[Any]:
    """How the processes of a run find each other, where Lightning would take Slurm for more than it is."""
    launcher = launched().by
    if launcher == "srun":
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(config.trainer.devices))  # srun may leave it out
        # Lightning would write a checkpoint of its own at Slurm's warning and requeue the job unasked
        return [SLURMEnvironment(auto_requeue=False)]
    return [LightningEnvironment()] if launcher is None and "SLURM_NTASKS" in os.environ else []


class _NothingUnasked(_CheckpointConnector):
    """Loads what it is told; inside a Slurm job Lightning prefers an ``hpc_ckpt_*.ckpt`` of the folder."""

    @property
    def _hpc_resume_path(self) -> None:
        return None


def _callback(node: DictConfig, folder: Path) -> Callback:
    extra: dict[str, Any] = {}
    if "dirpath" in node:  # what is written elsewhere would be lost when the run moves
        extra["dirpath"] = str(folder / node.dirpath)
    if node.get("monitor") and "mode" in node and node.mode is None:  # as the metric is better
        extra["mode"] = "max" if metric_row(node.monitor).sign > 0 else "min"
    try:
        callback: Callback = instantiate(node, **extra)
    except (MisconfigurationException, ModuleNotFoundError) as reason:
        raise UserError(f"{node._target_}: {reason}") from reason
    return callback


def _logger(node: DictConfig, folder: Path, purge_step: int | None) -> Logger:
    extra: dict[str, Any] = {}
    kind = node._target_.rpartition(".")[2]
    if kind == "TensorBoardLogger":
        extra["purge_step"] = purge_step
    elif kind == "WandbLogger":
        extra["name"] = folder.name
    elif kind == "MLFlowLogger":
        extra["run_name"] = folder.name
        # unless the user has a server, one database for the runs that lie side by side
        database = f"sqlite:///{folder.parent / 'mlflow.db'}"
        extra["tracking_uri"] = os.environ.get("MLFLOW_TRACKING_URI", database)
    try:
        logger: Logger = instantiate(node, save_dir=str(folder), **extra)
    except ModuleNotFoundError as missing:
        raise UserError(f"{node._target_}: {missing}. pip install -e '.[mlflow,wandb]'") from missing
    return logger
