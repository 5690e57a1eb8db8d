"""Takes a Sweep, gives its code: rows in the lanes, one pass over the tables.

Whole steps of vectors * lanes rows come first, then single vectors under a mask, and where at most
FEW rows are left, row after row (see single.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ir.index import Index, Var
from ir.ops import formula
from ir.scalar import Scalar
from ir.sparse_loops import Sweep
from ir.types import i64
from nncompiler.codegen.columns import copy_columns, switch, table_entry, whole_steps
from nncompiler.codegen.nodes import (
    Combining,
    apply_formula,
    edge_entries,
    own_memory,
    rows_of_pieces,
    sources_of,
)
from nncompiler.codegen.scope import Binding
from nncompiler.codegen.single import SingleRow
from nncompiler.codegen.statements import Writer
from nncompiler.codegen.transpose import swap
from nncompiler.codegen.values import Value, constant, number_of

FEW = 2


class SweepCode:
    def __init__(self, writer: Writer, stmt: Sweep) -> None:
        self.w, self.s, self.e = writer, stmt, writer.e
        self.dtype = stmt.weights.dtype
        self.lanes, self.vectors = stmt.lanes, 1
        self.base = constant(0, i64)
        self.mask: Value | None = None

    def write(self) -> None:
        w, s = self.w, self.s
        own_memory(w, s)
        first, stop = rows_of_pieces(w, s)
        wide = s.lanes * s.vectors
        whole = w.e.add(first, whole_steps(w, w.e.sub(stop, first), wide))
        w.loop(first, whole, wide, [], self._step(s.vectors, None))
        left = w.e.sub(stop, whole)
        number = number_of(left)
        if number is not None:
            limit = whole if int(number) <= FEW else stop
        else:
            limit = w.e.select(w.e.icmp("sle", left, constant(FEW, i64)), whole, stop)
        w.loop(whole, limit, s.lanes, [], self._step(1, stop))
        w.loop(limit, stop, 1, [], SingleRow(w, s).row)

    def _step(
        self, vectors: int, batch: Value | None
    ) -> Callable[[Value, list[Value]], list[Value]]:
        """The code of one step; with `batch`, rows from there on do not exist."""

        def body(base: Value, _: list[Value]) -> list[Value]:
            self.vectors, self.base, self.mask = vectors, base, None
            if batch is not None:
                self.mask = self.e.lane_mask(self.e.sub(batch, base), self.lanes)
            self._sources()
            self._extras()
            zero = constant(0, i64)
            self.w.loop(zero, constant(self.s.runs, i64), 1, [zero, zero], self._run)
            self._results()
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

    def _slot(self, name: str, slot: Value, vector: int) -> str:
        """Where a workspace holds the rows of a slot."""
        first = self.e.mul(slot, constant(self.lanes * self.vectors, i64))
        return self.w.address(name, self.e.add(first, constant(vector * self.lanes, i64)))

    def _state(self, slot: Value, vector: int) -> str:
        return self._slot(self.s.state, slot, vector)

    def _fill(self, name: str, load: Scalar, column: Var) -> None:
        """Copy the columns of a matrix into a workspace."""
        for vector in range(self.vectors):
            first = self.e.add(self.base, constant(vector * self.lanes, i64))

            def put(m: Value, value: Value, vector: int = vector) -> None:
                self.e.store(value, self._slot(name, m, vector))

            copy_columns(
                self.w, load, (self.s.row, column), (first, self.w.extent(self.s.row.extent)), put
            )

    def _sources(self) -> None:
        if self.s.x is not None:
            self._fill(self.s.state, self.s.x, self.s.source)

    def _extras(self) -> None:
        for name, extra in zip(self.s.copies, self.s.extras, strict=True):
            if name:
                self._fill(name, extra, self.s.column)

    def _extra(self, number: int, column: Value) -> list[Value]:
        """An argument of a node's formula, for every vector."""
        name = self.s.copies[number]
        if not name:
            return self._read(self.s.extras[number], self.s.column, column)
        return [
            self.e.load(self._slot(name, column, v), self.dtype, self.lanes)
            for v in range(self.vectors)
        ]

    def _results(self) -> None:
        """Write the states and sums that are kept: the way back of `_fill`."""
        kept, zero = constant(self.s.kept, i64), constant(0, i64)
        if self.s.kept < self.lanes // 2:

            def one(place: Value, _: list[Value]) -> list[Value]:
                slot = table_entry(self.w, self.s.tables[3], place)
                found = [self._kept(slot, v) for v in range(self.vectors)]
                self._store(place, found)
                return []

            self.w.loop(zero, kept, 1, [], one)
            return
        end = self.s.kept // self.lanes * self.lanes
        for vector in range(self.vectors):

            def whole(base: Value, _: list[Value], vector: int = vector) -> list[Value]:
                self._block(base, self.lanes, vector)
                return []

            self.w.loop(zero, constant(end, i64), self.lanes, [], whole)
            if end < self.s.kept:
                self.w.push()
                self._block(constant(end, i64), self.s.kept - end, vector)
                self.w.pop()

    def _kept(self, slot: Value, vector: int) -> Value:
        return self.e.load(self._state(slot, vector), self.dtype, self.lanes)

    def _block(self, base: Value, columns: int, vector: int) -> None:
        zero = constant(0, self.dtype, self.lanes)
        vectors = []
        for c in range(columns):
            place = self.e.add(base, constant(c, i64))
            vectors.append(self._kept(table_entry(self.w, self.s.tables[3], place), vector))
        vectors = swap(self.w, vectors + [zero] * (self.lanes - columns))
        mask = None
        if columns < self.lanes:
            mask = self.e.lane_mask(constant(columns, i64), self.lanes)
        batch = self.w.extent(self.s.row.extent)
        column = Var("place", self.s.kept)
        index = Index.of(self.s.row) * self.s.kept + Index.of(column)
        for r, value in enumerate(vectors):
            row = self.e.add(self.base, constant(vector * self.lanes + r, i64))
            here = mask
            if self.mask is not None:
                exists = self.e.splat(self.e.icmp("slt", row, batch), self.lanes)
                here = exists if mask is None else self.e.binary("and", exists, mask)
            with (
                self.w.bound(self.s.row, Binding(row)),
                self.w.bound(column, Binding(base, self.lanes, here)),
            ):
                for name in self.s.outputs:
                    self.w.store(name, index, value)

    def _run(self, run: Value, carried: list[Value]) -> list[Value]:
        """The nodes of one run, which have the same formula: one branch for all of them."""
        first = self.e.mul(run, constant(2, i64))
        count = table_entry(self.w, self.s.tables[0], self.e.add(first, constant(1, i64)))
        if len(self.s.formulas) == 1:
            return self._nodes(self.s.formulas[0], count, carried)
        kind = table_entry(self.w, self.s.tables[0], first)
        cases = [partial(self._nodes, text, count) for text in self.s.formulas]
        return switch(self.w, kind, cases, carried)

    def _nodes(self, text: str, count: Value, carried: list[Value]) -> list[Value]:
        row, edge = carried
        stop = self.e.add(row, count)

        def node(i: Value, now: list[Value]) -> list[Value]:
            return [self._node(text, i, now[0])]

        (edge,) = self.w.loop(row, stop, 1, [edge], node)
        return [stop, edge]

    def _node(self, text: str, row: Value, edge: Value) -> Value:
        """One node; gives the first edge of the next one."""
        way = formula.combine_of(text)
        at = self.e.mul(row, constant(3, i64))
        rows = self.s.tables[1]
        column = table_entry(self.w, rows, at)
        count = table_entry(self.w, rows, self.e.add(at, constant(1, i64)))
        stop = self.e.add(edge, count)
        extras = [self._extra(number, column) for number in range(formula.arity(text))]
        body = formula.without_offset(text) if not self.s.sums else None
        if way != formula.SUM:
            combine = Combining(self.w, self.s, self.lanes, self.vectors, self._term)
            sums = combine(way, edge, stop)
        else:
            zero = constant(0, self.dtype, self.lanes)
            start = [zero] * self.vectors if body is None else extras[0]
            sums = self.w.loop(edge, stop, 1, start, self._edge)
        if self.s.sums:
            self._keep(table_entry(self.w, rows, self.e.add(at, constant(2, i64))), sums)
        slot = self.e.add(column, constant(sources_of(self.s), i64))
        for vector, z in enumerate(sums):
            given = [e[vector] for e in extras]
            state = apply_formula(self.w, text if body is None else body, z, given)
            self.e.store(state, self._state(slot, vector))
        return stop

    def _edge(self, edge: Value, sums: list[Value]) -> list[Value]:
        weight, states = self._factors(edge)
        pairs = zip(states, sums, strict=True)
        return [self.e.fma(weight, state, total) for state, total in pairs]

    def _term(self, edge: Value) -> list[Value]:
        weight, states = self._factors(edge)
        return [self.e.mul(weight, state) for state in states]

    def _factors(self, edge: Value) -> tuple[Value, list[Value]]:
        """An edge's weight, in all lanes, and the state of its source, for every vector."""
        slot, number = edge_entries(self.w, self.s, edge)
        with self.w.bound(self.s.edge, Binding(number)):
            weight = self.e.splat(self.w.evaluate(self.s.weights), self.lanes)
        places = [self._state(slot, vector) for vector in range(self.vectors)]
        return weight, [self.e.load(place, self.dtype, self.lanes) for place in places]

    def _keep(self, place: Value, sums: list[Value]) -> None:
        """Remember the sums of a node that has a place."""
        nodes = self.s.column.extent
        assert isinstance(nodes, int)
        slot = self.e.add(place, constant(sources_of(self.s) + nodes, i64))
        if self.s.sums == nodes:
            self._remember(slot, sums)
            return
        do, done = self.e.new_label("keep"), self.e.new_label("kept")
        self.e.branch_if(self.e.icmp("sge", place, constant(0, i64)), do, done)
        self.e.label(do)
        self.w.push()
        self._remember(slot, sums)
        self.w.pop()
        self.e.branch(done)
        self.e.label(done)

    def _remember(self, slot: Value, sums: list[Value]) -> None:
        for vector, value in enumerate(sums):
            self.e.store(value, self._state(slot, vector))

    def _store(self, place: Value, values: list[Value]) -> None:
        """A column of the result."""
        column = Var("place", self.s.kept)
        index = Index.of(self.s.row) * self.s.kept + Index.of(column)
        with self.w.bound(column, Binding(place)):
            for rows, value in zip(self._bindings(), values, strict=True):
                with self.w.bound(self.s.row, rows):
                    for name in self.s.outputs:
                        self.w.store(name, index, value)
