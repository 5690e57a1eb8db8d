"""Takes a shape and a dtype, gives an array for a large result, where it can in memory of a former
one.

Fresh memory costs a page fault every few KiB, often more than computing what is written there. So
when the last array, view or memoryview of a result is gone, its memory is kept for the next result
of about that size: a few blocks, LIMIT bytes in all, none for longer than IDLE seconds after which
any other block comes or goes.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.buffers import Array, address, aligned_empty

WORTH = 1 << 20  # bytes; smaller memory comes from the allocator without page faults, too
LIMIT = 1 << 28  # bytes that wait at most
MOST = 16  # blocks that wait at most
IDLE = 5.0  # seconds
PAGE = 4096


class _Loan:
    """The base of a result and of all its views: when it goes, nobody can see the memory."""

    __slots__ = ("__array_interface__", "memory")

    def __init__(self, memory: Array, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        self.memory = memory
        self.__array_interface__ = {
            "version": 3,
            "data": (address(memory), False),
            "shape": tuple(shape),
            "typestr": dtype.str,
        }

    def __del__(self) -> None:
        _pool.give(self.memory)


class Pool:
    """Memory that waits for the next result of its size.

    A block may go at any moment in any thread, even within these methods (by garbage collection),
    so nobody ever waits for the lock: who finds it taken does without the pool.
    """

    def __init__(self) -> None:
        self.waiting: list[tuple[float, Array]] = []  # since when; the oldest first
        self.bytes = 0
        self.lock = threading.Lock()

    def take(self, size: int) -> Array | None:
        """Memory of that size in bytes, if there is any."""
        if not self.waiting or not self.lock.acquire(blocking=False):
            return None
        try:
            found = None
            for i in range(len(self.waiting) - 1, -1, -1):
                if self.waiting[i][1].nbytes == size:
                    found = self._remove(i)
                    break
            self._drop(time.monotonic())
            return found
        finally:
            self.lock.release()

    def give(self, memory: Array) -> None:
        """Memory that nobody uses; it is freed where there is no room for it."""
        if memory.nbytes > LIMIT or not self.lock.acquire(blocking=False):
            return
        try:
            now = time.monotonic()
            self.waiting.append((now, memory))
            self.bytes += memory.nbytes
            self._drop(now)
        finally:
            self.lock.release()

    def _drop(self, now: float) -> None:
        while self.waiting and (
            self.bytes > LIMIT or len(self.waiting) > MOST or self.waiting[0][0] < now - IDLE
        ):
            self._remove(0)

    def _remove(self, i: int) -> Array:
        _, memory = self.waiting.pop(i)
        self.bytes -= memory.nbytes
        return memory


_pool = Pool()


def result_empty(shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
    """An uninitialised array for a result, whose memory begins at a multiple of 64 bytes."""
    dtype = np.dtype(dtype)
    size = dtype.itemsize * math.prod(shape)
    if size < WORTH:
        return aligned_empty(shape, dtype)
    room = -(-size // PAGE) * PAGE
    memory = _pool.take(room)
    if memory is None:
        memory = aligned_empty((room,), np.uint8)
    return np.asarray(_Loan(memory, shape, dtype))


def _forked() -> None:
    _pool.lock = threading.Lock()  # another thread may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
