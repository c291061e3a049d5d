"""In what runs differ: in their settings, and in what nobody set: code, data, hardware and versions."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiment.report.runs import Record


def differing_settings(a: Record, b: Record) -> list[str]:
    """Settings in which two runs differ, sorted.

    A group stands for its keys where the runs were composed of different options of it: ``model``, not
    ``model.widths`` and ``model.dropout``.
    """
    keys = {key for key, _ in a.items ^ b.items}
    groups = {key: key.partition(".")[0] for key in keys}
    return sorted({g if a.choices.get(g) != b.choices.get(g) else key for key, g in groups.items()})


def code(git: Mapping[str, Any] | None) -> str:
    """A commit in short, with a word on uncommitted changes."""
    if not git:
        return "no git"
    changes = f" + uncommitted changes {str(git.get('diff_sha256'))[:8]}" if git.get("changed_files") else ""
    return f"{str(git.get('commit'))[:10]}{changes}"


def circumstances(record: Record) -> dict[str, str]:
    """Code, data, precision, hardware and versions of a run; what may change a result and is no setting."""
    known = record.provenance
    sessions = [known.get("git"), *(session.get("git") for session in known.get("resumed", []))]
    data, hardware = known.get("data", {}), known.get("hardware", {})
    return {
        "commit": ", then ".join(dict.fromkeys(map(code, sessions))),
        f"data {data.get('dataset')}": record.fingerprint[:12],
        "precision": str(record.config.get("trainer.precision")),
        "processor": f"{hardware.get('processor')}, {hardware.get('cores')} cores",
        "GPUs": ", ".join(known.get("gpus", [])) or "none",
        "threads": str(known.get("threads")),
        "python": str(known.get("python")),
        "this project": str(known.get("version", "not noted")),
        **known.get("packages", {}),
    }


def between(a: Record, b: Record) -> list[str]:
    """What differs between two runs: data, seed, settings, and what nobody set, a line each."""
    first, second = (
        {"data": run.dataset, "seed": str(run.config.get("seed")), **run.settings, **circumstances(run)}
        for run in (a, b)
    )
    names = [key for key in dict.fromkeys([*first, *second]) if first.get(key) != second.get(key)]
    if a.dataset != b.dataset:  # whose fingerprints tell no more
        names = [name for name in names if not name.startswith("data ")]
    lines = [f"{name}: {first.get(name, '–')} → {second.get(name, '–')}" for name in names]
    return lines or [
        "the two runs were given the same configuration, with the same code, data, hardware and versions"
    ]


def facts(records: Iterable[Record]) -> dict[str, Counter[str]]:
    """Each of the circumstances of ``records`` with its values and the number of runs of each."""
    values: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        for name, value in circumstances(record).items():
            values[name][value] += 1
    return values


def flags(records: Iterable[Record]) -> list[str]:
    """Every circumstance in which ``records`` differ, a line each."""
    known = facts(records)
    lines = [f"{name} differs: {several(values)}" for name, values in known.items() if len(values) > 1]
    runs = sum(known["commit"].values())
    if dirty := sum(count for value, count in known["commit"].items() if "uncommitted" in value):
        lines.append(f"{dirty} of {runs} runs had uncommitted changes")
    return lines


def not_told_apart(records: Iterable[Record], keys: Sequence[str]) -> list[str]:
    """Settings that differ among runs whose ``keys`` are all the same, a line each."""
    alike: dict[tuple[str | None, ...], list[Record]] = defaultdict(list)
    for record in records:
        alike[tuple(record.values.get(key) for key in keys)].append(record)
    found: dict[str, Counter[str]] = {}
    for group in alike.values():
        for key in dict.fromkeys(key for record in group for key in record.settings):
            values = Counter(record.settings.get(key, "absent") for record in group)
            if len(values) > 1:
                found[key] = found.get(key, Counter()) + values
    return [f"{key} differs though it was not swept: {several(values)}" for key, values in found.items()]


def several(values: Counter[str]) -> str:
    """Values with the number of runs that have them."""
    return ", ".join(f"{value} ({count} run{'s' * (count > 1)})" for value, count in values.most_common())
