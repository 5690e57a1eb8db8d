"""Takes an operand with zeros between its elements, gives a copy of the elements that a block of
work reads, with the border of zeros and no others.

Copies of a row that begin one element later than each other let rows lie side by side without a
border between them: whole vectors run over the end of a row.

    x = a b c d      rows of 4, reach 1     ->     a b c d,  b c d 0
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ir import scalar
from ir.index import Guard, Index, Var
from ir.loops import Buffer, For, Stmt, Store, Transpose
from ir.scalar import Scalar
from nncompiler.schedule.heuristics import fitting_lanes, size_of
from nncompiler.schedule.phases import Axis, Phase
from nncompiler.schedule.pieces import decided

Stmts = tuple[Stmt, ...]
Piece = tuple[int, int, bool | None]  # start, count, whether it is there


@dataclass(frozen=True)
class Spread:
    """The copy of what a block reads: shifts x channels x rows x columns, or the channels last. A
    block has `counts` quotients along the axes, from `starts` on. `is_joined`: rows lie side by
    side, in one copy for every element that is reached."""

    operand: Scalar
    axes: tuple[Axis, ...]
    channels: tuple[Var, ...]
    starts: tuple[Index, ...]
    counts: tuple[int, ...]
    name: str
    is_joined: bool
    is_last: bool

    @property
    def near(self) -> Var | None:
        """The channels that are neighbours in the operand."""
        return next((v for v in self.channels if self.operand.index.coefficient(v) == 1), None)

    @property
    def shifts(self) -> int:
        """How many copies there are."""
        last = self.axes[-1]
        return last.reach // last.way.far + 1 if self.is_joined else 1

    @property
    def rows(self) -> tuple[int, ...]:
        """Elements along the axes but the last."""
        return tuple(n + a.reach for n, a in zip(self.counts[:-1], self.axes, strict=False))

    @property
    def columns(self) -> int:
        return self.counts[-1] + (0 if self.is_joined else self.axes[-1].reach)

    @property
    def size(self) -> int:
        channels = math.prod(size_of(v.extent) for v in self.channels)
        return self.shifts * channels * math.prod(self.rows) * self.columns

    @property
    def buffer(self) -> Buffer:
        return Buffer(self.name, self.operand.dtype, self.size, True)

    def index(self, shift: Index, places: Sequence[Index]) -> Index:
        """Where an element lies: its shift, then for every axis the place after the lowest."""
        channels = [(Index.of(v), size_of(v.extent)) for v in self._channels]
        along = list(zip(places, (*self.rows, self.columns), strict=True))
        found = shift
        for place, extent in (*along, *channels) if self.is_last else (*channels, *along):
            found = found * extent + place
        return found

    @property
    def _channels(self) -> tuple[Var, ...]:
        """Those that are neighbours as the last ones."""
        return tuple(sorted(self.channels, key=lambda v: v == self.near))

    def read(self, phases: Sequence[Phase], spots: Sequence[Index]) -> Scalar:
        """The load of it for the phases of the axes, at quotients of the block."""
        reached = [a.place(p) for a, p in zip(self.axes, phases, strict=True)]
        shift = Index()
        if self.is_joined:
            last, phase = self.axes[-1], phases[-1]
            step = (phase.origin - last.lowest) // last.way.far
            shift, reached[-1] = Index.of(last.step(phase)) + step, Index()
        places = [r + s for r, s in zip(reached, spots, strict=True)]
        return scalar.load(self.name, self.index(shift, places), self.operand.dtype)

    # ------------------------------------------------------------ making it

    def copies(self, lanes: int) -> Stmts:
        """The loops that make the copy."""
        body = self._rows((), (), lanes)
        for v in reversed(self._channels):
            if v != self.near:
                body = (For(v, "serial", 1, body),)
        return body

    def _rows(self, rows: tuple[Index, ...], guards: tuple[Guard, ...], lanes: int) -> Stmts:
        """Row after row; those that lie outside are zeros."""
        number = len(rows)
        if number == len(self.rows):
            return self._columns(rows, guards, lanes)
        extent, axis = self.rows[number], self.axes[number]
        found: list[Stmt] = []
        for start, count, there in self._pieces(number, Index(), extent):
            row = Var(f"{self.name}{number}_{start}", count)
            place = Index.of(row) + start
            if there is False:
                inside = self._zeros((*rows, place), lanes)
            else:
                element = place + self.starts[number] + axis.lowest
                limits = () if there else (Guard(element, axis.way.low, axis.way.high),)
                inside = self._rows((*rows, place), (*guards, *limits), lanes)
            found.append(For(row, "serial", 1, inside))
        return tuple(found)

    def _pieces(self, number: int, offset: Index, extent: int) -> list[Piece]:
        """The parts of an axis; None where what is there differs from block to block."""
        axis = self.axes[number]
        first = self.starts[number] + offset + axis.lowest
        if first.terms:
            return [(0, extent, None)]
        low = min(max(axis.way.low - first.constant, 0), extent)
        high = min(max(axis.way.high - first.constant, low), extent)
        parts = ((0, low, False), (low, high - low, True), (high, extent - high, False))
        return [part for part in parts if part[1]]

    def _columns(self, rows: tuple[Index, ...], guards: tuple[Guard, ...], lanes: int) -> Stmts:
        """All copies of a row."""
        number, axis = len(rows), self.axes[-1]
        found: list[Stmt] = []
        for shift in range(self.shifts):
            offset = Index.of(shift * axis.way.far)
            for start, count, there in self._pieces(number, offset, self.columns):
                column = Var(f"{self.name}{number}_{shift}_{start}", count)
                place = Index.of(column) + start
                target = self.index(Index.of(shift), (*rows, place))
                value = scalar.const(0, self.operand.dtype)
                if there is not False:
                    element = place + self.starts[number] + offset + axis.lowest
                    limits = () if there else (Guard(element, axis.way.low, axis.way.high),)
                    value = self._element((*rows, place + offset), (*guards, *limits))
                found.append(self._copied(column, Store(self.name, target, value), lanes))
        return tuple(found)

    def _copied(self, column: Var, store: Store, lanes: int) -> Stmt:
        """The loop over columns; where the operand's channels are neighbours, that over them, too:
        lanes run over what lies together in both, else a square of values is turned."""
        near = self.near
        if near is None:
            return For(column, "vector", fitting_lanes(column.extent, lanes), (store,))
        if self.is_last:
            channels = For(near, "vector", fitting_lanes(near.extent, lanes), (store,))
            return For(column, "serial", 1, (channels,))
        if store.value.kind == "load" and column.extent != 1 and near.extent != 1:
            return Transpose(near, column, store.buffer, store.index, store.value, lanes)
        columns = For(column, "vector", fitting_lanes(column.extent, lanes), (store,))
        return For(near, "serial", 1, (columns,))

    def _element(self, places: Sequence[Index], guards: tuple[Guard, ...]) -> Scalar:
        """What lies at places after the lowest, where the guards hold."""
        changes: dict[Var, Index] = {}
        for axis, start, place in zip(self.axes, self.starts, places, strict=True):
            element = place + start + axis.lowest
            spot = element * axis.way.stride - axis.way.shift
            changes |= {axis.way.spot: spot, axis.way.tap: Index()}
        source, operand = self.operand.index.substitute(changes), self.operand
        return decided(scalar.load(operand.name, source, operand.dtype, guards=guards))

    def _zeros(self, rows: tuple[Index, ...], lanes: int) -> Stmts:
        """Zeros in all that lies inside of the rows, in every copy."""
        inner = [Var(f"{self.name}_zero{n}", e) for n, e in enumerate(self.rows) if n >= len(rows)]
        column = Var(f"{self.name}_zero", self.columns)
        places = (*rows, *(Index.of(v) for v in inner), Index.of(column))
        zero = scalar.const(0, self.operand.dtype)
        body: Stmts = tuple(
            self._copied(column, Store(self.name, self.index(Index.of(shift), places), zero), lanes)
            for shift in range(self.shifts)
        )
        for v in reversed(inner):
            body = (For(v, "serial", 1, body),)
        return body
