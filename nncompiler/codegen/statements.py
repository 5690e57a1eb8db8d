"""Takes loop statements, gives the LLVM text of the function that runs them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from ir.dependence import scalars
from ir.loops import (
    Accumulate,
    Buffer,
    For,
    Function,
    Init,
    Let,
    Prefetch,
    Stmt,
    Store,
    StoreRow,
    Tile,
    Transpose,
    statements,
)
from ir.scalar import Scalar
from ir.sparse_loops import PairSums, PairTotals, Sparse, Sweep
from ir.types import Dim, Extent, boolean, i64
from nncompiler.codegen.emit import Emitter
from nncompiler.codegen.loops import Loops, Range
from nncompiler.codegen.streams import Streams, fetch
from nncompiler.codegen.sums import scalars_of
from nncompiler.codegen.target import Target
from nncompiler.codegen.values import Value, constant, memory_type


class Writer(Loops):
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
        sparse: Callable[[Writer, Sparse], None],
    ) -> None:
        super().__init__(emitter, pointers, buffers, symbols, streams)
        self._tile, self._transpose, self._sparse = tile, transpose, sparse

    def block(self, body: Sequence[Stmt]) -> None:
        for position, stmt in enumerate(body):
            match stmt:
                case Init(name, value):
                    self.start(name, value, body[position + 1 :])
                case Let(name, value):
                    self.values[name] = self.evaluate(value)
                case Accumulate(name, combine, value):
                    self.accumulate(name, combine, value)
                case Store(buffer, index, value):
                    self.store(buffer, index, self.evaluate(value))
                case StoreRow():
                    self._store_row(stmt)
                case Prefetch(buffer, index):
                    fetch(self.e, self.address(buffer, self._first_lane(index), inside=False))
                case For():
                    self.write_loop(stmt)
                case Tile():
                    self._tile(self, stmt)
                case Transpose():
                    self._transpose(self, stmt)
                case Sweep() | PairSums() | PairTotals():
                    self._sparse(self, stmt)

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


def _used_twice(body: Sequence[Stmt]) -> frozenset[Scalar]:
    """The expressions that stand in more than one place."""
    used = Counter(s for stmt in statements(body) for s in scalars(stmt))
    used.update(a for s in scalars_of(body) for a in s.args)
    return frozenset(s for s, count in used.items() if count > 1)


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
            case Sweep(row=row) | PairSums(row=row) | PairTotals(sums=PairSums(row=row)):
                see(row.extent)
            case StoreRow(buffer=buffer):
                buffers = (*function.buffers, *function.workspace)
                see(next(b.size for b in buffers if b.name == buffer))
    for s in scalars_of(function.body):
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
    sparse: Callable[[Writer, Sparse], None],
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
    writer.shared = _used_twice(function.body)
    writer.block(function.body)
    streams.finish(emitter)
    emitter.do("ret void")
    return emitter.function(f"internal void @{name}({', '.join(parameters)}) #0")
