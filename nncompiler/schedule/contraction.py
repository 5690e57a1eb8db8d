"""Takes a contraction kernel, gives its loop nest: one recipe for every order of the operands.

    y[i,j] = sum_k x[i,k] W[k,j]    ->    Tile m=i n=j k=k
    dx[i,k] = sum_j g[i,j] W[k,j]   ->    W' transposed into the workspace, then the same Tile
    dW[k,j] = sum_i x[i,k] g[i,j]   ->    Tile m=k n=j k=i

Columns (n) run over the lanes and are contiguous in the right operand; rows (m) are broadcast from
the left one. Axes that both operands have are loops around the tile. Where there are no columns the
contraction is a row kernel like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from ir import scalar
from ir.index import Index, Var
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
from ir.types import Dim, Extent, multiply
from nncompiler.codegen.target import Target
from nncompiler.schedule.apply import row_loops, stores
from nncompiler.schedule.heuristics import (
    choose_contract,
    choose_rows,
    fitting_lanes,
    size_of,
    tile_rows,
)

UNROLL = 4
SCATTER_COST = 30.0  # cycles of a vector that is written or read at a distance, see _column_cost


def plan_contraction(kernel: Kernel, target: Target) -> tuple[Kernel, Function]:
    """The scheduled kernel and its loops."""
    roles = _roles(kernel, target)
    if roles is None:
        kernel = replace(kernel, recipe="rows", schedule=choose_rows(kernel, target))
        return kernel, row_loops(kernel)
    m, n, lhs, rhs = roles
    schedule = choose_contract(kernel, m, n, lhs, rhs, target)
    kernel = replace(kernel, schedule=schedule)
    return kernel, _loops(kernel, m, n, lhs, rhs)


def as_product(kernel: Kernel) -> Kernel:
    """Sums over columns are a contraction with a row of ones, which keeps many columns in registers
    and reads whole stretches of a row; other kernels stay as they are.

        b[j] = sum_i g[i,j]    ->    b[0,j] = sum_i 1 * g[i,j]
    """
    if kernel.recipe != "rows" or len(kernel.reductions) != 1:
        return kernel
    (reduction,) = kernel.reductions
    load = reduction.value
    is_plain = load.kind == "load" and not load.guards and not load.args
    if reduction.combine != "sum" or not is_plain or any(w.inner for w in kernel.writes):
        return kernel
    axes = (*kernel.axes, *kernel.reduce_axes)
    if not kernel.reduce_axes or any(load.index.coefficient(v) is None for v in axes):
        return kernel
    lanes_fit = any(
        load.index.coefficient(v) == 1 and isinstance(v.extent, int) for v in kernel.axes
    )
    if not lanes_fit:
        return kernel
    one = scalar.const(1, load.dtype)
    product = replace(reduction, value=scalar.apply("mul", [one, load], load.dtype))
    return replace(kernel, recipe="contract", reductions=(product,))


def _roles(kernel: Kernel, target: Target) -> tuple[Var, Var, Scalar, Scalar] | None:
    """(rows axis, columns axis, left load, right load), or None where there are no columns."""
    (reduction,) = kernel.reductions
    if not kernel.reduce_axes:
        return None
    a, b = reduction.value.args
    if a.kind not in ("load", "const") or b.kind != "load":
        return None
    only_a = [v for v in kernel.axes if _moves(a, v) and not _moves(b, v)]
    only_b = [v for v in kernel.axes if _moves(b, v) and not _moves(a, v)]
    lanes = target.lanes(a.dtype)
    best: tuple[float, Var, Scalar, Scalar, list[Var]] | None = None
    for columns, lhs, rhs, rows in ((only_b, a, b, only_a), (only_a, b, a, only_b)):
        for n in columns:
            if isinstance(n.extent, Extent):
                continue
            cost = _column_cost(n, rhs, kernel, lanes)
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


def _column_cost(n: Var, rhs: Scalar, kernel: Kernel, lanes: int) -> float:
    """Cycles per useful multiplication where `n` runs over the lanes, relative to full lanes: lanes
    that stay empty, results (and what they are computed from) at a distance, a packed operand."""
    extent = max(size_of(n.extent), 1)
    empty = -(-extent // fitting_lanes(n.extent, lanes)) * lanes / extent
    steps, rows = 1, 1
    for v in kernel.reduce_axes:
        steps *= max(size_of(v.extent), 1)
    for v in kernel.axes:
        rows *= 1 if v == n or _moves(rhs, v) else max(size_of(v.extent), 1)
    values = [w.value for w in kernel.writes]
    touched = [w.index for w in kernel.writes]
    touched += [s.index for s in scalar.walk(values) if s.kind == "load"]
    distant = sum(1 for index in touched if index.coefficient(n) not in (0, 1))
    cost = empty * (1 + distant * SCATTER_COST * 2 / steps)
    return cost if rhs.index.coefficient(n) == 1 else cost + 8 / rows


def _loops(kernel: Kernel, m: Var, n: Var, lhs: Scalar, rhs: Scalar) -> Function:
    (reduction,) = kernel.reductions
    lanes = _directive(kernel, Vectorize, n.name).lanes
    width = _directive(kernel, TileBy, n.name).size
    height = _directive(kernel, TileBy, m.name).size
    outer = [v for v in kernel.axes if v not in (m, n)]
    body: list[Stmt] = []
    workspace: tuple[Buffer, ...] = ()
    if Pack("rhs") in kernel.schedule:
        rhs, copy, buffer = _pack(kernel, n, width, rhs, lanes, "packed_rhs")
        body.append(copy)
        workspace += (buffer,)
    if Pack("lhs") in kernel.schedule:
        lhs, copy, buffer = _pack(kernel, m, height, lhs, min(lanes, height), "packed_lhs")
        body.append(copy)
        workspace += (buffer,)
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
    tile = _nest(outer, tile)
    return Function(kernel.label, kernel.buffers, (*body, tile), workspace=workspace)


def _pack(
    kernel: Kernel, axis: Var, block: int, operand: Scalar, lanes: int, name: str
) -> tuple[Scalar, Stmt, Buffer]:
    """A copy of an operand in the order in which tiles read it: (load of it, statement, buffer).

        W[k, j]  ->  packed[j // block][k][j % block]

    `axis` is cut into blocks, which are laid out one after the other where all extents are known.
    """
    others = [v for v in (*kernel.axes, *kernel.reduce_axes) if v != axis and _moves(operand, v)]
    others.sort(key=lambda v: (isinstance(v.extent, int), -(operand.index.coefficient(v) or 0)))
    assert isinstance(axis.extent, int)
    column = Index.of(axis)
    if all(isinstance(v.extent, int) for v in others) and axis.extent > block:
        rows = multiply(v.extent for v in others)
        assert isinstance(rows, int)
        inner, start = block, (column // block) * (rows * block) + column % block
        size: Dim = -(-axis.extent // block) * rows * block
    else:
        inner, start = axis.extent, column
        size = multiply([*(v.extent for v in others), axis.extent])
    index, stride = start, inner
    for v in reversed(others):
        index = index + Index.of(v) * stride
        stride = stride * v.extent if isinstance(v.extent, int) else 0
    buffer = Buffer(name, operand.dtype, size, True)
    packed = scalar.load(name, index, operand.dtype)
    row = next((v for v in reversed(others) if operand.index.coefficient(v) == 1), None)
    copy: Stmt
    if row is not None and isinstance(row.extent, int):
        copy = Transpose(row, axis, name, index, operand, lanes)
        others = [v for v in others if v != row]
    else:
        copy = Store(name, index, operand)
    if block == lanes and isinstance(copy, Store):
        others, copy = [], _nest(others, copy)  # block by block: what is written lies together
    if not isinstance(copy, Transpose):
        copy = For(axis, "vector", lanes, (copy,))
    copy = _nest(others, copy)
    return packed, copy, buffer


def _nest(axes: Sequence[Var], stmt: Stmt) -> Stmt:
    for v in reversed(axes):
        stmt = For(v, "serial", 1, (stmt,))
    return stmt


D = TypeVar("D", Vectorize, TileBy)


def _directive(kernel: Kernel, kind: type[D], axis: str) -> D:
    return next(d for d in kernel.schedule if isinstance(d, kind) and d.axis == axis)
