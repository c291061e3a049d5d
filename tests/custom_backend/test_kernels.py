"""The machinery under the kernels: memory, threads."""

import gc
import importlib
import inspect
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import custom_backend as cb
from custom_backend import array
from custom_backend.functional.conv import im2col
from custom_backend.kernels import memory, parallel


def test_memory_returns_to_the_pool_with_its_last_array():
    memory.release()
    array = memory.empty((1000, 100), np.float32)
    address, view = array.ctypes.data, array[10:].T
    assert address % memory.ALIGNMENT == 0
    del array
    gc.collect()
    assert memory.held() == 0
    assert memory.empty((1000, 100), np.float32).ctypes.data != address
    del view
    gc.collect()
    assert memory.held() > 0
    assert memory.empty((1000, 100), np.float32).ctypes.data == address


def test_a_loan_may_end_while_the_pool_is_in_use():
    memory.release()
    array = memory.empty((1000, 100), np.float32)
    with memory._pool.lock:  # as where the garbage collector runs within
        del array
    assert memory.held() > 0


def test_the_pool_keeps_no_more_than_was_in_use_at_one_time():
    gc.collect()
    memory.release()
    others = memory._pool.lent
    for size in range(400):
        arrays = [memory.empty(((1 << 17) + (size << 14),), np.uint8) for _ in range(2)]
        in_use = sum(array.nbytes for array in arrays)
        arrays.clear()
        assert 0 < memory.held() <= memory.SLACK * (others + in_use + 4 * memory.SMALLEST)


def test_the_pool_forgets_a_large_use_of_long_ago(monkeypatch):
    monkeypatch.setattr(memory, "FORGET", 1 / 16)
    memory.release()
    large = memory.empty((1 << 24,), np.uint8)
    del large
    assert memory.held() > 1 << 24
    for _ in range(200):
        memory.empty((1 << 17,), np.uint8)
    assert memory.held() < 1 << 20


def test_every_chunk_is_worked_on_once(monkeypatch):
    monkeypatch.setattr(parallel, "threads", lambda: 3)
    done, workers = np.zeros(10), set()

    def kernel(start, stop, by):
        done[start:stop] += by
        workers.add(threading.get_ident())

    parallel.split(kernel, 10, parallel.SMALLEST, 2)
    assert done.tolist() == [2] * 10
    assert len(workers) <= 3
    parallel.split(kernel, 10, 1, 1)
    assert done.tolist() == [3] * 10


def test_blas_keeps_to_one_thread_only_while_work_is_shared_out(monkeypatch):
    monkeypatch.setattr(parallel, "threads", lambda: 2)

    def blas_threads():
        return [library.get_num_threads() for library in parallel._serial_blas._libraries]

    before, during = blas_threads(), []
    assert before
    parallel.split(lambda start, stop: during.append(blas_threads()), 2, parallel.SMALLEST)
    assert during == [[1] * len(before)] * 2
    assert blas_threads() == before


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_a_chunk_is_raised(monkeypatch, failing):
    monkeypatch.setattr(parallel, "threads", lambda: 2)

    def kernel(start, stop):
        if start == failing:
            raise ArithmeticError("broken")

    with pytest.raises(ArithmeticError, match="broken"):
        parallel.split(kernel, 2, parallel.SMALLEST)


NETWORK = """
import hashlib, sys
import numpy as np
import custom_backend as cb

rng = np.random.default_rng(0)
network = cb.Sequential(
    cb.Conv2d(1, 8, 3, padding=1), cb.BatchNorm2d(8), cb.LeakyReLU(), cb.MaxPool2d(2),
    cb.AdaptiveAvgPool2d(1), cb.Flatten(), cb.Linear(8, 10),
)
state, adam = network.init(rng), cb.Adam()
x, labels = rng.normal(size=(1, 14, 14, 32)).astype(np.float32), rng.integers(10, size=32)
for _ in range(3):
    logits, saved = network.forward(state, x, training=True)
    _, saved_loss = cb.cross_entropy_forward(logits, labels)
    adam.step(state, network.backward(saved, cb.cross_entropy_backward(saved_loss))[1])
assert "numba" in sys.modules
print(hashlib.sha256(b"".join(array.tobytes() for array in state.values())).hexdigest())
"""


def test_a_kernel_just_compiled_and_one_from_the_cache_agree_bit_for_bit(tmp_path):
    pytest.importorskip("numba")
    environment = {
        **os.environ,
        "NUMBA_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": str(Path(cb.__file__).parents[1]),
    }
    compiled, cached = (
        subprocess.run(
            [sys.executable, "-c", NETWORK], env=environment, capture_output=True, text=True, check=True
        )
        for _ in range(2)
    )
    assert any(tmp_path.rglob("*.nbc"))
    assert compiled.stdout == cached.stdout


def test_a_kernel_has_the_arguments_of_its_reference():
    """And a module that a file imports is none: `im2col` is a function, and a file of kernels, too."""
    resolved = set()
    for subject in ("array", "functional.activation", "functional.convolution", "functional.normalization",
                    "functional.pooling", "optim"):  # fmt: skip
        module = importlib.import_module(f"custom_backend.{subject}")
        for function in vars(module).values():
            if not hasattr(function, "__wrapped__") or function.__module__ != module.__name__:
                continue
            kernel = array.resolve_kernel(function.__wrapped__, "numpy")
            resolved.add(kernel.__module__)
            theirs, ours = inspect.signature(function.__wrapped__), inspect.signature(kernel)
            assert [*ours.parameters] == [*theirs.parameters], kernel
    assert len(resolved) > 6
    x = np.arange(16.0).reshape(1, 4, 4, 1)
    assert im2col(x, (2, 2), (2, 2), (0, 0))[:, 0].tolist() == [0, 1, 4, 5]
