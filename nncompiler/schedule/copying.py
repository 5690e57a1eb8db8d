"""Takes the tile of a block of columns, gives it making the copy that it reads.

    staged[k, p] = x[k, block + p];  tile j < 64, p < 64: sum of w[j, k] * staged[k, p]
    ->  tile j < 64, p < 64, whose first rows read x and write staged

Between two multiply-adds there is time for a store, and for lines that are not in the first cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ir.index import Var
from ir.loops import Stmt, Tile
from ir.scalar import Scalar


def copied_by_tile(
    body: tuple[Stmt, ...], operand: Scalar, around: Sequence[Var]
) -> tuple[Stmt, ...]:
    """The statements after the copy of an operand, with the copy; as they are where they are more
    than one tile of whole vectors, which reads every element of the copy."""
    match body:
        case (Tile(m=m, n=n, dot=False, slice=None) as tile,):
            moving = operand.index.variables - {*around}
            is_whole = isinstance(n.extent, int) and n.extent % tile.columns == 0
            is_walked = moving == {*tile.k, n} == tile.rhs.index.variables
            is_row = tile.rhs.index.coefficient(n) == operand.index.coefficient(n) == 1
            if is_whole and is_walked and is_row and isinstance(m.extent, int):
                return (replace(tile, source=operand),)
    return body
