"""Takes a session's program and inputs, gives a callable on fixed buffers with the least overhead.

bound = session.bind({"x": x, "target": t})
bound()["loss"]                  one native call; outputs are live arrays, written by every call
bound.inputs["x"][...] = other   new data of the same shape
bound.run(1000)                  that many calls in native code
"""

from __future__ import annotations

import time
from typing import Any

from runtime.buffers import Array
from runtime.frame import Frame
from runtime.loader import Program
from runtime.pace import SLICE, Pace


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

    def __call__(self) -> dict[str, Array]:
        """One call; ValueError where the inputs break a check."""
        with self._lock:
            code = self._entry(self._table, self._syms, self._team)
        if code:
            raise self._frame.fault(code)
        return self.outputs

    def run(self, n: int, seconds: float = SLICE) -> dict[str, Array]:
        """n calls, about `seconds` of them at a time in native code."""
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
