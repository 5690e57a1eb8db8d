"""Takes an image, gives the transforms of its overlapping tiles with lanes over the tiles.

4 x 4 elements, 2 apart    ->    elements[part][place][channel][tile] for 16 places

Channels stay where they are, first: nothing is transposed. Every row is transformed along its
columns, once; row i of a tile's elements then lies in plane i % 2, a row of tiles further on for
each i // 2, so that neighbouring tiles lie side by side whatever the width of the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ir import scalar
from ir.index import Guard, Index, Var
from ir.loops import Buffer, For, Stmt, Store
from ir.places import Place
from ir.scalar import Scalar
from ir.types import DType
from nncompiler.schedule.heuristics import fitting_lanes
from nncompiler.schedule.tiling import Tiling, at, nest
from nncompiler.schedule.transforms import Matrix, weighted

WRITTEN_OUT = 4  # vectors of a row
PART = 2  # vectors of tiles whose products and sums stay in the first cache

Stmts = tuple[Stmt, ...]


def part_of_tiles(tiling: Tiling, extent: int) -> int:
    """How many tiles are multiplied at a time: rows of them that divide those of the block and fill
    whole vectors, all where tiles stand out of an image with `extent` rows; 0 where none do."""
    rows = range(1 if extent % tiling.results == 0 else tiling.rows, tiling.rows + 1)
    counts = [n * tiling.columns for n in rows if tiling.rows % n == 0]
    wide = PART * tiling.lanes
    whole = [n for n in counts if n % tiling.lanes == 0 and n >= wide]
    return min(whole, default=0) if _is_short(tiling) else 0


def fills_lanes(tiling: Tiling) -> bool:
    """Do all tiles of a block fill whole vectors, and is a row of them short?"""
    return tiling.count % tiling.lanes == 0 and _is_short(tiling)


def _is_short(tiling: Tiling) -> bool:
    """Is a row of tiles written out?"""
    return tiling.columns <= WRITTEN_OUT * tiling.lanes


def across(axis: Var, lanes: int, body: Sequence[Stmt]) -> Stmt:
    """A loop along a row; a short one is written out, so that its edges are constants."""
    short = isinstance(axis.extent, int) and axis.extent <= WRITTEN_OUT * lanes
    kind = "unroll vector" if short else "vector"
    return For(axis, kind, fitting_lanes(axis.extent, lanes), tuple(body))


@dataclass(frozen=True)
class Planes:
    """The tiles of a block, one after the other, in lanes: `tiling` tells where they lie, `places`
    how many values there are of each, `part` how many tiles lie together."""

    tiling: Tiling
    channel: Var
    places: int
    part: int

    @property
    def parts(self) -> Var:
        return Var("tiles_part", self.tiling.count // self.part)

    @property
    def tile(self) -> Var:
        return Var("tile", self.part)

    @property
    def tile_lanes(self) -> int:
        return fitting_lanes(self.part, self.tiling.lanes)

    @property
    def channels(self) -> int:
        assert isinstance(self.channel.extent, int)
        return self.channel.extent

    @property
    def _step(self) -> int:
        """How far one place is from the next: no power of two, for then they would fall on the same
        lines of the cache."""
        return self.channels * self.part + self.tiling.lanes

    def _index(self, place: Index) -> Index:
        here = Index.of(self.channel) * self.part + Index.of(self.tile) + place * self._step
        return here + Index.of(self.parts) * (self.places * self._step)

    def load(self, name: str, dtype: DType, place: Index) -> Scalar:
        """A transformed value."""
        return scalar.load(name, self._index(place), dtype)

    def transformed(
        self, operand: Scalar, ways: tuple[Place, Place], matrix: Matrix, name: str
    ) -> tuple[Stmt, Buffer, Buffer]:
        """(the loop over the channels, what each of its passes has for itself, what it fills)"""
        size, tiling = len(matrix[0]), self.tiling
        load, inside, order = tiling.corners(operand, ways, size, name)
        # without padding, too, tiles may stand out, and rows are read by whole vectors
        edge = order[1].guard or Guard(order[1].index, 0, order[1].extent)
        if edge not in load.guards:
            load = scalar.load(load.name, load.index, load.dtype, guards=(*load.guards, edge))
        rows = _Rows(tiling, load, order[0].guard, inside, matrix, f"{name}_planes")
        down = For(self.tile, "vector", self.tile_lanes, self._columns(rows, matrix, name))
        body = For(self.channel, "serial", 1, (*rows.loops(), *nest([self.parts], [down])))
        parts = tiling.count // self.part
        tiles = Buffer(name, operand.dtype, parts * self.places * self._step, True)
        return body, rows.buffer, tiles

    def _columns(self, rows: _Rows, matrix: Matrix, name: str) -> Stmts:
        tile = Index.of(self.parts) * self.part + Index.of(self.tile)
        found = []
        for b in range(len(matrix)):
            column = [rows.load(b, i, tile) for i in range(len(matrix[0]))]
            for a, row in enumerate(matrix):
                place = Index.of(a * len(matrix) + b)
                found.append(Store(name, self._index(place), weighted(row, column)))
        return tuple(found)


@dataclass(frozen=True)
class _Rows:
    """The rows of one channel, each transformed along its columns."""

    tiling: Tiling
    operand: Scalar
    guard: Guard | None  # which rows there are
    inside: tuple[Var, Var]
    matrix: Matrix
    name: str

    @property
    def _phases(self) -> int:
        return self.tiling.results

    @property
    def _count(self) -> int:
        """Rows of a plane: those of the tiles, and what the last ones reach beyond."""
        return self.tiling.rows + (len(self.matrix[0]) - 1) // self._phases

    @property
    def _plane(self) -> int:
        return self._count * self.tiling.columns + self.tiling.lanes

    @property
    def buffer(self) -> Buffer:
        size = len(self.matrix) * self._phases * self._plane
        return Buffer(self.name, self.operand.dtype, size, True)

    def load(self, b: int, i: int, tile: Index) -> Scalar:
        """Transform b of row i of the elements of a tile."""
        further, phase = divmod(i, self._phases)
        start = (b * self._phases + phase) * self._plane + further * self.tiling.columns
        return scalar.load(self.name, tile + start, self.operand.dtype)

    def loops(self) -> Stmts:
        return tuple(
            self._piece(phase, *piece)
            for phase in range(self._phases)
            for piece in self._pieces(phase)
        )

    def _pieces(self, phase: int) -> list[tuple[int, int, bool | None]]:
        """(start, count, are they there) of the rows of a plane; None where guards tell."""
        count, step = self._count, self._phases
        if self.guard is None:
            return [(0, count, True)]
        first = self.guard.value.substitute(self._at(Index(), phase))
        if first.terms or not isinstance(self.guard.high, int):
            return [(0, count, None)]
        low = min(max(-((first.constant - self.guard.low) // step), 0), count)
        high = min(max(-((first.constant - self.guard.high) // step), low), count)
        parts = ((0, low, False), (low, high - low, True), (high, count - high, False))
        return [p for p in parts if p[1]]

    def _at(self, row: Index, phase: int) -> dict[Var, Index]:
        return {self.tiling.row: row, self.inside[0]: Index.of(phase)}

    def _piece(self, phase: int, start: int, count: int, is_there: bool | None) -> Stmt:
        tiling, operand = self.tiling, self.operand
        row = Var("row", count)
        here = Index.of(row) + start
        values = [scalar.const(operand.fill, operand.dtype)] * len(self.matrix[0])
        if is_there is not False:
            guards = tuple(g for g in operand.guards if not is_there or g != self.guard)
            operand = scalar.load(
                operand.name, operand.index, operand.dtype, guards=guards, fill=operand.fill
            )
            operand = scalar.substitute(operand, self._at(here, phase))
            values = [at(operand, {self.inside[1]: b}) for b in range(len(values))]
        place = here * tiling.columns + Index.of(tiling.column)
        stores = [
            Store(
                self.name, place + (b * self._phases + phase) * self._plane, weighted(line, values)
            )
            for b, line in enumerate(self.matrix)
        ]
        return For(row, "serial", 1, tuple(self._vectors(stores)))

    def _vectors(self, stores: Sequence[Store]) -> Iterator[Stmt]:
        """The stores of a row, a vector of tiles after the other."""
        column, lanes = self.tiling.column, self.tiling.lanes
        for start in range(0, self.tiling.columns, lanes):
            part = Var("column", min(lanes, self.tiling.columns - start))
            change = {column: Index.of(part) + start}
            body = [
                Store(s.buffer, s.index.substitute(change), scalar.substitute(s.value, change))
                for s in stores
            ]
            yield For(part, "shifted vector", fitting_lanes(part.extent, lanes), tuple(body))
