"""A report says of runs what they allow to be said, and names every one that it leaves out."""

import csv
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from folders import GIT, HELPS, write_definition, write_run, write_sweep

from experiment.errors import UserError
from experiment.plots.style import png
from experiment.report.answers import Answer, answer
from experiment.report.latex import document
from experiment.report.page import _by_setting, _comparisons, _labelled, escape, table, write_report
from experiment.report.questions import questions
from experiment.report.runs import Collection, plain

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _coarse_figures(monkeypatch):
    """Draw everything, on few pixels."""
    monkeypatch.setattr("experiment.report.page.png", lambda figure, dpi: png(figure, 20))


def report(*folders: Path) -> str:
    """The Markdown of a report on the folders."""
    write_report(folders, folders[0].parent / "out")
    return (folders[0].parent / "out" / "report.md").read_text()


def ask(*folders: Path) -> list[Answer]:
    runs = Collection(folders)
    return answer(questions(runs)[0], runs)


# what is found


def test_everything_that_is_not_reported_is_named(tmp_path):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.9, 0.91], "0.5": [0.92, 0.93]}, [HELPS])
    jobs = json.loads((folder / "sweep.json").read_text())["jobs"]
    write_run(folder / "failed-00", 2, status="failed", results={"error": "RuntimeError: a | b\n<c> *d*"})
    write_run(folder / "nan-00", 3, acc=math.nan)
    write_run(folder / "waits-00", 4, status="pending")
    write_run(folder / "earlier", 5)
    jobs += [{"folder": f"{name}-00", "overrides": {"model.dropout": "0", "seed": "9"}}
             for name in ("failed", "nan", "waits", "absent")]  # fmt: skip
    write_definition(folder, ["model.dropout", "seed"], jobs, [HELPS])
    text = report(folder)
    assert "5 of 8 runs finished, 1 failed, 1 pending, 1 missing, 1 left out" in text
    assert r"| failed-00 | failed | RuntimeError: a \| b &#60;c> \*d\* |" in text
    assert "| nan-00 | finished | no finite test_acc |" in text
    assert "| absent-00 | missing | has no folder: never started |" in text
    assert "| earlier | left out | is no job of the sweep as it is defined now |" in text
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows].count("finished") == 5
    assert len(rows) == 9
    assert rows[0]["test_acc"] == "0.9"


def damage(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(run: Path) -> None:
        (run / name).write_text(change((run / name).read_text()))

    return apply


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (damage("provenance.json", lambda text: text[:40]), "provenance.json is damaged"),
        (damage("provenance.json", lambda text: "[]"), "holds no names with values"),
        (damage("results.json", lambda text: text[:-5]), "results.json is damaged"),
        (damage("metrics.csv", lambda text: text[:-3]), "metrics.csv is half-written"),
        (damage("metrics.csv", lambda text: text.rsplit("\n", 2)[0] + "\n"), "metrics.csv has 2 epochs"),
        (damage("metrics.csv", lambda text: text.replace("0.7", "what")), "what"),
        (damage("config.yaml", lambda text: "seed: [1"), "ParserError"),
        (damage("config.yaml", lambda text: ""), "seed"),
        (lambda run: (run / "config.yaml").unlink(), "has no config.yaml"),
        (lambda run: (run / "results.json").unlink(), "epochs"),
    ],
)
def test_a_damaged_run_costs_itself_alone(tmp_path, harm, reason):
    write_run(tmp_path / "o" / "good")
    harm(write_run(tmp_path / "o" / "bad", 1))
    (tmp_path / "o" / "foreign" / "deep").mkdir(parents=True)
    found = {
        path.name: (r.status, r.reason) for r in Collection([tmp_path / "o"]).records for path in [r.folder]
    }
    assert found["good"][0] == "finished"
    assert found["bad"][0] == "skipped"
    assert reason in found["bad"][1]
    assert found["deep"][0] == "skipped"
    assert "is no run folder" in found["deep"][1]


def test_the_runs_of_a_sweep_whose_file_is_damaged_count_as_single_ones(tmp_path):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.9], "0.5": [0.91]})
    (folder / "sweep.json").write_text("{")
    text = report(folder)
    assert "2 of 2 runs finished, 1 skipped" in text
    assert "its runs count as single ones" in text


def test_a_folder_named_twice_counts_once_and_a_report_is_no_run(tmp_path):
    folder = write_sweep(tmp_path / "o" / "s", {"0.0": [0.9, 0.91], "0.5": [0.91, 0.93]})
    write_report([folder], None)
    runs = Collection([tmp_path / "o", folder, next(folder.glob("*-00"))])
    assert len(runs.records) == 4


def test_nothing_to_report_is_said_with_its_reasons(tmp_path):
    write_run(tmp_path / "o" / "a", status="failed", results={"error": "ValueError: no"})
    with pytest.raises(UserError, match=r"no finished run to report\n.*a: failed ValueError: no"):
        Collection([tmp_path / "o"])
    with pytest.raises(UserError, match="there is no such folder"):
        Collection([tmp_path / "nowhere"])


def test_single_runs_are_told_apart_by_as_few_keys_as_do(tmp_path):
    adam = {"optimizer._target_": "torch.optim.Adam", "optimizer.eps": 1e-8}
    sgd = {"optimizer._target_": "torch.optim.SGD", "optimizer.momentum": 0.9}
    by_adam, by_sgd = ({"choices": {"model": "mnist", "optimizer": name}} for name in ("adam", "sgd"))
    for seed in (0, 1):
        write_run(tmp_path / "o" / f"a{seed}", seed, config=adam, provenance=by_adam)
        write_run(tmp_path / "o" / f"b{seed}", seed, acc=0.95 + seed / 100, config=sgd, provenance=by_sgd)
        config = sgd | {"model.dropout": 0.5, "trainer.max_epochs": 4}
        write_run(tmp_path / "o" / f"c{seed}", seed, config=config, provenance=by_sgd)
    runs = Collection([tmp_path / "o"])
    assert runs.keys == ["optimizer", "model.dropout"]
    assert [question.text for question in questions(runs)[0]] == [
        "Does optimizer matter on mnist?",
        "Do these settings (model.dropout, trainer.max_epochs) matter together on mnist?",
    ]
    assert "| trainer.max_epochs | 3 | 3 | 4 |" in report(tmp_path / "o")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0, "0"), ("1e-4", "0.0001"), (True, "true"), ("True", "true"), (None, "null"), ([], "[]"),
     ("[4, 8.0]", "[4,8]"), ([4, 8], "[4,8]"), ("4294967295", "4294967295"), ("a_b", "a_b"), ("'x'", "x")],
)  # fmt: skip
def test_equal_values_have_equal_texts(value, text):
    assert plain(value) == text


# provenance


def test_runs_that_differ_in_more_than_what_was_swept_are_flagged(tmp_path):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.9, 0.91], "0.5": [0.92, 0.93]})
    assert "Nothing flagged" in report(folder)
    jobs = json.loads((folder / "sweep.json").read_text())["jobs"]
    dirty = {"commit": "b" * 40, "changed_files": ["M x"], "diff_sha256": "c" * 64}
    provenance = {
        "git": GIT,
        "resumed": [{"at": "x", "git": dirty}],
        "data": {"dataset": "mnist", "fingerprint": "bad"},
    }
    write_run(folder / "other-00", 2, config={"data.batch_size": 7, "name": "other"}, provenance=provenance)
    jobs.append({"folder": "other-00", "overrides": {"model.dropout": "0", "seed": "2"}})
    write_definition(folder, ["model.dropout", "seed"], jobs)
    text = report(folder)
    assert "- Flagged: commit differs: aaaaaaaaaa (4 runs), aaaaaaaaaa, then bbbbbbbbbb + uncommitted" in text
    assert "- Flagged: 1 of 5 runs had uncommitted changes" in text
    assert "- Flagged: data mnist differs: f00 (4 runs), bad (1 run)" in text
    assert "- Flagged: data.batch_size differs though it was not swept: absent (2 runs), 7 (1 run)" in text
    assert text.count("- Flagged") == 4


def test_what_a_swept_option_brings_along_is_not_flagged(tmp_path):
    jobs = []
    for scheduler, extra in (("step", {"scheduler.gamma": 0.1}), ("cosine", {"scheduler.final_lr": 0.0})):
        for seed in (0, 1):
            jobs.append(
                {"folder": f"{scheduler}{seed}", "overrides": {"scheduler": scheduler, "seed": str(seed)}}
            )
            write_run(tmp_path / "s" / f"{scheduler}{seed}", seed, acc=0.9 + seed / 99, config=extra,
                      choices={"scheduler": scheduler})  # fmt: skip
    write_definition(tmp_path / "s", ["scheduler", "seed"], jobs)
    assert "Nothing flagged" in report(tmp_path / "s")


# the page


class Page(HTMLParser):
    """What a browser would load, and the text it would show."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


NASTY = "a <script>alert(1)</script> | *b* _c_ [d](http://x) `e` ![f](y) &amp; $1$ ~~g~~ \\h # snake_case"


def test_the_page_needs_nothing_else_and_shows_text_as_it_is(tmp_path):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.9, 0.91], "0.5": [0.92, 0.93]}, [HELPS | {"text": NASTY}])
    write_run(tmp_path / "o" / "x|<b>y&lt;", status="failed", results={"error": NASTY})
    write_report([folder, tmp_path / "o"], tmp_path / "out")
    page = Page()
    page.feed((tmp_path / "out" / "report.html").read_text())
    assert page.text.count(NASTY) >= 3  # verdicts, heading, failure
    assert "x|<b>y&lt;" in page.text
    assert {unquote(link) for link in page.loaded} == {
        *(f"../s/{run.parent.name}/" for run in folder.glob("*/config.yaml")), "../o/x|<b>y&lt;/",
    }  # fmt: skip
    assert page.tags.count("script") == 1
    assert page.tags.count("svg") == 3
    assert not {"link", "em", "img"} & set(page.tags)
    markdown = (tmp_path / "out" / "report.md").read_text()
    for picture in re.findall(r"\]\((figures/[^)]*)\)", markdown):
        assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")


def test_tables_keep_their_columns():
    lines = table([["a|b", "c"], ["x\ny", "1 | 2"]]).splitlines()
    assert lines == [r"| a\|b | c |", "| --- | --- |", r"| x y | 1 \| 2 |"]
    assert escape("snake_case _emphasis_") == r"snake_case \_emphasis\_"


def test_a_latex_row_is_what_its_cells_say():
    r"""``\\\\`` would take a bracket or a star that follows for its own."""
    lines = document([["question", "effect"], ["[4,8] beats 50 %", "*_* ≤ ×2"]]).splitlines()
    assert r"{[}4,8] beats 50 \% & {*}\_{*} $\leq$ $\times$2 \\" in lines
    assert lines[1] == r"\begin{tabularx}{\linewidth}{Xr}"


def test_many_settings_and_long_names_are_drawn(tmp_path):
    values = {str(0.01 * n): [0.9, 0.91] for n in range(9)}
    text = report(write_sweep(tmp_path / "s", values, curve=(0.5, 0.6)))
    assert "val_acc-1.png" in text
    assert "question-1.png" in text


def test_the_course_report_stands_beside_ours(tmp_path):
    jobs = []
    for model, acc in (("mnist", 0.991), ("custom", 0.98), ("enhanced", 0.9)):
        for seed in (0, 1):
            jobs.append({"folder": f"{model}{seed}", "overrides": {"model": model, "seed": str(seed)}})
            write_run(
                tmp_path / "homework" / f"{model}{seed}",
                seed,
                acc=acc + seed / 1000,
                choices={"model": model, "experiment": "homework"},
            )
    write_definition(tmp_path / "homework", ["model", "seed"], jobs)
    text = report(tmp_path / "homework").replace("\u00a0", " ")
    assert "| test accuracy | 89.78 % | 90.05 ± 0.07 % | 99.05 % | 99.15 ± 0.07 % | 86.50 % | – |" in text
    assert "| test accuracy | 99.05 % | 99.15 ± 0.07 % | 97.59 % | 98.05 ± 0.07 % |" in text
    assert text.count("figures/published-") == 3


# the entry point


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    spy = (
        "import sys, runpy; sys.argv = sys.argv[1:]\ntry: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    spy += "finally: assert 'torch' not in sys.modules"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", spy, ROOT / "report.py", *arguments],
        capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, timeout=60,
    )  # fmt: skip


def test_the_entry_point_writes_the_report_and_replaces_an_earlier_one(tmp_path):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.9, 0.91], "0.5": [0.92, 0.931]}, [HELPS])
    write_report([folder], None)
    (folder / "report" / "report.md").write_text("old")
    done = call(folder)
    assert done.returncode == 0, done.stderr
    assert "It helps.  held" in done.stdout
    assert f"report: {folder / 'report' / 'report.html'}" in done.stdout
    names = {"report.md", "report.html", "report.tex", "results.csv", "figures"}
    assert {path.name for path in (folder / "report").iterdir()} == names
    assert (folder / "report" / "report.md").read_text() != "old"
    assert not list(folder.glob(".report-*"))


def test_the_entry_point_refuses_with_a_message(tmp_path):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.9]})
    for arguments, message in (
        ([], "which runs?"),
        ([folder, f"out={folder}"], "is something else than a report"),
    ):
        done = call(*arguments)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert (folder / "sweep.json").exists()
    assert "FOLDER" in call("--help").stdout


def test_a_failure_halfway_leaves_the_earlier_report(tmp_path, monkeypatch):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.9]})
    write_report([folder], None)
    before = (folder / "report" / "report.md").read_text()

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("experiment.report.page._write_csv", full)
    with pytest.raises(UserError, match="no space left on device"):
        write_report([folder], None)
    assert (folder / "report" / "report.md").read_text() == before
    assert not list(folder.glob(".report-*"))


def test_one_epoch_is_no_curve(tmp_path):
    """Dots without a line say less than the tables do; runs of several epochs beside them are drawn."""
    folder = write_sweep(tmp_path / "s", {"0.0": [0.9, 0.91], "0.5": [0.92, 0.93]}, curve=(0.5,))
    text = report(folder)
    assert "train_loss-1.png" not in text
    assert "val_acc-1.png" not in text
    assert "question-1.png" in text
    write_run(tmp_path / "longer", config={"trainer.max_epochs": 9})
    assert "train_loss-2.png" in report(folder, tmp_path / "longer")


def test_the_picture_of_a_question_shows_what_its_verdict_says(tmp_path):
    """A factor is claimed as a factor, and values stand in their order, wherever the best is."""
    values = {"0.0": [0.2, 0.21, 0.22], "0.1": [0.5, 0.52, 0.51], "0.5": [0.4, 0.42, 0.43]}
    ratio = HELPS | {"scale": "ratio", "claimed": [2, 3], "delta": 0.25}
    (given,) = ask(write_sweep(tmp_path / "s", values, [ratio]))
    (drawn,) = _comparisons(given, None)
    assert drawn.claimed is not None
    assert drawn.delta is not None
    assert [drawn.shown(size) for size in drawn.claimed] == pytest.approx([2, 3])
    assert drawn.shown(drawn.delta) == pytest.approx(1.25)
    (drawn,) = _comparisons(ask(write_sweep(tmp_path / "t", values))[0], None)
    assert [*drawn.runs["mnist, all images; mnist; 3 epochs"]] == [
        "model.dropout=0", "model.dropout=0.1", "model.dropout=0.5",
    ]  # fmt: skip


def test_each_data_set_has_curves_of_its_own(tmp_path):
    for data in ("mnist", "cifar10"):
        for dropout in (0.0, 0.5):
            config = {"data.dataset": data, "model.dropout": dropout}
            write_run(tmp_path / "o" / f"{data}{dropout}", config=config)
    text = report(tmp_path / "o")
    assert text.count("![val_acc-") == text.count("![train_loss-") == 2


def test_a_metric_that_no_run_validated_has_no_picture(tmp_path):
    text = report(write_sweep(tmp_path / "s", {"0.1": [0.9, 0.91]}, curve=("", "")))  # type: ignore[arg-type]
    assert "train_loss-1.png" in text
    assert "val_acc-1.png" not in text


def test_where_labels_are_long_they_name_what_most_settings_do_not_have(tmp_path):
    recipe = {"model.dropout": 0.3, "model.pooling": "adaptive_avg", "loss.label_smoothing": 0.1}
    changes = ({}, {"model.dropout": 0.5}, {"model.pooling": "fixed_max"}, {"loss.label_smoothing": 0.0})
    runs = []
    for number, change in enumerate(changes):
        folder = write_run(tmp_path / str(number), config=recipe | change)
        runs += Collection([folder or tmp_path / str(number)]).records
    keys = list(recipe)
    labels = list(_labelled(_by_setting(runs, keys), keys))
    assert labels == ["what most settings have", "dropout=0.5", "pooling=fixed_max", "label_smoothing=0"]
    assert list(_labelled(_by_setting(runs[:1], keys), keys)) == ["all runs"]
