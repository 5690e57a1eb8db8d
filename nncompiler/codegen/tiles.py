"""Takes a Tile statement, gives what micro-kernels share: blocks of rows, addresses, products."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ir.index import Var
from ir.loops import Tile
from ir.scalar import Scalar
from ir.types import i64
from nncompiler.codegen.scope import Binding
from nncompiler.codegen.statements import Writer
from nncompiler.codegen.values import Value, constant, number_of

LATENCY_HIDDEN = 8  # independent multiply-adds in flight: two units, four cycles each


class Blocks(ABC):
    """Writes the blocks of one Tile."""

    def __init__(self, writer: Writer, tile: Tile) -> None:
        self.w, self.e, self.t = writer, writer.e, tile
        self.dtype = tile.rhs.dtype

    @abstractmethod
    def tile(self, m: Value, height: int, n: Value, vectors: int, mask: Value | None) -> None:
        """One block of rows and columns."""

    def first_rows(self, n: Value, vectors: int, mask: Value | None) -> int:
        """Writes the first rows of a block of columns, where they differ from the others; gives
        how many they are."""
        return 0

    @property
    def columns_extent(self) -> int:
        extent = self.t.n.extent
        assert isinstance(extent, int), "columns have a constant extent"
        return extent

    def rows(self, heights: tuple[int, ...], n: Value, vectors: int, mask: Value | None) -> None:
        """Tall tiles first; flatter ones serve the rows that are left."""
        part = self.w.range(self.t.m)
        start = part.start
        first = self.first_rows(n, vectors, mask)
        if first:
            start = constant(first, i64)
        for height in heights:
            stop = self._stop(start, part.stop, height)

            def block(m: Value, _: list[Value], height: int = height) -> list[Value]:
                self.tile(m, height, n, vectors, mask)
                return []

            self.w.loop(start, stop, height, [], block)
            start = stop

    def _stop(self, start: Value, total: Value, height: int) -> Value:
        left = self.e.sub(total, start)
        number = number_of(left)
        if height == 1:
            return total
        if number is not None:
            return self.e.add(start, constant(int(number) // height * height, i64))
        rest = self.e.value(f"urem i64 {left.text}, {height}", i64)
        return self.e.sub(total, rest)

    def pointer(self, load: Scalar, at: dict[Var, Value]) -> str:
        """Address of an operand's element at the first row, column and step."""
        outer = dict(self.w.bindings)
        self.w.bindings.update({v.name: Binding(value) for v, value in at.items()})
        found = self.w.affine(load.index)
        self.w.bindings = outer
        assert found is not None, "operands of a contraction are read at constant strides"
        return self.w.address(load.name, found[0])

    def multiply_add(self, a: Value, b: Value, total: Value) -> Value:
        if self.dtype.is_float:
            return self.e.fma(a, b, total)
        return self.e.add(total, self.e.mul(a, b))
