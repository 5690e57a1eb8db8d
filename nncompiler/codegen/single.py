"""Takes a Sweep, gives the code for one row alone, which is bound by latency and branches.

The table `ways` says how the terms of a node are combined and its formula, so that a node is two
jumps: into the middle of a sum that is written out, or to another way; then to its formula.

    switch ways[n] % WAYS:     16: z += w[end - 16] * s[slots[end - 16]]
                               15: z += w[end - 15] * s[slots[end - 15]]
                               ..
                                1: z += w[end - 1] * s[slots[end - 1]]
    switch ways[n] / WAYS:     formula 0, formula 1, ...

The edges of a node with more of them run over the lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ir.index import Index, Var
from ir.ops import formula
from ir.scalar import Scalar
from ir.sparse_loops import Sweep
from ir.types import i32, i64
from nncompiler.codegen.columns import phi, switch, table_entry, whole_steps
from nncompiler.codegen.nodes import Combining, apply_formula, edge_entries, sources_of
from nncompiler.codegen.scope import Binding
from nncompiler.codegen.statements import Writer
from nncompiler.codegen.values import Value, constant
from nncompiler.sparse import LONGEST, MANY, WAYS


class SingleRow:
    def __init__(self, writer: Writer, stmt: Sweep) -> None:
        self.w, self.s, self.e = writer, stmt, writer.e
        self.dtype = stmt.weights.dtype
        self.here = constant(0, i64)
        bodies = [formula.without_offset(text) for text in stmt.formulas]
        self.starts = not stmt.sums and None not in bodies  # from the first argument
        self.bodies = [b or "" for b in bodies] if self.starts else list(stmt.formulas)

    def row(self, row: Value, _: list[Value]) -> list[Value]:
        """The code of one row."""
        self.here = row
        if self.s.x is not None:
            self._sources(self.s.x)
        zero, nodes = constant(0, i64), self.w.extent(self.s.column.extent)
        self.w.loop(zero, nodes, 1, [zero], self._node)
        self._results()
        return []

    def _sources(self, x: Scalar) -> None:
        column, lanes = self.s.source, self.s.lanes

        def block(base: Value, mask: Value | None) -> None:
            with (
                self.w.bound(self.s.row, Binding(self.here)),
                self.w.bound(column, Binding(base, lanes, mask)),
            ):
                value = self.e.splat(self.w.evaluate(x), lanes)
            pointer = self.w.address(self.s.state, base)
            if mask is None:
                self.e.store(value, pointer)
            else:
                self.e.masked_store(value, pointer, mask)

        self._blocks(sources_of(self.s), block)

    def _blocks(self, count: int, block: Callable[[Value, Value | None], None]) -> None:
        """block(first, mask) for whole vectors of 0 .. count, then for what is left."""
        lanes = self.s.lanes
        end = count // lanes * lanes

        def whole(base: Value, _: list[Value]) -> list[Value]:
            block(base, None)
            return []

        self.w.loop(constant(0, i64), constant(end, i64), lanes, [], whole)
        if end < count:
            self.w.push()
            block(constant(end, i64), self.e.lane_mask(constant(count - end, i64), lanes))
            self.w.pop()

    def _results(self) -> None:
        """The states and sums that are kept."""
        kept, row = self.s.kept, self.here
        place = Var("place", kept)
        index = Index.of(self.s.row) * kept + Index.of(place)

        def block(base: Value, mask: Value | None) -> None:
            lanes = self.s.lanes
            table = self.w.address(self.s.tables[3], base)
            if mask is None:
                slots = self.e.load(table, i32, lanes)
            else:
                slots = self.e.masked_load(table, i32, mask, fill=constant(0, i32, lanes))
            states = self.e.gather(self.w.pointers[self.s.state], slots, self.dtype, mask)
            write(base, states, Binding(base, lanes, mask))

        def one(base: Value, _: list[Value]) -> list[Value]:
            write(base, self._state(table_entry(self.w, self.s.tables[3], base)), Binding(base))
            return []

        def write(base: Value, value: Value, binding: Binding) -> None:
            with self.w.bound(self.s.row, Binding(row)), self.w.bound(place, binding):
                for name in self.s.outputs:
                    self.w.store(name, index, value)

        if kept < self.s.lanes:
            self.w.loop(constant(0, i64), constant(kept, i64), 1, [], one)
        else:
            self._blocks(kept, block)

    def _state(self, slot: Value) -> Value:
        return self.e.load(self.w.address(self.s.state, slot), self.dtype)

    # ------------------------------------------------------------ nodes

    def _node(self, number: Value, carried: list[Value]) -> list[Value]:
        """One node; gives the first edge of the next one."""
        e, (edge,) = self.e, carried
        rows = e.mul(number, constant(3, i64))
        column = table_entry(self.w, self.s.tables[1], rows)
        count = table_entry(self.w, self.s.tables[1], e.add(rows, constant(1, i64)))
        stop = e.add(edge, count)
        arity = max((formula.arity(text) for text in self.s.formulas), default=0)
        extras = [self._extra(n, column) for n in range(arity)]
        way = table_entry(self.w, self.s.tables[4], number)
        z = self._combined(way, edge, stop, extras)
        if self.s.sums:
            self._keep(table_entry(self.w, self.s.tables[1], e.add(rows, constant(2, i64))), z)
        slot = e.add(column, constant(sources_of(self.s), i64))
        e.store(self._applied(way, z, extras), self.w.address(self.s.state, slot))
        return [stop]

    def _extra(self, number: int, column: Value) -> Value:
        with (
            self.w.bound(self.s.row, Binding(self.here)),
            self.w.bound(self.s.column, Binding(column)),
        ):
            return self.w.evaluate(self.s.extras[number])

    def _combined(self, way: Value, edge: Value, stop: Value, extras: list[Value]) -> Value:
        """What the terms of a node are combined to."""
        e = self.e
        start = extras[0] if self.starts else constant(0, self.dtype)
        longest = min(LONGEST, self.s.longest)
        sums = [e.new_label("sum") for _ in range(longest + 1)]
        others = self._others(edge, stop, start)
        labels = {n: e.new_label("way") for n in others}
        number = e.value(f"and i64 {way.text}, {WAYS - 1}", i64)
        cases = dict(enumerate(sums[1:], 1)) | labels
        table = " ".join(f"i64 {n}, label %{label}" for n, label in cases.items())
        e.do(f"switch i64 {number.text}, label %{sums[0]} [ {table} ]")
        before, ends = e.block, []
        for n, write in others.items():
            e.label(labels[n])
            self.w.push()
            ends.append((write(), e.block))
            self.w.pop()
            e.branch(sums[0])
        z, above = start, ""
        for n in range(longest, 0, -1):
            e.label(sums[n])
            here = [(start, before)] + ([(z, above)] if above else [])
            z = phi(self.w, here)
            self.w.push()
            (z,) = self._edge(e.sub(stop, constant(n, i64)), [z])
            self.w.pop()
            above = sums[n]
            e.branch(sums[n - 1])
        e.label(sums[0])
        return phi(self.w, [(start, before), *([(z, above)] if above else []), *ends])

    def _others(self, edge: Value, stop: Value, start: Value) -> dict[int, Callable[[], Value]]:
        """The ways that are no short sums, and what writes them."""
        found: dict[int, Callable[[], Value]] = {}
        if self.s.longest > LONGEST:
            found[MANY] = partial(self._many, edge, stop, start)
        for way in sorted({formula.combine_of(text) for text in self.s.formulas}):
            if way != formula.SUM:
                number = MANY + formula.COMBINES.index(way)
                found[number] = partial(self._other, way, edge, stop)
        return found

    def _other(self, way: str, edge: Value, stop: Value) -> Value:
        (z,) = Combining(self.w, self.s, 1, 1, self._term)(way, edge, stop)
        return z

    def _applied(self, way: Value, z: Value, extras: list[Value]) -> Value:
        """The state of a node, by its formula."""
        if len(self.bodies) == 1:
            return apply_formula(self.w, self.bodies[0], z, extras)
        kind = self.e.value(f"lshr i64 {way.text}, {WAYS.bit_length() - 1}", i64)

        def case(text: str, now: list[Value]) -> list[Value]:
            return [apply_formula(self.w, text, now[0], extras)]

        (state,) = switch(self.w, kind, [partial(case, text) for text in self.bodies], [z])
        return state

    def _keep(self, place: Value, z: Value) -> None:
        """Remember the sum of a node that has a place."""
        nodes = self.s.column.extent
        assert isinstance(nodes, int)
        e = self.e
        slot = e.add(place, constant(sources_of(self.s) + nodes, i64))
        if self.s.sums == nodes:
            e.store(z, self.w.address(self.s.state, slot))
            return
        do, done = e.new_label("keep"), e.new_label("kept")
        e.branch_if(e.icmp("sge", place, constant(0, i64)), do, done)
        e.label(do)
        self.w.push()
        e.store(z, self.w.address(self.s.state, slot))
        self.w.pop()
        e.branch(done)
        e.label(done)

    # ------------------------------------------------------------ edges

    def _edge(self, edge: Value, sums: list[Value]) -> list[Value]:
        weight, state = self._factors(edge)
        return [self.e.fma(weight, state, sums[0])]

    def _term(self, edge: Value) -> list[Value]:
        weight, state = self._factors(edge)
        return [self.e.mul(weight, state)]

    def _factors(self, edge: Value) -> tuple[Value, Value]:
        slot, number = edge_entries(self.w, self.s, edge)
        with self.w.bound(self.s.edge, Binding(number)):
            return self.w.evaluate(self.s.weights), self._state(slot)

    def _many(self, edge: Value, stop: Value, start: Value) -> Value:
        """A long sum: edges over the lanes, the last ones one by one."""
        e, lanes = self.e, self.s.lanes
        if len(self.s.tables) > 5:  # weights stand anywhere
            return self.w.loop(edge, stop, 1, [start], self._edge)[0]
        end = e.add(edge, whole_steps(self.w, e.sub(stop, edge), lanes))

        def step(i: Value, now: list[Value]) -> list[Value]:
            slots = e.load(self.w.address(self.s.tables[2], i), i32, lanes)
            state = e.gather(self.w.pointers[self.s.state], slots, self.dtype)
            with self.w.bound(self.s.edge, Binding(i, lanes)):
                weight = e.splat(self.w.evaluate(self.s.weights), lanes)
            return [e.fma(weight, state, now[0])]

        (total,) = self.w.loop(edge, end, lanes, [constant(0, self.dtype, lanes)], step)
        first = e.add(start, e.reduce("sum", total))
        (z,) = self.w.loop(end, stop, 1, [first], self._edge)
        return z
