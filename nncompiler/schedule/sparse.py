"""Takes a sparse kernel, gives its statements with lanes over the rows, and their memory.

The rows of a batch run over the lanes: one edge is one multiply-add of a whole vector with a weight
in every lane. The values of all nodes for the rows of one step stay in a workspace that fits the
cache; what it holds is the transpose of what memory holds. Threads share the rows in pieces, each
with a workspace of its own; sums over the rows are sums of pieces first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil

from ir.loops import Buffer, Directive, Function, Kernel, Parallel, Split, Stmt, Vectorize
from ir.op import CHEAP, REGISTRY
from ir.ops import formula
from ir.sparse_loops import PairSums, PairTotals, Sweep
from ir.types import Dim, Extent
from nncompiler.codegen.target import Target
from nncompiler.schedule import split as splitting
from nncompiler.schedule.heuristics import CHEAP_COST, DEAR_COST, size_of

SWEEP_BYTES = 1 << 15  # of the state of a step: most of it stays in the first cache
COPY_BYTES = 1 << 18  # of the transposed columns of one chunk
LEAST_VECTORS, MOST_VECTORS = 3, 16  # of rows in a chunk: every pair sums them up once
STACK_BYTES = 1 << 16  # of what a thread has on its stack


def plan_sparse(kernel: Kernel, target: Target) -> tuple[Kernel, Function]:
    """The scheduled kernel and its statements."""
    stmt = kernel.sparse
    assert stmt is not None
    found = _plan_sweep(stmt, target) if isinstance(stmt, Sweep) else _plan_pairs(stmt, target)
    planned, sizes = found
    split = _split(planned, _cost(kernel, planned))
    dtype = planned.weights.dtype if isinstance(planned, Sweep) else planned.a.dtype
    own = tuple(Buffer(name, dtype, size, True) for name, size in sizes.items())
    schedule: tuple[Directive, ...] = (Vectorize(planned.row.name, planned.lanes),)
    if split is None:
        kernel = replace(kernel, sparse=planned, schedule=schedule)
        return kernel, Function(kernel.label, kernel.buffers, (planned,), workspace=own)
    small = sum(sizes.values()) * dtype.bytes <= STACK_BYTES
    pieces = size_of(planned.piece.extent)
    workspace = () if small else tuple(replace(b, size=size_of(b.size) * pieces) for b in own)
    planned = replace(planned, sliced=not small)
    body: tuple[Stmt, ...] = (planned,)
    if isinstance(planned, PairSums):
        size = size_of(planned.pair.extent) * (pieces - 1)
        workspace += (Buffer("partial", dtype, size, True),)
        planned = replace(planned, partial="partial")
        body = (planned, PairTotals(planned))
    schedule = (*schedule, Parallel(planned.piece.name, 1))
    kernel = replace(kernel, sparse=planned, schedule=schedule)
    splits = (split, *(None for _ in body[1:]))
    scratch = own if small else ()
    return kernel, Function(kernel.label, kernel.buffers, body, scratch, workspace, splits)


def _split(stmt: Sweep | PairSums, cost: float) -> Split | None:
    """Pieces of the rows for the threads; `cost` of one row. None where it does not pay."""
    least = max(stmt.step + 1, ceil(splitting.PAYS / cost))
    extent = stmt.row.extent
    if isinstance(extent, Extent):
        return Split(((stmt.piece, 1),), ((extent.symbol, ceil(least / extent.coefficient)),))
    return Split(((stmt.piece, 1),)) if extent >= least else None


def _cost(kernel: Kernel, stmt: Sweep | PairSums) -> float:
    """What one row costs one core, in cycles."""
    name = stmt.tables[2] if isinstance(stmt, Sweep) else stmt.lefts
    edges = next(size_of(b.size) for b in kernel.buffers if b.name == name)
    if isinstance(stmt, PairSums):
        columns = _columns(stmt.left.extent) + _columns(stmt.right.extent)
        return (1 + 2 * edges + 4 * columns) / stmt.lanes
    ops = [op for text in stmt.formulas for op, _ in formula.instructions(text)]
    costs = [CHEAP_COST if CHEAP in REGISTRY[op].flags else DEAR_COST for op in ops]
    each = 10 + sum(costs) / max(len(stmt.formulas), 1)
    return (1 + 2 * edges + each * _columns(stmt.column.extent)) / stmt.lanes


def _plan_sweep(stmt: Sweep, target: Target) -> tuple[Sweep, Mapping[str, int]]:
    dtype = stmt.weights.dtype
    lanes = target.lanes(dtype)
    slots = _columns(stmt.source.extent) + _columns(stmt.column.extent) + stmt.sums
    fits = slots * 2 * lanes * dtype.bytes <= SWEEP_BYTES
    wide = lanes * (2 if fits else 1)
    nodes = _columns(stmt.column.extent)
    copies = tuple(
        f"x{number}" if extra.index.coefficient(stmt.row) else ""
        for number, extra in enumerate(stmt.extras)
    )
    sorts = any(formula.combine_of(text) == formula.MEDIAN for text in stmt.formulas)
    terms = "terms" if sorts else ""
    planned = replace(
        stmt, lanes=lanes, vectors=wide // lanes, state="state", copies=copies, terms=terms
    )
    sizes = {"state": slots} | {name: nodes for name in copies if name}
    sizes |= {terms: stmt.longest} if sorts else {}
    return planned, {name: size * wide for name, size in sizes.items()}


def _plan_pairs(stmt: PairSums, target: Target) -> tuple[PairSums, Mapping[str, int]]:
    dtype = stmt.a.dtype
    lanes = target.lanes(dtype)
    widths = [_columns(stmt.left.extent), _columns(stmt.right.extent)]
    vectors = COPY_BYTES // max(1, sum(widths) * lanes * dtype.bytes)
    chunk = lanes * max(LEAST_VECTORS, min(vectors, MOST_VECTORS))
    planned = replace(stmt, lanes=lanes, chunk=chunk, copies=("lefts", "rights"))
    return planned, {
        name: max(1, width) * chunk for name, width in zip(planned.copies, widths, strict=True)
    }


def _columns(extent: Dim) -> int:
    assert isinstance(extent, int), "the columns of a graph are known"
    return extent
