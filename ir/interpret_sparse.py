"""Takes a Sweep or PairSums and buffers, runs it by the NumPy reference of the op it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ir.graph import Literal
from ir.index import Var
from ir.loops import PairSums, Sweep
from ir.op import REGISTRY
from ir.scalar import Scalar
from ir.types import bind_dim, i32

Array = np.ndarray[Any, Any]


def run_sparse(
    stmt: Sweep | PairSums, arrays: Mapping[str, Array], symbols: Mapping[str, int]
) -> None:
    """Write the statement's outputs."""
    result = _pairs(stmt, arrays, symbols) if isinstance(stmt, PairSums) else None
    if isinstance(stmt, Sweep):
        result = _sweep(stmt, arrays, symbols)
    assert result is not None
    for name in stmt.outputs:
        arrays[name][: result.size] = result.reshape(-1)


def _sweep(stmt: Sweep, arrays: Mapping[str, Array], symbols: Mapping[str, int]) -> Array:
    def read(load: Scalar, *axes: Var) -> Array:
        return _read(load, axes, arrays, symbols)

    values = [read(stmt.weights, stmt.edge)]
    if stmt.x is not None:
        values.append(read(stmt.x, stmt.row, stmt.source))
    values += [read(e, stmt.row, stmt.column) for e in stmt.extras]
    runs, rows, slots, kept, *given = (arrays[name] for name in stmt.tables)
    numbers = given[0] if given else np.arange(slots.size)
    sources = stmt.source.extent if stmt.x is not None else 0
    return REGISTRY["sweep"].evaluate(
        *values,
        runs=Literal.of(runs.reshape(-1, 2), i32),
        rows=Literal.of(rows.reshape(-1, 3), i32),
        edges=Literal.of(np.stack([slots, numbers], 1), i32),
        formulas=stmt.formulas,
        sources=sources,
        kept=Literal.of(kept, i32),
    )


def _pairs(stmt: PairSums, arrays: Mapping[str, Array], symbols: Mapping[str, int]) -> Array:
    a = _read(stmt.a, (stmt.row, stmt.left), arrays, symbols)
    b = _read(stmt.b, (stmt.row, stmt.right), arrays, symbols)
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
