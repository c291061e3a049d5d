"""Decoded images of a tree on disk: ``NAME-*.images`` with their bytes, ``NAME.json`` about them."""

import glob
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiment.errors import UserError
from lightning_modules.data.memory import require_memory

log = logging.getLogger(__name__)

ABANDONED = 3600
"""Seconds after which a file that nobody finished is removed."""

Shape = tuple[int, int, int, int]


def digest(content: object) -> str:
    """Hash of anything JSON can hold."""
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


class ImageCache:
    """The decoded images of one tree and choice of options.

    Both files appear whole or not at all, and the second names the first: whoever reads while another
    process writes finds the old pair or the new one.

    Args:
        folder: where they go; it need not exist.
        name: what their names begin with.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.facts_path = folder / f"{name}.json"

    def read(self) -> tuple[dict[str, Any], Tensor] | None:
        """The facts that were stored and (N, C, H, W) uint8 mapped images; None if there are none intact.

        Whether the pixels are intact is for the caller to see, who knows their fingerprint.
        """
        if not self.facts_path.exists():
            return None
        try:
            facts = self._read_facts()
            if facts["pixel_range"]:
                low, high = facts["pixel_range"]
                facts["pixel_range"] = float(low), float(high)
            return facts, _map(self.folder / Path(facts["images"]).name, tuple(facts["shape"]))
        except UserError:
            raise
        except Exception as damage:  # damaged bytes may be taken for anything
            self.warn_of_damage(damage)
            return None

    def warn_of_damage(self, damage: object) -> None:
        """Say that what was found here is not used."""
        log.warning(f"{self.facts_path} is damaged ({damage}) and will be replaced")

    def store(self, rows: Iterable[NDArray[np.uint8]], shape: Shape) -> tuple[Path | None, Tensor]:
        """Write the (C, H, W) images in ``rows`` one by one, keeping none in memory.

        Returns:
            Their file, for :meth:`commit`, and themselves, mapped. Where there can be no file they are in
            memory.

        Raises:
            UserError: if the disk fails meanwhile, or the memory they must be in does not suffice.
        """
        part, size = self.folder / f"{self.name}-{uuid4().hex[:8]}.part", math.prod(shape)
        try:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                file = part.open("wb", buffering=2**20)
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)  # a full disk is found out now
            except OSError as failure:
                return None, self._collect(rows, shape, failure)
            try:
                with file:
                    for row in rows:
                        file.write(row.tobytes())
                path = part.with_suffix(".images")
                part.replace(path)
            except OSError as failure:
                raise UserError(
                    f"{part} cannot be written ({failure.strerror}): data.cache=FOLDER puts it elsewhere"
                ) from failure
            return path, _map(path, shape)
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _collect(self, rows: Iterable[NDArray[np.uint8]], shape: Shape, failure: OSError) -> Tensor:
        log.warning(
            f"warning: {self.folder} cannot be written ({failure.strerror}): the next start will decode the "
            "images again. data.cache=FOLDER puts the cache elsewhere"
        )
        require_memory(math.prod(shape), f"{shape[0]:,} images of {shape[3]}×{shape[2]} pixels")
        images = torch.empty(shape, dtype=torch.uint8)
        for image, row in zip(images, rows, strict=True):
            image.copy_(torch.from_numpy(np.ascontiguousarray(row)))
        return images

    def commit(self, images: Path, facts: dict[str, Any]) -> None:
        """Make a stored file what :meth:`read` finds, with ``facts``, and remove what it replaces."""
        try:
            self.write_facts(facts | {"images": images.name})
            for path in self.folder.glob(f"{glob.escape(self.name)}-????????.*"):
                is_over = path.suffix == ".images" or time.time() - path.stat().st_mtime > ABANDONED
                if is_over and path.name not in (images.name, self._read_facts()["images"]):
                    path.unlink()
        except (OSError, ValueError, KeyError) as failure:
            log.warning(f"warning: {self.folder}: {failure}")

    def write_facts(self, facts: dict[str, Any]) -> None:
        """Replace the second file."""
        part = self.folder / f"{self.name}-{uuid4().hex[:8]}.part"
        try:
            part.write_text(json.dumps(facts | {"check": digest(facts)}))
            part.replace(self.facts_path)
        finally:
            part.unlink(missing_ok=True)

    def _read_facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.facts_path.read_bytes())
        if facts.pop("check") != digest(facts):
            raise ValueError("wrong checksum")
        return facts


def _map(path: Path, shape: Shape) -> Tensor:
    """(N, C, H, W) uint8, not read: processes share the memory, and the system may take it back."""
    size = math.prod(shape)
    if path.stat().st_size != size:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes, expected {size:,}")
    try:
        return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).view(shape)
    except RuntimeError as failure:
        raise UserError(f"{path} cannot be mapped into memory: {failure}") from failure
