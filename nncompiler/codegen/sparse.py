"""Takes what is computed along edges, gives its code: rows in the lanes, columns in workspaces."""

from __future__ import annotations

from collections.abc import Callable

from ir.index import Var
from ir.scalar import Scalar
from ir.sparse_loops import PairSums, PairTotals, Sparse, Sweep
from ir.types import boolean, i64
from nncompiler.codegen.columns import copy_columns, table_entry, whole_steps
from nncompiler.codegen.nodes import own_memory, piece_length
from nncompiler.codegen.statements import Writer
from nncompiler.codegen.sweep import SweepCode
from nncompiler.codegen.values import Value, constant


def write_sparse(writer: Writer, stmt: Sparse) -> None:
    match stmt:
        case Sweep():
            SweepCode(writer, stmt).write()
        case PairSums():
            PairsCode(writer, stmt).write()
        case PairTotals(sums=sums):
            write_totals(writer, sums)


class PairsCode:
    def __init__(self, writer: Writer, stmt: PairSums) -> None:
        self.w, self.s, self.e = writer, stmt, writer.e
        self.dtype = stmt.a.dtype
        self.batch = writer.extent(stmt.row.extent)
        self.targets: list[str] = []

    def write(self) -> None:
        own_memory(self.w, self.s)
        if not self.s.partial:
            self.targets = [self.w.pointers[name] for name in self.s.outputs]
            self._rows(constant(0, i64), self.batch, constant(True, boolean))
            return
        part = self.w.range(self.s.piece)
        stop = self.e.minimum(part.stop, active_pieces(self.w, self.s))
        self.w.loop(part.start, stop, 1, [], self._piece)

    def _piece(self, piece: Value, _: list[Value]) -> list[Value]:
        """The first piece writes to the outputs, the others to their part of the partial sums."""
        e, length = self.e, piece_length(self.w, self.s)
        first = e.mul(piece, length)
        stop = e.minimum(e.add(first, length), self.batch)
        is_first = e.icmp("eq", piece, constant(0, i64))
        before = e.sub(piece, constant(1, i64))
        there = e.select(is_first, constant(0, i64), before)
        pairs = self.w.extent(self.s.pair.extent)
        partial = self.w.address(self.s.partial, e.mul(there, pairs))
        self.targets = [
            e.op(f"select i1 {is_first.text}, ptr {self.w.pointers[name]}, ptr {partial}")
            for name in self.s.outputs
        ]
        self._rows(first, stop, is_first)
        return []

    def _rows(self, first: Value, stop: Value, at_least_once: Value) -> None:
        """The sums over some rows; where there are none, they are zeros."""
        e = self.e
        once = e.add(first, e.convert(at_least_once, i64))
        end = e.select(e.icmp("sgt", stop, once), stop, once)

        def chunk(base: Value, _: list[Value]) -> list[Value]:
            self._chunk(base, stop, e.icmp("eq", base, first))
            return []

        self.w.loop(first, end, self.s.chunk, [], chunk)

    def _chunk(self, base: Value, end: Value, is_first: Value) -> None:
        s, e = self.s, self.e
        left = e.sub(end, base)
        size = constant(s.chunk, i64)
        left = e.select(e.icmp("slt", left, size), left, size)
        up = e.add(left, constant(s.lanes - 1, i64))
        stop = e.sub(up, e.value(f"urem i64 {up.text}, {s.lanes}", i64))
        for load, column, name in ((s.a, s.left, s.copies[0]), (s.b, s.right, s.copies[1])):
            self._copy(load, column, name, base, stop)

        def pair(number: Value, _: list[Value]) -> list[Value]:
            lefts = e.mul(table_entry(self.w, s.lefts, number), size)
            rights = e.mul(table_entry(self.w, s.rights, number), size)

            def step(row: Value, sums: list[Value]) -> list[Value]:
                a, b = (
                    e.load(self.w.address(name, e.add(first, row)), self.dtype, s.lanes)
                    for name, first in zip(s.copies, (lefts, rights), strict=True)
                )
                return [e.fma(a, b, sums[0])]

            zero = constant(0, self.dtype, s.lanes)
            (total,) = self.w.loop(constant(0, i64), stop, s.lanes, [zero], step)
            total = e.reduce("sum", total)
            for target in self.targets:
                pointer = e.address(target, number, self.dtype)
                more = e.add(e.load(pointer, self.dtype), total)
                e.store(e.select(is_first, total, more), pointer)
            return []

        self.w.loop(constant(0, i64), self.w.extent(s.pair.extent), 1, [], pair)

    def _copy(self, load: Scalar, column: Var, name: str, base: Value, stop: Value) -> None:
        """Columns with their rows side by side; rows that do not exist are zeros."""
        s, e = self.s, self.e
        zero = constant(0, self.dtype, s.lanes)

        def rows(row: Value, _: list[Value]) -> list[Value]:
            first = e.add(base, row)
            mask = e.lane_mask(e.sub(self.batch, first), s.lanes)

            def put(m: Value, value: Value) -> None:
                place = e.add(e.mul(m, constant(s.chunk, i64)), row)
                e.store(e.select(mask, value, zero), self.w.address(name, place))

            copy_columns(self.w, load, (s.row, column), (first, self.batch), put)
            return []

        self.w.loop(constant(0, i64), stop, s.lanes, [], rows)


def active_pieces(w: Writer, stmt: PairSums) -> Value:
    """How many pieces have rows, but at least one."""
    one = constant(1, i64)
    batch = w.extent(stmt.row.extent)
    some = w.e.select(w.e.icmp("sgt", batch, one), batch, one)
    length = piece_length(w, stmt)
    length = w.e.select(w.e.icmp("sgt", length, one), length, one)
    up = w.e.sub(w.e.add(some, length), one)
    return w.e.value(f"udiv i64 {up.text}, {length.text}", i64)


def write_totals(w: Writer, stmt: PairSums) -> None:
    """The sums of the other pieces added to those of the first one, in their order."""
    e, dtype, lanes = w.e, stmt.a.dtype, stmt.lanes
    zero, one, count = constant(0, i64), constant(1, i64), w.extent(stmt.pair.extent)
    stop = active_pieces(w, stmt)

    def pairs(wide: int) -> Callable[[Value, list[Value]], list[Value]]:
        def body(number: Value, _: list[Value]) -> list[Value]:
            def add(piece: Value, totals: list[Value]) -> list[Value]:
                place = e.add(e.mul(e.sub(piece, one), count), number)
                more = e.load(w.address(stmt.partial, place), dtype, wide)
                return [e.add(total, more) for total in totals]

            places = [w.address(name, number) for name in stmt.outputs]
            totals = w.loop(one, stop, 1, [e.load(p, dtype, wide) for p in places], add)
            for place, total in zip(places, totals, strict=True):
                e.store(total, place)
            return []

        return body

    several = e.icmp("sgt", stop, one)
    last = e.select(several, count, zero)
    whole = e.select(several, whole_steps(w, count, lanes), zero)
    w.loop(zero, whole, lanes, [], pairs(lanes))
    w.loop(whole, last, 1, [], pairs(1))
