"""Takes a function, gives which of its buffers stream through the caches, and the instructions that
make streams quick.

What a loop with much arithmetic reads from beyond the second cache is asked for a page ahead: the
hardware foresees a stream, but only up to the end of its page. What takes most of the last cache
and is only written goes past the caches: lines that are written whole need not be read first.
"""

from __future__ import annotations

from collections.abc import Iterable

from ir import scalar
from ir.dependence import scalars
from ir.index import Index, Var
from ir.loops import Buffer, For, Function, Stmt, Store, StoreRow, statements
from ir.scalar import Scalar
from nncompiler.codegen.emit import Emitter
from nncompiler.codegen.target import LINE, Target
from nncompiler.codegen.values import Value
from nncompiler.schedule.heuristics import DEAR_COST, cost_of, size_of

AHEAD = 4096  # bytes; about a page
NARROW = 128  # bits; vectors as short as that would ask for every line too often


class Streams:
    """The streams of a function, and where its code now stands.

    read, written   names of the buffers that are large enough
    lane, busy      the variable of the innermost loop while it runs over whole vectors, and whether
                    so much is computed there that asking for lines costs nothing
    """

    def __init__(self, function: Function, target: Target) -> None:
        body = list(statements(function.body))
        buffers = (*function.buffers, *function.workspace)  # scratch is a thread's own
        loaded = {s.name for s in _values(body) if s.kind == "load"}
        stored = {s.buffer for s in body if isinstance(s, Store)}
        added = {s.buffer for s in body if isinstance(s, StoreRow)}
        self.read: set[str] = set()
        if target.vector_bits > NARROW:
            self.read = {b.name for b in buffers if b.name in loaded and _bytes(b) > target.l2}
        self.written = {
            b.name
            for b in buffers
            if b.name in stored - loaded - added
            and isinstance(b.size, int)
            and 3 * _bytes(b) > 2 * target.l3
            and _bytes(b) % LINE == 0  # as of a slice of something larger
            and b.dtype.kind != "bool"
        }
        self.lane: Var | None = None
        self.busy = False

    def enter(self, loop: For) -> None:
        """A loop over whole vectors begins."""
        if not any(isinstance(s, For) for s in loop.body):
            self.lane = loop.var
            self.busy = sum(map(cost_of, _values(loop.body))) >= DEAR_COST

    def leave(self) -> None:
        self.lane = None

    def before_load(self, e: Emitter, name: str, index: Index, pointer: str) -> None:
        """Ask for what the loop will read."""
        if self.lane is None or not self.busy or name not in self.read:
            return
        if index.coefficient(self.lane) == 1:
            read_ahead(e, pointer)

    def store(self, e: Emitter, value: Value, name: str, index: Index, pointer: str) -> None:
        """Store one vector, past the caches where its place in memory is a whole line's."""
        lane = self.lane if name in self.written else None
        if lane is None or not _is_whole(index, lane, value.lanes):
            e.store(value, pointer)
            return
        size = value.lanes * value.dtype.bytes
        e.do(f"store {value.typed}, ptr {pointer}, align {size}, !nontemporal !0")

    def finish(self, e: Emitter) -> None:
        """At the end other threads, and the caller, shall see what went past the caches."""
        if self.written:
            e.do("fence seq_cst")


def read_ahead(e: Emitter, pointer: str, pages: int = 1) -> None:
    """Ask for the line so many pages later; it need not exist. Where little is computed with a
    line, more of them are read before it comes."""
    fetch(e, e.op(f"getelementptr i8, ptr {pointer}, i64 {pages * AHEAD}"))


def fetch(e: Emitter, pointer: str) -> None:
    """Ask for the line of a pointer, into the first cache: what is thrown out there before it is
    read waits in the second one."""
    e.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
    e.do(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 3, i32 1)")


def _values(body: Iterable[Stmt]) -> list[Scalar]:
    return list(scalar.walk(value for stmt in body for value in scalars(stmt)))


def _bytes(buffer: Buffer) -> int:
    return size_of(buffer.size) * buffer.dtype.bytes


def _is_whole(index: Index, lane: Var, lanes: int) -> bool:
    """Whether vectors that start at multiples of `lanes` along `lane` do so in memory, too."""
    return index.constant % lanes == 0 and all(
        coefficient == 1 if atom == lane else coefficient % lanes == 0
        for atom, coefficient in index.terms
    )
