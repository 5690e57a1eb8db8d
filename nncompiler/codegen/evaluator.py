"""Takes formulas, gives the code that evaluates graphs which are tables: nncompiler/programs.py.

Rows of a batch run over the lanes, several vectors of them side by side, so that one entry of a
table serves them all. The values of one graph stay in the first cache while it is computed:

    for every graph:  for every few vectors of rows:
        state[slot] = x                                    for its inputs
        for every run of neurons:
            state[slot] = aggregation of weight * state + bias      by the number of vectors
            state[slot ...] = formula(state[slot ...])              over the whole run at once
        y = state[slot]                                    for its outputs

A single row has no lanes: its sums are computed one by one, its formulas still by vectors. These
may run past the last neuron of a run, into slots that hold nothing yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ir.index import Var
from ir.loops import Buffer, Function, Split
from ir.ops import formula
from ir.types import DTYPES, DType, Extent, i64
from nncompiler.codegen.assemble import module_text
from nncompiler.codegen.columns import switch, table_entry
from nncompiler.codegen.deal import Call
from nncompiler.codegen.emit import Emitter
from nncompiler.codegen.entry import entry_text
from nncompiler.codegen.math import emit_apply
from nncompiler.codegen.sparse import write_sparse
from nncompiler.codegen.statements import Writer
from nncompiler.codegen.streams import Streams
from nncompiler.codegen.target import Target
from nncompiler.codegen.tile import write_tile
from nncompiler.codegen.transpose import write_transpose
from nncompiler.codegen.values import Value, constant, memory_type
from nncompiler.frontend.wiring import AGGREGATIONS
from nncompiler.programs import MOST_VECTORS, STATE, Column
from runtime.artifact import Plan

BATCH, GENOME = Extent(1, "batch"), Var("genome", Extent(1, "genomes"))
CHUNK = 16  # graphs that one thread takes at a time
NAME = "evaluate"
COMBINES = {"product": "prod", "min": "min", "max": "max", "maxabs": "maxabs"}


def evaluator_text(plan: Plan, formulas: Sequence[str], target: Target, flush: bool) -> str:
    """The LLVM module of the program whose buffers the plan lists; their sizes do not matter."""
    declarations: dict[str, None] = {}
    buffers = [Buffer(b.name, DTYPES[b.dtype], 0) for b in plan.buffers]
    text = _function(buffers, formulas, target, declarations)
    split = Split(((GENOME, CHUNK),))
    call = Call(NAME, tuple(range(len(buffers))), (BATCH.symbol,), 0, split)
    entries = entry_text(plan, [call], [], [], target, once=(), flush_denormals=flush, timed=False)
    return module_text(target, declarations, [text, entries])


def _function(
    buffers: Sequence[Buffer],
    formulas: Sequence[str],
    target: Target,
    declarations: dict[str, None],
) -> str:
    e = Emitter(target, declarations)
    pointers = {b.name: f"%p{i}" for i, b in enumerate(buffers)}
    named = {b.name: b for b in buffers}
    batch, start, stop = (Value(f"%{name}", i64) for name in ("batch", "from", "to"))
    streams = Streams(Function(NAME, tuple(buffers), ()), target)
    recipes = (write_tile, write_transpose, write_sparse)
    writer = Writer(e, pointers, named, {BATCH.symbol: batch}, streams, *recipes)
    EvaluatorCode(writer, named["x"].dtype, formulas).write(start, stop)
    e.do("ret void")
    parameters = [f"ptr {p}" for p in pointers.values()]
    parameters += [v.typed for v in (batch, start, stop)]
    return e.function(f"internal void @{NAME}({', '.join(parameters)}) #0")


class EvaluatorCode:
    def __init__(self, writer: Writer, dtype: DType, formulas: Sequence[str]) -> None:
        self.w, self.e, self.dtype, self.formulas = writer, writer.e, dtype, formulas
        self.lanes = self.e.target.lanes(dtype)
        self.batch = writer.symbols[BATCH.symbol]
        self.zero, self.one = constant(0, i64), constant(1, i64)
        self.single = self.e.icmp("eq", self.batch, self.one)
        # of the graph that is computed, and of the rows of it
        self.row = self.first_x = self.base = self.vectors = self.pitch = self.zero

    def write(self, start: Value, stop: Value) -> None:
        count = STATE // self.dtype.bytes + self.lanes
        self.stack = self.e.alloca(memory_type(self.dtype), count)
        self.w.loop(start, stop, 1, [], self._genome)

    # ------------------------------------------------------------ pieces

    def _times(self, a: Value, count: int) -> Value:
        return self.e.mul(a, constant(count, i64))

    def _after(self, a: Value, count: int) -> Value:
        return self.e.add(a, constant(count, i64))

    def _up(self, a: Value) -> Value:
        """How many vectors hold so many rows."""
        return self.e.value(f"udiv i64 {self._after(a, self.lanes - 1).text}, {self.lanes}", i64)

    def _least(self, a: Value, b: Value) -> Value:
        return self.e.select(self.e.icmp("ult", a, b), a, b)

    def _entry(self, table: str, index: Value) -> Value:
        return table_entry(self.w, table, index)

    def _of_genome(self, column: Column) -> Value:
        return self._entry("genomes", self._after(self.row, column))

    def _load(self, name: str, index: Value, lanes: int = 1) -> Value:
        return self.e.load(self.w.address(name, index), self.dtype, lanes)

    def _each(
        self, start: Value, stop: Value, body: Callable[[Value], None], step: int = 1
    ) -> None:
        def once(i: Value, _: list[Value]) -> list[Value]:
            body(i)
            return []

        self.w.loop(start, stop, step, [], once)

    def _state(self, slot: Value, vector: Value | int = 0) -> Value:
        """The element of the state where a vector of a slot begins."""
        at = constant(vector, i64) if isinstance(vector, int) else vector
        return self.e.add(self.e.mul(slot, self.pitch), self._times(at, self.lanes))

    def _put(self, value: Value, at: Value) -> None:
        self.e.store(value, self.w.address("state", at))

    # ------------------------------------------------------------ a graph

    def _genome(self, genome: Value, _: list[Value]) -> list[Value]:
        self.row = self._times(genome, Column.SIZE)
        self.first_x = self.e.mul(self._entry("places", genome), self.batch)
        place = self._of_genome(Column.PLACE)
        inside = self.e.icmp("slt", place, self.zero)
        spill = self.w.address("spill", self._times(place, self.lanes), inside=False)
        state = self.e.op(f"select {inside.typed}, ptr {self.stack}, ptr {spill}")
        self.w.pointers = {**self.w.pointers, "state": state}
        self.w.buffers = {**self.w.buffers, "state": Buffer("state", self.dtype, 0, True)}
        most = self._of_genome(Column.VECTORS)
        total = self._up(self.batch)
        more = self.e.sub(self.e.add(total, most), self.one)
        passes = self.e.value(f"udiv i64 {more.text}, {most.text}", i64)

        def rows(number: Value) -> None:
            first = self.e.mul(number, most)
            vectors = self._least(self.e.sub(total, first), most)
            self.base = self._times(first, self.lanes)
            self.vectors = self.e.select(self.single, self.zero, vectors)
            self.pitch = self.e.select(self.single, self.one, self._times(vectors, self.lanes))
            self._rows()

        self._each(self.zero, passes, rows)
        return []

    def _rows(self) -> None:
        self._inputs()
        first = [self._of_genome(c) for c in (Column.NODE, Column.EDGE, Column.INPUTS)]
        run, end = self._of_genome(Column.RUN), self._of_genome(Column.END_RUN)
        self.w.loop(run, end, 1, first, self._run)
        self._outputs()

    def _inputs(self) -> None:
        zeros = constant(0, self.dtype, self.lanes)

        def one(column: Value) -> None:
            first = self.e.add(self.first_x, self.e.mul(column, self.batch))

            def alone(_: list[Value]) -> list[Value]:
                self._put(self._load("x", first), column)
                return []

            def wide(_: list[Value]) -> list[Value]:
                def vector(v: Value) -> None:
                    row = self.e.add(self.base, self._times(v, self.lanes))
                    mask = self.e.lane_mask(self.e.sub(self.batch, row), self.lanes)
                    where = self.w.address("x", self.e.add(first, row), inside=False)
                    value = self.e.masked_load(where, self.dtype, mask, fill=zeros)
                    self._put(value, self._state(column, v))

                self._each(self.zero, self.vectors, vector)
                return []

            switch(self.w, self.e.convert(self.single, i64), (wide, alone), [])

        self._each(self.zero, self._of_genome(Column.INPUTS), one)

    def _outputs(self) -> None:
        first, end = (self._of_genome(c) for c in (Column.OUTPUT, Column.END_OUTPUT))
        width, start = self.e.sub(end, first), self.e.mul(first, self.batch)
        start = self.e.add(start, self.e.mul(self.base, width))
        rows = self._least(self.e.sub(self.batch, self.base), self.pitch)

        def one(number: Value) -> None:
            slot = self.e.mul(self._entry("outputs", number), self.pitch)
            column = self.e.add(start, self.e.sub(number, first))

            def row(r: Value) -> None:
                place = self.e.add(column, self.e.mul(r, width))
                value = self._load("state", self.e.add(slot, r))
                self.e.store(value, self.w.address("y", place))

            self._each(self.zero, rows, row)

        self._each(first, end, one)

    # ------------------------------------------------------------ a run of neurons

    def _run(self, run: Value, carried: list[Value]) -> list[Value]:
        """node, edge, slot: the first ones of this run, then of the next."""
        node, _, slot = carried
        kind, aggregation, count = (
            self._entry("runs", self._after(self._times(run, 3), i)) for i in range(3)
        )
        cases: list[Callable[[list[Value]], list[Value]]] = []
        for vectors in range(MOST_VECTORS + 1):
            cases.append(partial(self._neurons, partial(self._sum, vectors), node, count))
        for name in AGGREGATIONS[1:]:
            for lanes in (1, self.lanes):
                sums = self._median if name == "median" else partial(self._combined, name)
                cases.append(partial(self._neurons, partial(sums, lanes), node, count))
        wide = self.e.convert(self.e.icmp("ne", self.vectors, self.zero), i64)
        other = self._after(self._times(aggregation, 2), MOST_VECTORS - 1)
        plain = self.e.icmp("eq", aggregation, self.zero)
        number = self.e.select(plain, self.vectors, self.e.add(other, wide))
        edge, following = switch(self.w, number, cases, carried[1:])
        start, stop = (self.e.mul(s, self.pitch) for s in (slot, following))
        switch(self.w, kind, [partial(self._formula, t, start, stop) for t in self.formulas], [])
        return [self.e.add(node, count), edge, following]

    def _neurons(
        self,
        sums: Callable[[Value, Value, Value, Value, Value], None],
        node: Value,
        count: Value,
        carried: list[Value],
    ) -> list[Value]:
        """The sums of a run's neurons: of edges from `edge` to `stop`, into a slot."""

        def one(i: Value, now: list[Value]) -> list[Value]:
            edge, slot = now
            edges = self._entry("nodes", i)
            stop = self.e.add(edge, edges)
            sums(edge, stop, edges, slot, self._load("biases", i))
            return [stop, self._after(slot, 1)]

        return self.w.loop(node, self.e.add(node, count), 1, carried, one)

    def _formula(self, text: str, start: Value, stop: Value, _: list[Value]) -> list[Value]:
        def operation(op: str, args: list[Value], dtype: DType) -> Value:
            return emit_apply(self.e, op, args, dtype, self.lanes)

        def number(value: float) -> Value:
            return constant(value, self.dtype, self.lanes)

        def vector(i: Value) -> None:
            z = self._load("state", i, self.lanes)
            value = formula.apply(text, z, (), number=number, operation=operation, dtype=self.dtype)
            self._put(value, i)

        if text:
            self._each(start, stop, vector, self.lanes)
        return []

    # ------------------------------------------------------------ aggregations

    def _weight(self, edge: Value, lanes: int) -> Value:
        return self.e.splat(self._load("weights", edge), lanes)

    def _sum(
        self, vectors: int, edge: Value, stop: Value, edges: Value, slot: Value, bias: Value
    ) -> None:
        """By all vectors at once; 0 stands for the single row."""
        lanes = self.lanes if vectors else 1
        each = range(max(vectors, 1))
        pitch, self.pitch = self.pitch, constant(max(vectors, 1) * lanes, i64)
        zero = constant(0, self.dtype, lanes)

        def one(i: Value, sums: list[Value]) -> list[Value]:
            weight, source = self._weight(i, lanes), self._entry("edges", i)
            values = (self._load("state", self._state(source, v), lanes) for v in each)
            return [self.e.fma(weight, value, s) for value, s in zip(values, sums, strict=True)]

        sums = self.w.loop(edge, stop, 1, [zero for _ in each], one)
        for v, total in enumerate(sums):
            value = self.e.add(total, self.e.splat(bias, lanes))
            # of a single row a whole vector, so that the formula's load finds it in one store
            self._put(self.e.splat(value, self.lanes), self._state(slot, v))
        self.pitch = pitch

    def _by_vectors(
        self, lanes: int, slot: Value, bias: Value, one: Callable[[Value], Value]
    ) -> None:
        """state[slot] = one(vector) + bias, vector after vector."""
        count = self.one if lanes == 1 else self.vectors

        def body(v: Value) -> None:
            self._put(self.e.add(one(v), self.e.splat(bias, lanes)), self._state(slot, v))

        self._each(self.zero, count, body)

    def _term(self, edge: Value, vector: Value, lanes: int) -> Value:
        value = self._load("state", self._state(self._entry("edges", edge), vector), lanes)
        return self.e.mul(self._weight(edge, lanes), value)

    def _combined(
        self,
        name: str,
        lanes: int,
        edge: Value,
        stop: Value,
        edges: Value,
        slot: Value,
        bias: Value,
    ) -> None:
        like = constant(0, self.dtype, lanes)
        combine = COMBINES.get(name, "sum")

        def vector(v: Value) -> Value:
            def one(i: Value, now: list[Value]) -> list[Value]:
                return [self.e.combine(combine, now[0], self._term(i, v, lanes))]

            (total,) = self.w.loop(edge, stop, 1, [self.w.neutral(combine, like)], one)
            if name != "mean":
                return total
            return self.e.fdiv(total, self.e.splat(self.e.convert(edges, self.dtype), lanes))

        self._by_vectors(lanes, slot, bias, vector)

    def _median(
        self, lanes: int, edge: Value, stop: Value, edges: Value, slot: Value, bias: Value
    ) -> None:
        """Terms are put in order by the pairs of a sorting network."""
        scratch = self._of_genome(Column.SCRATCH)

        def at(number: Value) -> Value:
            return self._state(self.e.add(scratch, number))

        def vector(v: Value) -> Value:
            def fill(i: Value) -> None:
                self._put(self._term(i, v, lanes), at(self.e.sub(i, edge)))

            def compare(pair: Value) -> None:
                first = self._times(pair, 2)
                a, b = (at(self._entry("pairs", self._after(first, k))) for k in range(2))
                x, y = self._load("state", a, lanes), self._load("state", b, lanes)
                self._put(self.e.minimum(x, y), a)
                self._put(self.e.maximum(x, y), b)

            self._each(edge, stop, fill)
            network = [self._entry("networks", self._after(edges, k)) for k in range(2)]
            self._each(network[0], network[1], compare)
            middle = [
                self.e.value(f"udiv i64 {self._after(edges, k).text}, 2", i64) for k in (-1, 0)
            ]
            low, high = (self._load("state", at(m), lanes) for m in middle)
            half = constant(0.5, self.dtype, lanes)
            both = self.e.mul(half, self.e.add(low, high))
            return self.e.select(self.e.icmp("eq", *middle), low, both)

        self._by_vectors(lanes, slot, bias, vector)
