"""One value that a user can set: its type, its range and its meaning."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

EVERYTHING = "(-inf, inf)"


WORDS = {
    "name": "a folder's name without '/', at most 200 bytes",
    "path": "a path",
    "batches": "a number of batches, as 10, or a part of all, as 0.1 or 1.0",
    "jobs": "a number of jobs, or -1 for one for each core",
    "duration": "days, hours, minutes and seconds, as 00:12:00:00",
}
"""Kinds whose name alone does not say what may be given."""


@dataclass(frozen=True)
class Knob:
    """One value that a user can set.

    Args:
        kind: ``"int"``, ``"float"``, ``"bool"``, ``"str"``, ``"path"`` (not empty), ``"name"`` (a folder's),
            ``"batches"`` (a number of them, or a part of all), ``"jobs"`` (at once),
            ``"duration"`` (``DD:HH:MM:SS``), ``"dict"``, ``"any"``, ``"list[int]"``,
            ``"tuple[float, float]"`` (a list of two) or several of them, such as ``"int | float"``.
        meaning: one line for ``--help``.
        interval: the allowed numbers as a mathematician writes them, such as ``"[0, 1)"``.
        choices: the allowed values; empty for any.
        optional: whether ``null`` is allowed.
        default: what it is where no file gives it, as one would type it.
    """

    kind: str
    meaning: str = ""
    interval: str = EVERYTHING
    choices: tuple[Any, ...] = ()
    optional: bool = False
    default: str = ""

    @property
    def allowed(self) -> str:
        """What may be given, in words: ``float in [0, 1)``."""
        if self.choices:
            words = " | ".join(map(text, self.choices))
        else:
            words = WORDS.get(self.kind, self.kind.replace("tuple[", "["))
            words += "" if self.interval == EVERYTHING else f" in {self.interval}"
        return f"{words} or null" if self.optional else words

    def accepts(self, value: Any) -> bool:
        """Whether ``value`` has the type and lies in the range."""
        return self.optional if value is None else self._fits(self.kind, value)

    def problem(self, key: str, value: Any) -> str | None:
        """What is wrong with ``key=value``; ``None`` if nothing is."""
        if self.accepts(value):
            return None
        hint = nearest(str(value), map(str, self.choices)) if self.choices else ""
        if self.kind in ("name", "path", "str") and type(value) in (int, float):
            hint += f" A text of digits is quoted twice: \"{key}='{value}'\""
        meaning = f" ({self.meaning})" if self.meaning else ""
        return f"{key}={text(value)}: expected {self.allowed}{meaning}.{hint}"

    def _fits(self, kind: str, value: Any) -> bool:
        if len(alternatives := re.split(r" \| (?![^\[]*\])", kind)) > 1:
            return any(self._fits(alternative, value) for alternative in alternatives)
        outer, _, inner = kind.rstrip("]").partition("[")
        if outer == "list":
            return isinstance(value, list) and bool(value) and all(self._fits(inner, item) for item in value)
        if outer == "tuple":
            kinds = inner.split(", ")
            is_long = isinstance(value, list) and len(value) == len(kinds)
            return is_long and all(map(self._fits, kinds, value))
        if self.choices:
            return any(type(value) is type(choice) and value == choice for choice in self.choices)
        if kind in ("bool", "dict"):
            return isinstance(value, bool if kind == "bool" else Mapping)
        if kind in ("int", "float"):
            is_number = isinstance(value, int if kind == "int" else int | float)
            return is_number and not isinstance(value, bool) and self._contains(value)
        if kind == "batches":
            is_part = isinstance(value, float) and 0 < value <= 1
            return is_part or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)
        if kind == "jobs":
            return isinstance(value, int) and not isinstance(value, bool) and (value >= 1 or value == -1)
        if kind == "duration":
            is_one = isinstance(value, str) and re.fullmatch(r"\d\d(:\d\d){3}", value)
            return bool(is_one) and set(value) > set("0:")
        if kind == "name":
            return isinstance(value, str) and _is_name(value)
        if kind in ("str", "path"):
            return isinstance(value, str) and (kind == "str" or bool(value.strip()))
        return True

    def _contains(self, number: float) -> bool:
        low, high = (float(bound) for bound in self.interval[1:-1].split(","))
        above = low <= number if self.interval[0] == "[" else low < number
        below = number <= high if self.interval[-1] == "]" else number < high
        return above and below and not math.isnan(number)


def _is_name(text: str) -> bool:
    """Whether ``text`` names a folder inside another one: no path, and short enough for what is appended."""
    is_plain = text.isprintable() and text.strip() == text and not set(text) & set("/\\\0")
    return is_plain and text not in ("", ".", "..") and len(text.encode(errors="replace")) <= 200


def text(value: Any) -> str:
    """A value as one would type it on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).replace(", ", ",")


def nearest(name: str, known: Iterable[str], suffix: str = "") -> str:
    """``" Did you mean a or b?"`` for the known names most like ``name``; empty if none is.

    Args:
        name: what was given.
        known: what there is.
        suffix: follows each name in the answer, such as ``"=3"``.
    """
    scores = {key: likeness(name, key) for key in known}
    best = sorted((key for key in scores if scores[key] >= 0.65), key=lambda key: -scores[key])[:3]
    close = [f"{key}{suffix}" for key in best if scores[key] > scores[best[0]] - 0.1]
    return f" Did you mean {' or '.join(close)}?" if close else ""


def likeness(name: str, key: str) -> float:
    """How much a name is like a key, which may be right but for its group: mostly their last parts."""
    (owner, _, leaf), (group, _, last) = name.rpartition("."), key.rpartition(".")
    distance = 1 - _ratio(owner, group) if owner else 0.0
    return _ratio(leaf, last) - 0.2 * distance


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
