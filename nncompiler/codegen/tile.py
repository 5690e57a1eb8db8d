"""Takes a Tile statement, gives the micro-kernel: a block of the result held in registers.

for each block of columns:  for each block of rows:
    acc[row][vector] = 0
    for k (unrolled):  acc[row][vector] += broadcast(lhs[row, k]) * rhs[k, vector]
    ask for what is wanted next
    epilogue on acc
"""

from __future__ import annotations

from ir import scalar
from ir.index import Var
from ir.loops import For, Let, Store, Tile
from ir.scalar import Scalar
from ir.types import i64
from nncompiler.codegen.dot import Dots
from nncompiler.codegen.scope import Binding
from nncompiler.codegen.statements import Writer
from nncompiler.codegen.streams import read_ahead
from nncompiler.codegen.target import LINE
from nncompiler.codegen.tiles import LATENCY_HIDDEN, Blocks
from nncompiler.codegen.values import Value, constant, memory_type, number_of
from nncompiler.schedule.heuristics import cost_of, single_row_vectors

FEW_ROWS = 32  # 16 take as long to multiply as what they read takes to come from memory
WRITTEN_OUT = 64  # instructions of an epilogue that is repeated for every vector of the tile


def write_tile(writer: Writer, tile: Tile) -> None:
    """Write all blocks of a contraction."""
    writer.hoist(tile.epilogue)
    if tile.dot:
        Dots(writer, tile).write()
    else:
        _Tiles(writer, tile).columns()


class _Tiles(Blocks):
    def __init__(self, writer: Writer, tile: Tile) -> None:
        super().__init__(writer, tile)
        values = [s.value for s in tile.epilogue if isinstance(s, (Let, Store))]
        self.epilogue_cost = sum(cost_of(s) for s in scalar.walk(values))
        self.is_copying = False  # from the source of the right operand

    # ------------------------------------------------------------ blocks

    def columns(self) -> None:
        """All blocks of columns; a batch of one runs through wider ones, which memory likes more:
        it is bound by the stream of the right operand."""
        t, e = self.t, self.e
        wide = single_row_vectors(t, e.target.registers)
        if wide == t.vectors:
            self.blocks(t.vectors, t.rows)
            return
        one, many, done = (e.new_label(hint) for hint in ("one", "many", "done"))
        e.branch_if(e.icmp("eq", self.w.extent(t.m.extent), constant(1, i64)), one, many)
        for label, vectors, rows in ((one, wide, (1,)), (many, t.vectors, t.rows)):
            e.label(label)
            self.w.push()
            self.blocks(vectors, rows)
            self.w.pop()
            e.branch(done)
        e.label(done)

    def blocks(self, vectors: int, rows: tuple[int, ...]) -> None:
        """Whole blocks of columns, then what is left, its last vector under a mask."""
        t = self.t
        extent, width = self.columns_extent, vectors * t.lanes
        whole = extent // width * width

        def block(n: Value, _: list[Value]) -> list[Value]:
            self.rows(rows, n, vectors, None)
            return []

        self.w.loop(*self.w.clip(t.n, 0, whole), width, [], block)
        left = extent - whole
        if left:
            vectors = -(-left // t.lanes)
            rest = left - (vectors - 1) * t.lanes
            mask = None
            if rest < t.lanes:
                mask = self.e.lane_mask(constant(rest, i64), t.lanes)

            def rest_of_row(_: Value, __: list[Value]) -> list[Value]:
                self.rows(rows, constant(whole, i64), vectors, mask)
                return []

            self.w.loop(*self.w.clip(t.n, whole, extent), left, [], rest_of_row)

    # ------------------------------------------------------------ one block

    def first_rows(self, n: Value, vectors: int, mask: Value | None) -> int:
        if self.t.source is None:
            return 0
        self.is_copying = True
        self.tile(constant(0, i64), self.t.rows[0], n, vectors, mask)
        self.is_copying = False
        return self.t.rows[0]

    def tile(self, m: Value, height: int, n: Value, vectors: int, mask: Value | None) -> None:
        self.w.push()
        zero = constant(0.0 if self.dtype.is_float else 0, self.dtype, self.t.lanes)
        count = height * vectors
        chains = self._chains(count)
        start = [zero] * (count * chains)
        sums = self._sum_over(self.t.k, {self.t.m: m, self.t.n: n}, start, height, vectors, mask)
        while len(sums) > count:
            half = len(sums) // 2
            pairs = zip(sums[:half], sums[half:], strict=True)
            sums = [self.e.add(a, b) for a, b in pairs]
        with self.w.bound(self.t.m, Binding(m)), self.w.bound(self.t.n, Binding(n)):
            self.w.block(self.t.ahead)  # loads of the sums do not wait behind these
        if height * vectors * self.epilogue_cost <= WRITTEN_OUT or height == 1:
            for row in range(height):
                here = self.e.add(m, constant(row, i64))
                self._epilogue(here, n, sums[row * vectors : (row + 1) * vectors], mask)
        else:
            self._epilogue_loop(m, height, n, vectors, sums, mask)
        self.w.pop()

    def _chains(self, count: int) -> int:
        """Small tiles keep several sums over every second (fourth) step, so that additions do not
        wait for each other."""
        last = self.t.k[-1].extent
        if isinstance(last, int) and last < 2 * self.t.unroll:
            return 1
        chains = 1
        while chains * 2 * count <= LATENCY_HIDDEN and chains < self.t.unroll:
            chains *= 2
        return chains

    def _sum_over(
        self,
        axes: tuple[Var, ...],
        at: dict[Var, Value],
        sums: list[Value],
        height: int,
        vectors: int,
        mask: Value | None,
    ) -> list[Value]:
        """The loops over the summed axes; the last one is unrolled."""
        axis, rest = axes[0], axes[1:]
        start, stop = self._steps(axis)
        if rest:

            def outer(k: Value, now: list[Value]) -> list[Value]:
                return self._sum_over(rest, {**at, axis: k}, now, height, vectors, mask)

            return self.w.loop(start, stop, 1, sums, outer)

        def steps(count: int, k: Value, now: list[Value]) -> list[Value]:
            return self._multiply({**at, axis: k}, axis, count, now, height, vectors, mask)

        unroll = self.t.unroll
        total = self.e.sub(stop, start)
        length = number_of(total)
        if length is not None and length <= 2 * unroll:
            return steps(int(length), start, sums)
        whole = self.e.sub(stop, self._remainder(total, unroll))
        sums = self.w.loop(start, whole, unroll, sums, lambda k, now: steps(unroll, k, now))
        if length is not None:
            left = int(length) % unroll
            return steps(left, whole, sums) if left else sums
        return self.w.loop(whole, stop, 1, sums, lambda k, now: steps(1, k, now))

    def _steps(self, axis: Var) -> tuple[Value, Value]:
        """Where the loop over a summed axis starts and stops."""
        total = self.w.extent(axis.extent)
        if self.t.slice is None or axis != self.t.k[0]:
            return constant(0, i64), total
        start, length = self.t.slice
        first = self.w.bindings[start.name].base
        return first, self.e.minimum(self.e.add(first, constant(length, i64)), total)

    def _remainder(self, total: Value, unroll: int) -> Value:
        number = number_of(total)
        if number is not None:
            return constant(int(number) % unroll, i64)
        return self.e.value(f"urem i64 {total.text}, {unroll}", i64)

    def _multiply(
        self,
        at: dict[Var, Value],
        axis: Var,
        count: int,
        sums: list[Value],
        height: int,
        vectors: int,
        mask: Value | None,
    ) -> list[Value]:
        """`count` steps along the innermost summed axis."""
        t, e = self.t, self.e
        sums = list(sums)
        ones = t.lhs.kind == "const"  # the sum of the columns
        copy = self.pointer(t.rhs, at)
        rhs = t.source if t.source is not None and self.is_copying else t.rhs
        row_step = t.lhs.index.coefficient(t.m)
        is_packed = row_step is None
        is_padded = t.rhs.index.coefficient(t.n) is None  # packed: blocks of columns are whole
        if row_step is None:
            row_step = 1  # the rows of a block lie next to each other
        left_step = t.lhs.index.coefficient(axis) or 0
        right_step, copy_step = (x.index.coefficient(axis) or 0 for x in (rhs, t.rhs))
        is_stream = t.rhs.name in self.w.streams.read and self._is_read_seldom
        left = [] if ones else self._stepped(t.lhs, at, axis, count)
        right = self._stepped(rhs, at, axis, count)
        for step in range(count):
            if is_packed and step * left_step * self.dtype.bytes % LINE == 0:
                read_ahead(e, e.address(*left[step], self.dtype))
            columns = []
            for v in range(vectors):
                base, offset = right[step]
                pointer = e.address(base, offset + v * t.lanes, self.dtype)
                if is_stream and right_step == vectors * t.lanes:
                    read_ahead(e, pointer, pages=2)
                if mask is not None and v == vectors - 1 and not is_padded:
                    zero = constant(0, self.dtype, t.lanes)
                    columns.append(e.masked_load(pointer, self.dtype, mask, fill=zero))
                else:
                    columns.append(e.load(pointer, self.dtype, t.lanes))
                if self.is_copying:
                    assert mask is None, "copies are made of whole vectors"
                    place = step * copy_step + v * t.lanes
                    e.store(columns[-1], e.address(copy, place, self.dtype))
            if ones:
                for v, column in enumerate(columns):
                    place = (step * vectors + v) % len(sums)
                    sums[place] = self.e.add(sums[place], column)
                continue
            for row in range(height):
                base, offset = left[step]
                pointer = e.address(base, row * row_step + offset, self.dtype)
                factor = e.splat(e.load(pointer, self.dtype), t.lanes)
                for v in range(vectors):
                    place = (step * height + row) * vectors + v
                    place %= len(sums)
                    sums[place] = self.multiply_add(factor, columns[v], sums[place])
        return sums

    def _stepped(
        self, operand: Scalar, at: dict[Var, Value], axis: Var, count: int
    ) -> list[tuple[str, int]]:
        """Where the operand is read at so many steps along an axis: (pointer, elements on). Steps
        that are not even (taps that share the rows of a strided image) are computed one by one."""
        step, e = operand.index.coefficient(axis), self.e
        if step is not None:
            first = self.pointer(operand, at)
            return [(first, number * step) for number in range(count)]
        places = [{**at, axis: e.add(at[axis], constant(n, i64))} for n in range(count)]
        return [(self.pointer(operand, place), 0) for place in places]

    @property
    def _is_read_seldom(self) -> bool:
        """Do so few rows read the right operand that its way from memory is what takes the time?"""
        rows = self.t.m.extent
        return isinstance(rows, int) and rows <= FEW_ROWS

    # ------------------------------------------------------------ epilogue

    def _epilogue(self, m: Value, n: Value, sums: list[Value], mask: Value | None) -> None:
        """All statements of the epilogue for one row of the tile."""
        t = self.t
        with self.w.bound(t.m, Binding(m)):
            for v, total in enumerate(sums):
                masked = mask if v == len(sums) - 1 else None
                base = self.e.add(n, constant(v * t.lanes, i64))
                self.w.values[t.acc] = total
                with self.w.bound(t.n, Binding(base, t.lanes, masked)):
                    self.w.block(t.epilogue)
        del self.w.values[t.acc]

    def _epilogue_loop(
        self,
        m: Value,
        height: int,
        n: Value,
        vectors: int,
        sums: list[Value],
        mask: Value | None,
    ) -> None:
        """Long epilogues run in a loop over the rows, which keeps the code small."""
        t, e = self.t, self.e
        memory = memory_type(self.dtype, t.lanes)
        stack = e.alloca(memory, len(sums))
        for place, total in enumerate(sums):
            e.store(total, e.address(stack, place * t.lanes, self.dtype), align=self._align)
        self._hoist_columns(n, vectors, mask)

        def row(r: Value, _: list[Value]) -> list[Value]:
            first = e.mul(r, constant(vectors * t.lanes, i64))
            found = []
            for v in range(vectors):
                pointer = e.address(stack, e.add(first, constant(v * t.lanes, i64)), self.dtype)
                found.append(e.load(pointer, self.dtype, t.lanes, align=self._align))
            self._epilogue(e.add(m, r), n, found, mask)
            return []

        self.w.loop(constant(0, i64), constant(height, i64), 1, [], row)

    @property
    def _align(self) -> int:
        return self.t.lanes * self.dtype.bytes

    def _hoist_columns(self, n: Value, vectors: int, mask: Value | None) -> None:
        """What depends on the column alone (a bias) is loaded once for all rows."""
        t = self.t
        for v in range(vectors):
            masked = mask if v == vectors - 1 else None
            base = self.e.add(n, constant(v * t.lanes, i64))
            with self.w.bound(t.n, Binding(base, t.lanes, masked)):
                self.w.hoist([For(Var("row", 2), "serial", 1, t.epilogue)])
