"""Takes a sparse kernel, gives its statement with lanes over the rows, and the workspaces.

The rows of a batch run over the lanes: one edge is one multiply-add of a whole vector with a weight
in every lane. The values of all nodes for the rows of one step stay in a workspace that fits the
cache; what it holds is the transpose of what memory holds.
"""

from __future__ import annotations

from dataclasses import replace

from ir.loops import Buffer, Function, Kernel, PairSums, Sweep, Vectorize
from nncompiler.codegen.target import Target

SWEEP_BYTES = 1 << 15  # of the state of a step: most of it stays in the first cache
COPY_BYTES = 1 << 18  # of the transposed columns of one chunk
MOST_VECTORS = 16


def plan_sparse(kernel: Kernel, target: Target) -> tuple[Kernel, Function]:
    """The scheduled kernel and its only statement."""
    stmt = kernel.sparse
    if isinstance(stmt, Sweep):
        planned, workspace = _plan_sweep(stmt, target)
    else:
        assert stmt is not None
        planned, workspace = _plan_pairs(stmt, target)
    schedule = (Vectorize(planned.row.name, planned.lanes),)
    kernel = replace(kernel, sparse=planned, schedule=schedule)
    return kernel, Function(kernel.label, kernel.buffers, (planned,), workspace=workspace)


def _plan_sweep(stmt: Sweep, target: Target) -> tuple[Sweep | PairSums, tuple[Buffer, ...]]:
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
    planned = replace(stmt, lanes=lanes, vectors=wide // lanes, state="state", copies=copies)
    sizes = {"state": slots} | {name: nodes for name in copies if name}
    return planned, tuple(Buffer(n, dtype, size * wide, True) for n, size in sizes.items())


def _plan_pairs(stmt: PairSums, target: Target) -> tuple[Sweep | PairSums, tuple[Buffer, ...]]:
    dtype = stmt.a.dtype
    lanes = target.lanes(dtype)
    widths = [_columns(stmt.left.extent), _columns(stmt.right.extent)]
    vectors = COPY_BYTES // max(1, sum(widths) * lanes * dtype.bytes)
    chunk = lanes * max(1, min(vectors, MOST_VECTORS))
    planned = replace(stmt, lanes=lanes, chunk=chunk, copies=("lefts", "rights"))
    return planned, tuple(
        Buffer(name, dtype, max(1, width) * chunk, True)
        for name, width in zip(planned.copies, widths, strict=True)
    )


def _columns(extent: object) -> int:
    assert isinstance(extent, int), "the columns of a graph are known"
    return extent
