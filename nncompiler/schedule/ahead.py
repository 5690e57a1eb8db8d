"""Takes the tiles of one block of columns, gives them asking for the next block's rows.

    for i in batch:  for block of 64 columns:
        staged = x[i, all k, block]
        tile j < 64, p < 64:  y = w * staged;  prefetch x[i, j, block + 1]

Rows of an operand lie pages apart and a block takes few lines of each, which no hardware foresees;
while one block is multiplied, the lines of the next one arrive in the second cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ir.index import Index, Var
from ir.loops import For, Prefetch, Stmt, Tile
from ir.scalar import Scalar

MOST = 8  # lines that a vector of results asks for


def ask_ahead(
    body: Sequence[Stmt], operand: Scalar, around: Sequence[Var], name: str
) -> tuple[Stmt, ...]:
    """The statements, where tiles that read the copy `name` of the operand ask for what it will
    hold next; `around` are the loops around the copy, the innermost last."""
    found: list[Stmt] = []
    for stmt in body:
        match stmt:
            case For(body=inner):
                stmt = replace(stmt, body=ask_ahead(inner, operand, around, name))
            case Tile(rhs=rhs) if rhs.name == name:
                later = _requests(stmt, operand, around)
                stmt = replace(stmt, epilogue=(*stmt.epilogue, *later))
        found.append(stmt)
    return tuple(found)


def _requests(tile: Tile, operand: Scalar, around: Sequence[Var]) -> list[Prefetch]:
    """Every row of results asks for as many rows of the operand as make all of them together."""
    moving = [v for v in tile.k if operand.index.coefficient(v) != 0]
    if len(moving) != 1 or tile.n not in operand.index.variables:
        return []
    (step,), rows = moving, tile.m.extent
    if not isinstance(step.extent, int) or not isinstance(rows, int):
        return []
    count = -(-step.extent // rows)
    if count > MOST:
        return []
    row = Index.of(tile.m)
    first = row if rows <= step.extent else row * step.extent // rows
    index = operand.index.substitute(_following(around))
    places = (index.substitute({step: first + part * rows}) for part in range(count))
    return [Prefetch(operand.name, place) for place in places]


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
