"""Takes a Tile whose lanes run over the last summed axis, gives its micro-kernel: dot products.

for each block of columns:  for each block of rows:
    acc[row][column] = 0 in every lane
    for k (outer axes):  for lanes of the last axis:  acc[row][column] += lhs[row] * rhs[column]
    epilogue on the sums of acc's lanes, neighbouring columns at once
"""

from __future__ import annotations

from ir.index import Var
from ir.types import i64
from nncompiler.codegen.scope import Binding
from nncompiler.codegen.tiles import LATENCY_HIDDEN, Blocks
from nncompiler.codegen.values import Value, constant

WRITTEN_OUT = 4  # vectors along the summed axis that need no loop


class Dots(Blocks):
    """Writes all blocks of dot products."""

    def write(self) -> None:
        t = self.t
        extent = self.columns_extent
        whole = extent // t.vectors * t.vectors
        for start, stop in ((0, whole), (whole, extent)):
            if start == stop:
                continue
            width = t.vectors if stop == whole else stop - start

            def block(n: Value, _: list[Value], width: int = width) -> list[Value]:
                self.rows(t.rows, n, width, None)
                return []

            self.w.loop(*self.w.clip(t.n, start, stop), width, [], block)

    def tile(self, m: Value, height: int, n: Value, vectors: int, mask: Value | None) -> None:
        w, t = self.w, self.t
        w.push()
        zero = constant(0.0 if self.dtype.is_float else 0, self.dtype, t.lanes)
        count = height * vectors
        steps = self._steps
        chains = 2 if count < LATENCY_HIDDEN and steps > 1 else 1
        sums = self._over(t.k, {t.m: m, t.n: n}, [zero] * (count * chains), height, vectors)
        if chains > 1:
            sums = [self.e.add(a, b) for a, b in zip(sums[:count], sums[count:], strict=True)]
        found = [sums[row * vectors : (row + 1) * vectors] for row in range(height)]
        for row, totals in enumerate(self._totals(found)):
            with w.bound(t.m, Binding(self.e.add(m, constant(row, i64)))):
                for number, total in enumerate(totals):
                    first = number * t.lanes
                    self._finish(total, min(vectors - first, t.lanes), n, first)
        del w.values[t.acc]
        w.pop()

    def _totals(self, rows: list[list[Value]]) -> list[list[Value]]:
        """Of every row the sums over lanes, side by side in vectors; all rows of a small block are
        summed together."""
        lanes, count = self.t.lanes, len(rows[0])
        if count * len(rows) == lanes and count.bit_count() == 1 and count > 1:
            every = self._together([x for row in rows for x in row], lanes)
            starts = range(0, lanes, count)
            return [[self.e.shuffle(every, None, range(s, s + count))] for s in starts]
        parts = [[row[n : n + lanes] for n in range(0, count, lanes)] for row in rows]
        return [
            [self._together(part, 1 << (len(part) - 1).bit_length()) for part in row]
            for row in parts
        ]

    def _finish(self, total: Value, count: int, n: Value, first: int) -> None:
        """The epilogue of neighbouring columns, one in each lane."""
        width = total.lanes
        mask = None
        if width > count:
            mask = self.e.lane_mask(constant(count, i64), width)
        self.w.values[self.t.acc] = total
        place = self.e.add(n, constant(first, i64))
        with self.w.bound(self.t.n, Binding(place, width, mask)):
            self.w.block(self.t.epilogue)

    def _together(self, sums: list[Value], width: int) -> Value:
        """The sum over the lanes of each vector, side by side. Half of each vector stays where it
        is, so that one shuffle brings the other halves of two.

        a0 a1 a2 a3, b0 b1 b2 b3  ->  a0 a1 b2 b3 + a2 a3 b0 b1  ->  a a b b  ->  a b
        """
        lanes = self.t.lanes
        zero = constant(0.0 if self.dtype.is_float else 0, self.dtype, lanes)
        parts = [*sums, *[zero] * (width - len(sums))]
        distance = lanes // 2
        while len(parts) > 1:
            half = len(parts) // 2
            second = [lanes if lane & distance else 0 for lane in range(lanes)]
            stay = [lane + second[lane] for lane in range(lanes)]
            come = [(lane ^ distance) + second[lane] for lane in range(lanes)]
            parts = [
                self.e.add(self.e.shuffle(a, b, stay), self.e.shuffle(a, b, come))
                for a, b in zip(parts[:half], parts[half:], strict=True)
            ]
            distance //= 2
        (total,) = parts
        while distance:
            other = self.e.shuffle(total, None, [lane ^ distance for lane in range(lanes)])
            total = self.e.add(total, other)
            distance //= 2
        return self.e.shuffle(total, None, range(0, lanes, lanes // width))

    @property
    def _length(self) -> int:
        extent = self.t.k[-1].extent
        assert isinstance(extent, int), "lanes run over a constant extent"
        return extent

    @property
    def _steps(self) -> int:
        return -(-self._length // self.t.lanes)

    def _over(
        self,
        axes: tuple[Var, ...],
        at: dict[Var, Value],
        sums: list[Value],
        height: int,
        width: int,
    ) -> list[Value]:
        """The loops over the summed axes, lanes over the last one."""
        axis, rest = axes[0], axes[1:]
        zero = constant(0, i64)
        if rest:

            def outer(k: Value, now: list[Value]) -> list[Value]:
                return self._over(rest, {**at, axis: k}, now, height, width)

            return self.w.loop(zero, self.w.extent(axis.extent), 1, sums, outer)

        def steps(start: Value, count: int, now: list[Value]) -> list[Value]:
            for number in range(count):
                k = self.e.add(start, constant(number * lanes, i64))
                now = self._step({**at, axis: k}, number, now, height, width, None)
            return now

        lanes = self.t.lanes
        whole = self._length // lanes
        rounds = whole if whole <= WRITTEN_OUT else 2
        even = whole // rounds * rounds if rounds else 0
        sums = self.w.loop(
            zero,
            constant(even * lanes, i64),
            max(rounds, 1) * lanes,
            sums,
            lambda k, now: steps(k, rounds, now),
        )
        sums = steps(constant(even * lanes, i64), whole - even, sums)
        rest_of_axis = self._length - whole * lanes
        if rest_of_axis:
            k = constant(whole * lanes, i64)
            mask = self.e.lane_mask(constant(rest_of_axis, i64), lanes)
            sums = self._step({**at, axis: k}, whole, sums, height, width, mask)
        return sums

    def _step(
        self,
        at: dict[Var, Value],
        number: int,
        sums: list[Value],
        height: int,
        width: int,
        mask: Value | None,
    ) -> list[Value]:
        """One vector of every row times one of every column."""
        t, sums = self.t, list(sums)
        left, right = self.pointer(t.lhs, at), self.pointer(t.rhs, at)
        row_step = t.lhs.index.coefficient(t.m) or 0
        column_step = t.rhs.index.coefficient(t.n) or 0
        columns = [self._load(right, column * column_step, mask) for column in range(width)]
        for row in range(height):
            factor = self._load(left, row * row_step, mask)
            for column in range(width):
                place = (number * height + row) * width + column
                place %= len(sums)
                sums[place] = self.multiply_add(factor, columns[column], sums[place])
        return sums

    def _load(self, pointer: str, offset: int, mask: Value | None) -> Value:
        place = self.e.address(pointer, offset, self.dtype)
        if mask is None:
            return self.e.load(place, self.dtype, self.t.lanes)
        zero = constant(0, self.dtype, self.t.lanes)
        return self.e.masked_load(place, self.dtype, mask, fill=zero)
