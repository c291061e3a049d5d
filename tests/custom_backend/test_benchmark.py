from argparse import Namespace

import pytest

from benchmarks.engines import LAYERS, Worker


@pytest.mark.parametrize(
    ("engine", "network"), [("numpy", "mnist"), ("numpy", "resnet"), ("fast_layers", "mnist")]
)
def test_a_worker_measures_rounds_of_steps(engine, network):
    with Worker(engine, Namespace(network=network, batch=2, steps=1, device="cpu"), threads=1) as worker:
        for _ in range(2):
            worker.round()
        low, middle, high = worker.quartiles("Conv2d" if engine in LAYERS else "cpu")
    assert 0 < low <= middle <= high
