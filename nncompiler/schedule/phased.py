"""Takes a contraction over windows with zeros between their elements, gives the frame of its loops:
blocks of an image, what they read, the weights, and the tile of a phase.

    for n in batch:  for block of rows:  staged = rows of g[n];  for phase: ...;  results
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from ir import scalar
from ir.index import Index, Var
from ir.loops import (
    Buffer,
    For,
    Function,
    Kernel,
    Stmt,
    Tile,
    TileBy,
    Vectorize,
    Write,
)
from ir.scalar import Scalar
from nncompiler.codegen.target import Target
from nncompiler.schedule.heuristics import fitting_lanes, size_of, tile_rows, tile_shape
from nncompiler.schedule.images import SCRATCH
from nncompiler.schedule.pack import moves, pack
from nncompiler.schedule.phases import Axis, Phase, joined_taps
from nncompiler.schedule.results import results, sum_of
from nncompiler.schedule.spreading import Spread
from nncompiler.schedule.tiling import nest

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


class Phased(ABC):
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

    def finish(self, start: Index, height: int, total: Scalar) -> Stmts:
        """The results of a block of rows from their sums, in memory by the rows of the block."""
        first = self.site.axes[0].way.spot
        row = Var(first.name, height)
        writes = changed(self.kernel.writes, {first: start + Index.of(row)})
        axes = [row if v == first else v for v in self.kernel.axes if v not in self.site.around]
        last = results(self.kernel, writes, tuple(axes), total, self.target)
        self.scratch += last.scratch
        return last.body


def changed(writes: Sequence[Write], changes: Mapping[Var, Index]) -> tuple[Write, ...]:
    """What is written where variables are changed."""
    return tuple(
        replace(w, index=w.index.substitute(changes), value=scalar.substitute(w.value, changes))
        for w in writes
    )
