"""Successive halving: who is promoted, how far, and what is left of it after an interruption."""

import functools
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from experiment.command_line import CONFIG_DIR
from experiment.config import run_config
from experiment.halving import Halving, counts, problems_of_halving, stops
from experiment.sweep import Job

RATES = ("0.001", "0.01", "0.1", "1")


@pytest.mark.parametrize(
    ("settings", "epochs", "factor", "expected"),
    [
        (16, 10, 3, [16, 6, 2, 1]),
        (4, 4, 2, [4, 2, 1]),
        (16, 1, 3, [16]),
        (1, 10, 3, [1]),
        (9, 100, 3, [9, 3, 1]),
        (100, 3, 3, [100, 34]),
    ],
)
def test_as_many_rungs_as_settings_and_epochs_allow(settings, epochs, factor, expected):
    assert counts(settings, epochs, factor) == expected
    ends = stops(len(expected), epochs)
    assert ends[-1] == epochs
    assert all(before < after for before, after in pairwise(ends))


@pytest.mark.parametrize("factor", [3, 4, 9])
@pytest.mark.parametrize("epochs", [10, 25, 100])
def test_no_setting_is_judged_before_a_fifth_of_its_epochs_and_all_cost_less_than_two_fifths(epochs, factor):
    kept = counts(81, epochs, factor)
    ends = stops(len(kept), epochs)
    assert len(kept) > 2
    assert ends[0] == epochs // 5
    cost = sum(n * (end - begin) for n, begin, end in zip(kept, [0, *ends], ends, strict=False))
    assert cost < 0.4 * 81 * epochs


@functools.cache
def config(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return run_config(compose("train", [*overrides]))


@pytest.fixture
def halving(tmp_path, monkeypatch):
    """Makes the sweep anew, as a second start does: four rates and two seeds, 4 epochs, best last."""

    monkeypatch.setattr("experiment.run.environment", dict)  # looks at git and the hardware, which takes time

    def make(*overrides: str, rates: Sequence[str] = RATES, seeds: Sequence[int] = (0, 1)) -> Halving:
        jobs = []
        for rate in rates:
            for seed in seeds:
                options = [f"optimizer.lr={rate}", f"seed={seed}", "trainer.max_epochs=4", *overrides]
                swept = {"optimizer.lr": rate, "seed": str(seed)}
                jobs.append(Job(tmp_path / "s", swept, config(*options), {}))
        return Halving(tmp_path / "s", jobs, (), factor=2)

    return make


def pretend(job: Job, score: float | None = None, test: float = 0.5) -> None:
    """Train a job to where it is told to stop, by writing what that leaves."""
    run, config = job.run, job.config
    score = config.optimizer.lr - 0.001 * config.seed if score is None else score
    epochs = job.stop_after or config.trainer.max_epochs
    lines = ["epoch,train_loss,val_acc,train_seconds,seconds,images_per_second"]
    lines += [f"{epoch},1,{score},1,1,1" for epoch in range(1, epochs + 1)]
    with run.locked():
        run.begin()
        (run.folder / "metrics.csv").write_text("\n".join(lines) + "\n")
        Path(run.folder / "checkpoints" / "last.ckpt").touch()
        if job.stop_after:
            run.finish("interrupted", stopped_after=job.stop_after)
        else:
            run.finish("finished", test_acc=test)


def reached(sweep: Halving) -> dict[str, list[int]]:
    return {
        rate: [len(job.run.metrics) for job in sweep.jobs if job.overrides["optimizer.lr"] == rate]
        for rate in RATES
    }


def test_the_best_settings_go_on_and_the_others_stop(halving, capsys):
    sweep, rungs = halving(), []
    for todo in sweep.rounds():
        rungs.append([(job.label, job.stop_after) for job in todo])
        for job in todo:
            pretend(job)
    assert [len(rung) for rung in rungs] == [8, 4, 2]
    assert [{stop for _, stop in rung} for rung in rungs] == [{1}, {2}, {None}]
    assert reached(sweep) == {"0.001": [1, 1], "0.01": [1, 1], "0.1": [2, 2], "1": [4, 4]}
    text, is_complete = sweep.summary()
    assert is_complete
    assert "6 stopped, 2 finished" in text
    assert text.count("best: optimizer.lr=1 seed=") == 2
    assert "rung 2 of 3: the best 2 to epoch 2" in capsys.readouterr().out
    assert [todo for todo in halving().rounds() if todo] == []  # nothing is left


def test_a_second_start_does_what_is_left(halving):
    """It is killed after three jobs of each rung."""
    starts = 0
    while True:
        sweep = halving()
        todo = next((jobs for jobs in sweep.rounds() if jobs), [])
        if not todo:
            break
        starts += 1
        assert not sweep.is_complete
        for job in todo[:3]:
            pretend(job)
    assert starts == 3 + 2 + 1
    assert reached(sweep) == {"0.001": [1, 1], "0.01": [1, 1], "0.1": [2, 2], "1": [4, 4]}
    assert sweep.is_complete


def test_a_setting_is_judged_by_all_its_seeds_and_a_failure_makes_it_the_worst(halving):
    sweep = halving()
    for todo in sweep.rounds():
        for job in todo:
            rate, seed = job.overrides["optimizer.lr"], job.config.seed
            if (rate, seed) == ("1", 1) and not job.run.metrics:
                with job.run.locked():
                    job.run.begin()
                    job.run.fail(ValueError("the loss became nan"), diverged=True)
            else:  # a lucky seed does not make up for the other
                pretend(
                    job,
                    {("0.001", 0): 0.99, ("0.001", 1): 0.1}.get((rate, seed), 0.6 + job.config.optimizer.lr),
                )
    assert reached(sweep)["0.1"] == [4, 4]
    assert reached(sweep)["0.001"] == [1, 1]
    assert reached(sweep)["1"] == [1, 0]
    assert sweep.is_complete  # a rate that is too high is an answer
    assert [todo for todo in halving().rounds() if todo] == []


def test_the_test_set_promotes_nobody(halving):
    sweep = halving()
    for todo in sweep.rounds():
        for job in todo:
            pretend(job, test=1 - job.config.optimizer.lr)
    assert reached(sweep)["1"] == [4, 4]
    assert "best: optimizer.lr=1" in sweep.summary()[0]


def test_a_loss_is_better_when_it_is_lower(halving):
    sweep = halving("callbacks.checkpoint.monitor=val_loss")
    for todo in sweep.rounds():
        for job in todo:
            pretend(job)
            path = job.run.folder / "metrics.csv"
            path.write_text(path.read_text().replace("val_acc", "val_loss"))
    assert reached(sweep)["0.001"] == [4, 4]


def test_rungs_are_epochs_that_are_validated(halving):
    sweep = halving("trainer.check_val_every_n_epoch=2")
    assert "to epoch 1" not in sweep.plan()
    for todo in sweep.rounds():
        assert {job.stop_after for job in todo} <= {2, None}
        for job in todo:
            pretend(job)


def test_the_plan_lists_the_rungs(halving):
    lines = halving().plan().splitlines()
    assert lines[:3] == [
        "rung 1 of 3: 4 settings to epoch 1",
        "rung 2 of 3: the best 2 to epoch 2",
        "rung 3 of 3: the best 1 to epoch 4",
    ]
    assert "pending     optimizer.lr=0.001 seed=0" in lines
    assert "16 of the grid's 32 epochs" in lines[-1]


@pytest.mark.parametrize(
    ("overrides", "max_seeds", "message"),
    [((), 5, "sweep.until=decided"), (("callbacks.checkpoint=null",), 0, "callbacks.checkpoint=null")],
)
def test_what_cannot_be_compared_is_refused(halving, overrides, max_seeds, message):
    (line,) = problems_of_halving(halving(*overrides).jobs, max_seeds)
    assert line.startswith(message)
