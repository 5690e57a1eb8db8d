"""Takes a load of which others read the neighbours, gives it as whole vectors of a row, shuffled.

    x[j - 1], x[j], x[j + 1]           two vectors at multiples of the lanes are loaded, once
    ->  y0 = x[0 .. 15], y1 = x[16 .. 31]; lanes 1 .. 16 of y0 and y1 are x[j + 1]

    x[2j - 1], x[2j], x[2j + 1]        of every second element the vectors of the even ones and the
                                       odd ones, shifted in the same way

Loads that begin between the lines of the cache take twice as long, and would be as many as taps.
Zeros beyond the ends are values of which LLVM knows nothing: it would expand a vector by a mask,
which takes eight cycles on Zen 5, where a shuffle takes one.
Lines are counted along the row, from where its guard begins: outside of it nothing is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ir import scalar
from ir.index import Guard, Index, Var
from ir.scalar import Scalar
from ir.types import i64
from nncompiler.codegen.scope import Binding
from nncompiler.codegen.values import Value, constant
from nncompiler.schedule.pieces import decided

if TYPE_CHECKING:
    from nncompiler.codegen.expressions import Expressions

LANE = "lane."  # the variable along a whole vector of a row


class Neighbours:
    """The loads of one vector of values of `var`, which begin at 0."""

    def __init__(self, var: Var, lanes: int) -> None:
        self.var, self.lanes = var, lanes
        self.wholes: dict[Any, Scalar] = {}  # what is loaded, by its row and place

    def load(self, x: Expressions, s: Scalar) -> Value | None:
        """The load in all lanes; None where it is none of a row."""
        row = self._row_of(s)
        if row is None:
            return None
        distance, phase = divmod(row.start, row.step)
        block, shift = divmod(distance, self.lanes)
        first = self._every(x, row, block, phase)
        if not shift:
            return first
        second = self._every(x, row, block + 1, phase)
        return x.e.shuffle(x.e.opaque(first), x.e.opaque(second), range(shift, shift + self.lanes))

    def _row_of(self, s: Scalar) -> _Row | None:
        guards = [g for g in s.guards if self.var in g.value.variables]
        if len(guards) != 1 or s.args:
            return None
        (guard,) = guards
        value, step = guard.value, guard.value.coefficient(self.var)
        if step not in (1, 2) or step != s.index.coefficient(self.var) or len(value.terms) > 1:
            return None
        return _Row(s, guard, step, value.constant)

    def _every(self, x: Expressions, row: _Row, block: int, phase: int) -> Value:
        """Every `step`-th element, from `phase` on, of as many vectors."""
        first = row.step * self.lanes * block
        found = [self._whole(x, row, first + self.lanes * n) for n in range(row.step)]
        if row.step == 1 or all(v.is_constant for v in found):  # beyond the end
            return found[0]
        return x.e.shuffle(found[0], found[1], range(phase, row.step * self.lanes, row.step))

    def _whole(self, x: Expressions, row: _Row, place: int) -> Value:
        """The vector from that coordinate on."""
        key = row.key, place
        if key not in self.wholes:
            self.wholes[key] = self._load_at(row, place)
        x.bindings[LANE] = Binding(constant(0, i64), self.lanes)
        value = x.evaluate(self.wholes[key])
        del x.bindings[LANE]
        return x.e.splat(value, self.lanes)

    def _load_at(self, row: _Row, place: int) -> Scalar:
        s, start = row.load, {self.var: Index()}
        move = Index.of(Var(LANE, self.lanes)) + (place - row.start)
        guards = tuple(
            replace(g, value=g.value.substitute(start) + move) if g is row.guard else g
            for g in s.guards
        )
        index = s.index.substitute(start) + move
        return decided(scalar.load(s.name, index, s.dtype, guards=guards, fill=s.fill))


@dataclass(frozen=True)
class _Row:
    """A load at `step * var + start` of the coordinate that `guard` bounds."""

    load: Scalar
    guard: Guard
    step: int
    start: int

    @property
    def key(self) -> Any:
        """The same for all loads of a row."""
        s, own = self.load, self.guard
        others = tuple(g for g in s.guards if g is not own)
        begins = s.index.constant - self.start
        return s.name, s.index.terms, begins, own.low, own.high, others, s.fill
