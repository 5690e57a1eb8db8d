"""Takes the loops of a kernel, gives them with their splits: what threads share, and how.

    for i in batch: softmax of row i          chunks of 40 rows; pays from a batch of 120 on
    tile i < 1024, j < 1024                   chunks of 64 columns x 48 rows
    whole loss, small kernels                 one thread

Chunks depend on the shapes and on the target alone, so results do not depend on the threads. All
figures are estimated cycles of one core; a symbolic extent counts as TYPICAL_EXTENT.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil, prod

from ir import scalar
from ir.index import Var
from ir.loops import (
    For,
    Function,
    Kernel,
    Parallel,
    Split,
    Stmt,
    Store,
    StoreRow,
    Tile,
    Transpose,
    Vectorize,
    statements,
)
from ir.types import Dim, Extent
from nncompiler.codegen.target import Target
from nncompiler.schedule.heuristics import (
    TYPICAL_EXTENT,
    cost_of,
    row_cost,
    single_row_vectors,
    size_of,
)

PAYS = 6_000  # a stage that is worth dealing out
CHUNK = 600  # a chunk that is worth a ticket
LONG_CHUNK = 100_000  # others wait for no more than that
CHUNKS = 64  # enough to even out the shares
COPY_COST = 4.0  # of a vector that is packed

Axis = tuple[Var, int]  # a loop, and what a chunk of it must be a multiple of


def split_stages(kernel: Kernel, function: Function, target: Target) -> tuple[Kernel, Function]:
    """The function with a split for each of its stages, where any is worth it; the kernel's
    schedule tells the last one."""
    if not all(isinstance(stmt, (For, Tile, Transpose)) for stmt in function.body):
        return kernel, function  # values pass from statement to statement
    found = [
        choose(list(nest_of(stmt, target)), _cost(kernel, stmt, target), _symbols(stmt))
        for stmt in function.body
        if not any(isinstance(s, StoreRow) for s in statements([stmt]))
    ]
    if len(found) < len(function.body) or not any(found):
        return kernel, function
    last = next(s for s in reversed(found) if s)
    parallel = tuple(Parallel(var.name, chunk) for var, chunk in last.axes)
    kernel = replace(kernel, schedule=(*kernel.schedule, *parallel))
    return kernel, replace(function, splits=tuple(found))


def choose(axes: list[Axis], cost: float, symbols: set[str]) -> Split | None:
    """Chunks along one or two axes, outer ones first; None where it does not pay."""
    least = tuple((s, ceil(TYPICAL_EXTENT * PAYS / max(cost, 1))) for s in sorted(symbols))
    if not symbols and cost < PAYS:
        return None
    wanted = min(cost / CHUNK, max(CHUNKS, cost / LONG_CHUNK))
    chosen: list[Axis] = []
    for var, grain in axes:
        symbolic = isinstance(var.extent, Extent)
        units = ceil(size_of(var.extent) / grain)
        if units == 0:
            return None
        if len(chosen) == 2 or (not symbolic and (units < 2 or wanted < 2)):
            continue
        per = max(ceil(units / max(wanted, 1)), ceil(CHUNK * units / max(cost, 1)))
        chosen.append((var, per * grain))
        count = ceil(units / per)
        cost /= count
        # a batch may be 1: then its only row is dealt out too
        wanted = min(cost / CHUNK / 4, CHUNKS) if symbolic else wanted / count
    known = [ceil(v.extent / chunk) for v, chunk in chosen if isinstance(v.extent, int)]
    if not chosen or (len(known) == len(chosen) and prod(known) < 2):
        return None
    return Split(tuple(chosen), least)


def nest_of(stmt: Stmt, target: Target) -> Iterator[Axis]:
    """Loops of a stage whose passes may run in any order, each the only statement of the last."""
    match stmt:
        case For(kind="ordered", body=(only,)):
            yield from nest_of(only, target)
        case For(var=var, kind="serial" | "parallel" | "vector", step=step, body=body):
            yield var, step
            if len(body) == 1:
                yield from nest_of(body[0], target)
        case Tile(m=m, n=n, rows=rows, lanes=lanes) if stmt.source is None:
            yield (
                n,
                stmt.columns if stmt.dot else single_row_vectors(stmt, target.registers) * lanes,
            )
            if _fills(rows, m.extent):
                yield m, rows[0]
        case Transpose(row=row, column=column, lanes=lanes):
            yield column, lanes
            yield row, lanes


def _fills(rows: tuple[int, ...], extent: Dim) -> bool:
    """Whether the tiles serve any part of the rows that begins at a multiple of the tallest one."""
    left = extent % rows[0] if isinstance(extent, int) else rows[0] - 1
    for height in rows[1:]:
        left %= height
    return left == 0


def _symbols(stmt: Stmt) -> set[str]:
    found: set[str] = set()
    for s in statements([stmt]):
        match s:
            case For(var=var):
                axes: tuple[Var, ...] = (var,)
            case Tile(m=m, n=n, k=k):
                axes = (m, n, *k)
            case Transpose(row=row, column=column):
                axes = (row, column)
            case _:
                axes = ()
        found |= {v.extent.symbol for v in axes if isinstance(v.extent, Extent)}
    return found


def _cost(kernel: Kernel, stmt: Stmt, target: Target) -> float:
    """What a stage costs one core."""
    inner = list(statements([stmt]))
    tile = next((s for s in inner if isinstance(s, Tile)), None)
    if tile is not None:
        points = _points(kernel.axes) / tile.lanes
        epilogue = [e.value for e in tile.epilogue if isinstance(e, Store)]
        work = 1 + sum(cost_of(x) for x in scalar.walk(epilogue))
        return points * (_points(kernel.reduce_axes) / 2 + work)
    if kernel.recipe == "contract":  # a copy of an operand
        loops = [s.var for s in inner if isinstance(s, For)]
        loops += [v for s in inner if isinstance(s, Transpose) for v in (s.row, s.column)]
        return COPY_COST * _points(tuple(loops)) / target.lanes(kernel.buffers[0].dtype)
    return cost_of_rows(kernel)


def cost_of_rows(kernel: Kernel) -> float:
    """What a whole row kernel costs one core."""
    directives = [d for d in kernel.schedule if isinstance(d, Vectorize)]
    every = (*kernel.axes, *kernel.reduce_axes)
    for d in directives:
        axis = next((v for v in every if v.name == d.axis), None)
        if axis is not None:
            return row_cost(kernel, axis, d.lanes)
    return 0.0


def _points(axes: tuple[Var, ...]) -> float:
    return float(prod(max(size_of(v.extent), 1) for v in axes))
