"""Takes an image, gives the transforms of its overlapping tiles, from a staged block of them.

4 x 4 elements, 2 apart    ->    elements[place][tile][channel] for 16 places, lanes over channels
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ir import scalar
from ir.index import Guard, Index, Var
from ir.loops import Buffer, For, Stmt, Store
from ir.places import Place
from ir.scalar import Scalar
from ir.types import DType, multiply
from nncompiler.schedule.heuristics import fitting_lanes
from nncompiler.schedule.staging import stage
from nncompiler.schedule.transforms import Matrix, both_ways

Stmts = tuple[Stmt, ...]


@dataclass(frozen=True)
class Tiling:
    """`rows` x `columns` tiles with `results` results each way are a block, `blocks` an image."""

    results: int
    blocks: int
    rows: int
    columns: int
    lanes: int

    @property
    def count(self) -> int:
        return self.rows * self.columns

    @property
    def block(self) -> Var:
        return Var("rows_block", self.blocks)

    @property
    def row(self) -> Var:
        return Var("tile_row", self.rows)

    @property
    def column(self) -> Var:
        return Var("tile_column", self.columns)

    @property
    def number(self) -> Index:
        """Which tile of the block."""
        return Index.of(self.row) * self.columns + Index.of(self.column)

    def loops(self, body: Sequence[Stmt]) -> Stmts:
        return nest([self.row, self.column], body)

    def place(self, channels: int) -> int:
        """How far one place of a tile is from the next: no power of two, for then they would fall
        on the same lines of the cache."""
        return self.count * channels + self.lanes

    def transformed(
        self,
        operand: Scalar,
        ways: tuple[Place, Place],
        channels: Place,
        matrix: Matrix,
        name: str,
        image: Var | None = None,
    ) -> tuple[Stmts, tuple[Buffer, Buffer]]:
        """The statements, and what they fill: the staged block, and the tiles named `name`.

        `ways` are the places of rows and columns: where a tile lies, and the tap, if there is one.
        The tiles of all images are kept where their variable `image` is given.
        """
        size = len(matrix[0])
        load, inside, copies, staged = self._staged(operand, ways, channels, size, f"{name}_block")
        i, j = inside
        tile = [[at(load, {i: a, j: b}) for b in range(size)] for a in range(size)]
        channel = channels.terms[0][0]
        assert isinstance(channel.extent, int)
        step = self.place(channel.extent)
        whole = len(matrix) ** 2 * step
        buffer = Buffer(
            name, operand.dtype, multiply([image.extent, whole] if image else [whole]), True
        )
        place = self.number * channel.extent + Index.of(channel)
        place = place + Index.of(image) * whole if image else place
        stores = [
            Store(name, place + n * step, value) for n, value in enumerate(both_ways(matrix, tile))
        ]
        lanes = fitting_lanes(channel.extent, self.lanes)
        loop = For(channel, "vector", lanes, tuple(stores))
        return (*copies, *self.loops([loop])), (staged, buffer)

    def load(self, name: str, dtype: DType, channel: Var, place: Var, tile: Var) -> Scalar:
        """A transformed value."""
        assert isinstance(channel.extent, int)
        index = Index.of(place) * self.place(channel.extent)
        return scalar.load(name, index + Index.of(tile) * channel.extent + Index.of(channel), dtype)

    def _staged(
        self, operand: Scalar, ways: tuple[Place, Place], channels: Place, size: int, name: str
    ) -> tuple[Scalar, tuple[Var, Var], Stmts, Buffer]:
        """What the tiles of a block read, channels last, with zeros beyond the image."""
        operand, inside, order = self.corners(operand, ways, size, name)
        load, copies, buffer = stage(operand, [*order, channels], (), self.lanes, name)
        return load, inside, copies, buffer

    def corners(
        self, operand: Scalar, ways: tuple[Place, Place], size: int, name: str
    ) -> tuple[Scalar, tuple[Var, Var], list[Place]]:
        """The operand at element i, j of a tile of a block: (load, (i, j), places of both ways)."""
        inside = (Var(f"{name}_i", size), Var(f"{name}_j", size))
        starts = (Index.of(self.block) * (self.rows * self.results), Index())
        order: list[Place] = []
        moves = zip(ways, (self.row, self.column), inside, starts, strict=True)
        for way, tile, within, start in moves:
            axis, *taps = (v for v, _ in way.terms)
            corner = start + Index.of(tile) * self.results
            change = {axis: corner if taps else corner + Index.of(within)}
            change |= {tap: Index.of(within) for tap in taps}
            operand = scalar.substitute(operand, change)
            assert isinstance(axis.extent, int)
            guard = way.guard
            if guard is None and axis.extent % self.results:
                guard = Guard(way.index, 0, way.extent)
            if guard is not None:
                guard = Guard(guard.value.substitute(change), guard.low, guard.high)
            order.append(Place(((tile, self.results), (within, 1)), way.unit, guard))
        return operand, inside, order


def at(value: Scalar, points: dict[Var, int]) -> Scalar:
    """An expression where variables have known values."""
    return scalar.substitute(value, {v: Index.of(n) for v, n in points.items()})


def nest(axes: Sequence[Var], body: Sequence[Stmt]) -> Stmts:
    """The statements in loops over the axes that are longer than one."""
    found = tuple(body)
    for v in reversed(axes):
        if v.extent != 1:
            found = (For(v, "serial", 1, found),)
    return found
