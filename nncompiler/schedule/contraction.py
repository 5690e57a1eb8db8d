"""Takes a contraction kernel, gives its loop nest: one recipe for every order of the operands.

    y[i,j] = sum_k x[i,k] W[k,j]    ->    Tile m=i n=j k=k
    dx[i,k] = sum_j g[i,j] W[k,j]   ->    W' transposed into the workspace, then the same Tile
    dW[k,j] = sum_i x[i,k] g[i,j]   ->    Tile m=k n=j k=i

Columns (n) run over the lanes and are contiguous in the right operand; rows (m) are broadcast from
the left one. Axes that both operands have are loops around the tile. Where there are no columns the
contraction is a row kernel like any other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from ir import scalar
from ir.index import Index, Var, flatten
from ir.loops import (
    Buffer,
    For,
    Function,
    Kernel,
    Pack,
    Stmt,
    Store,
    Tile,
    TileBy,
    Transpose,
    Vectorize,
)
from ir.scalar import Scalar
from ir.types import Extent, multiply
from nncompiler.codegen.target import Target
from nncompiler.schedule.apply import row_loops, stores
from nncompiler.schedule.heuristics import (
    choose_contract,
    choose_rows,
    size_of,
    tile_rows,
)

UNROLL = 4


def plan_contraction(kernel: Kernel, target: Target) -> tuple[Kernel, Function]:
    """The scheduled kernel and its loops."""
    roles = _roles(kernel)
    if roles is None:
        kernel = replace(kernel, recipe="rows", schedule=choose_rows(kernel, target))
        return kernel, row_loops(kernel)
    m, n, lhs, rhs = roles
    in_order = rhs.index.coefficient(n) == 1
    kernel = replace(kernel, schedule=choose_contract(kernel, m, n, in_order, target))
    return kernel, _loops(kernel, m, n, lhs, rhs)


def _roles(kernel: Kernel) -> tuple[Var, Var, Scalar, Scalar] | None:
    """(rows axis, columns axis, left load, right load), or None where there are no columns."""
    (reduction,) = kernel.reductions
    if not kernel.reduce_axes:
        return None
    a, b = reduction.value.args
    if a.kind != "load" or b.kind != "load":
        return None
    only_a = [v for v in kernel.axes if _moves(a, v) and not _moves(b, v)]
    only_b = [v for v in kernel.axes if _moves(b, v) and not _moves(a, v)]
    stored = kernel.writes[0].index
    best: tuple[float, Var, Scalar, Scalar, list[Var]] | None = None
    for columns, lhs, rhs, rows in ((only_b, a, b, only_a), (only_a, b, a, only_b)):
        for n in columns:
            if isinstance(n.extent, Extent):
                continue
            cost = _column_cost(n, rhs, stored, kernel)
            if best is None or cost < best[0]:
                best = (cost, n, lhs, rhs, rows)
    if best is None:
        return None
    _, n, lhs, rhs, rows = best
    if not rows and rhs.index.coefficient(n) != 1:
        return None  # a matrix times a vector: a dot product per row
    m = max(rows, key=lambda v: size_of(v.extent), default=Var("one", 1))
    return m, n, lhs, rhs


def _moves(load: Scalar, v: Var) -> bool:
    return load.index.coefficient(v) != 0


def _column_cost(n: Var, rhs: Scalar, stored: Index, kernel: Kernel) -> float:
    """How bad it is to let `n` run over the lanes."""
    cost = 0.0 if rhs.index.coefficient(n) == 1 else 1.0
    cost += 0.0 if stored.coefficient(n) == 1 else 4.0
    extent = size_of(n.extent)
    return cost + (2.0 if extent < 8 else 0.0) / max(extent, 1)


def _loops(kernel: Kernel, m: Var, n: Var, lhs: Scalar, rhs: Scalar) -> Function:
    (reduction,) = kernel.reductions
    lanes = _directive(kernel, Vectorize, n.name).lanes
    width = _directive(kernel, TileBy, n.name).size
    height = _directive(kernel, TileBy, m.name).size
    outer = [v for v in kernel.axes if v not in (m, n)]
    body: list[Stmt] = []
    workspace: tuple[Buffer, ...] = ()
    if any(isinstance(d, Pack) for d in kernel.schedule):
        packed, copy, buffer = _pack(kernel, n, rhs, lanes)
        body.append(copy)
        workspace = (buffer,)
        rhs = packed
    epilogue = tuple(stores(kernel.writes))
    tile: Stmt = Tile(
        m,
        n,
        kernel.reduce_axes,
        reduction.name,
        lhs,
        rhs,
        epilogue,
        tile_rows(m.extent, height),
        width // lanes,
        lanes,
        UNROLL,
    )
    for v in reversed(outer):
        tile = For(v, "serial", 1, (tile,))
    return Function(kernel.label, kernel.buffers, (*body, tile), workspace=workspace)


def _pack(kernel: Kernel, n: Var, rhs: Scalar, lanes: int) -> tuple[Scalar, Stmt, Buffer]:
    """A copy of the right operand with the columns contiguous: (load of it, statement, buffer)."""
    others = [v for v in (*kernel.axes, *kernel.reduce_axes) if v != n and _moves(rhs, v)]
    others.sort(key=lambda v: (isinstance(v.extent, int), -(rhs.index.coefficient(v) or 0)))
    order = (*others, n)
    shape = tuple(v.extent for v in order)
    strides = [1]
    for dim in reversed(shape[1:]):
        assert isinstance(dim, int)
        strides.append(strides[-1] * dim)
    index = flatten(tuple(Index.of(v) for v in order), tuple(reversed(strides)))
    buffer = Buffer("packed", rhs.dtype, multiply(shape), True)
    packed = scalar.load("packed", index, rhs.dtype)
    row = next((v for v in reversed(others) if rhs.index.coefficient(v) == 1), None)
    copy: Stmt
    if row is not None:
        copy = Transpose(row=row, column=n, buffer="packed", index=index, value=rhs, lanes=lanes)
        rest = [v for v in others if v != row]
    else:
        copy = For(n, "vector", lanes, (Store("packed", index, rhs),))
        rest = others
    for v in reversed(rest):
        copy = For(v, "serial", 1, (copy,))
    return packed, copy, buffer


D = TypeVar("D", Vectorize, TileBy)


def _directive(kernel: Kernel, kind: type[D], axis: str) -> D:
    return next(d for d in kernel.schedule if isinstance(d, kind) and d.axis == axis)

