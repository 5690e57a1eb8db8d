"""Takes a contraction whose operands lie in the order of a summed axis, gives dot products.

    dW[f,i] = sum_{n,h,w} g[n,f,h,w] x[n,h,w+i]    lanes over w, a register for every (f, i)

The recipe for few rows and columns: lanes over those would stay empty. Sums go to memory first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ir import scalar
from ir.index import Index, Var
from ir.loops import Buffer, For, Function, Kernel, Stmt, Store, Tile, TileBy, Unroll, Vectorize
from ir.scalar import Scalar
from nncompiler.codegen.target import Target
from nncompiler.schedule.heuristics import fitting_lanes, size_of, tile_rows
from nncompiler.schedule.results import results, row_major, sum_of

WIDEST = 6  # columns of a tile
ONE = Var("one", 1)


@dataclass(frozen=True)
class Dot:
    """Rows and columns of the tiles, the operands that they move, and what it costs: cycles per
    useful multiplication, relative to full lanes."""

    m: Var
    n: Var
    lhs: Scalar
    rhs: Scalar
    height: int
    width: int
    lanes: int
    cost: float


def find_dot(kernel: Kernel, target: Target) -> Dot | None:
    """The dot products that a contraction may be computed by; None where lanes would not be
    neighbours, or something else than the summed axes is symbolic."""
    (reduction,) = kernel.reductions
    a, b = reduction.value.args
    last = kernel.reduce_axes[-1]
    extents = [v.extent for v in (*kernel.axes, last)]
    if 0 in extents or not all(isinstance(e, int) for e in extents):
        return None
    assert isinstance(last.extent, int)
    if any(x.kind != "load" or x.index.coefficient(last) != 1 for x in (a, b)):
        return None
    only_a = [v for v in kernel.axes if _moves(a, v) and not _moves(b, v)]
    only_b = [v for v in kernel.axes if _moves(b, v) and not _moves(a, v)]
    if len(only_a) > len(only_b):
        a, b, only_a, only_b = b, a, only_b, only_a
    if not only_b:
        return None
    m = max(only_a, key=lambda v: size_of(v.extent), default=ONE)
    n = max(only_b, key=lambda v: (min(size_of(v.extent), WIDEST), -abs(_step(b.index, v))))
    columns = size_of(n.extent)
    width = math.ceil(columns / math.ceil(columns / WIDEST))
    height = max(1, min((target.registers - 2 - width) // width, size_of(m.extent)))
    height = tile_rows(m.extent, height)[0]
    full = target.lanes(a.dtype)
    lanes = fitting_lanes(last.extent, full)
    empty = math.ceil(last.extent / lanes) * full / last.extent
    steps = math.prod(max(size_of(v.extent), 1) for v in kernel.reduce_axes)
    loads = (height + 1.5 * width) / (height * width)
    cost = empty * max(1.1, loads) + 24 * full / steps
    return Dot(m, n, a, b, height, width, lanes, cost)


def _moves(load: Scalar, v: Var) -> bool:
    return load.index.coefficient(v) != 0


def _step(index: Index, v: Var) -> int:
    return index.coefficient(v) or 0


def plan_dot(kernel: Kernel, dot: Dot, target: Target) -> tuple[Kernel, Function]:
    """The scheduled kernel and its loops: sums of all points, then the results of all points."""
    outer = [v for v in kernel.axes if v not in (dot.m, dot.n)]
    index, size = row_major((*outer, dot.m, dot.n))
    acc = sum_of(kernel)
    body: Stmt = Tile(
        dot.m,
        dot.n,
        kernel.reduce_axes,
        acc.name,
        dot.lhs,
        dot.rhs,
        (Store("sums", index, acc),),
        tile_rows(dot.m.extent, dot.height),
        dot.width,
        dot.lanes,
        2,
        dot=True,
    )
    for v in reversed(outer):
        body = For(v, "serial", 1, (body,))
    total = scalar.load("sums", index, acc.dtype)
    finish = results(kernel, kernel.writes, kernel.axes, total, target)
    sums = Buffer("sums", acc.dtype, size, True)
    schedule = (
        Vectorize(kernel.reduce_axes[-1].name, dot.lanes),
        TileBy(dot.n.name, dot.width),
        TileBy(dot.m.name, dot.height),
        Unroll("k", 2),
    )
    function = Function(
        kernel.label, kernel.buffers, (body, *finish.body), finish.scratch, workspace=(sums,)
    )
    return replace(kernel, schedule=schedule), function
