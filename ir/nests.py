"""Takes kernels and block statements, gives the plain loop nests that they mean (no schedule)."""

from __future__ import annotations

from ir.index import Guard, Index, Var
from ir.loops import (
    Accumulate,
    For,
    Function,
    Init,
    Kernel,
    Let,
    Scatter,
    Stmt,
    Store,
    StoreRow,
    Tile,
    Transpose,
)
from ir.scalar import Scalar, apply, const, load, ref
from ir.types import DType, integer_range


def plain_loops(kernel: Kernel) -> Function:
    """The loop nest that a kernel means, without any schedule: values of all writes first, so that
    an update may be written over what the other writes read."""
    body: list[Stmt] = []
    for r in kernel.reductions:
        body.append(Init(r.name, identity(r.combine, r.value.dtype)))
        body += _nest(kernel.reduce_axes, "serial", [Accumulate(r.name, r.combine, r.value)])
    inner = [w for w in kernel.writes if w.inner]
    outer = [w for w in kernel.writes if not w.inner]
    body += [Let(f"outer{i}", w.value) for i, w in enumerate(outer)]
    rows: list[Stmt] = [Let(f"inner{i}", w.value) for i, w in enumerate(inner)]
    rows += [Store(w.buffer, w.index, _named("inner", i, w.value)) for i, w in enumerate(inner)]
    if inner:
        body += _nest(kernel.reduce_axes, "serial", rows)
    body += [Store(w.buffer, w.index, _named("outer", i, w.value)) for i, w in enumerate(outer)]
    if kernel.sparse is not None:
        return Function(kernel.label, kernel.buffers, (kernel.sparse,))
    before = _scattered(kernel) if kernel.scatter is not None else []
    loops = (*before, *(_nest(kernel.axes, "parallel", body) if body else ()))
    return Function(kernel.label, kernel.buffers, loops, workspace=kernel.workspace)


def _scattered(kernel: Kernel) -> list[Stmt]:
    """The start of a scatter's result, and what is added or stored: in order where that counts."""
    s = kernel.scatter
    assert s is not None
    buffers = (*kernel.buffers, *kernel.workspace)
    element = Var("element", next(b.size for b in buffers if b.name == s.buffer))
    start = Store(s.buffer, Index.of(element), start_of(s, element))
    before = _nest((element,), "parallel", [start]) if s.base != s.buffer else []
    kind = "parallel" if s.combine == "sum" else "serial"
    return [*before, *_nest(kernel.axes, kind, [store_row(s)])]


def store_row(scatter: Scatter) -> StoreRow:
    """What a scatter does at one point."""
    s = scatter
    return StoreRow(s.buffer, s.index, s.row, s.stride, s.value, s.combine)


def start_of(scatter: Scatter, element: Var) -> Scalar:
    """What the result of a scatter holds before anything is added."""
    dtype = scatter.value.dtype
    return load(scatter.base, Index.of(element), dtype) if scatter.base else const(0, dtype)


def _named(prefix: str, number: int, value: Scalar) -> Scalar:
    return ref(f"{prefix}{number}", value.dtype)


def _nest(axes: tuple[Var, ...], kind: str, body: list[Stmt]) -> list[Stmt]:
    for var in reversed(axes):
        body = [For(var, kind, 1, tuple(body))]
    return body


def identity(combine: str, dtype: DType) -> Scalar:
    """The value that changes nothing when combined: 0, 1, or the end of the dtype's range."""
    if combine in ("sum", "prod"):
        return const(0 if combine == "sum" else 1, dtype)
    lowest = combine == "max"
    if dtype.is_float:
        return const(float("-inf") if lowest else float("inf"), dtype)
    if dtype.kind == "bool":
        return const(not lowest, dtype)
    low, high = integer_range(dtype)
    return const(low if lowest else high, dtype)


def block_loops(block: Tile | Transpose) -> tuple[Stmt, ...]:
    """The loop nest that a statement on blocks stands for."""
    return _tile_loops(block) if isinstance(block, Tile) else _transpose_loops(block)


def _tile_loops(tile: Tile) -> tuple[Stmt, ...]:
    """The loop nest that a micro-kernel stands for."""
    lhs, rhs = (_in_slice(x, tile) for x in (tile.lhs, tile.rhs))
    product = apply("mul", (lhs, rhs), tile.lhs.dtype)
    body: list[Stmt] = [Init(tile.acc, const(0, tile.lhs.dtype))]
    body += _nest(tile.k, "serial", [Accumulate(tile.acc, "sum", product)])
    body += tile.epilogue
    columns = For(tile.n, "vector", max(1, tile.columns), tuple(body))
    rows = For(tile.m, "vector", max((1, *tile.rows)), (columns,))
    if tile.source is None:
        return (rows,)
    copy: list[Stmt] = [Store(tile.rhs.name, tile.rhs.index, tile.source)]
    return (*_nest((*tile.k, tile.n), "serial", copy), rows)


def _in_slice(operand: Scalar, tile: Tile) -> Scalar:
    """The operand of a micro-kernel, zero outside of its slice of the first summed axis."""
    if tile.slice is None or operand.kind != "load":
        return operand
    start, length = tile.slice
    guard = Guard(Index.of(tile.k[0]) - Index.of(start), 0, length)
    return load(operand.name, operand.index, operand.dtype, guards=(*operand.guards, guard))


def _transpose_loops(copy: Transpose) -> tuple[Stmt, ...]:
    """The loop nest that a copy with swapped axes stands for."""
    store = Store(copy.buffer, copy.index, copy.value)
    columns = For(copy.column, "vector", copy.lanes, (store,))
    return (For(copy.row, "vector", copy.lanes, (columns,)),)
