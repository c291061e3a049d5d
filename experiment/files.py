"""Files that are whole or not there, and checksums that tell: a line of ``sha256sum`` in a file beside."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from experiment.errors import UserError


class CannotWrite(UserError):
    """The disk is full, or the folder is away or not to be written to."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` so that a reader or a crash never meets half a file.

    Raises:
        CannotWrite: with what the system says.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            part.write_bytes(content.encode() if isinstance(content, str) else content)
            part.replace(path)
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
    except OSError as failure:
        raise CannotWrite(f"{path} cannot be written: {failure.strerror or failure}") from failure


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads what OmegaConf wrote, ten times as fast; 1e-4 is a number, too."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file that OmegaConf wrote, where many are read; empty if nothing is in it."""
    return yaml.load(path.read_text(), _Loader) or {}


def read_json(path: Path, **kinds: Any) -> dict[str, Any]:
    """The content of a JSON file, which is an object; empty if there is no file.

    Args:
        path: of the file.
        **kinds: key → type that its value has where it is there.

    Raises:
        UserError: if the file is damaged or cannot be read.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as damage:
        raise damaged(path, damage) from damage
    if not isinstance(content, dict):
        raise damaged(path, "it holds no names with values")
    for key, kind in kinds.items():
        if key in content and not isinstance(content[key], kind):
            raise damaged(path, f"{key} is not what it was written as")
    return content


def damaged(path: Path, what: object) -> UserError:
    """The error of a file whose content is not what was written there."""
    if isinstance(what, OSError):
        return UserError(f"{path} cannot be read: {what.strerror or what}")
    first, *_ = str(what).splitlines() or [type(what).__name__]
    return UserError(f"{path} is damaged: {first}")


def make_folder(path: Path, is_new: bool = False) -> None:
    """Make a folder, with those above it.

    Raises:
        CannotWrite: if that is not possible.
        FileExistsError: with ``is_new``, if there is something of this name.
    """
    try:
        path.mkdir(parents=True, exist_ok=not is_new)
    except OSError as failure:
        if is_new and isinstance(failure, FileExistsError):
            raise
        raise CannotWrite(f"{path} cannot be made: {failure.strerror or failure}") from failure


def sha256(path: Path) -> str:
    """Checksum of a file's content, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def beside(path: Path) -> Path:
    """The file that holds the checksum of ``path``."""
    return path.with_name(f"{path.name}.sha256")


@contextmanager
def note_checksum(part: Path, path: Path) -> Iterator[None]:
    """Keep the checksum of ``part``, which becomes ``path`` meanwhile.

    Until it has, both the old and the new content are what is expected: a crash in between is no damage.
    """
    line = f"{sha256(part)}  {path.name}\n"
    before = beside(path).read_text() if beside(path).exists() else ""
    if path.exists() and not before:
        before = f"{sha256(path)}  {path.name}\n"
    write_atomically(beside(path), line + before)
    yield
    write_atomically(beside(path), line)


def check(path: Path) -> None:
    """Compare a file with its checksum; one without, as version 0.1.0 wrote them, passes.

    Raises:
        UserError: if they differ.
    """
    if beside(path).is_file():
        known = [line.split()[0] for line in beside(path).read_text().splitlines() if line.split()]
        if sha256(path) not in known:
            raise UserError(
                f"{path} is damaged or not the file that was written: its checksum is not that of "
                f"{beside(path).name}"
            )
