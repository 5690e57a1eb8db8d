"""Takes what is computed along edges and buffers, runs it by the NumPy reference of its op."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ir.graph import Literal
from ir.index import Var
from ir.op import REGISTRY
from ir.scalar import Scalar
from ir.sparse_loops import PairSums, PairTotals, Sparse, Sweep, rows_of_piece
from ir.types import bind_dim, i32

Array = np.ndarray[Any, Any]


def run_sparse(
    stmt: Sparse,
    arrays: Mapping[str, Array],
    symbols: Mapping[str, int],
    ranges: Mapping[str, tuple[int, int]],
) -> None:
    """Write the statement's outputs; `ranges` may have the pieces of the rows that are run."""
    if isinstance(stmt, PairTotals):
        _totals(stmt.sums, arrays, symbols)
        return
    batch = bind_dim(stmt.row.extent, symbols)
    start, stop = ranges.get(stmt.piece.name, (0, bind_dim(stmt.piece.extent, symbols)))
    length = rows_of_piece(stmt, batch)
    for piece in range(start, stop):
        rows = slice(piece * length, min(piece * length + length, batch))
        if isinstance(stmt, Sweep):
            result = _sweep(stmt, arrays, symbols, rows)
            first = rows.start * stmt.kept
            for name in stmt.outputs:
                arrays[name][first : first + result.size] = result.reshape(-1)
        else:
            _write_pairs(stmt, _pairs(stmt, arrays, symbols, rows), arrays, piece)


def _write_pairs(stmt: PairSums, result: Array, arrays: Mapping[str, Array], piece: int) -> None:
    if not stmt.partial:  # nothing adds the pieces up later
        for name in stmt.outputs:
            arrays[name][: result.size] = result + (arrays[name][: result.size] if piece else 0)
    elif piece == 0:
        for name in stmt.outputs:
            arrays[name][: result.size] = result
    else:
        first = (piece - 1) * result.size
        arrays[stmt.partial][first : first + result.size] = result


def _totals(stmt: PairSums, arrays: Mapping[str, Array], symbols: Mapping[str, int]) -> None:
    batch, size = (bind_dim(v.extent, symbols) for v in (stmt.row, stmt.pair))
    length = rows_of_piece(stmt, batch)
    for piece in range(1, -(-batch // length) if length else 0):
        part = arrays[stmt.partial][(piece - 1) * size : piece * size]
        for name in stmt.outputs:
            arrays[name][:size] += part


def _sweep(
    stmt: Sweep, arrays: Mapping[str, Array], symbols: Mapping[str, int], rows: slice
) -> Array:
    def read(load: Scalar, *axes: Var) -> Array:
        found = _read(load, axes, arrays, symbols)
        return found[rows] if axes[0] is stmt.row else found

    values = [read(stmt.weights, stmt.edge)]
    if stmt.x is not None:
        values.append(read(stmt.x, stmt.row, stmt.source))
    values += [read(e, stmt.row, stmt.column) for e in stmt.extras]
    runs, nodes, slots, kept, _, *given = (arrays[name] for name in stmt.tables)
    numbers = given[0] if given else np.arange(slots.size)
    sources = stmt.source.extent if stmt.x is not None else 0
    return REGISTRY["sweep"].evaluate(
        *values,
        runs=Literal.of(runs.reshape(-1, 2), i32),
        rows=Literal.of(nodes.reshape(-1, 3), i32),
        edges=Literal.of(np.stack([slots, numbers], 1), i32),
        formulas=stmt.formulas,
        sources=sources,
        kept=Literal.of(kept, i32),
    )


def _pairs(
    stmt: PairSums, arrays: Mapping[str, Array], symbols: Mapping[str, int], rows: slice
) -> Array:
    a = _read(stmt.a, (stmt.row, stmt.left), arrays, symbols)[rows]
    b = _read(stmt.b, (stmt.row, stmt.right), arrays, symbols)[rows]
    left, right = (Literal.of(arrays[name], i32) for name in (stmt.lefts, stmt.rights))
    return REGISTRY["pair_sums"].evaluate(a, b, left=left, right=right)


def _read(
    load: Scalar, axes: tuple[Var, ...], arrays: Mapping[str, Array], symbols: Mapping[str, int]
) -> Array:
    """All values of a load over the axes."""
    shape = tuple(bind_dim(v.extent, symbols) for v in axes)
    places: Any = dict(zip((v.name for v in axes), np.indices(shape, sparse=True), strict=True))
    offsets = np.broadcast_to(np.asarray(load.index.evaluate(places)), shape)
    return np.asarray(arrays[load.name][offsets])
