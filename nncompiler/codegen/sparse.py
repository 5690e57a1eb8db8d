"""Takes a Sweep or PairSums, gives its code: rows in the lanes, columns in workspaces."""

from __future__ import annotations

from ir.index import Var
from ir.loops import PairSums, Sweep
from ir.scalar import Scalar
from ir.types import i64
from nncompiler.codegen.columns import copy_columns, table_entry
from nncompiler.codegen.emit import Value, constant
from nncompiler.codegen.statements import Writer
from nncompiler.codegen.sweep import SweepCode


def write_sparse(writer: Writer, stmt: Sweep | PairSums) -> None:
    if isinstance(stmt, Sweep):
        SweepCode(writer, stmt).write()
    else:
        PairsCode(writer, stmt).write()


class PairsCode:
    def __init__(self, writer: Writer, stmt: PairSums) -> None:
        self.w, self.s, self.e = writer, stmt, writer.e
        self.dtype = stmt.a.dtype
        self.batch = writer.extent(stmt.row.extent)

    def write(self) -> None:
        zero, count = constant(0, i64), self.w.extent(self.s.pair.extent)

        def clear(e: Value, _: list[Value]) -> list[Value]:
            for name in self.s.outputs:
                self.e.store(constant(0, self.dtype), self.w.address(name, e))
            return []

        self.w.loop(zero, count, 1, [], clear)
        self.w.loop(zero, self.batch, self.s.chunk, [], self._chunk)

    def _chunk(self, base: Value, _: list[Value]) -> list[Value]:
        s, e = self.s, self.e
        left = e.sub(self.batch, base)
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
            for name in s.outputs:
                pointer = self.w.address(name, number)
                e.store(e.add(e.load(pointer, self.dtype), total), pointer)
            return []

        self.w.loop(constant(0, i64), self.w.extent(s.pair.extent), 1, [], pair)
        return []

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
