"""Decoded images of a tree in one file: what is known of them, their pixels, their statistics."""

import glob
import hashlib
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from experiment.errors import UserError
from lightning_modules.data.image_set import Statistics

log = logging.getLogger(__name__)

HEADER = 4096
"""Bytes of JSON, filled up with blanks, before the pixels."""
ABANDONED = 3600
"""Seconds after which a file that nobody finished is removed."""

Shape = tuple[int, int, int, int]
"""N, C, H, W."""


def digest(content: object) -> str:
    """Hash of bytes, or of anything JSON can hold."""
    encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
    return hashlib.blake2b(encoded, digest_size=16).hexdigest()


class ImageCache:
    """The decoded images of one tree and choice of options: a file that appears whole or not at all.

    Args:
        path: where it is; its folder need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[dict[str, Any], Tensor, Statistics] | None:
        """What was told of the images, (N, C, H, W) uint8 mapped, and what was measured; None if not intact.

        Whether the pixels have the fingerprint that is told is for the caller to see, who knows their labels.
        """
        try:
            with self.path.open("rb") as file:
                facts = json.loads(file.read(HEADER))
                if facts.pop("check") != digest(facts):
                    raise ValueError("wrong checksum")
                images, table = _map(file, tuple(facts["shape"]))
            if facts["table"] != digest(table.numpy().tobytes()):
                raise ValueError("wrong statistics")
            if facts["pixel_range"]:
                low, high = facts["pixel_range"]
                facts["pixel_range"] = float(low), float(high)
            return facts, images, Statistics(facts["fingerprint"], table)
        except FileNotFoundError:
            return None
        except UserError:
            raise
        except Exception as damage:  # damaged bytes may be taken for anything
            self.warn_of_damage(damage)
            return None

    def warn_of_damage(self, damage: object) -> None:
        """Say that what was found here is not used."""
        log.warning(f"{self.path} is damaged ({damage}) and will be replaced")

    def store(
        self,
        shape: Shape,
        facts: dict[str, Any],
        write: Callable[[IO[bytes]], tuple[Statistics, dict[str, Any]]],
    ) -> tuple[Tensor, Statistics]:
        """Have the pixels of images written, one after the other, and map them.

        Args:
            shape: of all images.
            facts: what to tell of them.
            write: writes their pixels, measures them meanwhile, and has more to tell.

        Raises:
            UserError: if the disk fails meanwhile or has no room.
        """
        part = self.path.with_suffix(f".{uuid4().hex[:8]}.part")
        try:
            try:
                file = self._create(part, math.prod(shape))
            except OSError as failure:
                log.warning(
                    f"warning: {self.path.parent} cannot be written ({failure.strerror}): the next start "
                    "decodes the images again. data.cache=FOLDER puts the cache elsewhere"
                )
                file = tempfile.TemporaryFile()  # noqa: SIM115
            with file:
                file.seek(HEADER)
                measured, more = write(file)
                table = measured.table.numpy().tobytes()
                file.write(table)
                more |= {"shape": shape, "fingerprint": measured.fingerprint, "table": digest(table)}
                _write_facts(file, facts | more)
                images, _ = _map(file, shape)
            if part.exists():
                part.replace(self.path)
            return images, measured
        except OSError as failure:
            raise UserError(
                f"decoded images cannot be written ({failure.strerror}): data.cache=FOLDER is elsewhere"
            ) from failure
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def update(self, facts: dict[str, Any]) -> None:
        """Tell something else of the same images."""
        with suppress(OSError), self.path.open("r+b") as file:  # nothing but time is lost
            _write_facts(file, facts)

    def _create(self, path: Path, size: int) -> IO[bytes]:
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.glob(f"{glob.escape(self.path.stem)}.*.part"):
            with suppress(OSError):
                if time.time() - other.stat().st_mtime > ABANDONED:
                    other.unlink()
        file = path.open("w+b")
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk is found out now
        except OSError:
            file.close()
            path.unlink()
            raise
        return file


def _write_facts(file: IO[bytes], facts: dict[str, Any]) -> None:
    file.seek(0)
    file.write(json.dumps(facts | {"check": digest(facts)}).encode().ljust(HEADER))
    file.flush()


def _map(file: IO[bytes], shape: Shape) -> tuple[Tensor, Tensor]:
    """Images and statistics, not read: processes share the memory, and the system may take it back."""
    number, size = shape[0], math.prod(shape)
    try:
        content = torch.from_numpy(np.memmap(file, np.uint8, mode="c", offset=HEADER))
    except MemoryError as failure:
        raise UserError(f"the decoded images cannot be mapped into memory: {failure}") from failure
    if len(content) != size + 8 * number * (1 + 2 * shape[1]):
        raise ValueError(f"{len(content):,} bytes are not {shape} and a table")
    return content[:size].view(shape), content[size:].clone().view(torch.int64).view(number, -1)
