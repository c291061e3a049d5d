"""The classifier of a run as a file that needs nothing of this project, compared with it before it is kept.

``onnx`` and ``torch_export`` hold the computation, normalisation included: float32 images (N, C, H, W) in
[0, 1], N as one likes, to (N, K) logits, whose softmax over the K classes are probabilities.
``safetensors`` holds the network's weights under their names. All hold as text what one needs to know beside
them: ``classes``, ``image_shape``, ``mean``, ``std``, ``config``, ``run`` and ``checkpoint``, each in JSON.
"""

import json
import logging
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.export import Dim, ExportedProgram

from experiment.errors import UserError
from experiment.run import Run
from lightning_modules.build import ImageFacts, build_classifier, build_data
from lightning_modules.classifier import Classifier
from lightning_modules.data.augment import to_float
from lightning_modules.data.decoding import read_images
from lightning_modules.data.image_files import list_images
from lightning_modules.loading import load_classifier
from lightning_modules.networks.blocks import Shape

log = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Of logits, relative to the largest of them or to 1, whichever is more: float32 sums in another order."""
COMPARED = 128
"""Images that the file and the classifier are compared on, at most."""

Function = Callable[[Tensor], Tensor]


class Exported(NamedTuple):
    """A file, what it was compared with the classifier on, and how far apart their logits are and may be."""

    path: Path
    images: str
    difference: float
    tolerance: float


def export(
    run: Run,
    checkpoint: Path,
    kind: str,
    path: Path | None = None,
    images: Path | None = None,
    data_root: str | None = None,
) -> Exported:
    """Write the classifier of a run to a file, whole and as good as the classifier, or not at all.

    What is exported is computed by torch, whatever the engine of the run; it is compared with that engine.

    Args:
        run: the run.
        checkpoint: with its weights.
        kind: ``onnx``, ``safetensors`` or ``torch_export``.
        path: of the file, with the suffix of its kind; default: in ``export/`` of the run.
        images: to compare on; default: the run's validation images, test images where it has none.
        data_root: where the data is now, if not where the run found it.

    Raises:
        UserError: if a package is missing, ``path`` is not a place for the file, or the file is not as good.
    """
    suffix, packages, write = KINDS[kind]
    for package in packages:
        try:
            import_module(package)
        except ImportError as missing:
            raise UserError(
                f"format={kind} needs {package} ({missing}): pip install -e '.[export]'"
            ) from missing
    path = path or run.folder / "export" / f"{checkpoint.stem}{suffix}"
    if path.suffix != suffix:
        raise UserError(f"out={path}: a file of format={kind} needs to end with {suffix}")
    classifier = load_classifier(run, checkpoint)
    # neighbouring channels are a matter of speed here, and a burden to the exporters
    reference = load_classifier(run, checkpoint, reference=True).to(memory_format=torch.contiguous_format)
    probe, source = _probe(run, classifier.image_shape, images, data_root)
    part = path.with_name(f".{path.stem}.{os.getpid()}{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            exported = write(reference, _facts(run, checkpoint, reference), part)
            with torch.no_grad():
                expected = classifier(probe)
                # in batches of two sizes: neither may be the only one
                logits = torch.cat([exported(batch) for batch in (probe[:1], probe[1:]) if len(batch)])
            difference = float((logits - expected).abs().max())
            tolerance = TOLERANCE * max(1.0, float(expected.abs().max()))
            if not difference <= tolerance:  # NaN is not
                raise UserError(
                    f"the exported file was not kept: on {source} its logits are {difference:.1e} off the "
                    f"classifier's, more than {tolerance:.1e}"
                )
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as failure:
        raise UserError(f"out={path} cannot be written: {failure.strerror}") from failure
    return Exported(path, source, difference, tolerance)


def _facts(run: Run, checkpoint: Path, classifier: Classifier) -> dict[str, str]:
    """What to know beside the weights; of the configuration all but where things were on this machine."""
    groups = ["seed", "model", "data", "optimizer", "scheduler", "loss", "trainer"]
    config = OmegaConf.masked_copy(run.config, groups)
    config.data.root = None
    facts = {
        "classes": classifier.classes,
        "image_shape": classifier.image_shape,
        "mean": classifier.mean.flatten().tolist(),
        "std": classifier.std.flatten().tolist(),
        "config": OmegaConf.to_container(config, resolve=True),
        "run": run.folder.name,
        "checkpoint": checkpoint.stem,
    }
    return {name: json.dumps(fact) for name, fact in facts.items()}


def _probe(run: Run, shape: Shape, images: Path | None, data_root: str | None) -> tuple[Tensor, str]:
    """(n, C, H, W) float32 images to compare on and what they are, real ones wherever there are any."""
    if images is not None:
        paths, pixels, _ = read_images(list_images(images)[0][:COMPARED], shape)
        if not paths:
            raise UserError(f"images={images}: none of the first {COMPARED} can be read")
        return to_float(pixels), f"{len(paths)} images of {images}"
    config = run.config
    config.data.update({"download": False, "root": data_root or config.data.root})
    try:
        data = build_data(config)
        if data.image_shape != shape:
            raise UserError(f"{data.dataset} has changed: its images are {data.image_shape}, were {shape}")
        part = "validation" if data.sizes["val"] else "test"
    except UserError as missing:
        if data_root is not None:
            raise
        log.warning(
            f"warning: compared on random images, which say less than real ones: give images=PATH or "
            f"data.root=PATH. {str(missing).splitlines()[0]}"
        )
        chance = torch.Generator().manual_seed(0)
        return torch.rand(COMPARED, *shape, generator=chance), f"{COMPARED} random images"
    batches = data.val_dataloader() if part == "validation" else data.test_dataloader()
    batch = next(iter(batches))[0][:COMPARED]
    return batch, f"{len(batch)} {part} images of {data.dataset}"


def _trace(classifier: Classifier) -> ExportedProgram:
    example = torch.zeros(2, *classifier.image_shape)  # one image would become the only size of a batch
    program = torch.export.export(classifier, (example,), dynamic_shapes=({0: Dim("batch")},), strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # tells where things are on this machine
    return program


def _write_onnx(classifier: Classifier, facts: dict[str, str], path: Path) -> Function:
    program = torch.onnx.export(
        _trace(classifier), dynamo=True, verbose=False, input_names=["images"], output_names=["logits"],
        dynamic_shapes=({0: "batch"},),  # names the dimension
    )  # fmt: skip
    assert program is not None
    program.model.metadata_props.update(facts)
    program.save(path, external_data=False)
    session = import_module("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def _write_torch_export(classifier: Classifier, facts: dict[str, str], path: Path) -> Function:
    torch.export.save(_trace(classifier), path, extra_files=facts)
    return torch.export.load(path).module()


def _write_safetensors(classifier: Classifier, facts: dict[str, str], path: Path) -> Function:
    """Also rebuilds the classifier from the file alone, which must have every bit of the weights."""
    # through memory: save_file would make a file that only its owner may read
    path.write_bytes(import_module("safetensors.torch").save(classifier.network.state_dict(), facts))
    with import_module("safetensors").safe_open(path, "pt") as file:
        told: dict[str, Any] = {name: json.loads(fact) for name, fact in file.metadata().items()}
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    shape, classes, mean, std = (tuple(told[name]) for name in ImageFacts._fields)
    config = OmegaConf.create(told["config"])
    config.model.engine = "torch"
    fresh = build_classifier(config, ImageFacts(shape, classes, mean, std)).eval()
    fresh.network.load_state_dict(weights)
    after = {name: tensor.numpy().tobytes() for name, tensor in fresh.state_dict().items()}
    before = {name: tensor.numpy().tobytes() for name, tensor in classifier.state_dict().items()}
    if different := [name for name in before if before[name] != after[name]]:
        raise UserError(f"the exported file was not kept: read back, {', '.join(different)} differ")
    return fresh


KINDS: dict[str, tuple[str, tuple[str, ...], Callable[[Classifier, dict[str, str], Path], Function]]] = {
    "onnx": (".onnx", ("onnx", "onnxscript", "onnxruntime"), _write_onnx),
    "safetensors": (".safetensors", ("safetensors.torch",), _write_safetensors),
    "torch_export": (".pt2", (), _write_torch_export),
}
"""Suffix, packages and writer of each kind; what a writer returns computes logits from the written file."""
