"""Takes a contraction kernel whose operands are read as they lie, gives its loop nest: one recipe
for every order of the operands.

    y[i,j] = sum_k x[i,k] W[k,j]    ->    Tile m=i n=j k=k
    dx[i,k] = sum_j g[i,j] W[k,j]   ->    W' transposed into the workspace, then the same Tile
    dW[k,j] = sum_i x[i,k] g[i,j]   ->    Tile m=k n=j k=i

Columns (n) run over the lanes and are contiguous in the right operand; rows (m) are broadcast from
the left one. Axes that both operands have are loops around the tile. Where there are no columns the
contraction is a row kernel like any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from ir import scalar
from ir.index import Guard, Index, Var
from ir.loops import (
    Buffer,
    For,
    Function,
    Kernel,
    Outermost,
    Pack,
    Partial,
    Stmt,
    Store,
    Tile,
    TileBy,
    Transpose,
    Unroll,
    Vectorize,
)
from ir.places import places
from ir.scalar import Scalar
from ir.types import Extent
from nncompiler.codegen.target import Target
from nncompiler.schedule.apply import row_loops, stores
from nncompiler.schedule.dot import few_rows, find_dot, most_rows, plan_dot
from nncompiler.schedule.heuristics import (
    block_of_columns,
    choose_contract,
    choose_rows,
    fitting_lanes,
    near_axes,
    size_of,
    tile_rows,
)
from nncompiler.schedule.images import plan_columns
from nncompiler.schedule.pack import moves, nest, nest_all, pack
from nncompiler.schedule.results import results, row_major, sum_of

SCATTER_COST = 30.0  # cycles of a vector that is written or read at a distance
COPY_ROWS = 4.0  # a packed operand costs as much as so many rows of the product
LONG_ROWS = 8  # fill tiles well enough
TURN_COST = 8.0  # the same where a block of the result is turned before it is written


def plan_product(kernel: Kernel, target: Target) -> tuple[Kernel, Function]:
    """The scheduled kernel and its loops."""
    roles = find_roles(kernel, target)
    if roles is None:
        kernel = replace(kernel, recipe="rows", schedule=choose_rows(kernel, target))
        return kernel, row_loops(kernel)
    m, n, lhs, rhs, cost = roles
    dot = find_dot(kernel, target)
    if dot is not None and dot.cost < cost:
        return plan_dot(kernel, dot, target)
    width = block_of_columns(kernel, n, rhs, target)
    if width:
        number = kernel.reductions[0].value.args.index(rhs)
        found = plan_columns(kernel, number, n, width, plan=plan_product, target=target)
        if found is not None:
            return found
    schedule = choose_contract(kernel, m, n, lhs, rhs, target)
    kernel = replace(kernel, schedule=schedule)
    function = _Loops(kernel, m, n, lhs, rhs, target).function()
    if dot is None or not _is_copied_for_rows(rhs, m, n):
        return kernel, function
    return few_rows(kernel, function, dot, most_rows(dot, COPY_ROWS))


def _is_copied_for_rows(rhs: Scalar, m: Var, n: Var) -> bool:
    """Whether the right operand is copied in every call, for a number of rows not known before."""
    return isinstance(m.extent, Extent) and rhs.index.coefficient(n) != 1


def as_product(kernel: Kernel) -> Kernel:
    """Sums over columns are a contraction with a row of ones, which keeps many columns in registers
    and reads whole stretches of a row; other kernels stay as they are.

        b[j] = sum_i g[i,j]    ->    b[0,j] = sum_i 1 * g[i,j]
    """
    if kernel.recipe != "rows" or len(kernel.reductions) != 1:
        return kernel
    (reduction,) = kernel.reductions
    load = reduction.value
    is_plain = load.kind == "load" and not load.args and (not load.guards or _is_staged(load))
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


def _is_staged(load: Scalar) -> bool:
    """Is it read through overlapping windows, whose border of zeros a copy would hold?"""
    found = places(load)
    return load.fill == 0 and found is not None and any(p.is_window for p in found)


def find_roles(kernel: Kernel, target: Target) -> tuple[Var, Var, Scalar, Scalar, float] | None:
    """(rows axis, columns axis, left load, right load, cost); None where there are no columns."""
    (reduction,) = kernel.reductions
    if not kernel.reduce_axes:
        return None
    a, b = reduction.value.args
    if a.kind not in ("load", "const") or b.kind != "load":
        return None
    only_a = [v for v in kernel.axes if moves(a, v) and not moves(b, v)]
    only_b = [v for v in kernel.axes if moves(b, v) and not moves(a, v)]
    lanes = target.lanes(a.dtype)
    names = {b.name for b in kernel.buffers}
    best: tuple[float, Var, Scalar, Scalar, list[Var]] | None = None
    for columns, lhs, rhs, rows in ((only_b, a, b, only_a), (only_a, b, a, only_b)):
        for n in columns:
            is_copied_again = rhs.name not in names and rhs.index.coefficient(n) != 1
            if isinstance(n.extent, Extent) or is_copied_again:
                continue
            cost = _column_cost(n, rhs, kernel, lanes)
            if best is None or cost < best[0]:
                best = (cost, n, lhs, rhs, rows)
    if best is None:
        return None
    cost, n, lhs, rhs, rows = best
    if not rows and rhs.index.coefficient(n) != 1:
        return None  # a matrix times a vector: a dot product per row
    near = near_axes(kernel, n, size_of(n.extent))
    m = max(rows, key=lambda v: _as_rows(v, lhs, v in near), default=Var("one", 1))
    return m, n, lhs, rhs, cost


def _as_rows(v: Var, lhs: Scalar, is_near: bool) -> tuple[bool, bool, int, int]:
    """The greatest is best: rows that fill tiles for certain, not images of a batch, which lie far
    apart; many of them; neighbours."""
    is_long = isinstance(v.extent, int) and v.extent >= LONG_ROWS
    return is_near, is_long, size_of(v.extent), -(lhs.index.coefficient(v) or 0)


def _column_cost(n: Var, rhs: Scalar, kernel: Kernel, lanes: int) -> float:
    """Cycles per useful multiplication where `n` runs over the lanes, relative to full lanes: lanes
    that stay empty, results (and what they are computed from) at a distance, a packed operand."""
    extent = max(size_of(n.extent), 1)
    empty = -(-extent // fitting_lanes(n.extent, lanes)) * lanes / extent
    steps, rows = 1, 1
    for v in kernel.reduce_axes:
        steps *= max(size_of(v.extent), 1)
    for v in kernel.axes:
        rows *= 1 if v == n or moves(rhs, v) else max(size_of(v.extent), 1)
    values = [w.value for w in kernel.writes]
    touched = [w.index for w in kernel.writes]
    touched += [s.index for s in scalar.walk(values) if s.kind == "load"]
    distant = sum(1 for index in touched if index.coefficient(n) not in (0, 1))
    turned = any(not moves(rhs, v) for v in near_axes(kernel, n, extent))
    cost = empty * (1 + distant * (TURN_COST if turned else SCATTER_COST) * 2 / steps)
    return cost if rhs.index.coefficient(n) == 1 else cost + COPY_ROWS / rows


class _Loops:
    """Applies the directives of a contraction's schedule."""

    def __init__(
        self, kernel: Kernel, m: Var, n: Var, lhs: Scalar, rhs: Scalar, target: Target
    ) -> None:
        self.kernel, self.m, self.n, self.target = kernel, m, n, target
        self.n_whole = n
        self.lanes = _directive(kernel, Vectorize, n.name).lanes
        self.width = _directive(kernel, TileBy, n.name).size
        self.height = _directive(kernel, TileBy, m.name).size
        self.unroll = _directive(kernel, Unroll, "k").count
        self.writes = kernel.writes
        self.outer = [v for v in kernel.axes if v not in (m, n)]
        self.sliced = next((d for d in kernel.schedule if isinstance(d, Partial)), None)
        self.summed = kernel.reduce_axes
        self.copies: list[Stmt] = []
        self.workspace: list[Buffer] = []
        self.scratch: list[Buffer] = []
        self.lhs, self.rhs = lhs, rhs
        self.acc = sum_of(kernel)

    def function(self) -> Function:
        schedule = self.kernel.schedule
        if Pack("rhs") in schedule:
            self.rhs = self._packed(self.n, self.width, self.rhs, self.lanes, "packed_rhs")
        if Pack("lhs") in schedule:
            lanes = min(self.lanes, self.height)
            self.lhs = self._packed(self.m, self.height, self.lhs, lanes, "packed_lhs")
        if Outermost(self.n.name) in schedule:
            self._cut_columns()
        self._merge_steps()
        body = [*self.copies, *(self._slices(self.sliced) if self.sliced else self._whole())]
        label, buffers = self.kernel.label, self.kernel.buffers
        workspace, scratch = tuple(self.workspace), tuple(self.scratch)
        return Function(label, buffers, tuple(body), scratch, workspace)

    def _packed(self, axis: Var, block: int, operand: Scalar, lanes: int, name: str) -> Scalar:
        packed, copy, buffer = pack(self.kernel, axis, block, operand, lanes, name)
        self.copies.append(copy)
        self.workspace.append(buffer)
        return packed

    def _cut_columns(self) -> None:
        """n -> n_block * width + n_column, the blocks outside of all loops."""
        assert isinstance(self.n.extent, int)
        block = Var(f"{self.n.name}_block", self.n.extent // self.width)
        column = Var(f"{self.n.name}_column", self.width)
        change = {self.n: Index.of(block) * self.width + Index.of(column)}
        self.rhs = scalar.substitute(self.rhs, change)
        self.writes = tuple(
            replace(w, index=w.index.substitute(change), value=scalar.substitute(w.value, change))
            for w in self.writes
        )
        self.n, self.outer = column, [block, *self.outer]

    def _merge_steps(self) -> None:
        """Neighbouring summed axes that both operands walk as one become one: a longer loop. One
        that is summed slice by slice stays as it is."""
        found: list[Var] = []
        for inner in self.summed:
            outer = found[-1] if found else None
            is_sliced = outer and self.sliced and outer.name == self.sliced.axis
            if outer is None or is_sliced or not self._is_one_walk(outer, inner):
                found.append(inner)
                continue
            assert isinstance(inner.extent, int)
            joined = Var(outer.name, outer.extent * inner.extent)
            found[-1] = joined
            self.lhs, self.rhs = (_joined(x, outer, inner, joined) for x in (self.lhs, self.rhs))
        self.summed = tuple(found)

    def _is_one_walk(self, outer: Var, inner: Var) -> bool:
        if not isinstance(inner.extent, int):
            return False
        steps = [
            (x.index.coefficient(outer), x.index.coefficient(inner)) for x in (self.lhs, self.rhs)
        ]
        return all(
            far is not None and near is not None and far == near * inner.extent
            for far, near in steps
        )

    def _tile(self, epilogue: Sequence[Stmt], slice: tuple[Var, int] | None = None) -> Stmt:
        return Tile(
            self.m,
            self.n,
            self.summed,
            self.acc.name,
            self.lhs,
            self.rhs,
            tuple(epilogue),
            tile_rows(self.m.extent, self.height, stream=self._is_stream),
            self.width // self.lanes,
            self.lanes,
            self._steps_written_out,
            slice=slice,
        )

    @property
    def _steps_written_out(self) -> int:
        """As many as are scheduled, or all where the code of those left over would be as long."""
        last = self.summed[-1].extent
        if isinstance(last, int) and self.unroll < last < 2 * self.unroll:
            return last
        return self.unroll

    @property
    def _is_stream(self) -> bool:
        """Is a block of columns, over all steps, larger than the first cache?"""
        steps = math.prod(size_of(v.extent) for v in self.summed)
        return steps * self.width * self.rhs.dtype.bytes > self.target.l1

    def _whole(self) -> list[Stmt]:
        if Pack("result") in self.kernel.schedule:
            return self._turned()
        return [nest(self.outer, self._tile(stores(self.writes)))]

    def _turned(self) -> list[Stmt]:
        """A block of the result by rows, then by columns, then where it belongs."""
        n, dtype = self.n, self.lhs.dtype
        assert isinstance(n.extent, int)
        near = near_axes(self.kernel, self.n_whole, n.extent)
        place, rows = row_major(near)
        turned = Var("turned", rows)
        around = [v for v in self.outer if v not in near]
        # stages of their own share nothing but buffers that all threads see
        place_of_blocks = self.scratch if around else self.workspace
        for name in ("by_rows", "by_columns"):
            place_of_blocks.append(Buffer(name, dtype, rows * n.extent, True))
        row, column = Index.of(turned), Index.of(n)
        tile = self._tile([Store("by_rows", place * n.extent + column, self.acc)])
        value = scalar.load("by_rows", row * n.extent + column, dtype)
        turn = Transpose(n, turned, "by_columns", column * rows + row, value, self.lanes)
        total = scalar.load("by_columns", column * rows + place, dtype)
        body = [
            nest([v for v in near if v != self.m], tile),
            turn,
            *self._finish((n, *near), total),
        ]
        return nest_all(around, body)

    def _finish(self, axes: tuple[Var, ...], total: Scalar) -> tuple[Stmt, ...]:
        """The results of all points, from sums in memory."""
        function = results(self.kernel, self.writes, axes, total, self.target)
        self.scratch += function.scratch
        return function.body

    def _slices(self, sliced: Partial) -> list[Stmt]:
        """for each slice: partial += its sum;  then the results of all points."""
        axis = next(v for v in self.summed if v.name == sliced.axis)
        start, part = axis, None
        if sliced.length == 1:
            self.summed = tuple(v for v in self.summed if v != axis)
        else:
            start = Var(f"{axis.name}_slice", axis.extent)
            part = start, sliced.length
        order = (*self.outer, self.m, self.n)
        index, size = row_major(order)
        dtype = self.lhs.dtype
        self.workspace.append(Buffer("partial", dtype, size, True))
        not_first = Guard(Index.of(start), 1, start.extent)
        before = scalar.load("partial", index, dtype, guards=(not_first,))
        after = scalar.apply("add", (before, self.acc), dtype)
        tile = nest(self.outer, self._tile([Store("partial", index, after)], part))
        loop = For(start, "ordered", sliced.length, (tile,))
        return [loop, *self._finish(self.kernel.axes, scalar.load("partial", index, dtype))]


def _joined(load: Scalar, outer: Var, inner: Var, joined: Var) -> Scalar:
    step = load.index.coefficient(inner) or 0
    gone = load.index.substitute({outer: Index(), inner: Index()})
    if load.kind != "load":
        return load
    return scalar.load(load.name, gone + Index.of(joined) * step, load.dtype)


D = TypeVar("D", Vectorize, TileBy, Unroll)


def _directive(kernel: Kernel, kind: type[D], axis: str) -> D:
    return next(d for d in kernel.schedule if isinstance(d, kind) and d.axis == axis)
