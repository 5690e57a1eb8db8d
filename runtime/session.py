"""Takes an artifact and its persistent arrays, gives the callable that runs it on the user's data.

A call checks its inputs, enters native code once with the GIL released, and hands out new arrays.
Every call in flight has a frame of its own; sessions that write persistent arrays take the lock of
their State, so any number of threads may call.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from runtime.artifact import FIXED, Artifact
from runtime.bound import Bound
from runtime.buffers import DTYPES, Arena, Array, address, aligned_empty, bind_shape
from runtime.feed import Feeder, can_feed
from runtime.frame import Frame, Layout
from runtime.inputs import (
    Port,
    bind_symbols,
    check_limits,
    check_names,
    convert,
    find_fault,
    inspect,
    ports,
    row_numbers,
)
from runtime.loader import load
from runtime.pace import SLICE
from runtime.pool import team
from runtime.profile import ProfileRow, profile_rows
from runtime.stack import check_stack

IDLE_FRAMES = 4  # how many frames a session keeps between calls
WHOLE = 1 << 28  # bytes; larger data that must be cast is cast in pieces
PIECE = 1 << 26


class Session:
    """A compiled function of named inputs.

    `persistent` holds arrays (a State, usually) that native code reads and writes in place; all
    other inputs of the plan are passed at every call. Outputs are named as the graph names them;
    the new value of an updated input that is not persistent comes out as "update:<input>".
    Up to `threads` threads run a call (None: NNC_NUM_THREADS, else all cores); their number never
    changes a result. Inputs whose names begin with FIXED have to be persistent: what is computed
    from them alone is computed now, and after that by `refresh`.
    """

    def __init__(
        self,
        artifact: Artifact,
        persistent: Mapping[str, Array] | None = None,
        threads: int | None = None,
    ) -> None:
        kept = persistent if persistent is not None else {}
        self.artifact = artifact
        self.plan = plan = artifact.plan
        self.wanted = ports(plan, kept)
        self.layout = Layout(plan, self.wanted, kept)
        check_stack(plan.stack, plan.name)
        self.program = load(artifact)
        self.writes = any(name in kept for name in plan.updates)
        shared = getattr(kept, "lock", None)
        self.lock: Any = shared if self.writes and shared is not None else threading.RLock()
        self.results = {n: b for n, b in plan.outputs.items() if not n.startswith("update:")}
        self.results |= {f"update:{p.name}": p.number for p in self.wanted if p.donated}
        self._entry = self.program.entry
        self.team = team(threads, plan.shared)
        self._count = len(self.wanted)
        self._frames: list[Frame] = []
        self._arenas: WeakValueDictionary[tuple[int, ...], Arena] = WeakValueDictionary()
        native = can_feed(self.layout, self.program)
        self._feeder = Feeder(self.layout, self.program, self.lock, self.team) if native else None
        self.refresh()

    def refresh(self) -> None:
        """Computes what all calls share from the fixed inputs as they are now.

        For all frames and bound calls, none of which may be running meanwhile.
        """
        fixed = [port.name for port in self.wanted if port.name.startswith(FIXED)]
        if fixed:
            raise ValueError(f"'{fixed[0]}' of '{self.plan.name}' has to be persistent")
        if self.program.once is not None:
            frame = Frame(self.layout)
            with self.lock:
                self.program.once(frame.table, frame.syms, None)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Outputs by name, as new arrays.

        ValueError on wrong names, shapes, values out of range and empty batches, TypeError on
        dtypes that cannot be cast; persistent arrays are unchanged then.
        """
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = Frame(self.layout)
        try:
            if len(inputs) != self._count or frame.extents is None or not frame.load(inputs):
                arrays, extents = self.convert(inputs)
                if 0 in extents:
                    return self._empty(extents)
                frame.bind(extents)
                frame.store(arrays)
            if frame.fresh:
                frame.allocate()
            if self.writes:
                with self.lock:
                    code = self._entry(frame.table, frame.syms, self.team)
            else:
                code = self._entry(frame.table, frame.syms, self.team)
            if code:
                raise frame.fault(code)
            return self.collect(frame)
        finally:
            if frame.pointed or frame.fresh:
                frame.release()
            self.give(frame)

    def convert(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Array], tuple[int, ...]]:
        """All inputs as arrays that native code can read, and the extents of the symbols."""
        check_names(self.wanted, inputs)
        arrays = {port.name: convert(port, inputs[port.name]) for port in self.wanted}
        extents = bind_symbols(self.plan, self.wanted, list(arrays.values()))
        check_limits(self.plan.limits, dict(zip(self.plan.symbols, extents, strict=True)))
        return arrays, extents

    def bind(self, inputs: Mapping[str, Any]) -> Bound:
        """Fixed buffers with a copy of the inputs; ValueError on an empty batch."""
        arrays, extents = self.convert(inputs)
        self._refuse_empty(extents)
        arena = self._arenas.get(extents)  # bound calls hold the lock: one at a time
        frame = Frame(self.layout, own_all=True, arena=arena)
        frame.bind(extents)
        self._arenas[extents] = frame.arena
        frame.store(arrays)
        return Bound(frame, self.program, self.results, self.lock, self.team)

    def profile(self, inputs: Mapping[str, Any], repeats: int = 20) -> list[ProfileRow]:
        """Time and rates of every kernel; persistent arrays are as before afterwards."""
        if repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {repeats}")
        bound = self.bind(inputs)
        ticks = aligned_empty((max(1, len(self.plan.kernels)),), np.int64)
        numbers = [n for n in self.layout.fixed if self.plan.buffers[n].name in self.plan.updates]
        with self.lock:
            before = [self.layout.fixed[n].copy() for n in numbers]
            try:
                bound.measure(address(ticks))
                ticks[:] = 0
                seconds = sum(bound.measure(address(ticks)) for _ in range(repeats))
            finally:
                for n, array in zip(numbers, before, strict=True):
                    self.layout.fixed[n][...] = array
        return profile_rows(
            self.plan.kernels,
            ticks[: len(self.plan.kernels)].tolist(),
            calls=repeats,
            seconds=seconds,
            symbols=bound.extents,
        )

    # whole data sets -----------------------------------------------------------------------------

    def prepare(self, data: Mapping[str, Any]) -> dict[str, Array]:
        """The data of a training run, cast once and checked whole, so that no batch can fail.

        Arrays that would take too much memory when cast stay as they are. Inputs may be missing.
        """
        check_names([port for port in self.wanted if port.name in data], data)
        prepared = {}
        for port in self.wanted:
            if port.name in data:
                array = inspect(port, data[port.name])
                if array.dtype == port.dtype or array.size * port.dtype.itemsize <= WHOLE:
                    array = convert(port, array)
                    self._check(port, array)
                prepared[port.name] = array
        return prepared

    def _check(self, port: Port, array: Array) -> None:
        for check in self.plan.checks:
            if check.buffer == port.number and (message := find_fault(check, port, array)):
                raise ValueError(message)

    def train(
        self,
        data: Mapping[str, Any],
        batch_size: int,
        order: npt.ArrayLike | None = None,
        seconds: float = SLICE,
    ) -> dict[str, float]:
        """Runs all batches of the data, gives the means over rows of the plan's scalars.

        `order` holds the row numbers to run through; None is all rows in sequence. Native code
        returns to Python about every `seconds`; after Ctrl-C the persistent arrays hold the state
        after some whole batch.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        check_names(self.wanted, data)
        arrays = {port.name: inspect(port, data[port.name]) for port in self.wanted}
        extents = bind_symbols(self.plan, self.wanted, list(arrays.values()))
        self._refuse_empty(extents)
        available = max(extents, default=1)
        picked = None if order is None else row_numbers(order, available)
        rows = available if picked is None else len(picked)
        if rows == 0:
            raise ValueError("empty batch: the order names no rows")
        check_limits(self.plan.limits, dict.fromkeys(self.plan.symbols, min(batch_size, rows)))
        sums = np.zeros(len(self.plan.scalars))
        for part, numbers, count in self._pieces(arrays, picked, rows, batch_size):
            if self._feeder is None:
                sums += self._loop(part, numbers, count, batch_size)
            else:
                sums += self._feeder.sums(
                    part, numbers, rows=count, batch=batch_size, seconds=seconds
                )
        return dict(zip(self.plan.scalars, (sums / rows).tolist(), strict=True))

    def _pieces(
        self, arrays: dict[str, Array], picked: Array | None, rows: int, batch: int
    ) -> Iterator[tuple[dict[str, Array], Array | None, int]]:
        """The data in one piece, or in several where casting it whole would take much memory."""
        per_row = {p.name: p.dtype.itemsize * _row_size(arrays[p.name]) for p in self.wanted}
        cast = [p.name for p in self.wanted if arrays[p.name].dtype != p.dtype]
        if sum(arrays[n].size * arrays[n].itemsize for n in cast) <= WHOLE or None in (
            p.symbol for p in self.wanted
        ):
            yield {p.name: convert(p, arrays[p.name]) for p in self.wanted}, picked, rows
            return
        step = max(1, PIECE // sum(per_row.values()) // batch) * batch
        for first in range(0, rows, step):
            count = min(step, rows - first)
            chosen: Any = slice(first, first + count)
            chosen = chosen if picked is None else picked[chosen]
            yield {p.name: convert(p, arrays[p.name][chosen]) for p in self.wanted}, None, count

    def _loop(self, arrays: dict[str, Array], picked: Array | None, rows: int, batch: int) -> Array:
        """What the native train loop does, for artifacts that have none."""
        sums = np.zeros(len(self.plan.scalars))
        for first in range(0, rows, batch):
            last = min(first + batch, rows)
            chosen: Any = slice(first, last) if picked is None else picked[first:last]
            whole = {p.name for p in self.wanted if p.symbol is None}
            results = self({n: a if n in whole else a[chosen] for n, a in arrays.items()})
            values = [float(results[name].reshape(())) for name in self.plan.scalars]
            sums += np.array(values) * (last - first)
        return sums

    # frames of calls that take the short way: see direct.py ---------------------------------------

    def take(self) -> Frame | None:
        """The frame that the last call left behind."""
        try:
            return self._frames.pop()
        except IndexError:
            return None

    def give(self, frame: Frame) -> None:
        """A frame that no call is in."""
        if len(self._frames) < IDLE_FRAMES:
            self._frames.append(frame)

    # results -------------------------------------------------------------------------------------

    def collect(self, frame: Frame) -> dict[str, Array]:
        """Outputs by name out of the frame of a finished call."""
        handed = {number for number, _, _ in frame.fresh}
        results = {}
        for name, number in self.results.items():
            if number in handed:
                results[name] = frame.arrays[number]
                handed.discard(number)  # a second name of the same buffer gets a copy
            else:
                array = frame.arrays.get(number)
                results[name] = (frame.view(number) if array is None else array).copy()
        return results

    def _refuse_empty(self, extents: tuple[int, ...]) -> None:
        if 0 in extents:
            symbol = self.plan.symbols[extents.index(0)]
            raise ValueError(f"empty batch: '{symbol}' of '{self.plan.name}' is 0")

    def _empty(self, extents: tuple[int, ...]) -> dict[str, Array]:
        """What an empty batch gives where every output is empty too."""
        bound = dict(zip(self.plan.symbols, extents, strict=True))
        specs = {name: self.plan.buffers[number] for name, number in self.results.items()}
        shapes = {name: bind_shape(spec, bound) for name, spec in specs.items()}
        if self.plan.updates or any(0 not in shape for shape in shapes.values()):
            self._refuse_empty(extents)
        return {name: aligned_empty(shapes[name], DTYPES[s.dtype]) for name, s in specs.items()}


def _row_size(array: Array) -> int:
    return array.size // len(array) if array.ndim else 1
