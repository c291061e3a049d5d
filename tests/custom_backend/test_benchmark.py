from argparse import Namespace

import pytest

from benchmarks.engines import LAYERS, Worker


@pytest.mark.parametrize("engine", ["numpy", "fast_layers"])
def test_a_worker_measures_rounds_of_steps(engine):
    with Worker(engine, Namespace(network="mnist", batch=2, steps=1, device="cpu"), threads=1) as worker:
        for _ in range(2):
            worker.round()
        low, middle, high = worker.quartiles("Conv2d" if engine in LAYERS else "cpu")
    assert 0 < low <= middle <= high
