"""Where runs come from, and in what they differ although nobody asked for it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiment.report.runs import IGNORED, Record, plain


def code(git: Mapping[str, Any] | None) -> str:
    """A commit in short, with a word on uncommitted changes."""
    if not git:
        return "no git"
    changes = f" + uncommitted changes {str(git.get('diff_sha256'))[:8]}" if git.get("changed_files") else ""
    return f"{str(git.get('commit'))[:10]}{changes}"


def facts(records: Iterable[Record]) -> dict[str, Counter[str]]:
    """Code, data, hardware and versions: fact → its values with the number of runs of each."""
    values: dict[str, Counter[str]] = defaultdict(Counter)
    for known in (record.provenance for record in records):
        sessions = [known.get("git"), *(session.get("git") for session in known.get("resumed", []))]
        data, hardware = known.get("data", {}), known.get("hardware", {})
        own = {
            "commit": ", then ".join(dict.fromkeys(map(code, sessions))),
            f"data {data.get('dataset')}": str(data.get("fingerprint"))[:12],
            "processor": f"{hardware.get('processor')}, {hardware.get('cores')} cores",
            "GPUs": ", ".join(known.get("gpus", [])) or "none",
            "threads": str(known.get("threads")),
            "host": str(hardware.get("host")),
            "python": str(known.get("python")),
            **known.get("packages", {}),
        }
        for name, value in own.items():
            values[name][value] += 1
    return values


def flags(records: Sequence[Record], keys: Sequence[str]) -> list[str]:
    """Every way in which finished runs differ besides ``keys``, a line each.

    A configuration key may differ where it is constant given the varied groups: an option of a group brings
    others along.
    """
    known = facts(records)
    lines = [f"{name} differs: {several(values)}" for name, values in known.items() if len(values) > 1]
    if dirty := sum(count for value, count in known["commit"].items() if "uncommitted" in value):
        lines.append(f"{dirty} of {len(records)} runs had uncommitted changes")
    groups = [key for key in keys if "." not in key]
    for key in dict.fromkeys(key for record in records for key in record.config):
        if key in IGNORED or any(f"{key}.".startswith(f"{swept}.") for swept in keys if "." in swept):
            continue
        given: dict[tuple[str | None, ...], Counter[str]] = defaultdict(Counter)
        for record in records:
            value = plain(record.config[key]) if key in record.config else "absent"
            given[tuple(record.values.get(group) for group in groups)][value] += 1
        if any(len(values) > 1 for values in given.values()):
            total = several(sum(given.values(), Counter()))
            lines.append(f"{key} differs though it was not swept: {total}")
    return lines


def several(values: Counter[str]) -> str:
    """Values with the number of runs that have them."""
    return ", ".join(f"{value} ({count} run{'s' * (count > 1)})" for value, count in values.most_common())
