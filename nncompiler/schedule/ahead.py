"""Takes the tiles of one block of work, gives them asking for what the next block copies.

    for i in batch:  for block of 64 columns:
        staged = x[i, all k, block]
        tile j < 64, p < 64:  prefetch some lines of x[i, all k, block + 1];  y = w * staged

Rows of an operand lie pages apart and a block takes few lines of each, which no hardware foresees;
while one block is multiplied, the lines of the next one arrive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ir.index import Index, Var
from ir.loops import For, Prefetch, Stmt, Tile
from ir.scalar import Scalar

LINE = 64  # bytes
MOST = 64  # lines that a register tile asks for

Walk = Sequence[tuple[int, int]]  # loops, the outermost first: how often, how many elements further


def ask_ahead(
    body: Sequence[Stmt], operand: Scalar, around: Sequence[Var], walk: Walk, name: str
) -> tuple[Stmt, ...]:
    """The statements, where tiles that read the copy `name` of the operand ask for the lines that
    it will hold next: the walk's, from where all but the loops `around` the copy begin."""
    index = operand.index.substitute(_following(around))
    start = index.substitute({v: Index() for v in index.variables if v not in around})
    return _asking(body, operand.name, start, walk, name)


def lines_of(elements: int, operand: Scalar) -> tuple[int, int]:
    """The last of a walk's loops: over the lines of so many neighbours in memory."""
    line = LINE // operand.dtype.bytes
    return -(-elements // line), line


def _asking(
    body: Sequence[Stmt], buffer: str, start: Index, walk: Walk, name: str
) -> tuple[Stmt, ...]:
    found: list[Stmt] = []
    for stmt in body:
        match stmt:
            case For(body=inner):
                stmt = replace(stmt, body=_asking(inner, buffer, start, walk, name))
            case Tile(rhs=rhs) if rhs.name == name:
                places = _shares(stmt, walk)
                stmt = replace(stmt, ahead=tuple(Prefetch(buffer, start + p) for p in places))
        found.append(stmt)
    return tuple(found)


def _shares(tile: Tile, walk: Walk) -> list[Index]:
    """Where the lines lie that each register tile asks for, so that together they ask for all."""
    rows, columns = tile.m.extent, tile.n.extent
    if not isinstance(rows, int) or not isinstance(columns, int):
        return []
    height, across = tile.rows[0], -(-columns // tile.columns)
    tiles = -(-rows // height) * across
    each = -(-math.prod(count for count, _ in walk) // tiles)
    if each > MOST:
        return []
    parts, places = _cut(walk, each)
    number = Index.of(tile.m) // height * across + Index.of(tile.n) // tile.columns
    number = number * math.prod(count for count, _ in parts) // tiles
    first = Index()
    for count, step in reversed(parts[1:]):
        first, number = first + number % count * step, number // count
    return [first + number * parts[0][1] + place for place in places]


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
