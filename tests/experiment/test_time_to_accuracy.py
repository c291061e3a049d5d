"""What an accuracy costs, from run folders."""

import sys

import pytest
from folders import write_run

from benchmarks import time_to_accuracy
from experiment.report.runs import Collection, read

IMAGES = 6 * 100  # seconds of training by images a second
FORWARD = 20


@pytest.mark.parametrize(
    ("config", "passes"),
    [
        ({}, 3),
        ({"loss.keep_hardest": 0.5}, 1 + 1.5),  # a look at all, then forward and backward of half
        ({"optimizer._target_": "lightning_modules.optim.SAM"}, 6),
        ({"data.size_schedule": [16, 32]}, 3 * (0.25 + 1) / 2),
    ],
)
def test_flops_are_those_that_a_training_does(tmp_path, config, passes):
    record = read(write_run(tmp_path / "run", config=config))
    assert time_to_accuracy.cost(record) == pytest.approx(IMAGES * FORWARD * passes / 1e15)


def test_a_recipe_is_a_line_and_part_of_the_picture(tmp_path, monkeypatch, capsys):
    for seed, acc in enumerate((0.9, 0.92)):
        write_run(tmp_path / "runs" / f"mnist-{seed}", seed, acc=acc)
    write_run(tmp_path / "runs" / "fast", acc=0.95, choices={"model": "fast"}, config={"model.dropout": 0.1})
    picture = tmp_path / "picture.png"
    arguments = [f"runs={tmp_path / 'runs'}", "data=mnist", "reach=0.7", f"out={picture}"]
    monkeypatch.setattr(sys, "argv", ["time_to_accuracy", *arguments])
    time_to_accuracy.main()
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split("|")[1:4] for line in lines] == [
        [" fast ", " 1 ", " 95.00% "],
        [" mnist ", " 2 ", " 91.00% "],
    ]
    assert picture.stat().st_size > 10_000


def test_of_one_model_a_second_recipe_is_named_by_what_differs(tmp_path):
    for epochs in (3, 8):
        config = {"data.dataset": "cifar10", "trainer.max_epochs": epochs}
        write_run(tmp_path / str(epochs), config=config, provenance={"choices": {"model": "fast"}})
    named = time_to_accuracy.recipes(Collection([tmp_path]), "cifar10")
    assert sorted(named) == ["fast", "fast max_epochs=8"]
