"""Takes a contraction over windows with zeros between their elements (the input gradient of a
strided convolution, a transposed one), gives its loops phase by phase.

    for n in batch:  for block of rows:
        staged = rows of g[n], with a border of zeros
        for every phase q, s:  sums[q, s][j, spot] = sum over its own taps of w * staged
        y[n, j, h, w] = ... sums[h % 2, w % 2][j, (h // 2, w // 2)]

Spots run over the lanes, channels of the result over the rows of a tile. No zero is multiplied, and
the phases meet when results are computed from their sums, by a shuffle.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from ir import scalar
from ir.dilated import dilated
from ir.index import Index, Var
from ir.loops import Buffer, For, Function, Kernel, Stmt, Store, Tile, TileBy, Vectorize, Write
from ir.scalar import Scalar
from nncompiler.codegen.target import Target
from nncompiler.schedule.apply import stores
from nncompiler.schedule.heuristics import fitting_lanes, size_of, tile_rows, tile_shape
from nncompiler.schedule.images import SCRATCH
from nncompiler.schedule.pack import moves, pack
from nncompiler.schedule.phases import Axis, Phase, joined_taps
from nncompiler.schedule.results import results, sum_of
from nncompiler.schedule.spreading import Spread
from nncompiler.schedule.tiling import nest

LONGEST = 64  # elements of a row that is copied more than once
TALL = 8  # channels that are better two vectors wide
UNROLL = 4  # steps of a tile

Phases = tuple[Phase, ...]
Stmts = tuple[Stmt, ...]


@dataclass(frozen=True)
class Strided:
    """The operand with zeros, what it is multiplied by, and the axes: `around` all else are images
    and groups, `filters` are channels of the result, `channels` are summed."""

    image: Scalar
    other: Scalar
    axes: tuple[Axis, ...]
    around: tuple[Var, ...]
    filters: tuple[Var, ...]
    channels: tuple[Var, ...]


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
    filter = _neighbours(kernel, site, target)
    plan = (
        _Spots(kernel, site, target) if filter is None else _Filters(kernel, site, target, filter)
    )
    return replace(kernel, schedule=plan.schedule), plan.function()


def _neighbours(kernel: Kernel, site: Strided, target: Target) -> Var | None:
    """The channels of the result that lie together in memory, where they fill the lanes."""
    least = target.lanes(site.image.dtype) // 2
    for v in site.filters:
        if size_of(v.extent) >= least and all(w.index.coefficient(v) == 1 for w in kernel.writes):
            return v
    return None


class _Plan(ABC):
    """Loops for blocks of `height` spots along the first axis, with tiles of `row` x `column`."""

    row: Var
    column: Var

    def __init__(self, kernel: Kernel, site: Strided, target: Target) -> None:
        self.kernel, self.site, self.target = kernel, site, target
        self.dtype = site.image.dtype
        self.height = self._height()
        self.largest = self.block(Index(), self.height)
        self.scratch, self.workspace = [self.largest.buffer], list[Buffer]()

    @abstractmethod
    def block(self, start: Index, height: int) -> Spread:
        """What `height` spots of the first axis read, from spot `start` on."""

    @abstractmethod
    def size(self, block: Spread) -> int:
        """How many elements a thread keeps for a block."""

    @abstractmethod
    def phase(
        self, block: Spread, start: Index, height: int, phases: Phases, weights: Scalar
    ) -> Stmts:
        """All that a phase does in a block."""

    @abstractmethod
    def results(self, block: Spread, start: Index, height: int) -> Stmts:
        """What is done after all phases."""

    def _tiled(self, row: Var, column: Var, columns: int) -> None:
        """Choose the tile, as if it had so many columns."""
        self.row, self.column = row, column
        self.lanes = fitting_lanes(column.extent, self.target.lanes(self.dtype))
        shape = tile_shape(row.extent, columns, self.lanes, self.target.registers)
        self.vectors, self.rows = shape

    @property
    def schedule(self) -> tuple[Vectorize | TileBy, ...]:
        return (
            Vectorize(self.column.name, self.lanes),
            TileBy(self.column.name, self.vectors * self.lanes),
            TileBy(self.row.name, self.rows),
        )

    def function(self) -> Function:
        weights, copies = self._weights()
        first = self.site.axes[0].way
        blocks, rest = divmod(first.extent, self.height)
        number = Var(f"{first.spot}_block", blocks)
        body: Stmts = ()
        if blocks:
            start = Index.of(number) * self.height
            body = nest([number], self._work(start, self.height, weights))
        if rest:
            body += self._work(Index.of(blocks * self.height), rest, weights)
        for v in reversed(self.site.around or (Var("image", 1),)):
            body = (For(v, "serial", 1, body),)
        body = (*copies, *body)
        label, buffers = self.kernel.label, self.kernel.buffers
        return Function(label, buffers, body, tuple(self.scratch), tuple(self.workspace))

    def _height(self) -> int:
        """Spots along the first axis that are computed at a time: as many as the caches hold, the
        same number in every block where that is not much less."""
        way = self.site.axes[0].way
        fitting = [way.stride]
        for height in range(2 * way.stride, way.extent + way.stride, way.stride):
            if self.size(self.block(Index(), height)) * self.dtype.bytes <= SCRATCH:
                fitting.append(height)
        most = min(max(fitting), way.extent)
        even = [h for h in fitting if way.extent % h == 0 and 2 * h > most]
        return most if most == way.extent else max(even, default=most)

    def _work(self, start: Index, height: int, weights: Scalar) -> Stmts:
        """All of a block: the copy, the sums phase by phase, and the results."""
        block = self.block(start, height)
        found = [*block.copies(self.target.lanes(self.dtype))]
        for phases in product(*(a.phases for a in self.site.axes)):
            each = [a.changes(p) for a, p in zip(self.site.axes, phases, strict=True)]
            taps = {v: index for changes in each for v, index in changes.items()}
            of_phase = scalar.substitute(weights, taps)
            found += self.phase(block, start, height, phases, of_phase)
        return (*found, *self.results(block, start, height))

    def quotients(self, height: int) -> list[int]:
        """How many quotients the spots of a block have along every axis."""
        ways = [a.way for a in self.site.axes]
        extents = (height, *(w.extent for w in ways[1:]))
        return [-(-n // w.stride) for n, w in zip(extents, ways, strict=True)]

    def starts(self, start: Index) -> tuple[Index, ...]:
        first, *rest = self.site.axes
        return (start // first.way.stride, *(Index() for _ in rest))

    # ------------------------------------------------------------ one phase

    def _weights(self) -> tuple[Scalar, Stmts]:
        """What is multiplied with, in the order in which tiles read it: (load, statements)."""
        site, other = self.site, self.site.other
        wide = self.column if self.column in site.filters else self.row
        if not moves(other, wide):
            return other, ()
        taps = tuple(a.way.tap for a in site.axes)
        joined, taps, change = joined_taps(other, taps)
        filters = size_of(wide.extent)
        kernel = replace(
            self.kernel,
            axes=(*site.around, *site.filters),
            reduce_axes=(*taps, *site.channels),
        )
        block = self.vectors * self.lanes if wide == self.column else filters
        lanes = fitting_lanes(filters, self.target.lanes(self.dtype))
        load, copy, buffer = pack(kernel, wide, block, joined, lanes, "weights")
        self.workspace.append(buffer)
        return scalar.substitute(load, change), (copy,)

    def numbers(self, phases: Phases) -> list[Var]:
        return [a.number(p) for a, p in zip(self.site.axes, phases, strict=True)]

    def tile(
        self, row: Var, column: Var, phases: Phases, operands: tuple[Scalar, Scalar], last: Stmts
    ) -> Tile:
        """The sums of a phase, and what becomes of them."""
        steps = [a.step(p) for a, p in zip(self.site.axes, phases, strict=True)]
        summed = [v for v in (*steps, *self.site.channels) if v.extent != 1] or steps[-1:]
        return Tile(
            row,
            column,
            tuple(summed),
            sum_of(self.kernel).name,
            *operands,
            last,
            tile_rows(row.extent, self.rows),
            self.vectors,
            self.lanes,
            UNROLL,
        )


class _Spots(_Plan):
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
        first, row = ways[0].spot, Var(ways[0].spot.name, height)
        spots = [Index.of(v) for v in (row, *(w.spot for w in ways[1:]))]
        place = self._place(
            block,
            [spot % w.stride for spot, w in zip(spots, ways, strict=True)],
            [spot // w.stride for spot, w in zip(spots, ways, strict=True)],
        )
        writes = changed(self.kernel.writes, {first: start + Index.of(row)})
        axes = [row if v == first else v for v in self.kernel.axes if v not in self.site.around]
        total = scalar.load("sums", place, self.dtype)
        last = results(self.kernel, writes, tuple(axes), total, self.target)
        self.scratch += last.scratch
        return last.body


class _Filters(_Plan):
    """Lanes run over filters, which lie together in the result, rows of a tile over spots."""

    def __init__(self, kernel: Kernel, site: Strided, target: Target, column: Var) -> None:
        super().__init__(kernel, site, target)
        row = Var("spot", self.largest.counts[-1])
        self._tiled(row, column, size_of(column.extent))

    def block(self, start: Index, height: int) -> Spread:
        site, counts = self.site, tuple(self.quotients(height))
        is_last = any(site.image.index.coefficient(v) == 1 for v in site.channels)
        where = (self.starts(start), counts, "staged")
        return Spread(site.image, site.axes, site.channels, *where, False, is_last)

    def size(self, block: Spread) -> int:
        return block.size

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
        changes[ways[0].spot] = changes[ways[0].spot] + start
        operands = block.read(phases, [Index.of(v) for v in found]), weights
        *outer, row = found
        last = tuple(stores(changed(self.kernel.writes, changes)))
        tile = self.tile(row, self.column, phases, operands, last)
        filters = [v for v in self.site.filters if v != self.column]
        return nest([*numbers, *filters, *outer], [tile])

    def results(self, block: Spread, start: Index, height: int) -> Stmts:
        return ()


def changed(writes: Sequence[Write], changes: Mapping[Var, Index]) -> tuple[Write, ...]:
    """What is written where variables are changed."""
    return tuple(
        replace(w, index=w.index.substitute(changes), value=scalar.substitute(w.value, changes))
        for w in writes
    )


def _spots(block: Spread) -> list[Var]:
    """Loops over the spots of a phase, the last one over lanes."""
    counts = list(block.counts)
    if block.is_joined:
        counts[-2:] = [counts[-2] * counts[-1]]
    return [Var(f"spot{n}", count) for n, count in enumerate(counts)]
