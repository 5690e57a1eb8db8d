"""Takes whole data sets, gives sums of scalars over all their batches from the native train loop.

The feed table, in slots of 8 bytes: [0] first row (an index into order), [1] how many rows, [2]
batch size, [3] order (i64 row numbers; null: rows in sequence), [4] sums (f64 per Plan.scalars,
+= value * rows of the batch), [5] out: rows done, [6 ..] the source of every feed, then the staging
memory of every feed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from runtime.buffers import Array, address, aligned_empty
from runtime.frame import Frame, Layout
from runtime.loader import Program
from runtime.pace import Pace

_HEAD = 6


def can_feed(layout: Layout, program: Program) -> bool:
    """Whether the artifact has a native train loop for its inputs."""
    feeds = {port.number: port.coefficient for port in layout.wanted}
    return (
        program.train is not None
        and layout.plan.symbols == ["batch"]
        and bool(layout.plan.feeds)
        and all(feeds.get(number) == 1 for number in layout.plan.feeds)
    )


class Feeder:
    """Runs the train loop of one session; a frame for each call in flight."""

    def __init__(
        self, layout: Layout, program: Program, lock: Any, team: int | None = None
    ) -> None:
        self._layout = layout
        self._train = program.train
        self._lock = lock
        self._team = team
        self._frames: list[Frame] = []
        self._pace = Pace()
        plan = layout.plan
        self._feeds = [(number, plan.buffers[number].name) for number in plan.feeds]

    def sums(
        self,
        arrays: Mapping[str, Array],
        order: Array | None,
        *,
        rows: int,
        batch: int,
        seconds: float,
    ) -> Array:
        """Sum over the rows of every scalar; arrays and order must be converted and in range."""
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = Frame(self._layout, own_all=True)
        try:
            return self._run(frame, arrays, order, rows, min(batch, rows), seconds)
        finally:
            self._frames = [frame]

    def _run(
        self,
        frame: Frame,
        arrays: Mapping[str, Array],
        order: Array | None,
        rows: int,
        batch: int,
        seconds: float,
    ) -> Array:
        assert self._train is not None
        frame.bind((batch,))
        names = {name for _, name in self._feeds}
        for name, target, _, _ in frame.copied:
            if name not in names:
                target[...] = arrays[name]
        sums = aligned_empty((max(1, len(self._layout.plan.scalars)),), np.float64)
        sums[:] = 0
        feed = aligned_empty((_HEAD + 2 * len(self._feeds),), np.int64)
        feed[3] = 0 if order is None else address(order)
        feed[4] = address(sums)
        for slot, (number, name) in enumerate(self._feeds, _HEAD):
            feed[slot] = address(arrays[name])
            feed[slot + len(self._feeds)] = address(frame.arrays[number])
        where = address(feed)
        first = 0
        while first < rows:
            now = self._pace.units(rows - first, batch, seconds)
            feed[0], feed[1], feed[2], feed[5] = first, now, batch, 0
            started = time.perf_counter()
            with self._lock:
                code = self._train(frame.table, frame.syms, self._team, where)
            if code:
                raise self._fault(code, frame, arrays, order, first + int(feed[5]), batch)
            self._pace.learn(now, time.perf_counter() - started)
            first += now
        return sums[: len(self._layout.plan.scalars)]

    def _fault(
        self,
        code: int,
        frame: Frame,
        arrays: Mapping[str, Array],
        order: Array | None,
        first: int,
        batch: int,
    ) -> ValueError:
        """Looks again at the batch that begins at `first`, in the user's own rows."""
        last = len(order) if order is not None else len(arrays[self._feeds[0][1]])
        picked = np.arange(first, min(first + batch, last))
        picked = picked if order is None else order[picked]
        frame.bind((len(picked),))
        for number, name in self._feeds:
            frame.arrays[number][...] = arrays[name][picked]
        return frame.fault(code, picked)
