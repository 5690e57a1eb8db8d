"""Takes a loop, gives whether its iterations may run in any order, statement by statement.

for i: y[i] = x[i] + y[i]              independent: every iteration touches its own element
for i: s[0] = x[i]; y[i] = s[0]        dependent: the iterations share s[0]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ir.index import Index, Var
from ir.loops import (
    Accumulate,
    For,
    Init,
    Let,
    Prefetch,
    Stmt,
    Store,
    StoreRow,
    Tile,
    Transpose,
    statements,
)
from ir.scalar import Scalar, walk
from ir.sparse_loops import PairSums, PairTotals, Sweep
from ir.types import Extent

Path = tuple[tuple[Var, int], ...]  # the loops around an access with their steps, outermost first


@dataclass(frozen=True, slots=True)
class Access:
    """One place where memory is touched: mode is "load", "store" or "add"."""

    mode: str
    buffer: str
    index: Index | None  # None where the element depends on data
    path: Path


def independent(loop: For, memory: Callable[[str], str]) -> bool:
    """`memory` gives buffers that share memory the same name."""
    if _carries_value(loop.body):
        return False
    accesses = list(_accesses(loop.body, ((loop.var, _step(loop)),)))
    stored = {memory(a.buffer) for a in accesses if a.mode != "load"}
    return all(_separate([a for a in accesses if memory(a.buffer) == name]) for name in stored)


def scalars(stmt: Stmt) -> tuple[Scalar, ...]:
    """The expressions that stand in the statement itself."""
    match stmt:
        case Let(value=v) | Init(value=v) | Accumulate(value=v) | Store(value=v):
            return (v,)
        case Transpose(value=v):
            return (v,)
        case StoreRow(row=row, value=v):
            return (row, v)
        case Tile(lhs=lhs, rhs=rhs, source=source):
            return (lhs, rhs) if source is None else (lhs, rhs, source)
        case Sweep(x=x, extras=extras, weights=weights):
            return (*(() if x is None else (x,)), *extras, weights)
        case PairSums(a=a, b=b):
            return (a, b)
        case For() | Prefetch() | PairTotals():
            return ()


def written(body: Iterable[Stmt]) -> set[str]:
    """The buffers that statements write."""
    found: set[str] = set()
    for stmt in statements(body):
        match stmt:
            case Store(buffer=buffer) | StoreRow(buffer=buffer) | Transpose(buffer=buffer):
                found.add(buffer)
            case Tile(rhs=rhs, source=source) if source is not None:
                found.add(rhs.name)
            case Sweep(outputs=outputs) | PairSums(outputs=outputs):
                found.update(outputs)
            case PairTotals(sums=sums):
                found.update(sums.outputs)
    return found


def _carries_value(body: tuple[Stmt, ...]) -> bool:
    """Whether an accumulator of an outer scope is read where it is being accumulated."""
    inner = list(statements(body))
    defined = {s.name for s in inner if isinstance(s, Init)}
    carried = {s.name for s in inner if isinstance(s, Accumulate)} - defined
    used = {x.name for s in inner for x in walk(scalars(s)) if x.kind == "ref"}
    return bool(carried & used)


def _accesses(body: Iterable[Stmt], path: Path) -> Iterator[Access]:
    for stmt in body:
        inner = path
        if isinstance(stmt, Tile):
            inner = (*path, (stmt.m, 1), (stmt.n, 1))
            yield from _accesses(stmt.epilogue, inner)
            inner += tuple((k, 1) for k in stmt.k)
        if isinstance(stmt, Transpose):
            inner = (*path, (stmt.row, 1), (stmt.column, 1))
        for s in walk(scalars(stmt)):
            if s.kind == "load":
                yield Access("load", s.name, None if s.args else s.index, inner)
        match stmt:
            case For(var=var, body=statements_inside):
                yield from _accesses(statements_inside, (*path, (var, _step(stmt))))
            case Tile(rhs=rhs, source=source) if source is not None:
                yield Access("store", rhs.name, rhs.index, inner)
            case Store(buffer=buffer, index=index) | Transpose(buffer=buffer, index=index):
                yield Access("store", buffer, index, inner)
            case StoreRow(buffer=buffer, combine=combine):
                yield Access("add" if combine == "sum" else "store", buffer, None, path)
            case Sweep(outputs=outputs) | PairSums(outputs=outputs):
                for buffer in outputs:
                    yield Access("store", buffer, None, inner)
            case PairTotals(sums=sums):
                for buffer in sums.outputs:
                    yield Access("add", buffer, None, inner)


def _step(loop: For) -> int:
    return 1 if "vector" in loop.kind else loop.step


def _separate(accesses: list[Access]) -> bool:
    """Whether no two iterations meet in the memory that these accesses touch."""
    if all(a.mode == "add" for a in accesses):
        return True
    if len(accesses) == 1 and accesses[0].index is not None:
        used = accesses[0].index.variables
        return all(var in used or var.extent == 1 for var, _ in accesses[0].path)
    first = accesses[0].index
    return first is not None and all(
        a.mode != "add" and a.index == first and _injective(first, a.path) for a in accesses
    )


def _injective(index: Index, path: Path) -> bool:
    """Whether different points of the loops give different values of the index (mixed radix)."""
    steps: list[tuple[int, int | None]] = []
    for var, step in path:
        if var.extent == 1:
            continue
        coefficient = index.coefficient(var)
        if not coefficient:
            return False
        symbolic = isinstance(var.extent, Extent)
        count = None if isinstance(var.extent, Extent) else -(-var.extent // step)
        steps.append((abs(coefficient) * step, None if symbolic else count))
    reach = 0
    for step, count in sorted(steps, key=lambda s: (s[0], s[1] is None)):
        if step <= reach:
            return False
        if count is None:
            reach = 1 << 62
        else:
            reach += step * (count - 1)
    return True
