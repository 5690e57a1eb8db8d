"""Takes a Sweep or PairSums, gives its code: rows in the lanes, one pass over the tables.

Whole steps of vectors * lanes rows come first, then single vectors under a mask, and where at most
FEW rows are left, row after row without vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ir.index import Index, Var
from ir.loops import PairSums, Sweep
from ir.ops import formula
from ir.scalar import Scalar
from ir.types import DType, i32, i64
from nncompiler.codegen.emit import Value, constant, number_of
from nncompiler.codegen.math import emit_apply
from nncompiler.codegen.scope import Binding
from nncompiler.codegen.statements import Writer

FEW = 2


def write_sparse(writer: Writer, stmt: Sweep | PairSums) -> None:
    if isinstance(stmt, Sweep):
        _Sweep(writer, stmt).write()
    else:
        _Pairs(writer, stmt).write()


def _whole(w: Writer, extent: Value, step: int) -> Value:
    """The largest multiple of `step` that is at most `extent`."""
    number = number_of(extent)
    if number is not None:
        return constant(int(number) // step * step, i64)
    return w.e.sub(extent, w.e.value(f"urem i64 {extent.text}, {step}", i64))


def _table(w: Writer, name: str, index: Value) -> Value:
    """An entry of an i32 table, as i64."""
    return w.e.convert(w.e.load(w.address(name, index), i32), i64)


class _Sweep:
    def __init__(self, writer: Writer, stmt: Sweep) -> None:
        self.w, self.s, self.e = writer, stmt, writer.e
        self.dtype = stmt.weights.dtype
        self.lanes, self.vectors = 1, 1
        self.base = constant(0, i64)
        self.mask: Value | None = None

    def write(self) -> None:
        w, s = self.w, self.s
        zero, batch = constant(0, i64), w.extent(s.row.extent)
        wide = s.lanes * s.vectors
        whole = _whole(w, batch, wide)
        w.loop(zero, whole, wide, [], self._step(s.lanes, s.vectors, None))
        left = w.e.sub(batch, whole)
        number = number_of(left)
        if number is not None:
            limit = whole if int(number) <= FEW else batch
        else:
            limit = w.e.select(w.e.icmp("sle", left, constant(FEW, i64)), whole, batch)
        w.loop(whole, limit, s.lanes, [], self._step(s.lanes, 1, batch))
        w.loop(limit, batch, 1, [], self._step(1, 1, None))

    def _step(
        self, lanes: int, vectors: int, batch: Value | None
    ) -> Callable[[Value, list[Value]], list[Value]]:
        """The code of one step; with `batch`, rows from there on do not exist."""

        def body(base: Value, _: list[Value]) -> list[Value]:
            self.lanes, self.vectors, self.base, self.mask = lanes, vectors, base, None
            if batch is not None:
                self.mask = self.e.lane_mask(self.e.sub(batch, base), lanes)
            self._sources()
            zero = constant(0, i64)
            self.w.loop(zero, constant(self.s.runs, i64), 1, [zero, zero], self._run)
            return []

        return body

    def _bindings(self) -> list[Binding]:
        """The rows of every vector."""
        return [
            Binding(self.e.add(self.base, constant(v * self.lanes, i64)), self.lanes, self.mask)
            for v in range(self.vectors)
        ]

    def _read(self, load: Scalar, column: Var, number: Value) -> list[Value]:
        """A column of a matrix for the rows of the step."""
        found = []
        with self.w.bound(column, Binding(number)):
            for rows in self._bindings():
                with self.w.bound(self.s.row, rows):
                    found.append(self.e.splat(self.w.evaluate(load), self.lanes))
        return found

    def _state(self, slot: Value, vector: int) -> str:
        wide = constant(self.lanes * self.vectors, i64)
        first = self.e.mul(slot, wide)
        place = self.e.add(first, constant(vector * self.lanes, i64))
        return self.w.address(self.s.state, place)

    def _sources(self) -> None:
        s = self.s
        if s.x is None:
            return
        x = s.x

        def copy(m: Value, _: list[Value]) -> list[Value]:
            for vector, value in enumerate(self._read(x, s.source, m)):
                self.e.store(value, self._state(m, vector))
            return []

        self.w.loop(constant(0, i64), self.w.extent(s.source.extent), 1, [], copy)

    def _run(self, run: Value, carried: list[Value]) -> list[Value]:
        """The nodes of one run, which have the same formula: one branch for all of them."""
        first = self.e.mul(run, constant(2, i64))
        count = _table(self.w, self.s.tables[0], self.e.add(first, constant(1, i64)))
        if len(self.s.formulas) == 1:
            return self._nodes(self.s.formulas[0], count, carried)
        kind = _table(self.w, self.s.tables[0], first)
        labels = [self.e.new_label("formula") for _ in self.s.formulas]
        join = self.e.new_label("next")
        cases = " ".join(f"i64 {n}, label %{label}" for n, label in enumerate(labels[1:], 1))
        self.e.do(f"switch i64 {kind.text}, label %{labels[0]} [ {cases} ]")
        ends: list[tuple[str, list[Value]]] = []
        for label, text in zip(labels, self.s.formulas, strict=True):
            self.e.label(label)
            self.w.push()
            after = self._nodes(text, count, carried)
            self.w.pop()
            ends.append((self.e.block, after))
            self.e.branch(join)
        self.e.label(join)
        return [
            self.e.value(
                "phi i64 " + ", ".join(f"[ {values[k].text}, %{block} ]" for block, values in ends),
                i64,
                key=False,
            )
            for k in range(2)
        ]

    def _nodes(self, text: str, count: Value, carried: list[Value]) -> list[Value]:
        row, edge = carried
        stop = self.e.add(row, count)

        def node(i: Value, now: list[Value]) -> list[Value]:
            return [self._node(text, i, now[0])]

        (edge,) = self.w.loop(row, stop, 1, [edge], node)
        return [stop, edge]

    def _node(self, text: str, row: Value, edge: Value) -> Value:
        """One node; gives the first edge of the next one."""
        at = self.e.mul(row, constant(3, i64))
        rows = self.s.tables[1]
        column = _table(self.w, rows, at)
        count = _table(self.w, rows, self.e.add(at, constant(1, i64)))
        stop = self.e.add(edge, count)
        zero = constant(0, self.dtype, self.lanes)
        sums = self.w.loop(edge, stop, 1, [zero] * self.vectors, self._edge)
        self._keep(_table(self.w, rows, self.e.add(at, constant(2, i64))), sums)
        extras = [self._read(e, self.s.column, column) for e in self._used(text)]
        slot = self.e.add(column, constant(self._width, i64))
        for vector, z in enumerate(sums):
            state = self._apply(text, z, [e[vector] for e in extras])
            self.e.store(state, self._state(slot, vector))
        return stop

    @property
    def _width(self) -> int:
        extent = self.s.source.extent
        assert isinstance(extent, int)
        return extent if self.s.x is not None else 0

    def _used(self, text: str) -> Sequence[Scalar]:
        return self.s.extras[: formula.arity(text)]

    def _edge(self, edge: Value, sums: list[Value]) -> list[Value]:
        at = self.e.mul(edge, constant(2, i64))
        slot = _table(self.w, self.s.tables[2], at)
        number = _table(self.w, self.s.tables[2], self.e.add(at, constant(1, i64)))
        with self.w.bound(self.s.edge, Binding(number)):
            weight = self.e.splat(self.w.evaluate(self.s.weights), self.lanes)
        found = []
        for vector, total in enumerate(sums):
            state = self.e.load(self._state(slot, vector), self.dtype, self.lanes)
            found.append(self.e.fma(weight, state, total))
        return found

    def _keep(self, place: Value, sums: list[Value]) -> None:
        """Store the sums of a node that has a place in the result."""
        if self.s.kept == self.s.column.extent:
            self._store(place, sums)
            return
        do, done = self.e.new_label("keep"), self.e.new_label("kept")
        self.e.branch_if(self.e.icmp("sge", place, constant(0, i64)), do, done)
        self.e.label(do)
        self.w.push()
        self._store(place, sums)
        self.w.pop()
        self.e.branch(done)
        self.e.label(done)

    def _store(self, place: Value, sums: list[Value]) -> None:
        column = Var("place", self.s.kept)
        index = Index.of(self.s.row) * self.s.kept + Index.of(column)
        with self.w.bound(column, Binding(place)):
            for rows, value in zip(self._bindings(), sums, strict=True):
                with self.w.bound(self.s.row, rows):
                    for name in self.s.outputs:
                        self.w.store(name, index, value)

    def _apply(self, text: str, z: Value, extras: list[Value]) -> Value:
        lanes = self.lanes

        def operation(op: str, args: list[Value], dtype: DType) -> Value:
            return emit_apply(self.e, op, [self.e.splat(a, lanes) for a in args], dtype, lanes)

        def number(value: float) -> Value:
            return constant(value, self.dtype, lanes)

        return formula.apply(text, z, extras, number=number, operation=operation, dtype=self.dtype)


class _Pairs:
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
            lefts = e.mul(_table(self.w, s.lefts, number), size)
            rights = e.mul(_table(self.w, s.rights, number), size)

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

        def one(m: Value, _: list[Value]) -> list[Value]:
            def rows(row: Value, _: list[Value]) -> list[Value]:
                first = e.add(base, row)
                mask = e.lane_mask(e.sub(self.batch, first), s.lanes)
                with self.w.bound(s.row, Binding(first, s.lanes, mask)):
                    value = e.splat(self.w.evaluate(load), s.lanes)
                place = e.add(e.mul(m, constant(s.chunk, i64)), row)
                e.store(e.select(mask, value, zero), self.w.address(name, place))
                return []

            with self.w.bound(column, Binding(m)):
                self.w.loop(constant(0, i64), stop, s.lanes, [], rows)
            return []

        self.w.loop(constant(0, i64), self.w.extent(column.extent), 1, [], one)
