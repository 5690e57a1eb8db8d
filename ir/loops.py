"""Takes scalar expressions, gives the bridge (Kernel) and the loop statements that it becomes.

kernel  = Kernel(label, recipe, axes, reduce axes, phases, schedule)
phase   = Reduction(name, combine, value)         over the reduce axes
        | Write(buffer, index, value)             at every point of the axes that the index uses
        | Scatter(buffer, index, row, value)      rows added or stored at a number
        | Sweep(...) | PairSums(...)              see the statements
stmt    = For(var, kind, step, body)              serial | ordered | parallel | vector | ...
        | Let(name, value)                        an immutable value
        | Init(name, value)                       a mutable accumulator
        | Accumulate(name, combine, value)        name = combine(name, value)
        | Store(buffer, index, value)
        | StoreRow(buffer, index, row, stride, value)  buffer[index + row * stride] += value, or =
        | Prefetch(buffer, index)                 asks for what will be read
        | Transpose(buffer, index, row, column, value)   a copy that swaps two axes
        | Tile(m, n, k, acc, lhs, rhs, epilogue)  the micro-kernel of a contraction
        | Sweep(x, extras, weights, tables, ...)  sums along the edges of a graph, node after node
        | PairSums(a, b, ...) PairTotals(...)     sums of products of pairs of columns
function = Function(label, buffers, body, scratch, workspace, splits, whens)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ir.index import Index, Var
from ir.scalar import Scalar
from ir.sparse_loops import PairSums, Sparse, Sweep
from ir.types import Dim, DType

# --------------------------------------------------------------------------- kernels


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory that a kernel touches: `size` elements of `dtype`."""

    name: str
    dtype: DType
    size: Dim
    written: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Reduction:
    """name = combine of value over the reduce axes; combine is sum, prod, max or min."""

    name: str
    combine: str
    value: Scalar


@dataclass(frozen=True, eq=False, slots=True)
class Write:
    """buffer[index] = value at every point of the axes that the index uses.

    `inner` tells whether that is every point of parallel x reduce axes, or of the parallel ones.
    """

    buffer: str
    index: Index
    value: Scalar
    inner: bool


@dataclass(frozen=True, eq=False, slots=True)
class Scatter:
    """buffer[index + row * stride] += value at every point, in order; = where it combines by "set".

    The buffer starts as what `base` holds (which may be itself), or as zeros where there is none.
    """

    buffer: str
    index: Index
    row: Scalar
    stride: int
    value: Scalar
    base: str = ""
    combine: str = "sum"


@dataclass(frozen=True, eq=False)
class Kernel:
    """The unit of fusion, scheduling, caching, profiling and naming.

    recipe "rows":      for every point of `axes`: the reductions in order (each may use the earlier
                        ones), then the writes
    recipe "contract":  one sum of a product of two loads over `reduce_axes`, then writes per point
    recipe "scatter":   rows added or stored at an index, then the writes, for every point
    recipe "sparse":    one statement on the columns of a graph
    `label` says what was fused into it (`dense1_bias_relu`); `nodes` which values it computes;
    `workspace` are temporaries that nothing outside sees.
    """

    label: str
    recipe: str
    axes: tuple[Var, ...]
    reduce_axes: tuple[Var, ...]
    reductions: tuple[Reduction, ...]
    writes: tuple[Write, ...]
    buffers: tuple[Buffer, ...]
    scatter: Scatter | None = None
    schedule: tuple[Directive, ...] = ()
    nodes: tuple[str, ...] = field(default=())
    sparse: Sweep | PairSums | None = None
    workspace: tuple[Buffer, ...] = ()


# --------------------------------------------------------------------------- schedules


@dataclass(frozen=True, slots=True)
class Vectorize:
    """Run `axis` in steps of `lanes` values at once."""

    axis: str
    lanes: int

    def __str__(self) -> str:
        return f"Vectorize({self.axis}, {self.lanes})"


@dataclass(frozen=True, slots=True)
class TileBy:
    """Compute `axis` in register tiles of `size`."""

    axis: str
    size: int

    def __str__(self) -> str:
        return f"Tile({self.axis}, {self.size})"


@dataclass(frozen=True, slots=True)
class Unroll:
    axis: str
    count: int

    def __str__(self) -> str:
        return f"Unroll({self.axis}, {self.count})"


@dataclass(frozen=True, slots=True)
class Parallel:
    """Deal chunks of `axis` out to the threads; the chunk never depends on their number."""

    axis: str
    chunk: int

    def __str__(self) -> str:
        return f"Parallel({self.axis}, {self.chunk})"


@dataclass(frozen=True, slots=True)
class Pack:
    """Copy an operand ("lhs" or "rhs") so that the micro-kernel reads it in order; or let it write
    a block of the "result" in its own order, which is then turned and finished."""

    operand: str

    def __str__(self) -> str:
        return f"Pack({self.operand})"


@dataclass(frozen=True, slots=True)
class Outermost:
    """Run the loop over the tiles of `axis` outside of all others: a block is read many times."""

    axis: str

    def __str__(self) -> str:
        return f"Outermost({self.axis})"


@dataclass(frozen=True, slots=True)
class Partial:
    """Sum one slice of `length` steps of `axis` after the other, with partial sums of the whole
    result in memory: what a slice reads stays in the cache."""

    axis: str
    length: int

    def __str__(self) -> str:
        return f"Partial({self.axis}, {self.length})"


@dataclass(frozen=True, slots=True)
class Dots:
    """While the symbol of `axis` is at most `most`, take dot products along the summed axis instead
    of copying an operand for so few rows."""

    axis: str
    most: int

    def __str__(self) -> str:
        return f"Dots({self.axis}, {self.most})"


Directive = Vectorize | TileBy | Unroll | Parallel | Pack | Outermost | Partial | Dots

# --------------------------------------------------------------------------- loop statements


@dataclass(frozen=True, eq=False, slots=True)
class For:
    """for var in range(0, extent, step); kind vector: `step` values of var at once; shifted vector:
    one vector of them, whose loads are shifted out of whole vectors of the row they lie in;
    ordered: every pass needs the one before it."""

    var: Var
    kind: str
    step: int
    body: tuple[Stmt, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Let:
    name: str
    value: Scalar


@dataclass(frozen=True, eq=False, slots=True)
class Init:
    name: str
    value: Scalar


@dataclass(frozen=True, eq=False, slots=True)
class Accumulate:
    name: str
    combine: str
    value: Scalar


@dataclass(frozen=True, eq=False, slots=True)
class Store:
    buffer: str
    index: Index
    value: Scalar


@dataclass(frozen=True, eq=False, slots=True)
class StoreRow:
    """buffer[index + row * stride] += value, or = value where it combines by "set"; a row outside
    of the buffer is skipped."""

    buffer: str
    index: Index
    row: Scalar
    stride: int
    value: Scalar
    combine: str = "sum"


@dataclass(frozen=True, eq=False, slots=True)
class Prefetch:
    """Asks the memory for buffer[index], which will be read soon; without effect on any value, and
    the place need not exist."""

    buffer: str
    index: Index


@dataclass(frozen=True, eq=False, slots=True)
class Transpose:
    """for row: for column: buffer[index] = value, where value is read in order of `row` and the
    buffer written in order of `column`: done in registers, a square block at a time."""

    row: Var
    column: Var
    buffer: str
    index: Index
    value: Scalar
    lanes: int


@dataclass(frozen=True, eq=False, slots=True)
class Tile:
    """The micro-kernel of a contraction, with the loop nest it stands for:

        for m in 0 .. m.extent (rows at a time):  for n in 0 .. n.extent (columns at a time):
            acc = 0
            for k in the k axes: acc += lhs * rhs
            epilogue

    `rows` lists the heights of the register tiles from tall to flat; the last ones serve what the
    taller leave over. `lanes` * `vectors` columns are computed at a time; of a `dot` tile, whose
    lanes run over the last of the k axes, `vectors` columns are. Where there is a `slice` (s,
    length), the first of the k axes runs over s .. s + length alone, and not beyond its extent.
    Every register tile asks for what stands in `ahead`, with its own first m and n.
    Where there is a `source`, the right operand is a copy of it, which the tiles of the first rows
    make: they read the source and store what they read.
    """

    m: Var
    n: Var
    k: tuple[Var, ...]
    acc: str
    lhs: Scalar
    rhs: Scalar
    epilogue: tuple[Stmt, ...]
    rows: tuple[int, ...]
    vectors: int
    lanes: int
    unroll: int
    dot: bool = False
    slice: tuple[Var, int] | None = None
    ahead: tuple[Prefetch, ...] = ()
    source: Scalar | None = None

    @property
    def columns(self) -> int:
        """How many columns are computed at a time."""
        return self.vectors if self.dot else self.vectors * self.lanes


Stmt = For | Let | Init | Accumulate | Store | StoreRow | Prefetch | Transpose | Tile | Sparse


@dataclass(frozen=True, slots=True)
class Split:
    """How a statement is dealt out to the threads: in chunks, which may run in any order.

    `axes` are loops of the statement, one inside the other, each with the length of a chunk along
    it; chunks are numbered with the last axis fastest. `least`: symbols that must be at least so
    large for it to pay. Neither depends on the number of threads.
    """

    axes: tuple[tuple[Var, int], ...]
    least: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class When:
    """A statement runs only where a symbol is at least `least` and, unless None, at most `most`."""

    symbol: str
    least: int
    most: int | None = None

    def holds(self, symbols: Mapping[str, int]) -> bool:
        value = symbols[self.symbol]
        return value >= self.least and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        limit = "" if self.most is None else f" <= {self.most}"
        return f"{self.least} <= {self.symbol}{limit}"


@dataclass(frozen=True, eq=False, slots=True)
class Function:
    """The loop nest of one kernel. `scratch` are thread-local arrays, on the stack where small;
    `workspace` are temporaries in the arena that nothing outside the kernel sees.

    Where there are `splits`, one for every statement of the body, the statements are stages: each
    is finished before the next one starts, and they share nothing but buffers. A stage without a
    split (None) is run by one thread. Where there are conditions (`whens`), the statements are
    stages too, and those whose condition does not hold are left out.
    """

    label: str
    buffers: tuple[Buffer, ...]
    body: tuple[Stmt, ...]
    scratch: tuple[Buffer, ...] = ()
    workspace: tuple[Buffer, ...] = ()
    splits: tuple[Split | None, ...] = ()
    whens: tuple[When | None, ...] = ()


def statements(body: Iterable[Stmt]) -> Iterator[Stmt]:
    """Every statement, outer ones first."""
    for stmt in body:
        yield stmt
        match stmt:
            case For(body=inner):
                yield from statements(inner)
            case Tile(epilogue=inner, ahead=ahead):
                yield from statements((*ahead, *inner))
