"""Takes arrays for results, gives the laws of their memory: it serves again when nobody can see it
any more, never before, and little of it waits."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import numpy as np
import pytest

from runtime import recycle
from runtime.buffers import address
from runtime.direct import direct
from runtime.recycle import IDLE, LIMIT, MOST, WORTH, Pool, result_empty
from runtime.route import Route
from runtime.session import Session

LARGE = WORTH // 4  # elements of 4 bytes


@pytest.fixture(autouse=True)
def pool(monkeypatch):
    fresh = Pool()
    monkeypatch.setattr(recycle, "_pool", fresh)
    return fresh


def large(rows=1):
    return result_empty((rows, LARGE), np.float32)


def test_a_result_is_a_plain_aligned_writable_array():
    for shape in [(3, LARGE), (2, 3), (0, 5)]:
        y = result_empty(shape, np.float32)
        assert (type(y), y.shape, y.dtype) == (np.ndarray, shape, np.float32)
        assert y.flags.carray
        assert y.size == 0 or address(y) % 64 == 0
        y[...] = 1


def test_memory_of_a_dropped_result_serves_again(pool):
    y = large()
    where = address(y)
    del y
    assert address(large()) == where
    assert len(pool.waiting) == 1


def test_a_result_that_lives_keeps_its_memory():
    kept = [large() for _ in range(5)]
    assert len({address(y) for y in kept}) == 5


VIEWS = {
    "slice": lambda y: y[:, 7:9],
    "transpose of a slice": lambda y: y[:, ::3].T,
    "another dtype": lambda y: y.view(np.int32).reshape(-1)[5:6],
    "memoryview": lambda y: memoryview(y),
    "memoryview of a view": lambda y: memoryview(y[0, 3:]),
    "base": lambda y: y.base,
    "array of the base": lambda y: np.asarray(y.base)[5:],
    "iterator": lambda y: y.flat,
    "broadcast": lambda y: np.broadcast_to(y, (3, *y.shape)),
    "closed over": lambda y: lambda: y,
    "dlpack": lambda y: np.from_dlpack(y),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_that_lives_keeps_the_memory(name, pool):
    y = large()
    where = address(y)
    view = VIEWS[name](y)
    del y
    gc.collect()
    assert not pool.waiting
    assert address(large()) != where
    pool.waiting.clear()
    del view
    gc.collect()
    assert [address(memory) for _, memory in pool.waiting] == [where]


def test_only_a_block_of_the_same_size_serves(pool):
    y = large(2)
    del y
    assert address(large(3)) != address(pool.waiting[0][1])
    assert len(pool.waiting) == 2


def test_what_waits_is_bounded(pool):
    results = [large(n % 3 + 1) for n in range(3 * MOST)]
    del results
    assert len(pool.waiting) == MOST
    assert pool.bytes == sum(memory.nbytes for _, memory in pool.waiting)
    results = [result_empty((LIMIT // 3,), np.uint8) for _ in range(5)]  # untouched: no pages
    del results
    assert pool.bytes == sum(memory.nbytes for _, memory in pool.waiting) <= LIMIT
    y = result_empty((LIMIT + 1,), np.uint8)
    del y
    assert pool.bytes <= LIMIT


def test_what_waits_long_is_freed(pool, monkeypatch):
    now = 100.0
    monkeypatch.setattr(recycle.time, "monotonic", lambda: now)
    y = large()
    memory = weakref.ref(y.base.memory)
    del y
    assert memory() is not None
    now += IDLE + 1
    large(2)
    assert memory() is None
    assert len(pool.waiting) == 1


def test_a_block_that_goes_while_the_pool_is_busy_is_freed(pool):
    y = large()
    memory = weakref.ref(y.base.memory)
    with pool.lock:
        del y
        assert large() is not None
    assert memory() is None


def test_a_cycle_that_is_collected_gives_its_memory_back(pool):
    cycle = [large()]
    cycle.append(cycle)
    where = address(cycle[0])
    del cycle
    gc.collect()
    assert address(large()) == where


def test_threads_never_share_a_block():
    wrong = []

    def work(number):
        for i in range(300):
            y = large(1 + i % 2)
            y[0, ::1024] = number * 1000 + i
            z = large()
            z[0, ::1024] = -1
            if (y[0, ::1024] != number * 1000 + i).any():
                wrong.append((number, i))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_recycles_though_the_lock_was_held(pool):
    with pool.lock:
        child = os.fork()
        if child == 0:
            y = large()
            where = address(y)
            del y
            os._exit(0 if address(large()) == where else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_calls_write_into_memory_that_nobody_sees(forward_artifact):
    session = Session(forward_artifact)
    rows = WORTH // 4
    call = direct(
        lambda x: session({"x": x})["y"], lambda: Route(session, ("x",), "y")
    )  # the general way first, then the short one
    kept = []
    for number in range(6):
        x = np.full((rows, 1), number, np.float64)
        y = call(x)
        kept.append(y[::1000] if number % 2 else y)
    for number, y in enumerate(kept):
        assert (y == 3 * number).all()
    del kept, y
    free = address(call(x))
    assert address(call(x)) == free
