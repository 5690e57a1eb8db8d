"""Takes a number of threads, gives the memory where native code meets its workers: a team.

The native side is nncompiler/codegen/team.py. A team is a table of a few cache lines:

    DONE      chunks that workers finished; WAITING: the caller sleeps until DONE is complete
    FUNCTION  (BUFS, SYMS, i) is chunk i; STATE: the floating-point state for it; CORE: the caller's
    SLEEPERS  workers that sleep, or were never started; SEQUENCE: what they sleep on
    BUSY      a call is in flight; another one runs alone
    ALONE     until when the caller stays alone, and LENGTH: for how long
    LAST      when the caller last dealt out a stage to sleepers; BURST: since when it is busy
    MISSING   workers to be started, by native code, when there is enough to do
    WORKER    the function that they run; THREADS: how many they are, the caller counted
    SLOTS     one for each thread: its chunks (end, next), the team's address, its number

Teams live as long as the process, and so does the code of their workers: a worker may sleep in it
when the interpreter is gone. After a fork the child has the memory but no workers: all starts anew.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from runtime.buffers import Array, address, aligned_empty

# Offsets in bytes. What different threads write at the same time lies two cache lines apart.
DONE, WAITING = 0, 4
FUNCTION, BUFS, SYMS, STATE, CORE, THREADS, WORKER = 128, 136, 144, 152, 156, 160, 168
SLEEPERS, SEQUENCE = 256, 260
BUSY, ALONE, LENGTH, LAST, BURST, MISSING = 384, 392, 400, 408, 416, 424
SLOTS, STRIDE = 512, 128
PLACES = (
    *("DONE", "WAITING", "FUNCTION", "BUFS", "SYMS", "STATE", "CORE", "THREADS", "WORKER"),
    *("SLEEPERS", "SEQUENCE", "BUSY", "ALONE", "LENGTH", "LAST", "BURST", "MISSING"),
    *("SLOTS", "STRIDE"),
)

_lock = threading.Lock()
_teams: dict[int, Array] = {}


def default_threads() -> int:
    """NNC_NUM_THREADS, else as many as there are cores that this process may use in full."""
    wish = os.environ.get("NNC_NUM_THREADS", "").strip()
    if wish:
        if not wish.isdecimal() or int(wish) < 1:
            raise ValueError(f"NNC_NUM_THREADS must be a positive integer, not '{wish}'")
        return int(wish)
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _quota())
    return os.cpu_count() or 1


def _quota(root: Path = Path("/sys/fs/cgroup")) -> int:
    """How many cores' time the control group of this process (a container, usually) may use."""
    files = ("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
    for names in files:
        try:
            quota, period = " ".join((root / name).read_text() for name in names).split()
            if int(quota) > 0:
                return max(1, ceil(int(quota) / int(period)))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return 1 << 20


def team(threads: int | None, worker: int | None, code: Any) -> int | None:
    """The address of a team of so many threads, the caller among them; None where it runs alone.

    `worker` is the address of the workers' function, which lies in `code`.
    """
    count = default_threads() if threads is None else threads
    if count < 1:
        raise ValueError(f"threads must be at least 1, got {count}")
    if count == 1 or worker is None or not sys.platform.startswith("linux"):
        return None
    with _lock:
        if count not in _teams:
            table = aligned_empty((SLOTS + count * STRIDE,), np.uint8)
            _reset(table, count)
            _put(table, WORKER, worker)
            for thing in (table, code):
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
            _teams[count] = table
        return address(_teams[count])


def _reset(table: Array, threads: int) -> None:
    """Nobody is at work, and all workers are still to be started."""
    worker = int(table[WORKER : WORKER + 8].view(np.int64)[0])
    table[:] = 0
    _put(table, WORKER, worker)
    _put(table, THREADS, threads)
    _put(table, SLEEPERS, threads - 1)
    _put(table, MISSING, threads - 1)
    for number in range(threads):
        _put(table, SLOTS + number * STRIDE + 8, address(table))
        _put(table, SLOTS + number * STRIDE + 16, number)


def _put(table: Array, place: int, value: int) -> None:
    table[place : place + 8].view(np.int64)[0] = value


def _forked() -> None:
    global _lock
    _lock = threading.Lock()
    for count, table in _teams.items():
        _reset(table, count)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
