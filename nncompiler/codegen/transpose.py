"""Takes a Transpose statement, gives square blocks swapped in registers.

A block of n x n values is n vectors; log2(n) rounds of two-vector shuffles turn rows into columns:
round d swaps the off-diagonal d x d squares of every 2d x 2d square.
"""

from __future__ import annotations

from ir.loops import Transpose
from ir.types import i64
from nncompiler.codegen.scope import Binding
from nncompiler.codegen.statements import Writer
from nncompiler.codegen.values import Value, constant


def write_transpose(writer: Writer, stmt: Transpose) -> None:
    """Copy `value` into `buffer` with the two axes swapped."""
    rows, columns = stmt.row.extent, stmt.column.extent
    assert isinstance(rows, int) and isinstance(columns, int)
    for column, many_columns in _blocks(columns, stmt.lanes):
        for row, many_rows in _blocks(rows, stmt.lanes):
            _loops(writer, stmt, row, many_rows, column, many_columns)


def _blocks(extent: int, lanes: int) -> list[tuple[tuple[int, int], int]]:
    """((start, stop), values in a block): whole blocks, then the rest."""
    whole = extent // lanes * lanes
    found = [((0, whole), lanes)] if whole else []
    return [*found, ((whole, extent), extent - whole)] if whole < extent else found


def _loops(
    writer: Writer,
    stmt: Transpose,
    row: tuple[int, int],
    rows: int,
    column: tuple[int, int],
    columns: int,
) -> None:
    def over_rows(j: Value, _: list[Value]) -> list[Value]:
        def block(i: Value, _: list[Value]) -> list[Value]:
            _block(writer, stmt, i, rows, j, columns)
            return []

        return writer.loop(*writer.clip(stmt.row, *row), rows, [], block)

    writer.loop(*writer.clip(stmt.column, *column), columns, [], over_rows)


def _block(w: Writer, stmt: Transpose, i: Value, rows: int, j: Value, columns: int) -> None:
    """Read `columns` vectors along the rows' axis, write `rows` vectors along the columns'."""
    lanes, dtype = stmt.lanes, stmt.value.dtype
    w.push()
    read_mask = None if rows == lanes else w.e.lane_mask(constant(rows, i64), lanes)
    write_mask = None if columns == lanes else w.e.lane_mask(constant(columns, i64), lanes)
    vectors: list[Value] = []
    with w.bound(stmt.row, Binding(i, lanes, read_mask)):
        for c in range(columns):
            with w.bound(stmt.column, Binding(w.e.add(j, constant(c, i64)))):
                vectors.append(w.evaluate(stmt.value))
    vectors += [constant(0, dtype, lanes)] * (lanes - columns)
    vectors = swap(w, vectors)
    with w.bound(stmt.column, Binding(j, lanes, write_mask)):
        for r in range(rows):
            with w.bound(stmt.row, Binding(w.e.add(i, constant(r, i64)))):
                w.store(stmt.buffer, stmt.index, vectors[r])
    w.pop()


def swap(w: Writer, vectors: list[Value]) -> list[Value]:
    """The transpose of a square of as many vectors as lanes."""
    lanes = len(vectors)
    distance = 1
    while distance < lanes:
        swapped = list(vectors)
        for a in range(lanes):
            if a & distance:
                continue
            b = a + distance
            low = [x if not x & distance else lanes + x - distance for x in range(lanes)]
            high = [x + distance if not x & distance else lanes + x for x in range(lanes)]
            swapped[a] = w.e.shuffle(vectors[a], vectors[b], low)
            swapped[b] = w.e.shuffle(vectors[a], vectors[b], high)
        vectors = swapped
        distance *= 2
    return vectors
