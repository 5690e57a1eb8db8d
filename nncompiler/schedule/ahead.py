"""Takes the tiles of one block of work, gives them asking for what the next block copies.

    for i in batch:  for block of 64 columns:
        staged = x[i, all k, block]
        tile j < 64, p < 64:  prefetch some lines of x[i, all k, block + 1];  y = w * staged

Rows of an operand lie pages apart and a block takes few lines of each, which no hardware foresees;
while one block is multiplied, the lines of the next one arrive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from ir import scalar
from ir.index import Index, Var
from ir.loops import For, Prefetch, Stmt, Tile
from ir.places import Place
from ir.scalar import Scalar
from nncompiler.codegen.target import LINE
from nncompiler.schedule.heuristics import size_of

MOST = 64  # lines that a register tile asks for

Walk = Sequence[tuple[int, int]]  # loops, the outermost first: how often, how many elements further
Requests = Callable[[Tile, Sequence[Var]], Sequence[Prefetch]]  # of a tile in loops


def ask_ahead(
    body: Sequence[Stmt], operand: Scalar, around: Sequence[Var], walk: Walk, name: str
) -> tuple[Stmt, ...]:
    """The statements, where tiles that read the copy `name` of the operand ask for the lines that
    it will hold next: the walk's, from where all but the loops `around` the copy begin."""
    index = operand.index.substitute(_following(around))
    start = index.substitute({v: Index() for v in index.variables if v not in around})
    return _asking(body, (), partial(_requests, operand.name, start, walk, name))


def lines_of(elements: int, operand: Scalar) -> tuple[int, int]:
    """The last of a walk's loops: over the lines of so many neighbours in memory."""
    line = LINE // operand.dtype.bytes
    return -(-elements // line), line


def ask_for_image(
    body: Sequence[Stmt], operand: Scalar, ways: Sequence[Place], image: Var, name: str
) -> tuple[Stmt, ...]:
    """The same for all that `ways` read of the next image, where that is constant."""
    start, loops = operand.index, []
    for p in sorted(ways, key=lambda p: p.unit):
        first, count = 0, p.extent
        if p.guard is not None:
            fixed = p.guard.value.substitute({v: Index() for v, _ in p.terms})
            if fixed.terms or not isinstance(p.guard.high, int):
                return tuple(body)
            first, count = p.guard.low - fixed.constant, p.guard.high - p.guard.low
        assert isinstance(count, int)
        start = start + first * p.unit
        loops.append((count, p.unit))
    reach = 1
    while loops and loops[0][1] < reach + lines_of(1, operand)[1]:  # no whole line is left out
        count, unit = loops.pop(0)
        reach += (count - 1) * unit
    moved = scalar.load(operand.name, start, operand.dtype)
    return ask_ahead(body, moved, [image], [*reversed(loops), lines_of(reach, operand)], name)


def _asking(body: Sequence[Stmt], outer: Sequence[Var], requests: Requests) -> tuple[Stmt, ...]:
    """The statements within the loops `outer`."""
    found: list[Stmt] = []
    for stmt in body:
        match stmt:
            case For(var=var, body=inner):
                stmt = replace(stmt, body=_asking(inner, (*outer, var), requests))
            case Tile():
                stmt = replace(stmt, ahead=(*stmt.ahead, *requests(stmt, outer)))
        found.append(stmt)
    return tuple(found)


def _requests(
    buffer: str, start: Index, walk: Walk, name: str, tile: Tile, outer: Sequence[Var]
) -> list[Prefetch]:
    """Each register tile asks for its share of the lines, so that together they ask for all."""
    static = [v for v in (*outer, tile.m, tile.n) if isinstance(v.extent, int)]
    if tile.rhs.name != name or len(static) < len(outer) + 2:
        return []
    number, tiles = Index(), 1
    for v in static:
        step = {tile.m: tile.rows[0], tile.n: tile.columns}.get(v, 1)
        count = -(-size_of(v.extent) // step)
        number, tiles = number * count + Index.of(v) // step, tiles * count
    each = -(-math.prod(count for count, _ in walk) // tiles)
    if each > MOST:
        return []
    parts, places = _cut(walk, each)
    number = number * math.prod(count for count, _ in parts) // tiles
    first = Index()
    for count, step in reversed(parts[1:]):
        first, number = first + number % count * step, number // count
    first = start + first + number * parts[0][1]
    return [Prefetch(buffer, first + place) for place in places]


def _cut(walk: Walk, least: int) -> tuple[Walk, list[int]]:
    """A walk over equal parts of at least so many elements, and where these lie in a part."""
    *outer, (count, step) = walk
    if outer and least > count:
        parts, places = _cut(outer, -(-least // count))
        return parts, [place + n * step for place in places for n in range(count)]
    size = next(n for n in range(min(least, count), count + 1) if count % n == 0)
    return [*outer, (count // size, size * step)], [n * step for n in range(size)]


def _following(around: Sequence[Var]) -> dict[Var, Index]:
    """The values of the loops' variables in the next pass; the outermost may run beyond its end."""
    found: dict[Var, Index] = {}
    carry = Index.of(1)
    for v in reversed(around):
        later = Index.of(v) + carry
        if v == around[0] or not isinstance(v.extent, int):
            return {**found, v: later}
        found[v], carry = later % v.extent, later // v.extent
    return found
