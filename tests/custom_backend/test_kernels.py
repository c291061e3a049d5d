"""The machinery under the kernels: memory, threads."""

import gc
import threading

import numpy as np
import pytest

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
    with memory._lock:  # as where the garbage collector runs within
        del array
    assert memory.held() > 0


def test_the_pool_is_bounded(monkeypatch):
    memory.release()
    monkeypatch.setattr(memory, "LIMIT", 1 << 20)
    arrays = [memory.empty((1 << 19,), np.uint8) for _ in range(4)]
    arrays.clear()
    gc.collect()
    assert 0 < memory.held() <= 1 << 20


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
