"""Takes a kernel, gives what one call of it costs: floating-point operations and bytes moved; takes
statements, gives how much code they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ir import scalar
from ir.dependence import scalars
from ir.dilated import dilated
from ir.index import Var
from ir.loops import For, Kernel, Stmt
from ir.sparse_loops import PairSums, Sweep
from ir.types import Dim, Extent, multiply
from nncompiler.schedule.axes import kernel_scalars
from nncompiler.schedule.heuristics import cost_of

Cost = list[Any]  # [constant, {symbol: coefficient}]


def flops(kernel: Kernel) -> Cost:
    """One per arithmetic operation at every point; a multiply-add counts two."""
    row = [w.value for w in kernel.writes if not w.inner]
    full = [r.value for r in kernel.reductions] + [w.value for w in kernel.writes if w.inner]
    if kernel.scatter:
        row.append(kernel.scatter.value)
    if kernel.sparse is not None:
        return _times((kernel.sparse.row,), 2 * _terms(kernel.sparse, kernel))
    inner = sum(s.kind == "apply" for s in scalar.walk(full)) + len(kernel.reductions)
    outer = sum(s.kind == "apply" for s in scalar.walk(row))
    return _sum([_times(_multiplied(kernel), inner), _times(kernel.axes, outer)])


def _multiplied(kernel: Kernel) -> tuple[Var, ...]:
    """The axes of all points at which something is computed: of windows over zeros between elements
    those where an element is met."""
    every = (*kernel.axes, *kernel.reduce_axes)
    if kernel.recipe != "contract":
        return every
    found = [dilated(x, kernel.reduce_axes) for r in kernel.reductions for x in r.value.args]
    ways = [way for d in found if d is not None for way in d.ways]
    gone = {v for way in ways for v in (way.spot, way.tap)}
    return (*(v for v in every if v not in gone), *(Var("met", way.met) for way in ways))


def _terms(stmt: Sweep | PairSums, kernel: Kernel) -> int:
    """How many products are summed for one row."""
    name = stmt.tables[2] if isinstance(stmt, Sweep) else stmt.lefts
    size = next(b.size for b in kernel.buffers if b.name == name)
    assert isinstance(size, int)
    return size


def moved(kernel: Kernel) -> Cost:
    """Every buffer once, of tables the rows that are picked: what must come from and go to memory
    if nothing is in a cache."""
    parts = []
    picked, scatter = _picked(kernel), kernel.scatter
    for buffer in kernel.buffers:
        added = scatter is not None and (scatter.buffer, scatter.combine) == (buffer.name, "sum")
        both = 2 if buffer.written and (added or _is_read(kernel, buffer.name)) else 1
        if buffer.name in picked:
            every = (*kernel.axes, *kernel.reduce_axes)
            parts.append(_times(every, both * buffer.dtype.bytes))
        else:
            parts.append(_scaled(buffer.size, both * buffer.dtype.bytes))
    return _sum(parts)


def _picked(kernel: Kernel) -> set[str]:
    """Buffers of which only rows at computed places are read or written."""
    loads = [s for s in scalar.walk(kernel_scalars(kernel)) if s.kind == "load"]
    found = {s.name for s in loads if s.args} - {s.name for s in loads if not s.args}
    found -= {w.buffer for w in kernel.writes}
    scatter = kernel.scatter
    return found | {scatter.buffer} if scatter and scatter.base == scatter.buffer else found


def _is_read(kernel: Kernel, name: str) -> bool:
    values = [*(r.value for r in kernel.reductions), *(w.value for w in kernel.writes)]
    return any(s.kind == "load" and s.name == name for s in scalar.walk(values))


def scaled(cost: Cost, times: int) -> Cost:
    """The cost of several calls."""
    constant, parts = cost
    return [constant * times, {symbol: n * times for symbol, n in parts.items()}]


def _times(axes: Iterable[Var], factor: int) -> Cost:
    extents = [v.extent for v in axes]
    symbols = {d.symbol for d in extents if isinstance(d, Extent)}
    if sum(isinstance(d, Extent) for d in extents) > 1:
        # batch x batch points: counted as if the second one were of typical length
        return _scaled(Extent(64 * factor, symbols.pop()), 1)
    return _scaled(multiply(extents), factor)


def _scaled(dim: Dim, factor: int) -> Cost:
    if isinstance(dim, Extent):
        return [0, {dim.symbol: dim.coefficient * factor}]
    return [dim * factor, {}]


def _sum(costs: list[Cost]) -> Cost:
    total, terms = 0, dict[str, int]()
    for constant, parts in costs:
        total += constant
        for symbol, coefficient in parts.items():
            terms[symbol] = terms.get(symbol, 0) + coefficient
    return [total, terms]


def operations(body: Iterable[Stmt]) -> int:
    """Instructions of statements, those of loops that are written out as often as they stand."""
    total = 0
    for stmt in body:
        if isinstance(stmt, For):
            extent = stmt.var.extent
            times = extent if stmt.kind == "unroll" and isinstance(extent, int) else 1
            total += times * operations(stmt.body)
        else:
            total += sum(cost_of(s) for s in scalar.walk(scalars(stmt)))
    return total
