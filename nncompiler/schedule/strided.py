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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from ir import scalar
from ir.dilated import dilated
from ir.index import Index, Var
from ir.loops import Buffer, For, Function, Kernel, Stmt, Store, Tile, TileBy, Vectorize
from ir.scalar import Scalar
from nncompiler.codegen.target import Target
from nncompiler.schedule.heuristics import fitting_lanes, size_of, tile_rows, tile_shape
from nncompiler.schedule.images import SCRATCH
from nncompiler.schedule.pack import moves, pack
from nncompiler.schedule.phases import Axis, Phase
from nncompiler.schedule.results import results, sum_of
from nncompiler.schedule.spreading import Spread
from nncompiler.schedule.tiling import nest

TALL = 8  # channels that are better two vectors wide
UNROLL = 4  # steps of a tile


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

    @property
    def count(self) -> int:
        """How many results a spot has in all channels."""
        return math.prod(size_of(v.extent) for v in self.filters)


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
    plan = _Plan(kernel, site, target)
    return replace(kernel, schedule=plan.schedule), plan.function()


class _Plan:
    """Loops for blocks of `height` spots along the first axis."""

    def __init__(self, kernel: Kernel, site: Strided, target: Target) -> None:
        self.kernel, self.site, self.target = kernel, site, target
        self.dtype = site.image.dtype
        self.row = max(site.filters, key=lambda v: size_of(v.extent), default=Var("one", 1))
        self.height = self._height()
        largest = self._block(Index(), self.height)
        self.spots = _spots(largest)[-1]
        lanes = target.lanes(self.dtype)
        self.lanes = fitting_lanes(self.spots.extent, lanes)
        # what spots read streams from the second cache: tall tiles read it less often
        is_tall = size_of(self.row.extent) >= TALL
        spots = 2 * self.lanes if is_tall else size_of(self.spots.extent)
        shape = tile_shape(self.row.extent, spots, self.lanes, target.registers)
        self.vectors, self.rows = shape
        sums = Buffer("sums", self.dtype, self._sums(largest), True)
        self.scratch, self.workspace = [largest.buffer, sums], list[Buffer]()

    @property
    def schedule(self) -> tuple[Vectorize | TileBy, ...]:
        return (
            Vectorize(self.spots.name, self.lanes),
            TileBy(self.spots.name, self.vectors * self.lanes),
            TileBy(self.row.name, self.rows),
        )

    def function(self) -> Function:
        every = list(product(*(a.phases for a in self.site.axes)))
        packed = [self._weights(number, phases) for number, phases in enumerate(every)]
        weights = {phases: load for phases, (load, _) in zip(every, packed, strict=True)}
        first = self.site.axes[0].way
        blocks, rest = divmod(first.extent, self.height)
        number = Var(f"{first.spot}_block", blocks)
        body: tuple[Stmt, ...] = ()
        if blocks:
            start = Index.of(number) * self.height
            body = nest([number], self._work(start, self.height, weights))
        if rest:
            body += self._work(Index.of(blocks * self.height), rest, weights)
        for v in reversed(self.site.around or (Var("image", 1),)):
            body = (For(v, "serial", 1, body),)
        body = (*(copy for _, copies in packed for copy in copies), *body)
        label, buffers = self.kernel.label, self.kernel.buffers
        return Function(label, buffers, body, tuple(self.scratch), tuple(self.workspace))

    # ------------------------------------------------------------ blocks

    def _block(self, start: Index, height: int) -> Spread:
        """What `height` spots of the first axis read, from spot `start` on."""
        site = self.site
        first, *rest = (a.way for a in site.axes)
        extents = (height, *(w.extent for w in rest))
        counts = [-(-n // a.way.stride) for n, a in zip(extents, site.axes, strict=True)]
        counts[-1] = max(counts[-1], 2)  # lanes run over no axis of one spot
        starts = (start // first.stride, *(Index() for _ in rest))
        return Spread(site.image, site.axes, site.channels, starts, tuple(counts), "staged")

    def _sums(self, block: Spread) -> int:
        """How many sums a block has."""
        strides = math.prod(a.way.stride for a in self.site.axes)
        return strides * self.site.count * math.prod(block.counts)

    def _height(self) -> int:
        """Spots along the first axis that are computed at a time: as many as the caches hold, the
        same number in every block where that is not much less."""
        way = self.site.axes[0].way
        fitting = [way.stride]
        for height in range(2 * way.stride, way.extent + way.stride, way.stride):
            block = self._block(Index(), height)
            if (block.size + self._sums(block)) * self.dtype.bytes <= SCRATCH:
                fitting.append(height)
        most = min(max(fitting), way.extent)
        even = [h for h in fitting if way.extent % h == 0 and 2 * h > most]
        return most if most == way.extent else max(even, default=most)

    def _work(
        self, start: Index, height: int, weights: Mapping[tuple[Phase, ...], Scalar]
    ) -> tuple[Stmt, ...]:
        """All of a block: the copy, the sums phase by phase, and the results."""
        block = self._block(start, height)
        found = [*block.copies(self.target.lanes(self.dtype))]
        for phases, lhs in weights.items():
            found += self._phase(block, phases, lhs)
        return (*found, *self._results(block, start, height))

    # ------------------------------------------------------------ one phase

    def _weights(self, number: int, phases: Sequence[Phase]) -> tuple[Scalar, tuple[Stmt, ...]]:
        """What a phase multiplies with, in the order in which it does: (load, statements)."""
        site, axes = self.site, list(zip(self.site.axes, phases, strict=True))
        changes = {v: index for axis, phase in axes for v, index in axis.changes(phase).items()}
        operand = scalar.substitute(site.other, changes)
        if not moves(operand, self.row):
            return operand, ()
        numbers = tuple(axis.number(phase) for axis, phase in axes)
        steps = tuple(axis.step(phase) for axis, phase in axes)
        kernel = replace(
            self.kernel,
            axes=(*site.around, *numbers, *site.filters),
            reduce_axes=(*steps, *site.channels),
        )
        filters = size_of(self.row.extent)
        lanes = fitting_lanes(filters, self.target.lanes(self.dtype))
        load, copy, buffer = pack(kernel, self.row, filters, operand, lanes, f"weights{number}")
        self.workspace.append(buffer)
        return load, (copy,)

    def _phase(self, block: Spread, phases: Sequence[Phase], lhs: Scalar) -> tuple[Stmt, ...]:
        """The sums of a phase at all spots of the block."""
        axes = list(zip(self.site.axes, phases, strict=True))
        *outer, spots = _spots(block)
        along = [Index.of(v) for v in outer]
        if block.is_joined:  # a row begins where the last one ends
            along.append(Index())
        rhs = block.read(phases, (*along, Index.of(spots)))
        numbers = [axis.number(phase) for axis, phase in axes]
        steps = [axis.step(phase) for axis, phase in axes]
        phase = Index()
        for (axis, p), number in zip(axes, numbers, strict=True):
            phase = phase * axis.way.stride + Index.of(number) + p.first
        place = phase
        for v in self.site.filters:
            place = place * size_of(v.extent) + Index.of(v)
        for n, count in enumerate(block.counts):
            place = place * count + (along[n] if n < len(along) else Index())
        acc = sum_of(self.kernel)
        summed = [v for v in (*steps, *self.site.channels) if v.extent != 1] or steps[-1:]
        tile = Tile(
            self.row,
            spots,
            tuple(summed),
            acc.name,
            lhs,
            rhs,
            (Store("sums", place + Index.of(spots), acc),),
            tile_rows(self.row.extent, self.rows),
            self.vectors,
            self.lanes,
            UNROLL,
        )
        filters = [v for v in self.site.filters if v != self.row]
        return nest([*numbers, *filters, *outer], [tile])

    # ------------------------------------------------------------ results

    def _results(self, block: Spread, start: Index, height: int) -> tuple[Stmt, ...]:
        """The results of a block: every spot has the sum of its phase."""
        site, ways = self.site, [a.way for a in self.site.axes]
        row = Var(ways[0].spot.name, height)
        change = {ways[0].spot: start + Index.of(row)}
        spots = [Index.of(v) for v in (row, *(w.spot for w in ways[1:]))]
        place = Index()
        for spot, way in zip(spots, ways, strict=True):
            place = place * way.stride + spot % way.stride
        for v in site.filters:
            place = place * size_of(v.extent) + Index.of(v)
        for spot, way, count in zip(spots, ways, block.counts, strict=True):
            place = place * count + spot // way.stride
        writes = tuple(
            replace(w, index=w.index.substitute(change), value=scalar.substitute(w.value, change))
            for w in self.kernel.writes
        )
        axes = [row if v == ways[0].spot else v for v in self.kernel.axes if v not in site.around]
        total = scalar.load("sums", place, self.dtype)
        last = results(self.kernel, writes, tuple(axes), total, self.target)
        self.scratch += last.scratch
        return last.body


def _spots(block: Spread) -> list[Var]:
    """Loops over the spots of a phase, the last one over lanes."""
    counts = list(block.counts)
    if block.is_joined:
        counts[-2:] = [counts[-2] * counts[-1]]
    return [Var(f"spot{n}", count) for n, count in enumerate(counts)]
