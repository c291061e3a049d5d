"""Which files below a folder are images, and to which part and class of a data set each belongs."""

import functools
import logging
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from experiment.errors import UserError

log = logging.getLogger(__name__)

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "PPM": (".pgm", ".ppm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
}
"""Pillow's names of the formats that are decoded, and no others: an EPS would start Ghostscript."""
NEEDED = {"AVIF": "pip install 'pillow>=11.3'", "HEIF": "pip install pillow-heif"}
"""How to install what reads a format that may be missing."""
IMAGE_SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
PARTS = {
    "train": r"train(ing)?|trn",
    "val": r"val|valid(ation|ate)?|dev|eval(uation)?",
    "test": r"test(ing)?|tst",
}
"""Words in the name of a folder that make it a part of a data set, with or without "set", "images", …"""
JUNK = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "Thumbs.db", "desktop.ini"})
"""What systems leave behind; files that begin with a dot are left out as well."""


class ImageFile(NamedTuple):
    """A file as it was when the folder was listed; all but ``path`` is -1 for a link that leads nowhere."""

    path: str
    size: int
    modified: int
    """Nanoseconds; copying programs set it to what they like."""
    changed: int
    """Nanoseconds; the system alone sets it, whenever it replaces or changes the file."""
    inode: int


Classes = dict[str, list[ImageFile]]


@dataclass
class _Folder:
    path: str
    images: list[ImageFile] = field(default_factory=list)
    folders: dict[str, "_Folder"] = field(default_factory=dict)

    def walk(self) -> Iterator[ImageFile]:
        yield from self.images
        for folder in self.folders.values():
            yield from folder.walk()

    @functools.cached_property
    def filled(self) -> dict[str, "_Folder"]:
        """The folders inside that hold an image at any depth."""
        return {name: folder for name, folder in self.folders.items() if next(folder.walk(), None)}


@functools.cache
def formats() -> tuple[str, ...]:
    """The keys of :data:`FORMATS` that can be read here."""
    try:
        from pillow_heif import register_heif_opener  # type: ignore[import-untyped,unused-ignore]

        register_heif_opener()
    except ImportError:
        pass
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def readable_suffixes() -> frozenset[str]:
    """Those of :func:`formats`."""
    return frozenset(suffix for name in formats() for suffix in FORMATS[name])


def printable(name: str) -> str:
    r"""A name of the file system as text: bytes that are not UTF-8 become ``\x82`` and the like."""
    return os.fsencode(name).decode(errors="backslashreplace")


def list_images(path: Path) -> tuple[list[str], Counter[str]]:
    """``path`` itself, or all images below it, sorted; and how many files of which kind were left out.

    Raises:
        UserError: if there is no image.
    """
    if path.is_file():
        return [str(path)], Counter()
    skipped: Counter[str] = Counter()
    try:
        files = sorted(file.path for file in _scan(str(path), skipped).walk())
    except OSError as failure:
        raise UserError(f"images={path}: {failure.filename} cannot be read ({failure.strerror})") from failure
    if not files:
        raise UserError(f"images={path}: the folder holds no image {_formats_and(skipped)}")
    return files, skipped


def list_tree(tree: Path) -> tuple[dict[str, Classes], Counter[str]]:
    """Image files of a data set by part (``train``, ``val``, ``test``) and class, all in sorted order.

    Parts are found by their names, in any case and spelling, if they hold class folders; without parts all
    is ``train``. A folder that is alone in the tree is entered.

    Returns:
        The files, and how many others of which kind were left out.

    Raises:
        UserError: naming what cannot be read or has two meanings.
    """
    skipped: Counter[str] = Counter()
    try:
        root = _scan(str(tree), skipped)
    except OSError as failure:
        raise UserError(
            f"{failure.filename} cannot be read ({failure.strerror}): "
            "data.root=PATH needs to be a folder of images, with one folder a class"
        ) from failure
    root = _enter(root)
    folders = _parts(root)
    inside = {part: _enter(folder) for part, folder in (folders or {"train": root}).items()}
    parts = {part: _classes(folder, skipped) for part, folder in inside.items()}
    for part, folder in folders.items():
        if odd := sorted(parts["train"].keys() ^ parts[part].keys()):
            raise UserError(
                f"{root.path}: {Path(folders['train'].path).name}/ and {Path(folder.path).name}/ need the "
                f"same classes; only one of them has {', '.join(odd[:20])}"
            )
    used = {folder.path for folder in folders.values()}
    if folders and (unused := [folder for folder in root.filled.values() if folder.path not in used]):
        names = ", ".join(f"{printable(Path(folder.path).name)}/" for folder in unused)
        skipped[f"in {names}"] += sum(1 for folder in unused for _ in folder.walk())
    if stray := {image.path for folder in (root, *inside.values()) for image in folder.images}:
        skipped["outside of class folders"] += len(stray)
    return parts, skipped


def describe(skipped: Counter[str]) -> str:
    """``"30 .txt, 3 .heic (pip install pillow-heif reads them)"``."""
    missing = {
        suffix: f" ({NEEDED[name]} reads them)"
        for name, suffixes in FORMATS.items()
        if name not in formats()
        for suffix in suffixes
    }
    return ", ".join(f"{count:,} {kind}{missing.get(kind, '')}" for kind, count in skipped.most_common())


def _formats_and(skipped: Counter[str]) -> str:
    """For a message about a folder without an image."""
    others = f"; it has {describe(skipped)}" if skipped else ""
    return f"({' '.join(IMAGE_SUFFIXES)}){others}"


def _scan(path: str, skipped: Counter[str], above: tuple[str, ...] = ()) -> _Folder:
    suffixes = readable_suffixes()
    real = os.path.realpath(path)
    if real in above:
        raise UserError(f"{path} is a link to a folder that contains it: remove the link")
    folder = _Folder(path)
    with os.scandir(path) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
        if entry.name in JUNK or entry.name.startswith("."):
            skipped["hidden"] += suffix in IMAGE_SUFFIXES and not entry.name.startswith("._")
        elif entry.is_dir():
            _add(folder, entry.name, _scan(entry.path, skipped, (*above, real)))
        elif kind := _kind_of_special(entry):
            skipped[kind] += 1
        elif suffix not in suffixes:
            skipped[printable(suffix) or "without suffix"] += 1
        else:
            folder.images.append(_file(entry))
    skipped += Counter()  # drops the zeros
    return folder


def _add(folder: _Folder, raw_name: str, inner: _Folder) -> None:
    """Put one folder into another: under one name, if two differ in Unicode's composed or decomposed form."""
    name = unicodedata.normalize("NFC", printable(raw_name))
    if name not in folder.folders:
        folder.folders[name] = inner
        return
    log.warning(f"{folder.path}: two folders are called {name!r} (in different Unicode forms): read as one")
    together = folder.folders[name]
    together.images += inner.images
    for deeper, content in inner.folders.items():
        _add(together, deeper, content)


def _kind_of_special(entry: os.DirEntry[str]) -> str:
    """What of a named pipe, socket or device the entry is; empty for a file. These may never be opened."""
    if entry.is_file():
        return ""
    try:
        mode = entry.stat().st_mode
    except OSError:
        return ""  # a link that leads nowhere: reading it will name it
    if stat.S_ISREG(mode):
        return ""
    return "named pipes" if stat.S_ISFIFO(mode) else "sockets" if stat.S_ISSOCK(mode) else "devices"


def _file(entry: os.DirEntry[str]) -> ImageFile:
    try:
        status = entry.stat()
    except OSError:
        return ImageFile(entry.path, -1, -1, -1, -1)
    return ImageFile(entry.path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _enter(folder: _Folder) -> _Folder:
    """The folder inside, while there is but one and it holds folders itself, as archives are unpacked."""
    while not folder.images and len(folder.filled) == 1:
        (inner,) = folder.filled.values()
        if not inner.filled:
            break
        folder = inner
    return folder


def _part(name: str) -> str | None:
    """The part of a data set that a folder's name stands for, if it is one."""
    words = re.findall(r"[a-z]+", name.casefold())
    hits = {
        part
        for part, spellings in PARTS.items()
        for word in words
        if re.fullmatch(rf"({spellings})(set|data|images?|imgs?|split|dir|folder)?", word)
    }
    return hits.pop() if len(hits) == 1 else None


def _parts(root: _Folder) -> dict[str, _Folder]:
    """The parts of a tree by name; none if its folders are classes."""
    named: dict[str, list[str]] = {}
    for name in root.filled:
        if part := _part(name):
            named.setdefault(part, []).append(name)
    nested = {name: set(_enter(folder).filled) for name, folder in root.filled.items()}
    _refuse_parts_inside_classes(root)
    structured = {part: [name for name in names if len(nested[name]) > 1] for part, names in named.items()}
    structured = {part: names for part, names in structured.items() if names}
    if not structured:
        _refuse_images_without_class(root, named)
        return {}
    classes = set().union(*(nested[name] for names in structured.values() for name in names))
    others = [name for name in root.filled if not any(name in names for names in structured.values())]
    alike = [name for name in others if nested[name] & classes]
    flat = [name for names in named.values() for name in names if len(nested[name]) < 2]
    if len(structured) == 1 and others and not (alike or flat):
        return {}  # a class called train, which has folders inside
    if twice := next((names for names in structured.values() if len(names) > 1), None):
        raise UserError(
            f"{root.path}: {' and '.join(f'{name}/' for name in twice)} both look like the same part of a "
            "data set: rename one to train/, val/ or test/, or move it away"
        )
    if alike or flat:
        why = "holds classes as well" if alike else "holds images, but no class folders"
        raise UserError(
            f"{root.path}: {(alike or flat)[0]}/ {why}, and is none of the parts found: "
            f"{', '.join(f'{names[0]}/' for names in structured.values())}. Rename it to train/, val/ or "
            "test/ with one folder a class, or move it away"
        )
    if "train" not in structured:
        found = " and ".join(f"{structured[part][0]}/" for part in PARTS if part in structured)
        raise UserError(f"{root.path} has {found} but no train/")
    return {part: root.filled[structured[part][0]] for part in PARTS if part in structured}


def _refuse_parts_inside_classes(root: _Folder) -> None:
    for name, folder in root.filled.items():
        inside = {_part(inner): inner for inner in folder.filled}
        if not _part(name) and "train" in inside and len(inside) > 1 and None not in inside:
            found = " and ".join(f"{inner}/" for inner in inside.values())
            raise UserError(
                f"{folder.path} holds {found}: if that is the data set, give data.root={folder.path}; if "
                f"{name} is a class, put the parts above the classes, as in {inside['train']}/{name}/"
            )


def _refuse_images_without_class(root: _Folder, named: dict[str, list[str]]) -> None:
    """``train/`` and ``test/`` of mere images, or class folders beside a ``test/`` of mere images."""
    number = sum(map(len, named.values()))
    if number == len(root.filled) > 1 and "train" in named:
        raise UserError(
            f"{root.path}: {named['train'][0]}/ needs one folder a class and at least two, as its siblings do"
        )
    if "test" in named and len(root.filled) > 2:
        raise UserError(
            f"{root.path}: {named['test'][0]}/ may be a class, or test images without classes: rename it, or "
            "make it test/ beside train/, with one folder a class in both"
        )


def _classes(folder: _Folder, skipped: Counter[str]) -> Classes:
    classes = {name: sorted(inner.walk()) for name, inner in sorted(folder.folders.items())}
    if len(classes) < 2:
        raise UserError(f"{folder.path} needs one folder a class and at least two, it has {len(classes)}")
    for name, files in classes.items():
        if not files:
            raise UserError(
                f"{folder.path}/{name} holds no image {_formats_and(skipped)}: add some or remove it"
            )
    return classes
