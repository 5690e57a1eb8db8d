"""Takes an operand that is read through windows, gives a copy of what one block of work reads.

    x[c*1024 + (h+i-1)*32 + (w+j-1)]  where 1 <= h+i < 33 and 1 <= w+j < 33
    ->   staged[(h+i)*34*64 + (w+j)*64 + c]      64 channels of 34 x 34 points, the border of zeros

Windows overlap, so the copy is small, and padding costs a border of zeros and no test later. Its
order is that in which the block is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ir import scalar
from ir.index import Guard, Index, Var
from ir.loops import Buffer, For, Stmt, Store, Transpose
from ir.places import Place
from ir.scalar import Scalar
from ir.types import Dim, multiply
from nncompiler.schedule.heuristics import fitting_lanes

MOST_APART = 2  # elements from lane to lane: two loads and a shuffle, no gather


def stage(
    operand: Scalar, order: Sequence[Place], around: Sequence[Var], lanes: int, name: str
) -> tuple[Scalar, tuple[Stmt, ...], Buffer]:
    """A copy of what is read for one value of `around`: (load of it, statements, buffer).

    `order` are the coordinates that the copy has, the outermost first.
    """
    order = [p for p in order if p.extent != 1 or p.guard] or order[:1]
    axes = [Var(f"{name}{number}", p.extent) for number, p in enumerate(order)]
    index, target, size = Index(), Index(), multiply(())
    for p, v in zip(reversed(order), reversed(axes), strict=True):
        assert isinstance(size, int), "only the outermost coordinate may be symbolic"
        index, target = index + p.index * size, target + Index.of(v) * size
        size = multiply((size, v.extent))
    loops = _Copy(operand, order, axes, name, target, lanes).loops()
    buffer = Buffer(name, operand.dtype, size, True)
    return scalar.load(name, index, operand.dtype), loops, buffer


class _Copy:
    """Lanes over what lies together in both; else a transpose, if both have such an axis."""

    def __init__(
        self,
        operand: Scalar,
        order: Sequence[Place],
        axes: Sequence[Var],
        name: str,
        target: Index,
        lanes: int,
    ) -> None:
        self.operand, self.order, self.axes = operand, order, axes
        self.name, self.target, self.lanes = name, target, lanes
        near = [(p.unit, n) for n, p in enumerate(order) if isinstance(p.extent, int)]
        unit, nearest = min(near, default=(0, 0))
        self.along = nearest if 1 <= unit <= MOST_APART else len(order) - 1
        self.pieces = _pieces(order[self.along])
        if len(order) > 1 and self._are_neighbours:
            self._join()

    def loops(self) -> tuple[Stmt, ...]:
        """Loops over all axes but the one along memory, whose border of zeros is no part of what
        is read."""
        pieces = [self._piece(*piece) for piece in self.pieces]
        axes = [v for n, v in enumerate(self.axes) if n != self.along]
        if pieces and self._is_turned:
            axes.pop()
        for v in reversed(axes):
            pieces = [For(v, "serial", 1, tuple(pieces))]
        return tuple(pieces)

    @property
    def _are_neighbours(self) -> bool:
        """Do the channels of a point lie beside those of the next one, in memory as in the copy?"""
        outer, inner = self.order[-2:]
        is_static = all(isinstance(p.extent, int) for p in (outer, inner))
        if self._is_turned or inner.unit != 1 or inner.guard or not is_static:
            return False
        return outer.unit == inner.extent and all(known is not None for *_, known in _pieces(outer))

    def _join(self) -> None:
        """One axis along memory over points and their channels, a border of zeros at its ends."""
        (outer, inner), (point, channel) = self.order[-2:], self.axes[-2:]
        each = inner.extent
        assert isinstance(each, int) and isinstance(outer.extent, int)
        joined = Var(channel.name, outer.extent * each)
        self.target = self.target.substitute({point: Index(), channel: Index.of(joined)})
        self.order = (*self.order[:-2], Place((*outer.terms, *inner.terms), 1, outer.guard))
        self.axes = (*self.axes[:-2], joined)
        self.along = len(self.order) - 1
        self.pieces = [
            (start * each, count * each, known)
            for start, count, known in _pieces(outer)
            if isinstance(count, int)
        ]

    @property
    def _is_turned(self) -> bool:
        return self.along != len(self.order) - 1

    def _piece(self, start: int, count: Dim, is_known: bool | None) -> Stmt:
        """Part of the axis along memory: whether it is all there; None where guards tell."""
        column, along = self.axes[-1], replace(self.axes[self.along], extent=count)
        moved = Index.of(along) + start
        target = self.target.substitute({self.axes[self.along]: moved})
        value = self._value(moved, is_known)
        if not self._is_turned:
            store = Store(self.name, target, value)
            return For(along, "vector", fitting_lanes(count, self.lanes), (store,))
        if is_known is False or count == 1 or column.extent == 1:
            store = Store(self.name, target, value)
            across: Stmt = For(column, "vector", fitting_lanes(column.extent, self.lanes), (store,))
            return For(along, "serial", 1, (across,))
        return Transpose(along, column, self.name, target, value, self.lanes)

    def _value(self, moved: Index, is_known: bool | None) -> Scalar:
        operand = self.operand
        if is_known is False:
            return scalar.const(operand.fill, operand.dtype)
        fixed = {v: Index() for p in self.order for v, _ in p.terms}
        source = operand.index.substitute(fixed)
        guards = []
        for number, (p, v) in enumerate(zip(self.order, self.axes, strict=True)):
            here = moved if number == self.along else Index.of(v)
            source = source + here * p.unit
            if p.guard is not None and not (is_known and number == self.along):
                value = p.guard.value.substitute(fixed) + here
                guards.append(Guard(value, p.guard.low, p.guard.high))
        return scalar.load(
            operand.name, source, operand.dtype, guards=tuple(guards), fill=operand.fill
        )


def _pieces(place: Place) -> list[tuple[int, Dim, bool | None]]:
    """(start, count, is it there) of the parts of an axis: zeros, what lies in memory, zeros."""
    guard, extent = place.guard, place.extent
    if guard is None:
        return [(0, extent, True)]
    fixed = guard.value.substitute({v: Index() for v, _ in place.terms})
    if fixed.terms or not isinstance(guard.high, int) or not isinstance(extent, int):
        return [(0, extent, None)]
    low = min(max(guard.low - fixed.constant, 0), extent)
    high = min(max(guard.high - fixed.constant, low), extent)
    parts = ((0, low, False), (low, high - low, True), (high, extent - high, False))
    return [part for part in parts if part[1]]
