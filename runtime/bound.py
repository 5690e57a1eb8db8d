"""Takes a session's program and inputs, gives a callable on fixed buffers with the least overhead.

bound = session.bind({"x": x, "target": t})
bound()["loss"]                  one native call; outputs are live arrays, written by every call
bound.inputs["x"][...] = other   new data of the same shape
bound.run(1000)                  that many calls in native code
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from runtime.buffers import Array
from runtime.frame import Frame
from runtime.glue import Kind, Slot
from runtime.loader import Program
from runtime.native import BRIEF, POSSIBLE, Context, entry_address, native_callable
from runtime.pace import SLICE, Pace

Shape = Callable[[dict[str, Array]], Any]


class Bound:
    """Fixed inputs and outputs; `lock` is held during native calls."""

    def __init__(
        self,
        frame: Frame,
        program: Program,
        results: dict[str, int],
        lock: Any,
        team: int | None = None,
    ) -> None:
        self.inputs: dict[str, Array] = {name: array for name, array, _, _ in frame.copied}
        self.outputs: dict[str, Array] = {n: frame.view(b) for n, b in results.items()}
        symbols = frame.layout.plan.symbols
        self.extents = dict(zip(symbols, frame.extents or (), strict=True))
        self._frame = frame
        self._program = program
        self._entry = program.entry
        self._table, self._syms = frame.table, frame.syms
        self._lock = lock
        self._team = team
        self._pace = Pace()

    def callable(self, shape: Shape, *, number: str = "", live: bool = False) -> Callable[[], Any]:
        """One call at the least cost, which gives what `shape` makes of the outputs.

        Two results are quicker: the output of the name `number` as a Python float, and, where
        `live`, the object that `shape` made once of the live outputs.
        """

        def general() -> Any:
            return shape(self())

        if not POSSIBLE:
            return general
        context = Context()
        context.number(Slot.COUNT, 0)
        context.number(Slot.ENTRY, entry_address(self._entry))
        context.number(Slot.BUFFERS, self._table)
        context.number(Slot.SYMBOLS, self._syms)
        context.number(Slot.TEAM, self._team or 0)
        context.number(Slot.EXTENT, next(iter(self.extents.values()), 0))
        context.number(Slot.DETACH, int(self._frame.work() > BRIEF))
        context.lock(self._lock)
        context.hold(Slot.GENERAL, general)
        context.hold(Slot.BESIDE, general)
        if number:
            context.scalar(self.outputs[number])
        elif live:
            context.value(Kind.OBJECT, shape(self.outputs))
        else:
            context.value(Kind.AFTER, partial(shape, self.outputs))
        return native_callable(context, (context, self))

    def __call__(self) -> dict[str, Array]:
        """One call; ValueError where the inputs break a check."""
        with self._lock:
            code = self._entry(self._table, self._syms, self._team)
        if code:
            raise self._frame.fault(code)
        return self.outputs

    def run(self, n: int, seconds: float = SLICE) -> dict[str, Array]:
        """n calls, about `seconds` of them at a time in native code."""
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
            raise TypeError(f"the number of runs must be a whole number, got {n!r}")
        if n < 0:
            raise ValueError(f"the number of runs must not be negative, got {n}")
        done = 0
        while done < n:
            now = self._pace.units(n - done, 1, seconds)
            started = time.perf_counter()
            with self._lock:
                code = self._repeat(now)
            if code:
                raise self._frame.fault(code)
            self._pace.learn(now, time.perf_counter() - started)
            done += now
        return self.outputs

    def _repeat(self, n: int) -> int:
        if self._program.repeat is not None:
            return self._program.repeat(self._table, self._syms, self._team, n)
        for _ in range(n):
            if code := self._entry(self._table, self._syms, self._team):
                return code
        return 0

    def measure(self, ticks: int) -> float:
        """One profiled call, which adds to the ticks at that address; gives its seconds."""
        if self._program.profile is None:
            raise ValueError("this artifact was compiled without its profile function")
        started = time.perf_counter()
        with self._lock:
            code = self._program.profile(self._table, self._syms, None, ticks)
        if code:
            raise self._frame.fault(code)
        return time.perf_counter() - started
