"""Takes loop statements, gives the LLVM text of the function that runs them.

Vector loops run whole vectors first and one masked vector at the end. Expressions are computed in
the outermost loop that knows all of their variables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ir import scalar
from ir.dependence import scalars
from ir.index import Var
from ir.loops import (
    Accumulate,
    Buffer,
    For,
    Function,
    Init,
    Let,
    PairSums,
    Stmt,
    Store,
    StoreRow,
    Sweep,
    Tile,
    Transpose,
    statements,
)
from ir.scalar import Scalar
from ir.types import Dim, Extent, boolean, i64, integer_range
from nncompiler.codegen.emit import Emitter, Value, constant, memory_type, number_of
from nncompiler.codegen.expressions import Expressions
from nncompiler.codegen.scope import Accumulator, Binding
from nncompiler.codegen.streams import Streams
from nncompiler.codegen.target import Target

REDUCTION_CHAINS = 4  # independent sums that hide the latency of an addition


@dataclass(frozen=True)
class Range:
    """The part of a loop that this call runs: `start` is a multiple of `grain`, and `stop` is one
    too or the end of the loop."""

    start: Value
    stop: Value
    grain: int


class Writer(Expressions):
    """Writes the statements of one function."""

    def __init__(
        self,
        emitter: Emitter,
        pointers: Mapping[str, str],
        buffers: Mapping[str, Buffer],
        symbols: Mapping[str, Value],
        streams: Streams,
        tile: Callable[[Writer, Tile], None],
        transpose: Callable[[Writer, Transpose], None],
        sparse: Callable[[Writer, Sweep | PairSums], None],
    ) -> None:
        super().__init__(emitter, pointers, buffers, symbols, streams)
        self._tile, self._transpose, self._sparse = tile, transpose, sparse
        self.ranges: dict[str, Range] = {}

    def range(self, var: Var) -> Range:
        """Where the loop over a variable runs: from 0 to its extent, but for a split's axes."""
        found = self.ranges.get(var.name)
        return found or Range(constant(0, i64), self.extent(var.extent), 1 << 30)

    def clip(self, var: Var, start: int, stop: int) -> tuple[Value, Value]:
        """What this call runs of start .. stop, where whole blocks or the rest of a loop lie."""
        part = self.ranges.get(var.name)
        if part is None:
            return constant(start, i64), constant(stop, i64)
        first = part.start if start == 0 else constant(start, i64)
        if stop == var.extent:
            return first, part.stop
        return first, self.e.minimum(part.stop, constant(stop, i64))

    def block(self, body: Sequence[Stmt]) -> None:
        for position, stmt in enumerate(body):
            match stmt:
                case Init(name, value):
                    self._init(name, value, body[position + 1 :])
                case Let(name, value):
                    self.values[name] = self.evaluate(value)
                case Accumulate(name, combine, value):
                    self._accumulate(name, combine, value)
                case Store(buffer, index, value):
                    self.store(buffer, index, self.evaluate(value))
                case StoreRow():
                    self._store_row(stmt)
                case For():
                    self._for(stmt)
                case Tile():
                    self._tile(self, stmt)
                case Transpose():
                    self._transpose(self, stmt)
                case Sweep() | PairSums():
                    self._sparse(self, stmt)

    # ------------------------------------------------------------ accumulators

    def _init(self, name: str, value: Scalar, following: Sequence[Stmt]) -> None:
        outside = max((b.lanes for b in self.bindings.values()), default=1)
        inside = _lanes_accumulating(name, following)
        start = self.evaluate(value)
        if outside > 1:
            self.accumulators[name] = Accumulator(self.e.splat(start, outside), "", False)
        else:
            wide = self.e.splat(start, inside)
            combine = _combine_of(name, following)
            self.accumulators[name] = Accumulator(wide, combine, inside > 1)
        self.values.pop(name, None)

    def _accumulate(self, name: str, combine: str, value: Scalar) -> None:
        accumulator = self.accumulators[name]
        total = accumulator.value
        term = self.e.splat(self.evaluate(value), total.lanes)
        mask = self.lane_mask
        if mask is not None and accumulator.partial:
            term = self.e.select(mask, term, self.neutral(combine, total))
        accumulator.value = self.e.combine(combine, total, term)

    def neutral(self, combine: str, like: Value) -> Value:
        """The value that changes nothing: -0.0 for float sums, so that even signs of zero stay."""
        dtype = like.dtype
        if combine in ("sum", "prod"):
            zero = -0.0 if dtype.is_float else 0
            return constant(zero if combine == "sum" else 1, dtype, like.lanes)
        if dtype.is_float:
            edge = float("-inf") if combine == "max" else float("inf")
            return constant(edge, dtype, like.lanes)
        if dtype.kind == "bool":
            return constant(combine == "min", dtype, like.lanes)
        low, high = integer_range(dtype)
        return constant(low if combine == "max" else high, dtype, like.lanes)

    def _store_row(self, stmt: StoreRow) -> None:
        """Rows outside of the buffer are skipped; lanes are neighbours in one row."""
        row = self.e.convert(self.evaluate(stmt.row), i64)
        simple = self.affine(stmt.index)
        assert simple is not None and simple[1] in (0, 1) and row.lanes == 1, "lanes in many rows"
        lanes = self._lanes_of(stmt.index) if simple[1] else 1
        value = self.e.splat(self.evaluate(stmt.value), lanes)
        mask = self.mask(stmt.index) if simple[1] else None
        size = self.extent(self.buffers[stmt.buffer].size)
        rows = self.e.value(f"udiv i64 {size.text}, {max(stmt.stride, 1)}", i64)
        inside = self.e.value(f"icmp ult i64 {row.text}, {rows.text}", boolean)
        do, done = self.e.new_label("add"), self.e.new_label("added")
        self.e.branch_if(inside, do, done)
        self.e.label(do)
        self.push()
        place = self.e.add(simple[0], self.e.mul(row, constant(stmt.stride, i64)))
        pointer = self.address(stmt.buffer, place, inside=mask is None)
        total = value
        if mask is None:
            if stmt.combine == "sum":
                old = self.e.load(pointer, value.dtype, lanes)
                total = self.e.combine("sum", old, value)
            self.e.store(total, pointer)
        else:
            if stmt.combine == "sum":
                old = self.e.masked_load(pointer, value.dtype, mask, fill=value)
                total = self.e.combine("sum", old, value)
            self.e.masked_store(total, pointer, mask)
        self.pop()
        self.e.branch(done)
        self.e.label(done)

    # ------------------------------------------------------------ loops

    def _for(self, stmt: For) -> None:
        if stmt.kind == "unroll":
            self._unrolled(stmt)
            return
        self.hoist(stmt.body)
        if stmt.kind == "unroll vector":
            self._unrolled_vector(stmt)
        elif stmt.kind == "vector" and stmt.step > 1:
            self._vector_loop(stmt)
        else:
            part = self.range(stmt.var)
            self._run(stmt.var, part.start, part.stop, stmt.step, [stmt.body])

    def _unrolled(self, stmt: For) -> None:
        assert isinstance(stmt.var.extent, int)
        for i in range(stmt.var.extent):
            with self.bound(stmt.var, Binding(constant(i, i64))):
                self.block(stmt.body)

    def _unrolled_vector(self, stmt: For) -> None:
        extent, lanes = stmt.var.extent, stmt.step
        assert isinstance(extent, int)
        for start in range(0, extent, lanes):
            mask = None
            if start + lanes > extent:
                mask = self.e.lane_mask(constant(extent - start, i64), lanes)
            with self.bound(stmt.var, Binding(constant(start, i64), lanes, mask)):
                self.block(stmt.body)

    def _vector_loop(self, stmt: For) -> None:
        lanes, var = stmt.step, stmt.var
        carried = _accumulated(stmt.body)
        chains = REDUCTION_CHAINS if any(self._is_partial(n) for n in carried) else 1
        if isinstance(var.extent, int) and var.extent < 2 * lanes * chains:
            chains = 1
        part = self.range(var)
        assert part.grain % lanes == 0, "chunks hold whole vectors"
        start, end = part.start, part.stop
        self.streams.enter(stmt)
        if chains > 1:
            stop = self._whole(end, lanes * chains)
            self._run(var, start, stop, lanes * chains, [stmt.body] * chains, lanes)
            start = stop
        stop = end if _is_multiple(var.extent, lanes) else self._whole(end, lanes)
        self._run(var, start, stop, lanes, [stmt.body], lanes)
        self.streams.leave()
        if stop is not end:
            self._tail(stmt, stop, end)

    def _is_partial(self, name: str) -> bool:
        return name in self.accumulators and self.accumulators[name].partial

    def _whole(self, extent: Value, step: int) -> Value:
        """The largest multiple of `step` that is at most `extent`."""
        number = number_of(extent)
        if number is not None:
            return constant(int(number) // step * step, i64)
        rest = self.e.value(f"urem i64 {extent.text}, {step}", i64)
        return self.e.sub(extent, rest)

    def _tail(self, stmt: For, start: Value, extent: Value) -> None:
        """What is left after the last whole vector, under a mask."""
        left = self.e.sub(extent, start)
        number = number_of(left)
        if number == 0:
            return
        if number is not None:
            self._masked_once(stmt, start, left)
            return
        names = [n for n in _accumulated(stmt.body) if n in self.accumulators]
        before = {n: self.accumulators[n].value for n in names}
        came_from = self.e.block
        do, done = self.e.new_label("tail"), self.e.new_label("done")
        self.e.branch_if(self.e.icmp("ne", left, constant(0, i64)), do, done)
        self.e.label(do)
        self.push()
        self._masked_once(stmt, start, left)
        self.pop()
        end = self.e.block
        self.e.branch(done)
        self.e.label(done)
        for name in names:
            after = self.accumulators[name].value
            self.accumulators[name].value = self.phi(before[name], came_from, after, end)

    def _masked_once(self, stmt: For, start: Value, left: Value) -> None:
        mask = self.e.lane_mask(left, stmt.step)
        with self.bound(stmt.var, Binding(start, stmt.step, mask)):
            self.block(stmt.body)

    def phi(self, a: Value, from_a: str, b: Value, from_b: str) -> Value:
        text = f"phi {a.type} [ {a.text}, %{from_a} ], [ {b.text}, %{from_b} ]"
        return self.e.value(text, a.dtype, a.lanes, key=False)

    def _run(
        self,
        var: Var,
        start: Value,
        stop: Value,
        step: int,
        bodies: list[tuple[Stmt, ...]],
        lanes: int = 1,
    ) -> None:
        """for var in start .. stop: the bodies, each `lanes` further on, with sums of their own."""
        names = [n for n in _accumulated(bodies[0]) if n in self.accumulators]
        chains = len(bodies)
        carried: list[Value] = []
        for name in names:
            total = self.accumulators[name].value
            carried.append(total)
            combine = self.accumulators[name].combine
            carried += [self.neutral(combine, total)] * (chains - 1)

        def body(i: Value, now: list[Value]) -> list[Value]:
            for chain, statements_ in enumerate(bodies):
                for number, name in enumerate(names):
                    self.accumulators[name].value = now[number * chains + chain]
                base = self.e.add(i, constant(chain * lanes, i64))
                with self.bound(var, Binding(base, lanes)):
                    self.block(statements_)
                for number, name in enumerate(names):
                    now[number * chains + chain] = self.accumulators[name].value
            return now

        after = self.loop(start, stop, step, carried, body)
        for number, name in enumerate(names):
            parts = after[number * chains : (number + 1) * chains]
            while len(parts) > 1:
                combine = self.accumulators[name].combine
                pairs = zip(parts[::2], parts[1::2], strict=True)
                parts = [self.e.combine(combine, a, b) for a, b in pairs]
            self.accumulators[name].value = parts[0]

    def loop(
        self,
        start: Value,
        stop: Value,
        step: int,
        carried: list[Value],
        body: Callable[[Value, list[Value]], list[Value]],
    ) -> list[Value]:
        """A counted loop, tested at its end; gives the carried values after it."""
        first, last = number_of(start), number_of(stop)
        known = first is not None and last is not None
        if known and int(first or 0) >= int(last or 0):
            return carried
        if known and int(first or 0) + step >= int(last or 0):
            return body(start, list(carried))
        e = self.e
        before = e.block
        head, done = e.new_label("loop"), e.new_label("end")
        if known:
            e.branch(head)
        else:
            e.branch_if(e.icmp("slt", start, stop), head, done)
        e.label(head)
        self.push()
        i = Value(e.new_name("i"), i64)
        phis = [Value(e.new_name("sum"), v.dtype, v.lanes) for v in carried]
        at = len(e.lines)
        e.lines.extend([""] * (1 + len(phis)))
        after = body(i, list(phis))
        following = e.value(f"add nuw nsw i64 {i.text}, {step}", i64, key=False)
        again = e.icmp("slt", following, stop)
        latch = e.block
        e.branch_if(again, head, done)
        e.lines[at] = _phi_line(i, start, before, following, latch)
        for number, (phi, old, new) in enumerate(zip(phis, carried, after, strict=True)):
            e.lines[at + 1 + number] = _phi_line(phi, old, before, new, latch)
        self.pop()
        e.label(done)
        if known:
            return after
        return [self.phi(a, before, b, latch) for a, b in zip(carried, after, strict=True)]

    @contextmanager
    def bound(self, var: Var, binding: Binding) -> Iterator[None]:
        """Bind a loop variable for the statements inside."""
        old = self.bindings.get(var.name)
        self.bindings[var.name] = binding
        yield
        if old is None:
            del self.bindings[var.name]
        else:
            self.bindings[var.name] = old

    # ------------------------------------------------------------ loop-invariant expressions

    def hoist(self, body: Iterable[Stmt]) -> None:
        """Compute what does not depend on the loop before entering it."""
        body = list(body)
        unfinished = {s.name for s in statements(body) if isinstance(s, (Let, Init, Accumulate))}
        stored = {s.buffer for s in statements(body) if isinstance(s, (Store, StoreRow))}
        memory = {s for s in _scalars(body) if s.kind == "load" and s.name in stored}
        for s in _scalars(body):
            if unfinished.intersection(self.dependences(s)):
                continue
            worthwhile = s.kind in ("apply", "load", "ref") and self._is_known(s)
            if worthwhile and not any(x in memory for x in scalar.walk([s])):
                self.evaluate(s)

    def _is_known(self, s: Scalar) -> bool:
        return all(
            n in self.bindings or n in self.values or n in self.accumulators
            for n in self.dependences(s)
        )


def _is_multiple(extent: Dim, step: int) -> bool:
    count = extent.coefficient if isinstance(extent, Extent) else extent
    return count % step == 0


def _phi_line(phi: Value, first: Value, before: str, then: Value, latch: str) -> str:
    kind = phi.type
    return f"  {phi.text} = phi {kind} [ {first.text}, %{before} ], [ {then.text}, %{latch} ]"


def _scalars(body: Iterable[Stmt]) -> list[Scalar]:
    """Every expression of the statements, operands first."""
    return list(scalar.walk(s for stmt in statements(body) for s in scalars(stmt)))


def _accumulated(body: Iterable[Stmt]) -> list[str]:
    """Accumulators that the statements change but do not start."""
    started = {s.name for s in statements(body) if isinstance(s, Init)}
    found = dict.fromkeys(s.name for s in statements(body) if isinstance(s, Accumulate))
    return [name for name in found if name not in started]


def _lanes_accumulating(name: str, body: Iterable[Stmt]) -> int:
    """In how many lanes the statements add to an accumulator."""
    for stmt in body:
        if isinstance(stmt, For):
            inside = any(isinstance(s, Accumulate) and s.name == name for s in statements([stmt]))
            if inside and "vector" in stmt.kind:
                return stmt.step
            if inside:
                return _lanes_accumulating(name, stmt.body)
    return 1


def _combine_of(name: str, body: Iterable[Stmt]) -> str:
    found = [s.combine for s in statements(body) if isinstance(s, Accumulate) and s.name == name]
    return found[0] if found else "sum"


def symbols_of(function: Function) -> tuple[str, ...]:
    """The symbolic extents that a function needs as arguments."""
    found: dict[str, None] = {}

    def see(dim: Dim) -> None:
        if isinstance(dim, Extent):
            found[dim.symbol] = None

    for stmt in statements(function.body):
        match stmt:
            case For(var=var):
                see(var.extent)
            case Tile(m=m, n=n, k=k):
                for v in (m, n, *k):
                    see(v.extent)
            case Transpose(row=row, column=column):
                see(row.extent)
                see(column.extent)
            case Sweep(row=row) | PairSums(row=row):
                see(row.extent)
            case StoreRow(buffer=buffer):
                buffers = (*function.buffers, *function.workspace)
                see(next(b.size for b in buffers if b.name == buffer))
    for s in _scalars(function.body):
        see(s.dim)
        for guard in s.guards:
            see(guard.high)
    return tuple(found)


def write_function(
    function: Function,
    name: str,
    target: Target,
    declarations: dict[str, None],
    tile: Callable[[Writer, Tile], None],
    transpose: Callable[[Writer, Transpose], None],
    sparse: Callable[[Writer, Sweep | PairSums], None],
) -> str:
    """The LLVM definition of a function, or of one stage of it.

    Its arguments: buffers, workspace, symbols, and for every axis of the split where to start and
    where to stop.
    """
    emitter = Emitter(target, declarations)
    arguments = (*function.buffers, *function.workspace)
    pointers = {b.name: f"%p{i}" for i, b in enumerate(arguments)}
    for scratch in function.scratch:
        assert isinstance(scratch.size, int)
        pointers[scratch.name] = emitter.alloca(memory_type(scratch.dtype), scratch.size)
    buffers = {b.name: b for b in (*arguments, *function.scratch)}
    names = symbols_of(function)
    symbols = {s: Value(f"%s{i}", i64) for i, s in enumerate(names)}
    streams = Streams(function, target)
    writer = Writer(emitter, pointers, buffers, symbols, streams, tile, transpose, sparse)
    parameters = [f"ptr {pointers[b.name]}" for b in arguments]
    parameters += [f"i64 {s.text}" for s in symbols.values()]
    axes = [axis for split in function.splits if split for axis in split.axes]
    for number, (var, chunk) in enumerate(axes):
        start, stop = Value(f"%from{number}", i64), Value(f"%to{number}", i64)
        writer.ranges[var.name] = Range(start, stop, chunk)
        parameters += [f"i64 {start.text}", f"i64 {stop.text}"]
    writer.block(function.body)
    streams.finish(emitter)
    emitter.do("ret void")
    return emitter.function(f"internal void @{name}({', '.join(parameters)}) #0")
