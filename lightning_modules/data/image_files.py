"""Which files below a folder are images, and to which part and class of a data set each belongs."""

import functools
import gc
import logging
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from experiment.errors import UserError
from experiment.terminal import announced

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
SPECIAL = {stat.S_IFIFO: "named pipes", stat.S_IFSOCK: "sockets"}


class ImageFile(NamedTuple):
    """A file as it was when the folder was listed; all but ``path`` is -1 for a link that leads nowhere."""

    path: str
    size: int = -1
    modified: int = -1
    """Nanoseconds; copying programs set it to what they like."""
    changed: int = -1
    """Nanoseconds; the system alone sets it, whenever it replaces or changes the file."""
    inode: int = -1


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

    def add(self, name: str, folder: "_Folder") -> None:
        """Put a folder into this; two names that differ in Unicode's composed or decomposed form are one."""
        name = unicodedata.normalize("NFC", printable(name))
        known = self.folders.setdefault(name, folder)
        if known is not folder:
            log.warning(
                f"{self.path}: two folders are called {name!r} (in different Unicode forms): read as one"
            )
            known.images += folder.images
            for inner, content in folder.folders.items():
                known.add(inner, content)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep Python from looking through a million objects again and again while they become more."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


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


def printable(name: str) -> str:
    r"""A name of the file system as text: bytes that are not UTF-8 become ``\x82`` and the like."""
    return name if name.isascii() else os.fsencode(name).decode(errors="backslashreplace")


def list_images(path: Path) -> tuple[list[str], Counter[str]]:
    """``path`` itself, or all images below it, sorted; and how many files of which kind were left out.

    Raises:
        UserError: if there is no image.
    """
    if path.is_file():
        return [str(path)], Counter()
    if not path.is_dir():  # opening one may wait for ever
        raise UserError(f"images={path}: neither an image nor a folder of images")
    skipped: Counter[str] = Counter()
    with announced(lambda: f"listing {path} …"):
        files = sorted(file.path for file in _scan(str(path), skipped, f"images={path}: ").walk())
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
    needed = "data.root=PATH needs to be a folder of images, with one folder a class"
    with announced(lambda: f"listing {tree} …"), _uncollected():
        root = _scan(str(tree), skipped, end=f": {needed}")
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


def _scan(
    path: str, skipped: Counter[str], begin: str = "", end: str = "", above: tuple[str, ...] = ()
) -> _Folder:
    """All images below a folder; ``begin`` and ``end`` of the message if it cannot be read."""
    suffixes = {suffix for name in formats() for suffix in FORMATS[name]}
    real = os.path.realpath(path)
    if real in above:
        raise UserError(f"{path} is a link to a folder that contains it: remove the link")
    folder = _Folder(path)
    try:
        with os.scandir(path) as entries:
            found = sorted(entries, key=attrgetter("name"))
    except OSError as failure:
        raise UserError(f"{begin}{failure.filename} cannot be read ({failure.strerror}){end}") from failure
    for entry in found:
        stem, _, ending = entry.name.rpartition(".")  # a third of the time of splitext
        suffix = f".{ending.lower()}" if stem else ""
        try:
            status: os.stat_result | None = entry.stat()
        except OSError:
            status = None  # a link that leads nowhere: reading it will name it
        mode = status.st_mode if status else stat.S_IFREG
        if entry.name in JUNK or entry.name.startswith("."):
            skipped["hidden"] += suffix in IMAGE_SUFFIXES and not entry.name.startswith("._")
        elif stat.S_ISDIR(mode):
            folder.add(entry.name, _scan(entry.path, skipped, begin, end, (*above, real)))
        elif not stat.S_ISREG(mode):  # opening one may wait for ever
            skipped[SPECIAL.get(stat.S_IFMT(mode), "devices")] += 1
        elif suffix not in suffixes:
            skipped[printable(suffix) or "without suffix"] += 1
        elif status:
            times = status.st_mtime_ns, status.st_ctime_ns
            folder.images.append(ImageFile(entry.path, status.st_size, *times, status.st_ino % 2**63))
        else:
            folder.images.append(ImageFile(entry.path))
    skipped += Counter()  # drops the zeros
    return folder


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
    structured = {
        part: inside
        for part, names in named.items()
        if (inside := [name for name in names if len(nested[name]) > 1])
    }
    if not structured:
        _refuse_images_without_class(root, named)
        return {}
    used = {name for names in structured.values() for name in names}
    classes = set().union(*(nested[name] for name in used))
    others = [name for name in root.filled if name not in used]
    alike = [name for name in others if nested[name] & classes]
    flat = [name for names in named.values() for name in names if len(nested[name]) < 2]
    if len(structured) == 1 and others and not (alike or flat):
        return {}  # a class called train, which has folders inside
    rename = "ename {} to train/, val/ or test/{}, or move it away"
    if twice := next((names for names in structured.values() if len(names) > 1), None):
        raise UserError(
            f"{root.path}: {' and '.join(f'{name}/' for name in twice)} both look like the same part of a "
            f"data set: r{rename.format('one', '')}"
        )
    found = [f"{names[0]}/" for names in structured.values()]
    if odd := alike or flat:
        why = "holds classes as well" if alike else "holds images, but no class folders"
        raise UserError(
            f"{root.path}: {odd[0]}/ {why}, and is none of the parts found: {', '.join(found)}. "
            f"R{rename.format('it', ' with one folder a class')}"
        )
    if "train" not in structured:
        raise UserError(f"{root.path} has {' and '.join(sorted(found, reverse=True))} but no train/")
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
