"""From a checkpoint to the classifier it was written of; the only place that reads checkpoints."""

from pathlib import Path
from typing import Any

import torch

from experiment.errors import UserError
from experiment.files import check
from experiment.run import Run
from lightning_modules.build import ImageFacts, build_classifier
from lightning_modules.classifier import Classifier


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, its tensors left on disk until they are used.

    Raises:
        UserError: if the file is damaged or something else.
    """
    check(path)
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except Exception as damage:  # torch's unpickler trips over damaged bytes in any way
        reason = f" ({damage.strerror})" if isinstance(damage, OSError) else ""
        raise UserError(f"{path} is not a whole checkpoint{reason}") from damage
    if not (isinstance(content, dict) and {"state_dict", "classes", "image_shape"} <= content.keys()):
        raise UserError(f"{path} is not a checkpoint of train.py")
    return content


def load_weights(module: Classifier, path: Path) -> dict[str, Any]:
    """Give ``module`` the weights of a checkpoint, from whichever engine they came.

    Returns:
        The content of the checkpoint.

    Raises:
        UserError: if they were trained for other classes or are those of another network.
    """
    content = load_checkpoint(path)
    module.on_load_checkpoint(content)
    try:
        module.load_state_dict(content["state_dict"])
    except RuntimeError as mismatch:
        raise UserError(f"{path} holds the weights of another network: {mismatch}") from mismatch
    return content


def load_classifier(run: Run, checkpoint: Path, *, reference: bool = False) -> Classifier:
    """The classifier of a run with the weights of ``checkpoint``, on the CPU, in evaluation mode.

    No data set is needed. A run of engine cupy is computed by NumPy while its tensors are on the CPU.

    Args:
        run: the run.
        checkpoint: one of its checkpoints.
        reference: have torch compute it, whatever the engine of the run.

    Raises:
        UserError: if checkpoint and run do not go together, or say too little.
    """
    content, config = load_checkpoint(checkpoint), run.config
    if reference:
        config.model.engine = "torch"
    elif config.model.get("engine") == "cupy":
        config.model.engine = "auto"
    mean, std = (tuple(content["state_dict"][name].flatten().tolist()) for name in ("mean", "std"))
    channels, height, width = content["image_shape"]
    facts = ImageFacts((channels, height, width), tuple(content["classes"]), mean, std)
    classifier = build_classifier(config, facts)
    load_weights(classifier, checkpoint)
    return classifier.eval()
