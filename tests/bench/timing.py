"""Takes functions that do the same work, gives their times, measured in turns in one process.

Machines are shared and noisy: only ratios measured in one run hold, so the functions take turns
block by block, and the minimum and the median of the blocks are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

Run = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds per call: the best block, the middle one, and how many there were."""

    best: float
    middle: float
    blocks: int


def calls_per_block(run: Run, block_s: float) -> int:
    """How many calls fill a block; the calls that find out are the warm-up."""
    run()
    count = 1
    while True:
        start = time.perf_counter()
        for _ in range(count):
            run()
        passed = time.perf_counter() - start
        if passed >= block_s / 4:
            return max(1, round(count * block_s / passed))
        count *= 4


def interleave(
    runs: Mapping[str, Run], *, seconds: float = 2.0, block_s: float = 0.005
) -> dict[str, Timing]:
    """Times of all `runs`, about `seconds` of each, in alternating blocks of about `block_s`."""
    counts = {name: calls_per_block(run, block_s) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < end or min(map(len, times.values())) < 5:
        for name, run in runs.items():
            count = counts[name]
            start = time.perf_counter()
            for _ in range(count):
                run()
            times[name].append((time.perf_counter() - start) / count)
    return {name: Timing(min(t), median(t), len(t)) for name, t in times.items()}


def readable(seconds: float) -> str:
    """1.234 us, 56.7 ms, ..."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
