"""Takes matrices and tables, gives the code that sums along edges share: columns with their rows
side by side, entries of tables, and one of several ways by number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ir.index import Var
from ir.scalar import Scalar
from ir.types import i32, i64
from nncompiler.codegen.scope import Binding
from nncompiler.codegen.statements import Writer
from nncompiler.codegen.transpose import swap
from nncompiler.codegen.values import Value, constant, number_of


def whole_steps(w: Writer, extent: Value, step: int) -> Value:
    """The largest multiple of `step` that is at most `extent`."""
    number = number_of(extent)
    if number is not None:
        return constant(int(number) // step * step, i64)
    return w.e.sub(extent, w.e.value(f"urem i64 {extent.text}, {step}", i64))


def copy_columns(
    w: Writer,
    load: Scalar,
    axes: tuple[Var, Var],
    rows: tuple[Value, Value],
    put: Callable[[Value, Value], None],
) -> None:
    """Read a matrix (axes: row, column) at one vector of rows and hand its columns, rows side by
    side, to `put(column, vector)`. Square blocks are swapped in registers.

    rows: the first one, and the number of all rows: those behind the last repeat it.
    """
    row, column = axes
    first, count = rows
    width = column.extent
    assert isinstance(width, int)
    lanes = w.e.target.lanes(load.dtype)
    last = w.e.sub(count, constant(1, i64))

    def block(base: Value, columns: int) -> None:
        mask = None if columns == lanes else w.e.lane_mask(constant(columns, i64), lanes)
        vectors = []
        with w.bound(column, Binding(base, lanes, mask)):
            for r in range(lanes):
                here = w.e.add(first, constant(r, i64))
                here = w.e.select(w.e.icmp("slt", here, last), here, last)
                with w.bound(row, Binding(here)):
                    vectors.append(w.e.splat(w.evaluate(load), lanes))
        for c, vector in enumerate(swap(w, vectors)[:columns]):
            put(w.e.add(base, constant(c, i64)), vector)

    def whole(base: Value, _: list[Value]) -> list[Value]:
        block(base, lanes)
        return []

    end = width // lanes * lanes
    w.loop(constant(0, i64), constant(end, i64), lanes, [], whole)
    if end < width:
        w.push()
        block(constant(end, i64), width - end)
        w.pop()


def table_entry(w: Writer, name: str, index: Value) -> Value:
    """An entry of an i32 table, as i64."""
    return w.e.convert(w.e.load(w.address(name, index), i32), i64)


def switch(
    w: Writer,
    number: Value,
    cases: Sequence[Callable[[list[Value]], list[Value]]],
    carried: list[Value],
) -> list[Value]:
    """Run case `number` (i64) of the cases; gives the carried values after it."""
    e = w.e
    labels = [e.new_label("case") for _ in cases]
    join = e.new_label("next")
    others = " ".join(f"i64 {n}, label %{label}" for n, label in enumerate(labels[1:], 1))
    e.do(f"switch i64 {number.text}, label %{labels[0]} [ {others} ]")
    ends: list[tuple[str, list[Value]]] = []
    for label, case in zip(labels, cases, strict=True):
        e.label(label)
        w.push()
        after = case(list(carried))
        w.pop()
        ends.append((e.block, after))
        e.branch(join)
    e.label(join)
    return [phi(w, [(values[k], block) for block, values in ends]) for k in range(len(carried))]


def phi(w: Writer, parts: Sequence[tuple[Value, str]]) -> Value:
    """The value that comes with the block that the code came from."""
    (value, _), *_ = parts
    joined = ", ".join(f"[ {value.text}, %{block} ]" for value, block in parts)
    return w.e.value(f"phi {value.type} {joined}", value.dtype, value.lanes, key=False)
