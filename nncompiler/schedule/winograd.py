"""Takes a convolution by 3 x 3 taps, gives its loops by Winograd's F(2, 3) or F(4, 3).

    y = A' [ (G w G') * (B' d B) ] A        2 x 2 results of 4 x 4 elements: 16 products, not 36

Tiles of the staged image are transformed with lanes over the channels; each of the 16 places is a
product of matrices, tiles x channels times channels x filters; sums are transformed back. All but
the weights stays in the second cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product

from ir import scalar
from ir.function import scratch_bytes
from ir.index import Index, Var
from ir.loops import (
    Buffer,
    Directive,
    For,
    Function,
    Kernel,
    Stmt,
    Store,
    Tile,
    TileBy,
    Transpose,
    Vectorize,
)
from ir.places import Place, places
from ir.scalar import Scalar
from nncompiler.codegen.target import Target
from nncompiler.schedule.filters import place_of_weights, transformed_weights
from nncompiler.schedule.heuristics import fitting_lanes, size_of, tile_rows, tile_shape
from nncompiler.schedule.results import results, sum_of
from nncompiler.schedule.tiling import Tiling, nest
from nncompiler.schedule.transforms import F2, TAPS, Transforms, both_ways

UNROLL = 4
TRANSFORMS = 3.0  # cycles per element and filter of a tile that transforms cost, in products
BLOCK, LARGE_BLOCK = 1 << 17, 1 << 20  # bytes of transformed tiles; where weights are streamed

SCRATCH = 3 << 19  # bytes of a thread's own memory

# --------------------------------------------------------------------------- where it applies


@dataclass(frozen=True)
class Site:
    """A convolution by 3 x 3 taps: places of rows and columns in the image, and the axes."""

    image: Scalar
    weights: Scalar
    rows: Place
    columns: Place
    channels: Place
    around: tuple[Var, ...]
    filters: Var

    def axis(self, place: Place) -> Var:
        """The axis of the result along a place."""
        return place.terms[0][0]

    @property
    def taps(self) -> tuple[Var, Var]:
        """Of the weights, down and across."""
        return self.rows.terms[1][0], self.columns.terms[1][0]

    @property
    def extents(self) -> tuple[int, int]:
        found = [self.axis(p).extent for p in (self.rows, self.columns)]
        assert isinstance(found[0], int) and isinstance(found[1], int)
        return found[0], found[1]

    def transformed_weights(
        self, transforms: Transforms, width: int, target: Target
    ) -> tuple[Stmt, Buffer, tuple[Buffer, ...]]:
        """(the statement that fills, what it fills, scratch): blocks of `width` filters."""
        channel, filters = self.channels.terms[0][0], self.filters
        return transformed_weights(
            self.weights, self.taps, channel, filters, transforms, width, target
        )


def find_site(kernel: Kernel, number: int) -> Site | None:
    """The convolution that a kernel is, where operand `number` is its image; None where it has
    other taps than 3 x 3, strides, dilation or groups."""
    (reduction,) = kernel.reductions
    image, weights = (reduction.value.args[n] for n in (number, 1 - number))
    found = places(image)
    if found is None or not image.dtype.is_float or weights.kind != "load":
        return None
    windows = [_ordered(p, kernel) for p in found if len(p.terms) == 2]
    alone = [p for p in found if len(p.terms) == 1]
    summed = [p for p in alone if p.terms[0][0] in kernel.reduce_axes]
    around = tuple(p.terms[0][0] for p in alone if p not in summed)
    if len(windows) != 2 or len(found) != len(windows) + len(alone) or len(summed) != 1:
        return None
    if not isinstance(summed[0].terms[0][0].extent, int):  # sums over a batch are gradients
        return None
    if any(p.guard for p in alone) or any(w is None for w in windows):
        return None
    rows, columns = windows
    assert rows is not None and columns is not None
    axes = {*around, rows.terms[0][0], columns.terms[0][0]}
    others = [v for v in kernel.axes if v not in axes]
    steps = {summed[0].terms[0][0], rows.terms[1][0], columns.terms[1][0]}
    if len(others) != 1 or set(kernel.reduce_axes) != steps or weights.guards or weights.args:
        return None
    moving = {v for v in (*kernel.axes, *steps) if weights.index.coefficient(v) != 0}
    if moving != {*steps, others[0]} or not isinstance(others[0].extent, int):
        return None
    return Site(image, weights, rows, columns, summed[0], around, others[0])


def _ordered(place: Place, kernel: Kernel) -> Place | None:
    """Result's axis first, then the taps; None where it is no row of three taps without a step."""
    place = replace(place, terms=tuple(sorted(place.terms, key=lambda t: t[0] not in kernel.axes)))
    (axis, _), (tap, _) = place.terms
    plain = all(step == 1 for _, step in place.terms) and isinstance(axis.extent, int)
    if not plain or axis not in kernel.axes or tap not in kernel.reduce_axes:
        return None
    return place if tap.extent == TAPS else None


def block_of_rows(extent: int, results: int, most: int) -> int:
    """Rows of tiles that are transformed at a time, `most` at most: they divide the rows of the
    image, which are one block where tiles stand out of it."""
    rows = -(-extent // results)
    if extent % results:
        return rows
    return max((n for n in range(1, rows + 1) if rows % n == 0 and n <= most), default=1)


def pays(site: Site, transforms: Transforms) -> bool:
    """Is it worth the transforms?"""
    channels, filters = site.channels.extent, site.filters.extent
    assert isinstance(channels, int) and isinstance(filters, int)
    return is_worth(site.extents, channels, filters, transforms)


def not_too_large(site: Site, transforms: Transforms, target: Target) -> Transforms:
    """F(2, 3) where transformed weights, which every image reads, would not stay in the caches."""
    weights = size_of(site.channels.extent) * size_of(site.filters.extent) * site.image.dtype.bytes
    return transforms if transforms.size**2 * weights <= target.l3 else F2


def is_worth(extents: tuple[int, int], channels: int, filters: int, transforms: Transforms) -> bool:
    """Do fewer products make up for transforms, and for what tiles compute beyond the edges?"""
    tiles = math.prod(-(-extent // transforms.results) for extent in extents)
    each = channels * filters + TRANSFORMS * (channels + filters)
    direct = math.prod(extents) * TAPS**2 * channels * filters
    return filters >= 8 and 1.15 * tiles * transforms.size**2 * each < direct


# --------------------------------------------------------------------------- loops


def plan_winograd(
    kernel: Kernel, site: Site, transforms: Transforms, target: Target
) -> tuple[Kernel, Function] | None:
    """The scheduled kernel and its loops; None where a thread would need too much memory."""
    plan = _Plan(kernel, site, transforms, target)
    function = plan.function()
    return (replace(kernel, schedule=plan.schedule), function) if fits(function) else None


def fits(function: Function) -> bool:
    """Is what a thread keeps to itself small enough for its stack?"""
    return scratch_bytes(function) <= SCRATCH


class _Plan:
    def __init__(self, kernel: Kernel, site: Site, transforms: Transforms, target: Target) -> None:
        self.kernel, self.site, self.f, self.target = kernel, site, transforms, target
        self.dtype = site.image.dtype
        channels, filters = site.channels.extent, site.filters.extent
        assert isinstance(channels, int) and isinstance(filters, int)
        self.channel, self.channels, self.filters = site.channels.terms[0][0], channels, filters
        self.lanes = target.lanes(self.dtype)
        self.filter_lanes = fitting_lanes(filters, self.lanes)
        self.vectors, self.height = tile_shape(64, filters, self.filter_lanes, target.registers)
        width = self.vectors * self.filter_lanes
        self.width = width if filters % width == 0 else filters
        m = transforms.results
        rows, columns = (-(-e // m) for e in site.extents)
        weights = transforms.size**2 * channels * filters * self.dtype.bytes
        room = LARGE_BLOCK if 2 * weights > target.l2 else BLOCK
        row = transforms.size**2 * columns * (channels + self.width) * self.dtype.bytes
        tall = block_of_rows(site.extents[0], m, room // row)
        self.tiling = Tiling(m, rows // tall, tall, columns, self.lanes)
        self.filter_block = Var("filters_block", filters // self.width)
        self.filter = Var(site.filters.name, self.width)
        self.place = Var("place", transforms.size**2)
        self.scratch: list[Buffer] = []

    @property
    def schedule(self) -> tuple[Directive, ...]:
        return (
            Vectorize(self.site.filters.name, self.filter_lanes),
            TileBy(self.site.filters.name, self.vectors * self.filter_lanes),
            TileBy(self.site.axis(self.site.rows).name, self.tiling.rows * self.f.results),
        )

    def function(self) -> Function:
        site = self.site
        weights, packed, taps = site.transformed_weights(self.f, self.width, self.target)
        ways = (site.rows, site.columns)
        elements, tiles = self.tiling.transformed(
            site.image, ways, site.channels, self.f.elements, "elements"
        )
        inside = nest([self.filter_block], [self._products(packed), *self._results()])
        around = [v for v in (*site.around, self.tiling.block) if v.extent != 1]
        body = (weights, *nest(around, [*elements, *inside]))
        # stages of their own share nothing but buffers that all threads see; what blocks of filters
        # fill, which are dealt out, belongs to each thread
        shared = [] if around else [*tiles]
        shared += [] if around or self.filter_block.extent != 1 else self.scratch
        own = [b for b in (*tiles, *self.scratch) if b not in shared]
        label, buffers = self.kernel.label, self.kernel.buffers
        return Function(label, buffers, body, (*own, *taps), (packed, *shared))

    def _own(self, name: str, size: int) -> Buffer:
        buffer = Buffer(name, self.dtype, size, True)
        self.scratch.append(buffer)
        return buffer

    # ------------------------------------------------------------ products and results

    def _products(self, weights: Buffer) -> Stmt:
        """sums[place][tile][filter]"""
        tile = Var("tile", self.tiling.count)
        step = place_of_weights(self.channel, self.width, self.target, self.dtype)
        right = (Index.of(self.filter_block) * self.f.size**2 + Index.of(self.place)) * step
        right = right + Index.of(self.channel) * self.width + Index.of(self.filter)
        step = self.tiling.place(self.width)
        sums = self._own("sums", self.f.size**2 * step)
        acc = sum_of(self.kernel)
        stored = Index.of(self.place) * step + Index.of(tile) * self.width + Index.of(self.filter)
        product = Tile(
            tile,
            self.filter,
            (self.channel,),
            acc.name,
            self.tiling.load("elements", self.dtype, self.channel, self.place, tile),
            scalar.load(weights.name, right, self.dtype),
            (Store(sums.name, stored, acc),),
            tile_rows(self.tiling.count, self.height, stream=True),
            self.vectors,
            self.filter_lanes,
            UNROLL,
        )
        return For(self.place, "serial", 1, (product,))

    def _results(self) -> tuple[Stmt, ...]:
        """The sums transformed back, then the results of all points of the block."""
        m, size, width, tiling = self.f.results, self.f.size, self.width, self.tiling
        base, step = tiling.number * width + Index.of(self.filter), tiling.place(width)
        sums = [
            [scalar.load("sums", base + (a * size + b) * step, self.dtype) for b in range(size)]
            for a in range(size)
        ]
        values = both_ways(self.f.sums, sums)
        line = tiling.columns * m
        points = tiling.rows * m * line
        by_rows = self._own("by_rows", points * width)
        first = (Index.of(tiling.row) * m * line + Index.of(tiling.column) * m) * width
        stores = [
            Store(by_rows.name, first + (a * line + b) * width + Index.of(self.filter), value)
            for (a, b), value in zip(product(range(m), repeat=2), values, strict=True)
        ]
        loop = For(self.filter, "vector", self.filter_lanes, tuple(stores))
        return (*tiling.loops([loop]), *self._finish(by_rows, line, points))

    def _finish(self, by_rows: Buffer, line: int, points: int) -> list[Stmt]:
        site, width = self.site, self.width
        h, w = site.axis(site.rows), site.axis(site.columns)
        rows = self.tiling.rows * self.f.results
        row = Var(h.name, min(rows, site.extents[0]))
        start = Index.of(self.tiling.block) * rows
        filters = Index.of(self.filter_block) * width + Index.of(self.filter)
        change = {h: start + Index.of(row), site.filters: filters}
        writes = tuple(
            replace(x, index=x.index.substitute(change), value=scalar.substitute(x.value, change))
            for x in self.kernel.writes
        )
        place, column = Index.of(row) * line + Index.of(w), Index.of(self.filter)
        body: list[Stmt] = []
        if self.kernel.writes[0].index.coefficient(site.filters) == 1:
            axes: tuple[Var, ...] = (row, w, self.filter)
            total = scalar.load(by_rows.name, place * width + column, self.dtype)
        else:
            self._own("by_columns", points * width)
            point = Var("point", points)
            value = scalar.load(by_rows.name, Index.of(point) * width + column, self.dtype)
            target = column * points + Index.of(point)
            body.append(
                Transpose(self.filter, point, "by_columns", target, value, self.filter_lanes)
            )
            axes = (self.filter, row, w)
            total = scalar.load("by_columns", column * points + place, self.dtype)
        found = results(self.kernel, writes, axes, total, self.target)
        self.scratch += found.scratch
        return [*body, *found.body]
