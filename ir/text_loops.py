"""Takes kernels and loop functions, gives text that reads like the C it becomes.

kernel hidden_bias_relu: rows
  axes       i < batch, j < 128
  writes     hidden[i*128 + j] = relu((z[i*128 + j] + b[j]))

void hidden_bias_relu(f32 *hidden /* 128*batch, written */, f32 *z /* 128*batch */, ...) {
  parallel for (i = 0; i < batch; i += 1) {
    ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from ir.dependence import scalars
from ir.function import stages
from ir.index import Var
from ir.loops import (
    Accumulate,
    Buffer,
    For,
    Function,
    Init,
    Kernel,
    Let,
    Prefetch,
    Split,
    Stmt,
    Store,
    StoreRow,
    Tile,
    Transpose,
)
from ir.nests import store_row
from ir.scalar import render, render_together
from ir.sparse_loops import PairSums, PairTotals, Sparse, Sweep

Simple = (Let, Init, Accumulate, Store, StoreRow, Prefetch)
_ASSIGN = {"sum": "+=", "prod": "*="}


def print_kernel(kernel: Kernel) -> str:
    """The kernel's recipe, axes, schedule and phases."""
    lines = [f"kernel {kernel.label}: {kernel.recipe}"]
    lines += _row("nodes", kernel.nodes)
    lines += _row("axes", [f"{v} < {v.extent}" for v in kernel.axes])
    lines += _row("reduce", [f"{v} < {v.extent}" for v in kernel.reduce_axes])
    lines += _row("schedule", map(str, kernel.schedule))
    over = ", ".join(map(str, kernel.reduce_axes))
    for r in kernel.reductions:
        lines.append(f"  {r.name} = {r.combine} over {over or 'nothing'} of {render(r.value)}")
    if (s := kernel.scatter) is not None:
        if s.base != s.buffer:
            lines.append(f"  {s.buffer} = {s.base or 0}")
        lines.append(f"  {_store_row(store_row(s), render(s.row), render(s.value))}")
    if kernel.sparse is not None:
        lines += _sparse(kernel.sparse, "  ")
    for w in kernel.writes:
        points = f"  // for every {over}" if w.inner and over else ""
        lines.append(f"  {w.buffer}[{w.index}] = {render(w.value)}{points}")
    lines += [f"  // {_buffer(b)}" for b in kernel.buffers]
    lines += [f"  // workspace {_buffer(b)}" for b in kernel.workspace]
    return "\n".join(lines) + "\n"


def print_function(function: Function) -> str:
    """The loop nest as C-like text."""
    lines = [f"void {function.label}({', '.join(map(_buffer, function.buffers))}) {{"]
    lines += [f"  thread_local {b.dtype} {b.name}[{b.size}];" for b in function.scratch]
    lines += [f"  workspace {b.dtype} {b.name}[{b.size}];" for b in function.workspace]
    for body, split, when in stages(function):
        lines += [] if when is None else [f"  // where {when}"]
        lines += [] if split is None else [f"  {_split(split)}"]
        lines += _lines(body, "  ")
    return "\n".join([*lines, "}"]) + "\n"


def _split(split: Split) -> str:
    sizes = " x ".join(f"{chunk} {var}" for var, chunk in split.axes)
    least = "".join(f", where {symbol} >= {value}" for symbol, value in split.least)
    return f"// dealt out to the threads: chunks of {sizes}{least}"


def _row(title: str, entries: Iterable[str]) -> list[str]:
    text = ", ".join(entries)
    return [f"  {title:<10} {text}"] if text else []


def _buffer(b: Buffer) -> str:
    return f"{b.dtype} *{b.name} /* {b.size}{', written' if b.written else ''} */"


def _lines(body: Iterable[Stmt], indent: str) -> Iterator[str]:
    for is_simple, run in groupby(body, lambda stmt: isinstance(stmt, Simple)):
        write = _together if is_simple else _blocks
        yield from write(tuple(run), indent)


def _together(run: Sequence[Stmt], indent: str) -> Iterator[str]:
    """Statements in a row, with names for what several of them compute."""
    groups = [scalars(stmt) for stmt in run]
    if len(run) == 1:
        yield f"{indent}{_simple(run[0], [render(s) for s in groups[0]])};"
        return
    for stmt, (named, texts) in zip(run, render_together(groups), strict=True):
        yield from (f"{indent}const {s.dtype} {name} = {text};" for name, s, text in named)
        yield f"{indent}{_simple(stmt, texts)};"


def _blocks(run: Iterable[Stmt], indent: str) -> Iterator[str]:
    for stmt in run:
        match stmt:
            case For():
                yield f"{indent}{_header(stmt)} {{{_comment(stmt)}"
                yield from _lines(stmt.body, indent + "  ")
                yield f"{indent}}}"
            case Tile():
                yield from _tile(stmt, indent)
            case Sweep() | PairSums() | PairTotals():
                yield from _sparse(stmt, indent)
            case Transpose():
                store = f"{stmt.buffer}[{stmt.index}] = {render(stmt.value)};"
                block = f"{stmt.lanes} x {stmt.lanes} at once"
                yield f"{indent}for ({_ranges((stmt.row, stmt.column))}) {store}  // {block}"


def _header(loop: For) -> str:
    v = loop.var
    prefix = "" if loop.kind == "serial" else f"{loop.kind} "
    return f"{prefix}for ({v} = 0; {v} < {v.extent}; {v} += {loop.step})"


def _comment(loop: For) -> str:
    return f"  // {loop.step} values of {loop.var} at once" if "vector" in loop.kind else ""


def _simple(stmt: Stmt, texts: Sequence[str]) -> str:
    """One statement, its expressions given as text."""
    match stmt:
        case Let(name, value) | Init(name, value):
            const = "const " if isinstance(stmt, Let) else ""
            return f"{const}{value.dtype} {name} = {texts[0]}"
        case Accumulate(name, combine) if combine in _ASSIGN:
            return f"{name} {_ASSIGN[combine]} {texts[0]}"
        case Accumulate(name, combine):
            return f"{name} = {combine}({name}, {texts[0]})"
        case Store(buffer, index):
            return f"{buffer}[{index}] = {texts[0]}"
        case Prefetch(buffer, index):
            return f"prefetch {buffer}[{index}]"
        case StoreRow():
            return _store_row(stmt, *texts)
    raise AssertionError(f"{stmt} is no simple statement")


def _store_row(s: StoreRow, row: str, value: str) -> str:
    sign = "+=" if s.combine == "sum" else "="
    return f"{s.buffer}[{s.index} + {row}*{s.stride}] {sign} {value}"


def _tile(tile: Tile, indent: str) -> Iterator[str]:
    heights = "/".join(map(str, tile.rows))
    columns = f"{tile.vectors} x {tile.lanes}"
    if tile.dot:
        columns = f"{tile.vectors} (dots of {tile.lanes} lanes)"
    yield f"{indent}// micro-kernel: {heights} rows x {columns} columns, unroll {tile.unroll}"
    yield f"{indent}tile for ({_ranges((tile.m, tile.n))}) {{"
    if tile.ahead:
        yield f"{indent}  // once for all rows and columns that are computed at a time"
        yield from _lines(tile.ahead, indent + "  ")
    if tile.source is not None:
        copy = f"{render(tile.rhs)} = {render(tile.source)}"
        yield f"{indent}  for ({_ranges((*tile.k, tile.n))}) {copy};  // by the first rows' tiles"
    yield f"{indent}  {tile.lhs.dtype} {tile.acc} = 0;"
    product = f"{render(tile.lhs)} * {render(tile.rhs)}"
    ranges = _ranges(tile.k)
    if tile.slice is not None:
        start, length = tile.slice
        ranges = f"{start} <= {tile.k[0]} < {start} + {length}, {ranges}"
    yield f"{indent}  for ({ranges}) {tile.acc} += {product};"
    yield from _lines(tile.epilogue, indent + "  ")
    yield f"{indent}}}"


def _sparse(stmt: Sparse, indent: str) -> Iterator[str]:
    if isinstance(stmt, PairTotals):
        names, pair = ", ".join(stmt.sums.outputs), stmt.sums.pair
        total = f"{names}[{pair}] += {stmt.sums.partial}[piece - 1][{pair}]"
        yield f"{indent}for ({_ranges((stmt.sums.piece, pair))}) {total};  // pieces with rows"
        return
    names = ", ".join(stmt.outputs)
    if isinstance(stmt, PairSums):
        product = f"{render(stmt.a)} * {render(stmt.b)}"
        yield f"{indent}for ({_ranges((stmt.pair,))}) {{  // {stmt.chunk} rows at once"
        yield f"{indent}  {stmt.left} = {stmt.lefts}[{stmt.pair}];"
        yield f"{indent}  {stmt.right} = {stmt.rights}[{stmt.pair}];"
        yield f"{indent}  {names}[{stmt.pair}] = sum over {_ranges((stmt.row,))} of {product};"
        if stmt.partial:
            yield f"{indent}  of piece 0 of the rows, {stmt.partial}[piece - 1] of the others"
        yield f"{indent}}}"
        return
    runs, rows, edges, kept = stmt.tables[:4]
    step = stmt.lanes * stmt.vectors
    yield f"{indent}sweep for ({_ranges((stmt.row, stmt.column))}) {{  // {step} rows at once"
    if stmt.x is not None:
        yield f"{indent}  state[{stmt.source}] = {render(stmt.x)};  // {stmt.source.extent} sources"
    yield f"{indent}  nodes in the order of {rows}, formulas of {runs}, edges of {edges}:"
    yield f"{indent}    z = sum of {render(stmt.weights)} * state[slot];  // or another combination"
    given = ", ".join(f"x{n} = {render(e)}" for n, e in enumerate(stmt.extras))
    for number, text in enumerate(stmt.formulas):
        where = f" where {given}" if "x" in text else ""
        yield f"{indent}    formula {number}: {text or 'z'}{where}"
    yield f"{indent}  {names} = the states and sums of {kept};"
    yield f"{indent}}}"


def _ranges(axes: Iterable[Var]) -> str:
    return ", ".join(f"{v} < {v.extent}" for v in axes)
