"""Takes a contraction whose operands lie in the order of a summed axis, gives dot products.

    dW[f,i] = sum_{n,h,w} g[n,f,h,w] x[n,h,w+i]    lanes over w, a register for every (f, i)

The recipe for few rows and columns: lanes over those would stay empty, or an operand copied for
little. Sums go to memory first where columns are no neighbours in the results.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ir import scalar
from ir.index import Index, Var
from ir.loops import (
    Buffer,
    Dots,
    For,
    Function,
    Kernel,
    Stmt,
    Store,
    Tile,
    TileBy,
    Unroll,
    Vectorize,
    When,
)
from ir.scalar import Scalar
from ir.types import Extent
from nncompiler.codegen.target import Target
from nncompiler.schedule.apply import stores
from nncompiler.schedule.heuristics import cost_of, fitting_lanes, size_of, tile_rows
from nncompiler.schedule.pack import moves
from nncompiler.schedule.results import results, row_major, sum_of

WIDEST = 6  # columns of a tile
WIDTH = 4  # of a tile where there are more columns: their sums fill a vector
LEAST_FEW = 4  # rows for which code of their own is worth compiling
MOST_FEW = 24  # rows of a symbolic extent, for which an operand is not copied
SUM_COST = 2  # cycles of a sum over the lanes, beside as many others as fill a vector
DEAR_EPILOGUE = 32  # instructions of an epilogue that is better done on whole vectors
ONE = Var("one", 1)


@dataclass(frozen=True)
class Dot:
    """Rows and columns of the tiles, the operands that they move, and what it costs: cycles per
    useful multiplication, relative to full lanes. `is_direct`: a tile writes the results itself."""

    m: Var
    n: Var
    lhs: Scalar
    rhs: Scalar
    height: int
    width: int
    lanes: int
    cost: float
    is_direct: bool


def find_dot(kernel: Kernel, target: Target) -> Dot | None:
    """The dot products that a contraction may be computed by; None where lanes would not be
    neighbours, or where the results are neither neighbours nor of a known number."""
    (reduction,) = kernel.reductions
    a, b = reduction.value.args
    last = kernel.reduce_axes[-1]
    extents = [v.extent for v in (*kernel.axes, last)]
    if 0 in extents or not isinstance(last.extent, int):
        return None
    if any(x.kind != "load" or x.index.coefficient(last) != 1 for x in (a, b)):
        return None
    only_a = [v for v in kernel.axes if moves(a, v) and not moves(b, v)]
    only_b = [v for v in kernel.axes if moves(b, v) and not moves(a, v)]
    if _prefer_columns(kernel, only_a, only_b):
        a, b, only_a, only_b = b, a, only_b, only_a
    if not only_b:
        return None
    m = max(only_a, key=lambda v: size_of(v.extent), default=ONE)
    n = max(only_b, key=lambda v: (min(size_of(v.extent), WIDEST), -abs(_step(b.index, v))))
    if isinstance(n.extent, Extent):
        return None
    width = n.extent if n.extent <= WIDEST else WIDTH
    height = max(1, min((target.registers - 2 - width) // width, size_of(m.extent)))
    height = min(height, WIDTH) if isinstance(m.extent, Extent) else tile_rows(m.extent, height)[0]
    full = target.lanes(a.dtype)
    lanes = fitting_lanes(last.extent, full)
    empty = math.ceil(last.extent / lanes) * full / last.extent
    steps = math.prod(max(size_of(v.extent), 1) for v in kernel.reduce_axes)
    loads = (height + 1.5 * width) / (height * width)
    is_static = all(isinstance(v.extent, int) for v in kernel.axes)
    is_direct = _is_direct(kernel, n)
    if is_static and is_direct:
        values = scalar.walk(w.value for w in kernel.writes)
        is_direct = sum(map(cost_of, values)) < DEAR_EPILOGUE
    if not is_static and not is_direct:
        return None
    cost = empty * max(1.1, loads) + (SUM_COST + (0 if is_direct else 4)) * full / steps
    return Dot(m, n, a, b, height, width, lanes, cost, is_direct)


def _prefer_columns(kernel: Kernel, here: list[Var], there: list[Var]) -> bool:
    """Whether the columns are better found `here`: where they are neighbours in the results, else
    where there are more axes."""
    found = [
        any(isinstance(v.extent, int) and _is_direct(kernel, v) for v in axes)
        for axes in (here, there)
    ]
    return found[0] if found[0] != found[1] else len(here) > len(there)


def _is_direct(kernel: Kernel, n: Var) -> bool:
    return all(w.index.coefficient(n) == 1 for w in kernel.writes)


def _step(index: Index, v: Var) -> int:
    return index.coefficient(v) or 0


def most_rows(dot: Dot, copy_cost: float) -> int:
    """For how many rows dot products beat the copy of an operand, which costs `copy_cost` rows."""
    return min(MOST_FEW, int(copy_cost / (dot.cost - 1)))


def dot_loops(kernel: Kernel, dot: Dot, epilogue: tuple[Stmt, ...], most: int = MOST_FEW) -> Stmt:
    """The dot products of all points (of up to `most` rows), with what is done with each sum."""
    heights = tile_rows(dot.m.extent, dot.height)
    if isinstance(dot.m.extent, Extent):
        tallest = min(dot.height, most)
        heights = tuple(1 << i for i in reversed(range(tallest.bit_length())))
    name = sum_of(kernel).name
    axes = kernel.reduce_axes
    body: Stmt = Tile(
        dot.m, dot.n, axes, name, dot.lhs, dot.rhs, epilogue, heights, dot.width, dot.lanes, 2, True
    )
    for v in reversed([v for v in kernel.axes if v not in (dot.m, dot.n)]):
        body = For(v, "serial", 1, (body,))
    return body


def plan_dot(kernel: Kernel, dot: Dot, target: Target) -> tuple[Kernel, Function]:
    """The scheduled kernel and its loops: the results of a tile at once, or sums of all points
    and then the results of all points."""
    schedule = (
        Vectorize(kernel.reduce_axes[-1].name, dot.lanes),
        TileBy(dot.n.name, dot.width),
        TileBy(dot.m.name, dot.height),
        Unroll("k", 2),
    )
    kernel = replace(kernel, schedule=schedule)
    if dot.is_direct:
        body = dot_loops(kernel, dot, tuple(stores(kernel.writes)))
        return kernel, Function(kernel.label, kernel.buffers, (body,))
    outer = [v for v in kernel.axes if v not in (dot.m, dot.n)]
    index, size = row_major((*outer, dot.m, dot.n))
    acc = sum_of(kernel)
    body = dot_loops(kernel, dot, (Store("sums", index, acc),))
    total = scalar.load("sums", index, acc.dtype)
    finish = results(kernel, kernel.writes, kernel.axes, total, target)
    sums = Buffer("sums", acc.dtype, size, True)
    parts = (body, *finish.body)
    return kernel, Function(kernel.label, kernel.buffers, parts, finish.scratch, (sums,))


def few_rows(kernel: Kernel, function: Function, dot: Dot, most: int) -> tuple[Kernel, Function]:
    """Dot products for up to `most` rows, the given loops for more."""
    if not isinstance(dot.m.extent, Extent):
        return kernel, function
    symbol, rows = dot.m.extent.symbol, dot.m.extent.coefficient
    limit = most // rows
    if limit < LEAST_FEW:
        return kernel, function
    few = dot_loops(kernel, dot, tuple(stores(kernel.writes)), limit * rows)
    whens = (When(symbol, 0, limit), *[When(symbol, limit + 1)] * len(function.body))
    kernel = replace(kernel, schedule=(*kernel.schedule, Dots(dot.m.name, limit)))
    return kernel, replace(function, body=(few, *function.body), whens=whens)
