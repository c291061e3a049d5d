"""The run folder: unique, whole or not there, readable by its own means."""

import json
import logging
import math
import os
import shlex
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from experiment.config import run_config
from experiment.entry_point import argument
from experiment.errors import UserError
from experiment.files import CannotWrite, check, note_checksum, write_atomically
from experiment.results import summary
from experiment.run import STATES, Busy, Run
from experiment.sweep import Job, outcome
from experiment.worker import PARENT_VARIABLE, claim_run

CONFIG = OmegaConf.load(Path(__file__).parents[1] / "old_runs" / "finished" / "config.yaml")
assert isinstance(CONFIG, DictConfig)


def rows(accuracies: list[float | None], losses: list[float] | None = None) -> list[dict[str, float | None]]:
    return [
        {
            "epoch": epoch, "train_loss": 1 / epoch, "train_acc": 0.5, "val_acc": accuracy,
            "val_loss": losses[epoch - 1] if losses else accuracy and 1 - accuracy,
            "train_seconds": 2.0, "seconds": 2.5, "images_per_second": 100.0 * epoch,
        }
        for epoch, accuracy in enumerate(accuracies, start=1)
    ]  # fmt: skip


def test_runs_that_start_at_one_instant_never_share_a_folder(tmp_path):
    folders: list[Path] = []
    barrier = threading.Barrier(8)

    def create() -> None:
        barrier.wait()
        folders.append(Run.create(CONFIG, tmp_path, "same").folder)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 8
    assert {folder.name for folder in folders} == {"same", *(f"same-{i}" for i in range(2, 9))}


def test_a_new_run_says_what_it_is(tmp_path):
    run = Run.create(CONFIG, tmp_path, "run")
    assert Run.open(run.folder).config == CONFIG
    assert run.status == "pending"
    with run.session():
        assert run.status == "pending"
        run.begin()
        facts = run.provenance
    assert facts["status"] == "running"
    assert facts["packages"]["torch"]
    assert facts["hardware"]["cores"] >= 1
    assert facts["start"]


def test_finish_reads_the_epochs_from_the_folder(tmp_path):
    run = Run.create(CONFIG, tmp_path, "run")
    (run.folder / "metrics.csv").write_text(
        "epoch,train_loss,train_acc,val_loss,val_acc,train_seconds,seconds,images_per_second\n"
        "1,0.9,0.5,0.8,0.6,2,3,100\n2,0.5,0.7,0.7,0.7,2,3,300\n"
    )
    run.finish("finished", test_acc=0.65)
    assert run.results["status"] == run.provenance["status"] == "finished"
    assert (run.results["epochs"], run.results["best_epoch"], run.results["test_acc"]) == (2, 2, 0.65)
    assert (run.results["images_per_second"], run.results["seconds"]) == (200, 6)


def test_only_the_first_rank_writes(tmp_path, monkeypatch):
    run = Run.create(CONFIG, tmp_path, "run")
    monkeypatch.setenv("LOCAL_RANK", "1")
    Run(run.folder).finish("finished")
    assert run.status == "pending"


def test_processes_of_one_run_share_its_folder(tmp_path):
    run = Run.create(CONFIG, tmp_path, "run")
    with run.session():
        assert Run.create(CONFIG, tmp_path, "run").folder == run.folder
    assert Run.create(CONFIG, tmp_path, "run").folder != run.folder


def test_a_folder_belongs_to_one_process_at_a_time(tmp_path):
    run = Run.create(CONFIG, tmp_path, "run")
    with (
        run.session(),
        pytest.raises(UserError, match="is being trained by another process"),
        Run.open(run.folder).session(),
    ):
        pass
    with Run.open(run.folder).session():
        pass


def test_a_process_that_does_not_own_a_folder_writes_nothing_there(tmp_path):
    run = Run.create(CONFIG, tmp_path, "run")
    code = (
        "import sys; from pathlib import Path; from experiment.run import Run\n"
        "with Run(Path(sys.argv[1])).session(): print('mine', flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(run.folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert owner.stdout.readline() == "mine\n"
    before = contents(run.folder)
    with pytest.raises(Busy), run.session():
        pass
    assert run.is_busy
    assert contents(run.folder) == before
    owner.kill()
    owner.communicate()
    with run.session():
        assert Run(run.folder).is_busy
    assert not run.is_busy


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_looking_whether_a_folder_is_busy_makes_no_file(tmp_path):
    run = Run.create(CONFIG, tmp_path, "run")
    before = contents(run.folder)
    assert not run.is_busy
    assert contents(run.folder) == before


def test_a_new_run_that_cannot_begin_leaves_no_folder(tmp_path):
    run = Run.create(CONFIG, tmp_path, "run")
    with pytest.raises(UserError, match="no data"):
        attempt(run, UserError("no data"))
    assert not run.folder.exists()
    run = Run.create(CONFIG, tmp_path, "run")
    with pytest.raises(UserError, match="later"):
        attempt(run, UserError("later"), begins=True)
    assert run.folder.exists()


def test_only_what_this_process_made_and_did_not_begin_is_discarded(tmp_path):
    run = Run.create(CONFIG, tmp_path, "run")
    Run.open(run.folder).discard()
    assert run.folder.exists()
    run.discard()
    assert not run.folder.exists()
    begun = Run.create(CONFIG, tmp_path, "run")
    with begun.session():
        begun.begin()
    begun.discard()
    assert begun.folder.exists()


def attempt(run: Run, failure: Exception, begins: bool = False) -> None:
    """Try to train ``run``, in vain."""
    with run.session():
        if begins:
            run.begin()
        else:
            run.fail(failure)
        raise failure


# What becomes of a job: state → what a start does without and with a checkpoint, the state after an attempt
# that could not begin, and what a resume says.
TABLE = {
    "pending": ("begin", "begin", "failed", ""),
    "running": ("leave", "leave", None, ""),
    "killed": ("begin", "continue", "killed", ""),
    "interrupted": ("begin", "continue", "interrupted", ""),
    "failed": ("begin", "continue", "failed", ""),
    "diverged": ("begin", "begin", "diverged", "it would meet this again: the loss became nan"),
    "finished": ("leave", "leave", "finished", ""),
}


@pytest.fixture
def job(tmp_path, configure):
    """A job of a sweep in one of the states, with one finished epoch where it has begun."""
    with ExitStack() as stack:

        def job_in(state: str, has_checkpoint: bool = True) -> Job:
            job = Job(tmp_path, {"seed": "0"}, run_config(configure()), {})
            assert job.prepare()
            run = job.run
            if state == "pending":
                return job
            if state == "running":
                stack.enter_context(run.session())
            run.begin()
            write_epochs(run)
            if has_checkpoint:
                (run.folder / "checkpoints" / "last.ckpt").write_text("weights")
            if state == "diverged":
                run.finish("failed", diverged=True, error="UserError: the loss became nan")
            elif state == "failed":
                run.finish("failed", diverged=False, error="OSError: the disk is full")
            elif state in ("interrupted", "finished"):
                run.finish(state)
            return job

        yield job_in


def write_epochs(run: Run) -> None:
    (run.folder / "metrics.csv").write_text(
        "epoch,train_loss,train_acc,val_loss,val_acc,train_seconds,seconds,images_per_second\n"
        "1,0.9,0.5,0.8,0.6,2,3,100\n"
    )


@pytest.mark.parametrize("has_checkpoint", [False, True])
@pytest.mark.parametrize("state", STATES)
def test_every_state_of_a_run_at_every_start(job, tmp_path, state, has_checkpoint):
    found = job(state, has_checkpoint)
    run = found.run
    assert run.state == state
    expected = TABLE[state][has_checkpoint]
    before = contents(run.folder)
    assert found.prepare() == (expected != "leave")
    if expected == "leave":
        assert contents(run.folder) == before
    elif expected == "continue":
        assert run.state == state
        assert run.metrics
        assert run.has_checkpoint
    else:
        assert run.state == "pending"
        assert not run.metrics
        kept = [
            path for path in tmp_path.glob(".old/*/metrics.csv") if path.read_bytes() == before["metrics.csv"]
        ]
        assert len(kept) == (state != "pending")  # finished epochs are moved aside, never deleted


@pytest.mark.parametrize("has_checkpoint", [False, True])
@pytest.mark.parametrize("state", [state for state in STATES if state != "running"])
def test_every_state_of_a_run_after_an_attempt_that_could_not_begin(job, state, has_checkpoint):
    run = job(state, has_checkpoint).run
    before = contents(run.folder)
    with pytest.raises(UserError, match="away"):
        attempt(run, UserError("the data is away"))
    assert run.state == TABLE[state][2]
    assert state == "finished" or "the data is away" in outcome(run)
    changed = {name for name, content in contents(run.folder).items() if before.get(name) != content}
    assert changed <= {"provenance.json", "run.log", ".lock"} | (
        {"results.json"} if state == "pending" else set()
    )
    run.is_job = False  # a single run does not even note the attempt
    before = contents(run.folder)
    with pytest.raises(UserError, match="away"):
        attempt(run, UserError("still away"))
    assert contents(run.folder) == before


@pytest.mark.parametrize("state", STATES)
def test_every_state_of_a_run_at_a_resume(job, state):
    run = job(state).run
    if message := TABLE[state][3]:
        with pytest.raises(UserError, match=message):
            run.check_resumable()
    else:
        run.check_resumable()


@pytest.mark.parametrize("state", [state for state in STATES if state != "running"])
def test_every_state_of_a_run_that_begins_and_ends(job, state):
    run = job(state).run
    with run.session():
        run.begin()
        assert run.state == "running"
        assert not run.provenance.get("refused")
    assert run.state == "killed"
    for ending in ("interrupted", "failed", "finished"):
        run.begin()
        run.finish(ending)
        assert run.state == ending


def test_a_run_without_a_checkpoint_but_with_epochs_is_not_resumed(job):
    with pytest.raises(UserError, match=r"no checkpoint to go on from"):
        job("killed", has_checkpoint=False).run.check_resumable()


def test_a_folder_that_is_no_run_is_named(tmp_path):
    run = Run.create(CONFIG, tmp_path, "good")
    (run.folder / "checkpoints" / "last.ckpt").touch()
    Run.create(CONFIG, tmp_path, "good-but-never-begun")
    with pytest.raises(UserError, match=r"(?s)bad is not a run folder: it does not exist.*: good\.$"):
        Run.open(tmp_path / "bad")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no config.yaml"):
        Run.open(tmp_path / "empty")


def test_a_damaged_file_is_named(tmp_path):
    run = Run.create(CONFIG, tmp_path, "run")
    (run.folder / "results.json").write_text('{"half": ')
    with pytest.raises(UserError, match=r"results\.json is damaged"):
        _ = run.results


def test_a_failing_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_text() == "old"


def test_a_result_that_is_no_finite_number_is_null_with_a_word(tmp_path):
    run = Run.create(CONFIG, tmp_path, "run")
    run.finish("finished", test_loss=math.inf, nested={"list": [1.0, math.nan]})
    text = (run.folder / "results.json").read_text()
    assert "Infinity" not in text
    assert "NaN" not in text
    assert run.status == "finished"
    assert (run.results["test_loss"], run.results["nested"]) == (None, {"list": [1.0, None]})
    assert run.results["not_finite"] == {"test_loss": "inf", "nested.list.1": "nan"}


def test_summary():
    found = summary(rows([0.5, 0.896, 0.90, 0.89]), "val_acc")
    assert (found["epochs"], found["best_epoch"], found["convergence_epoch"]) == (4, 3, 2)
    assert (found["monitored"], found["val_acc"]) == (0.90, 0.90)
    assert found["final_train_loss"] == 0.25


def test_summary_of_ties_takes_the_first():
    assert summary(rows([0.9, 0.9]), "val_acc")["best_epoch"] == 1


def test_summary_by_loss():
    found = summary(rows([0.5, 0.9, 0.8], losses=[0.9, 0.8, 0.7]), "val_loss")
    assert (found["best_epoch"], found["monitored"], found["val_acc"]) == (3, 0.7, 0.8)


def test_summary_without_validation_takes_the_last():
    found = summary(rows([None, None]), "val_acc")
    assert (found["best_epoch"], found["monitored"], found["val_acc"]) == (2, 0.5, None)


def test_summary_of_nothing():
    assert summary([], "val_acc") == {"epochs": 0}
    assert json.dumps(summary(rows([0.5]), "val_acc"))


def test_a_checksum_tells_a_damaged_file(tmp_path):
    path, part = tmp_path / "last.ckpt", tmp_path / "part"
    for content in (b"first", b"second"):
        part.write_bytes(content)
        with note_checksum(part, path):
            if content == b"second":
                check(path)  # a crash here leaves the old file, which is whole
            part.replace(path)
        check(path)
    path.write_bytes(b"seconD")
    with pytest.raises(UserError, match=r"last\.ckpt is damaged or not the file that was written"):
        check(path)
    (tmp_path / "last.ckpt.sha256").unlink()
    check(path)  # of version 0.1.0


def test_a_folder_that_takes_nothing_is_one_line(tmp_path):
    run = Run.create(CONFIG, tmp_path, "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    with pytest.raises(CannotWrite, match=r"provenance\.json cannot be written: No such file or directory"):
        run.write_json("provenance.json", {})
    run.has_begun = True
    run.fail(UserError("x"))  # what cannot be logged is no further failure


def test_a_newer_format_names_the_version_that_wrote_it(tmp_path):
    run = Run.create(CONFIG, tmp_path, "run")
    run.record(format_version=99, version="7.0")
    before = contents(run.folder)
    with pytest.raises(UserError, match=r"written by version 7\.0 of this project, in format 99"):
        Run.open(run.folder)
    assert contents(run.folder) == before


def test_a_resume_elsewhere_is_noted(tmp_path):
    run = Run.create(CONFIG, tmp_path, "run")
    with run.session():
        run.begin(threads=2)
    with run.session():
        run.begin(threads=1)
    (attempt,) = run.provenance["resumed"]
    assert attempt["inexact"] == ["threads: 2, now 1"]
    assert attempt["hardware"]


def test_processes_that_a_launcher_started_meet_in_one_folder(tmp_path, monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RANK", "0")
    first = Run.create(CONFIG, tmp_path, "run")
    monkeypatch.setenv("RANK", "1")
    second = Run.create(CONFIG, tmp_path, "run")
    assert (first.folder, first.is_writer) == (second.folder, True)
    assert not second.is_writer


@pytest.mark.parametrize(
    "path", ["outputs/s/seed=0,1-abc", "a b/it's", "x(1)", "[y]", "a=b'c", "plain/run-1"]
)
def test_what_is_printed_can_be_pasted(path):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (word,) = shlex.split(argument("resume", path))
    (override,) = OverridesParser.create().parse_overrides([word])
    assert override.value() == path


def test_names_of_jobs_need_no_quotes(tmp_path, configure):
    config = run_config(configure())
    job = Job(tmp_path, {"model.widths": "[4,8]", "data.root": "a b/c", "seed": "0"}, config, {})
    assert argument("resume", str(job.run.folder.name)) == f"resume={job.run.folder.name}"
    old = tmp_path / f"seed=0-{job.digest}"
    old.mkdir()
    assert Job(tmp_path, {"seed": "0"}, config, {}).run.folder == old


@pytest.mark.parametrize(
    ("trainer", "environment", "message"),
    [
        ("devices=99", {}, "a process for each"),
        ("devices=99", {"ALLOW_MORE_PROCESSES_THAN_CORES": "1"}, None),
        ("num_nodes=50", {}, "nothing starts the processes of the other nodes"),
        ("num_nodes=2", {"NODE_RANK": "1"}, None),
        ("devices=1", {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"}, "torchrun started 2 processes"),
        ("num_nodes=2", {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"}, None),
        ("num_nodes=2", {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0"}, None),
        ("num_nodes=2", {"SLURM_NTASKS": "3", "SLURM_STEP_ID": "0"}, "srun started 3 processes"),
        ("num_nodes=2", {"SLURM_NTASKS": "2"}, "nothing starts the processes of the other nodes"),
        ("devices=2", {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "4294967291"}, None),  # the batch script
        ("devices=1", {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "interactive"}, None),
        (
            "devices=1",
            {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "bash"},
            "srun started 2 processes",
        ),
    ],
)
def test_a_number_of_processes_that_cannot_be_is_refused(
    configure, monkeypatch, tmp_path, trainer, environment, message
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    config = configure(f"trainer.{trainer}", "trainer.accelerator=cpu")
    hydra = OmegaConf.create({"runtime": {"choices": {"model": "m", "data": "d"}}})
    expected = pytest.raises(UserError, match=message) if message else nullcontext()
    with expected:
        claim_run(config, hydra)
    assert (tmp_path / "outputs").exists() is (message is None)


def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    child = (
        "import signal, sys, time; from experiment.worker import end_with_parent\n"
        "signal.signal(signal.SIGTERM, lambda *_: (open(sys.argv[1], 'w').close(), sys.exit(143)))\n"
        "end_with_parent(); print('ready', flush=True); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys; from experiment.worker import be_parent; be_parent()\n"
        f"subprocess.run([sys.executable, '-c', {child!r}, sys.argv[1]])"
    )
    ended = tmp_path / "ended"
    environment = {key: value for key, value in os.environ.items() if key != PARENT_VARIABLE}
    process = subprocess.Popen(
        [sys.executable, "-c", parent, str(ended)], stdout=subprocess.PIPE, text=True, env=environment,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait()
    process.stdout.close()
    end = time.monotonic() + 60
    while not ended.exists():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_log_that_nobody_reads_any_more_ends_no_run(tmp_path, configure, capsys, monkeypatch):
    class Unread:
        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            pass

    run = Run.create(configure(), tmp_path, "run")
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(Unread())])
    with run.session():
        logging.getLogger().error("for the file")
    assert capsys.readouterr().err == ""
    assert "for the file" in (run.folder / "run.log").read_text()
