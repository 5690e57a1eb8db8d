"""Takes a contraction over windows with zeros between their elements (the input gradient of a
strided convolution, a transposed one), gives its loops phase by phase.

    for n in batch:  for block of rows:
        staged = rows of g[n], with a border of zeros
        for every phase q, s:  sums[q, s][j, spot] = sum over its own taps of w * staged
        y[n, j, h, w] = ... sums[h % 2, w % 2][j, (h // 2, w // 2)]

No zero is multiplied. Spots run over the lanes, channels of the result over the rows of a tile; the
phases meet when results are computed from their sums, by a shuffle. Where channels lie together in
the result, or an image has few spots, channels run over the lanes instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ir import scalar
from ir.dilated import dilated
from ir.index import Index, Var
from ir.loops import Buffer, Function, Kernel, Store, Transpose
from ir.scalar import Scalar
from nncompiler.codegen.target import Target
from nncompiler.schedule.apply import stores
from nncompiler.schedule.heuristics import size_of
from nncompiler.schedule.phased import Phased, Phases, Stmts, Strided, changed
from nncompiler.schedule.phases import Axis
from nncompiler.schedule.results import row_major, sum_of
from nncompiler.schedule.spreading import Spread
from nncompiler.schedule.tiling import nest

LONGEST = 64  # elements of a row that is copied more than once
MANY = 64  # spots of an image that are worth to run over the lanes
TALL = 8  # channels that are better two vectors wide


def find_strided(kernel: Kernel) -> Strided | None:
    """The operands and axes of a kernel, where one operand has zeros between its elements."""
    (reduction,) = kernel.reductions
    for number in (0, 1):
        image, other = (reduction.value.args[n] for n in (number, 1 - number))
        found = dilated(image, kernel.reduce_axes)
        if found is None:
            continue
        alone = [p.terms[0][0] for p in found.alone]
        spots = [w.spot for w in found.ways]
        return Strided(
            image,
            other,
            tuple(Axis(w, f"way{n}") for n, w in enumerate(found.ways)),
            tuple(v for v in kernel.axes if v in alone),
            tuple(v for v in kernel.axes if v not in (*alone, *spots)),
            tuple(v for v in kernel.reduce_axes if v in alone),
        )
    return None


def plan_strided(kernel: Kernel, site: Strided, target: Target) -> tuple[Kernel, Function]:
    """The scheduled kernel and its loops."""
    filter = _in_lanes(kernel, site, target)
    plan = (
        _Spots(kernel, site, target) if filter is None else _Filters(kernel, site, target, filter)
    )
    return replace(kernel, schedule=plan.schedule), plan.function()


def _in_lanes(kernel: Kernel, site: Strided, target: Target) -> Var | None:
    """The channels of the result that run over the lanes: those that lie together in memory, where
    they fill half of the lanes; any that fill them, where an image has few spots."""
    lanes = target.lanes(site.image.dtype)
    for v in site.filters:
        if 2 * size_of(v.extent) >= lanes and _lie_together(kernel, v):
            return v
    spots = math.prod(-(-a.way.extent // a.way.stride) for a in site.axes)
    if spots >= MANY or len(site.filters) != 1 or size_of(site.filters[0].extent) < lanes:
        return None
    return site.filters[0]


def _lie_together(kernel: Kernel, v: Var) -> bool:
    return all(w.index.coefficient(v) == 1 for w in kernel.writes)


class _Spots(Phased):
    """Lanes run over spots, rows of a tile over filters. Rows of an image lie side by side where
    they are short; sums are put together phase by phase."""

    def __init__(self, kernel: Kernel, site: Strided, target: Target) -> None:
        super().__init__(kernel, site, target)
        self.scratch.append(Buffer("sums", self.dtype, self._sums(self.largest), True))
        row = max(site.filters, key=lambda v: size_of(v.extent), default=Var("one", 1))
        column = _spots(self.largest)[-1]
        # what spots read streams from the second cache: tall tiles read it less often
        lanes = 2 * target.lanes(self.dtype)
        is_tall = size_of(row.extent) >= TALL
        spots = size_of(column.extent)
        self._tiled(row, column, min(lanes, spots) if is_tall else spots)

    def block(self, start: Index, height: int) -> Spread:
        site, counts = self.site, self.quotients(height)
        counts[-1] = max(counts[-1], 2)  # lanes run over no axis of one spot
        is_joined = len(counts) > 1 and counts[-1] <= LONGEST
        where = (self.starts(start), tuple(counts), "staged")
        return Spread(site.image, site.axes, site.channels, *where, is_joined, False)

    def size(self, block: Spread) -> int:
        return block.size + self._sums(block)

    def _sums(self, block: Spread) -> int:
        """How many sums a block has."""
        strides = math.prod(a.way.stride for a in self.site.axes)
        filters = math.prod(size_of(v.extent) for v in self.site.filters)
        return strides * filters * math.prod(block.counts)

    def phase(
        self, block: Spread, start: Index, height: int, phases: Phases, weights: Scalar
    ) -> Stmts:
        *outer, column = _spots(block)
        along = [Index.of(v) for v in outer]
        if block.is_joined:  # a row begins where the last one ends
            along.append(Index())
        operands = weights, block.read(phases, (*along, Index.of(column)))
        numbers = self.numbers(phases)
        remainders = [Index.of(v) + p.first for v, p in zip(numbers, phases, strict=True)]
        place = self._place(block, remainders, (*along, Index.of(column)))
        tile = self.tile(
            self.row, column, phases, operands, (Store("sums", place, sum_of(self.kernel)),)
        )
        filters = [v for v in self.site.filters if v != self.row]
        return nest([*numbers, *filters, *outer], [tile])

    def _place(
        self, block: Spread, remainders: Sequence[Index], quotients: Sequence[Index]
    ) -> Index:
        """Where the sum of a spot lies: phase by phase, filter by filter."""
        place = Index()
        for axis, remainder in zip(self.site.axes, remainders, strict=True):
            place = place * axis.way.stride + remainder
        for v in self.site.filters:
            place = place * size_of(v.extent) + Index.of(v)
        for count, quotient in zip(block.counts, quotients, strict=True):
            place = place * count + quotient
        return place

    def results(self, block: Spread, start: Index, height: int) -> Stmts:
        """The results of a block: every spot has the sum of its phase."""
        ways = [a.way for a in self.site.axes]
        row = Var(ways[0].spot.name, height)
        spots = [Index.of(v) for v in (row, *(w.spot for w in ways[1:]))]
        place = self._place(
            block,
            [spot % w.stride for spot, w in zip(spots, ways, strict=True)],
            [spot // w.stride for spot, w in zip(spots, ways, strict=True)],
        )
        return self.finish(start, height, scalar.load("sums", place, self.dtype))


class _Filters(Phased):
    """Lanes run over filters, rows of a tile over spots. Where filters do not lie together in the
    result, a block of it is turned."""

    def __init__(self, kernel: Kernel, site: Strided, target: Target, column: Var) -> None:
        self.column, self.is_turned = column, not _lie_together(kernel, column)
        super().__init__(kernel, site, target)
        if self.is_turned:
            size = self._points(self.height)[1] * size_of(column.extent)
            self.scratch += [Buffer(name, self.dtype, size, True) for name in ("sums", "turned")]
        row = Var("spot", self.largest.counts[-1])
        self._tiled(row, column, size_of(column.extent))

    def block(self, start: Index, height: int) -> Spread:
        site, counts = self.site, tuple(self.quotients(height))
        is_last = any(site.image.index.coefficient(v) == 1 for v in site.channels)
        where = (self.starts(start), counts, "staged")
        return Spread(site.image, site.axes, site.channels, *where, False, is_last)

    def size(self, block: Spread) -> int:
        spots = math.prod(
            n * a.way.stride for n, a in zip(block.counts, self.site.axes, strict=True)
        )
        return block.size + 2 * spots * size_of(self.column.extent) * self.is_turned

    def _points(self, height: int) -> tuple[Index, int]:
        """The place of a spot among those of a block, from the block's first row on, and how many
        there are."""
        first, *ways = (a.way for a in self.site.axes)
        return row_major([Var(first.spot.name, height), *(w.spot for w in ways)])

    def phase(
        self, block: Spread, start: Index, height: int, phases: Phases, weights: Scalar
    ) -> Stmts:
        ways = [a.way for a in self.site.axes]
        extents = (height, *(w.extent for w in ways[1:]))
        found = [
            Var(f"spot{n}", len(range(p.first, extent, w.stride)))
            for n, (p, extent, w) in enumerate(zip(phases, extents, ways, strict=True))
        ]
        if any(v.extent == 0 for v in found):
            return ()
        numbers = self.numbers(phases)
        changes = {
            w.spot: Index.of(v) * w.stride + Index.of(number) + p.first
            for w, v, number, p in zip(ways, found, numbers, phases, strict=True)
        }
        operands = block.read(phases, [Index.of(v) for v in found]), weights
        *outer, row = found
        if self.is_turned:
            place = self._points(height)[0].substitute(
                {Var(ways[0].spot.name, height): changes.pop(ways[0].spot), **changes}
            )
            place = place * size_of(self.column.extent) + Index.of(self.column)
            last: Stmts = (Store("sums", place, sum_of(self.kernel)),)
        else:
            changes[ways[0].spot] = changes[ways[0].spot] + start
            last = tuple(stores(changed(self.kernel.writes, changes)))
        tile = self.tile(row, self.column, phases, operands, last)
        filters = [v for v in self.site.filters if v != self.column]
        return nest([*numbers, *filters, *outer], [tile])

    def results(self, block: Spread, start: Index, height: int) -> Stmts:
        if not self.is_turned:
            return ()
        place, count = self._points(height)
        point, filter = Var("point", count), Index.of(self.column)
        by_spots = Index.of(point) * size_of(self.column.extent) + filter
        sums = scalar.load("sums", by_spots, self.dtype)
        lanes, by_filters = self.target.lanes(self.dtype), filter * count + Index.of(point)
        turn = Transpose(self.column, point, "turned", by_filters, sums, lanes)
        total = scalar.load("turned", filter * count + place, self.dtype)
        return (turn, *self.finish(start, height, total))


def _spots(block: Spread) -> list[Var]:
    """Loops over the spots of a phase, the last one over lanes."""
    counts = list(block.counts)
    if block.is_joined:
        counts[-2:] = [counts[-2] * counts[-1]]
    return [Var(f"spot{n}", count) for n, count in enumerate(counts)]
