"""Takes the terms of a node of a sweep, gives its z and its state, for many rows or for one.

Terms are vectors of rows or single values, one for each of the vectors of a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ir.ops import formula
from ir.sparse_loops import PairSums, Sweep, rows_of_piece
from ir.types import DType, i64
from nncompiler.codegen.columns import table_entry
from nncompiler.codegen.math import emit_apply
from nncompiler.codegen.statements import Writer
from nncompiler.codegen.values import Value, constant, number_of

STARTS = {
    formula.PRODUCT: 1.0,
    formula.MIN: float("inf"),
    formula.MAX: float("-inf"),
    formula.MAXABS: 0.0,
}


def own_memory(w: Writer, stmt: Sweep | PairSums) -> None:
    """Let the names of a statement's own memory mean the part of the pieces that this call runs."""
    if not stmt.sliced:
        return
    pieces = stmt.piece.extent
    first = w.range(stmt.piece).start
    for name in stmt.own:
        size = w.buffers[name].size
        assert isinstance(size, int) and isinstance(pieces, int)
        w.pointers[name] = w.address(name, w.e.mul(first, constant(size // pieces, i64)))


def rows_of_pieces(w: Writer, stmt: Sweep | PairSums) -> tuple[Value, Value]:
    """The first row of the pieces that this call runs, and the end of its rows."""
    part, batch = w.range(stmt.piece), w.extent(stmt.row.extent)
    if number_of(part.start) == 0 and number_of(part.stop) == stmt.piece.extent:
        return constant(0, i64), batch
    length = piece_length(w, stmt)
    first, stop = (w.e.minimum(w.e.mul(p, length), batch) for p in (part.start, part.stop))
    return first, stop


def piece_length(w: Writer, stmt: Sweep | PairSums) -> Value:
    """How many rows a piece has: see rows_of_piece."""
    batch, pieces = w.extent(stmt.row.extent), stmt.piece.extent
    number = number_of(batch)
    if number is not None:
        return constant(rows_of_piece(stmt, int(number)), i64)
    assert isinstance(pieces, int)
    up = w.e.add(batch, constant(pieces * stmt.step - 1, i64))
    steps = w.e.value(f"udiv i64 {up.text}, {pieces * stmt.step}", i64)
    return w.e.mul(steps, constant(stmt.step, i64))


def sources_of(stmt: Sweep) -> int:
    """How many slots there are before those of the nodes."""
    extent = stmt.source.extent
    assert isinstance(extent, int)
    return extent if stmt.x is not None else 0


def edge_entries(w: Writer, stmt: Sweep, edge: Value) -> tuple[Value, Value]:
    """The slot of an edge's source and the number of its weight."""
    slot = table_entry(w, stmt.tables[2], edge)
    return slot, edge if len(stmt.tables) == 5 else table_entry(w, stmt.tables[5], edge)


def apply_formula(w: Writer, text: str, z: Value, extras: list[Value]) -> Value:
    """The state of a node."""

    def operation(op: str, args: list[Value], dtype: DType) -> Value:
        return emit_apply(w.e, op, [w.e.splat(a, z.lanes) for a in args], dtype, z.lanes)

    def number(value: float) -> Value:
        return constant(value, z.dtype, z.lanes)

    return formula.apply(text, z, extras, number=number, operation=operation, dtype=z.dtype)


@dataclass(frozen=True)
class Combining:
    """What is no sum; `term` gives weight * state of an edge."""

    w: Writer
    stmt: Sweep
    lanes: int
    vectors: int
    term: Callable[[Value], list[Value]]

    def __call__(self, way: str, first: Value, stop: Value) -> list[Value]:
        """The product, min, max, median or maxabs over the edges first .. stop."""
        if way == formula.MEDIAN:
            return self._median(first, stop)

        def step(edge: Value, totals: list[Value]) -> list[Value]:
            both = zip(totals, self.term(edge), strict=True)
            return [self.w.e.combine(way, total, term) for total, term in both]

        start = constant(STARTS[way], self.stmt.weights.dtype, self.lanes)
        return self.w.loop(first, stop, 1, [start] * self.vectors, step)

    def _median(self, first: Value, stop: Value) -> list[Value]:
        """Every term is put in its place among those before it; then it is the one in the middle,
        or the mean of two."""
        w, e = self.w, self.w.e

        def insert(edge: Value, _: list[Value]) -> list[Value]:
            known = e.sub(edge, first)
            largest = w.loop(constant(0, i64), known, 1, self.term(edge), self._pass)
            for vector, value in enumerate(largest):
                e.store(value, self._place(known, vector))
            return []

        w.loop(first, stop, 1, [], insert)
        count, one = e.sub(stop, first), constant(1, i64)
        below = e.value(f"lshr i64 {e.sub(count, one).text}, 1", i64)
        above = e.value(f"lshr i64 {count.text}, 1", i64)
        half = constant(0.5, self.stmt.weights.dtype, self.lanes)
        return [
            e.mul(half, e.add(self._load(below, v), self._load(above, v)))
            for v in range(self.vectors)
        ]

    def _pass(self, number: Value, moving: list[Value]) -> list[Value]:
        """Leave the smaller one, take the larger one along."""
        larger = []
        for vector, value in enumerate(moving):
            there = self._load(number, vector)
            self.w.e.store(self.w.e.minimum(there, value), self._place(number, vector))
            larger.append(self.w.e.maximum(there, value))
        return larger

    def _place(self, number: Value, vector: int) -> str:
        first = self.w.e.mul(number, constant(self.lanes * self.vectors, i64))
        place = self.w.e.add(first, constant(vector * self.lanes, i64))
        return self.w.address(self.stmt.terms, place)

    def _load(self, number: Value, vector: int) -> Value:
        return self.w.e.load(self._place(number, vector), self.stmt.weights.dtype, self.lanes)
