"""Whatever a file of a run folder holds: it is read, or one line says what is wrong with it."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiment.errors import UserError
from experiment.files import beside, sha256
from experiment.metrics import Predictions, read_predictions, write_predictions
from experiment.report.runs import Collection
from experiment.run import Run
from experiment.sweep import Job, Sweep, jobs_in, outcome, swept

OLD_RUN = Path(__file__).parent / "old_runs" / "finished"
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "4"))
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
BYTES = st.one_of(
    st.binary(max_size=200).map(lambda new: lambda old: new),
    st.integers(0, 10**6).map(lambda at: lambda old: old[: at % (len(old) + 1)]),
    st.tuples(st.integers(0, 10**6), st.integers(1, 255)).map(lambda flip: lambda old: flipped(old, *flip)),
    st.sampled_from([b"[" * 5000, b"{" * 5000, b'"', b"a,b\n\0", b"\xff\xfe", b"a: &a [*a]", b"&" * 40]).map(
        lambda new: lambda old: new
    ),
)


def flipped(content: bytes, at: int, bits: int) -> bytes:
    at %= max(1, len(content))
    return content[:at] + bytes(byte ^ bits for byte in content[at : at + 1]) + content[at + 1 :]


def replaced(tree: object, path: int, junk: object) -> object:
    """``tree`` with one of its nodes, counted in depth, replaced, or if there is none there removed."""
    nodes: list[tuple[dict | list, object]] = []

    def collect(node: object) -> None:
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            nodes.append((node, key))
            collect(node[key])

    collect(tree)
    node, key = nodes[path // 2 % len(nodes)]
    if path % 2:
        node[key] = junk
    else:
        del node[key]
    return tree


SWEEP = {
    "format_version": 1,
    "name": "s",
    "swept": ["seed"],
    "jobs": [{"folder": "run", "overrides": {"seed": "0"}}],
    "claims": [{"claim": "a", "contrasts": [["seed=0", "seed=1"]]}],
    "sessions": [{"start": "2026-01-01T00:00:00+00:00", "command": "python train.py", "git": None}],
}
NODES = st.tuples(st.integers(0, 400), JUNK)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep with one run that has all the files."""
    shutil.copytree(OLD_RUN, tmp_path / "s" / "run")
    (tmp_path / "s" / "sweep.json").write_text(json.dumps(SWEEP))
    logits = np.random.default_rng(0).normal(size=(20, 10)).astype(np.float32)
    predictions = Predictions(logits, np.arange(20) % 10, np.arange(20))
    write_predictions(tmp_path / "s" / "run" / "predictions.npz", predictions)
    return tmp_path / "s"


def look(folder: Path) -> None:
    """All that reads a run and its sweep without torch."""
    run = Run(folder / "run")
    reads: list[Callable[[], object]] = [
        lambda: Run.open(run.folder),
        lambda: run.config,
        lambda: run.metrics,
        lambda: run.summary,
        lambda: run.state,
        lambda: outcome(run),
        lambda: swept(run),
        lambda: jobs_in(folder),
        lambda: Run.open(run.folder).check_resumable(),
        lambda: Sweep(folder, [Job(folder, {"seed": "0"}, Run(OLD_RUN).config, {})]).plan(),
        lambda: Sweep(folder, []).prepare(),
        lambda: read_predictions(run.folder / "predictions.npz"),
        lambda: Collection([folder]),
        lambda: Collection([run.folder]),
    ]
    for read in reads:
        said = ""
        try:
            read()
        except UserError as error:
            said = str(error)
        assert len(said.splitlines()) < 30


fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@contextlib.contextmanager
def restored(path: Path):
    before = path.read_bytes()
    try:
        yield before
    finally:
        path.write_bytes(before)


FILES = ["config.yaml", "provenance.json", "results.json", "metrics.csv", "predictions.npz", "../sweep.json"]


@pytest.mark.parametrize("name", FILES)
@fuzzed
@given(change=BYTES)
def test_any_bytes(folder, name, change):
    with restored(folder / "run" / name) as before:
        (folder / "run" / name).write_bytes(change(before))
        look(folder)


@pytest.mark.parametrize("name", ["config.yaml", "provenance.json", "results.json", "../sweep.json"])
@fuzzed
@given(node=NODES)
def test_any_value_of_a_tree(folder, name, node):
    path = folder / "run" / name
    with restored(path) as before:
        tree = replaced(yaml.safe_load(before), *node)
        path.write_text(yaml.dump(tree) if name == "config.yaml" else json.dumps(tree))
        look(folder)


@fuzzed
@given(cell=st.tuples(st.integers(0, 99), st.integers(0, 99), st.text(max_size=6)))
def test_any_cell_of_a_table(folder, cell):
    path = folder / "run" / "metrics.csv"
    with restored(path) as before:
        rows = [line.split(",") for line in before.decode().splitlines()]
        row, column, text = cell
        rows[row % len(rows)][column % len(rows[0])] = text
        path.write_text("\n".join(map(",".join, rows)) + "\n")
        look(folder)


@fuzzed
@given(change=BYTES, has_checksum=st.booleans())
def test_any_bytes_of_a_checkpoint(folder, change, has_checksum):
    from lightning_modules.loading import load_classifier

    run = Run.open(folder / "run")
    path = run.checkpoint("best")
    with restored(path) as before:
        if has_checksum:
            beside(path).write_text(f"{sha256(path)}  {path.name}\n")
        changed = change(before)
        path.write_bytes(changed)
        with contextlib.suppress(UserError):
            load_classifier(run, path)
            assert changed == before or not has_checksum
    beside(path).unlink(missing_ok=True)
