"""Takes a number of threads, gives the memory where native code meets its workers: a team.

The native side is team.py; a team is a table of a few cache lines (places.py).

Teams live as long as the process, and so does the code of their workers: a worker may sleep in it
when the interpreter is gone. After a fork the child has the memory but no workers: all starts anew.
"""

from __future__ import annotations

import ctypes
import os
import threading
from math import ceil
from pathlib import Path

import numpy as np

from runtime.buffers import Array, address, aligned_empty
from runtime.places import PLACES
from runtime.team import functions, possible

_lock = threading.Lock()
_teams: dict[tuple[int, int], Array] = {}  # by number of threads and address of the code


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


def team(threads: int | None, shared: bool) -> int | None:
    """The address of a team of so many threads, the caller among them; None where it runs alone.

    `shared`: the program has work to share.
    """
    count = default_threads() if threads is None else threads
    if count < 1:
        raise ValueError(f"threads must be at least 1, got {count}")
    if count == 1 or not shared or not possible():
        return None
    library, addresses = functions()
    key = count, addresses["run"]
    with _lock:
        if key not in _teams:
            table = aligned_empty((PLACES["slots"] + count * PLACES["stride"],), np.uint8)
            _reset(table, count)
            for place, value in addresses.items():
                _put(table, PLACES[place], value)
            for thing in (table, library):
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
            _teams[key] = table
        return address(_teams[key])


def _reset(table: Array, threads: int) -> None:
    """Nobody is at work, and all workers are still to be started."""
    table[: PLACES["worker"]] = 0
    table[PLACES["slots"] :] = 0
    _put(table, PLACES["threads"], threads)
    _put(table, PLACES["sleepers"], threads - 1)
    _put(table, PLACES["missing"], threads - 1)
    for number in range(threads):
        slot = PLACES["slots"] + number * PLACES["stride"]
        _put(table, slot + 8, address(table))
        _put(table, slot + 16, number)


def _put(table: Array, place: int, value: int) -> None:
    table[place : place + 8].view(np.int64)[0] = value


def _forked() -> None:
    global _lock
    _lock = threading.Lock()
    for (count, _), table in _teams.items():
        _reset(table, count)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
