"""Takes a convolution by 3 x 3 taps of few channels, gives its loops by Winograd's transforms with
lanes over tiles.

Where channels fill one or two vectors, turning images and results costs as much as the products.
Here both stay channels first: weights are broadcast, and tiles side by side run over the lanes.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from ir import scalar
from ir.index import Index, Var
from ir.loops import Buffer, Directive, For, Function, Kernel, Stmt, Store, Tile, TileBy, Vectorize
from nncompiler.codegen.target import Target
from nncompiler.schedule.apply import stores
from nncompiler.schedule.filters import place_of_weights
from nncompiler.schedule.heuristics import tile_rows, tile_shape
from nncompiler.schedule.planes import Planes, across, part_of_tiles
from nncompiler.schedule.results import sum_of
from nncompiler.schedule.tiling import Tiling, nest
from nncompiler.schedule.transforms import Transforms, both_ways
from nncompiler.schedule.winograd import Site, block_of_rows, fits

UNROLL = 4
FEW = 2  # vectors of channels or of filters
BLOCK = 1 << 19  # bytes of transformed tiles
FILTERS = 12  # whose sums are transformed back at a time, from the first cache


def has_few_channels(
    kernel: Kernel, site: Site, transforms: Transforms, target: Target
) -> Tiling | None:
    """The tiles, where there are few channels, elements and results lie in rows, and tiles fill
    the lanes."""
    lanes = target.lanes(site.image.dtype)
    channels, filters = site.channels.extent, site.filters.extent
    assert isinstance(channels, int) and isinstance(filters, int)
    column = site.axis(site.columns)
    in_rows = all(w.index.coefficient(column) == 1 for w in kernel.writes)
    if max(channels, filters) > FEW * lanes or site.columns.unit != 1 or not in_rows:
        return None
    m = transforms.results
    rows, columns = (-(-e // m) for e in site.extents)
    row = transforms.size**2 * columns * channels * site.image.dtype.bytes
    tall = block_of_rows(site.extents[0], m, BLOCK // row)
    tiling = Tiling(m, rows // tall, tall, columns, lanes)
    return tiling if m == 2 and part_of_tiles(tiling, site.extents[0]) else None


def plan_planes(
    kernel: Kernel, site: Site, transforms: Transforms, tiling: Tiling, target: Target
) -> tuple[Kernel, Function] | None:
    """The scheduled kernel and its loops; None where a thread would need too much memory."""
    plan = _Plan(kernel, site, transforms, tiling, target)
    function = plan.function()
    return (replace(kernel, schedule=plan.schedule), function) if fits(function) else None


class _Plan:
    def __init__(
        self, kernel: Kernel, site: Site, transforms: Transforms, tiling: Tiling, target: Target
    ) -> None:
        self.kernel, self.site, self.f, self.tiling = kernel, site, transforms, tiling
        self.target = target
        self.dtype = site.image.dtype
        filters = site.filters.extent
        assert isinstance(filters, int)
        self.channel, self.filters = site.channels.terms[0][0], filters
        self.part = part_of_tiles(tiling, site.extents[0])
        self.planes = Planes(tiling, self.channel, transforms.size**2, self.part)
        self.tile, self.lanes = self.planes.tile, self.planes.tile_lanes
        self.width = max(n for n in range(1, filters + 1) if filters % n == 0 and n <= FILTERS)
        shape = tile_shape(self.width, self.part, self.lanes, target.registers)
        self.vectors, self.height = shape
        self.filter_block = Var("filters_block", filters // self.width)
        self.filter = Var(site.filters.name, self.width)
        self.place = Var("place", transforms.size**2)

    @property
    def schedule(self) -> tuple[Directive, ...]:
        return (
            Vectorize(self.tile.name, self.lanes),
            TileBy(self.tile.name, self.vectors * self.lanes),
            TileBy(self.site.filters.name, self.height),
        )

    def function(self) -> Function:
        site = self.site
        weights, packed, taps = site.transformed_weights(self.f, self.filters, self.target)
        elements, rows, tiles = self.planes.transformed(
            site.image, (site.rows, site.columns), self.f.elements, "elements"
        )
        sums = Buffer("sums", self.dtype, self.f.size**2 * self._step, True)
        results, parts = self._results()
        blocks = [v for v in (self.planes.parts, self.filter_block) if v.extent != 1]
        inside = nest(blocks, [self._products(packed), results])
        around = [v for v in (*site.around, self.tiling.block) if v.extent != 1]
        body = (weights, *nest(around, [elements, *inside]))
        # stages of their own share nothing but buffers that all threads see
        shared = [] if around else [tiles] if blocks else [tiles, sums]
        own = (rows, parts, *taps, *(b for b in (tiles, sums) if b not in shared))
        return Function(self.kernel.label, self.kernel.buffers, body, own, (packed, *shared))

    @property
    def _step(self) -> int:
        """From one place of the sums to the next."""
        return self.width * self.part + self.tiling.lanes

    def _products(self, weights: Buffer) -> Stmt:
        """sums[place][filter][tile]"""
        place, column = Index.of(self.place), Index.of(self.filter_block) * self.width
        step = place_of_weights(self.channel, self.filters, self.target, self.dtype)
        left = place * step + Index.of(self.channel) * self.filters + column
        acc = sum_of(self.kernel)
        stored = Index.of(self.filter) * self.part + Index.of(self.tile) + place * self._step
        product = Tile(
            self.filter,
            self.tile,
            (self.channel,),
            acc.name,
            scalar.load(weights.name, left + Index.of(self.filter), self.dtype),
            self.planes.load("elements", self.dtype, place),
            (Store("sums", stored, acc),),
            tile_rows(self.width, self.height),
            self.vectors,
            self.lanes,
            UNROLL,
        )
        return For(self.place, "serial", 1, (product,))

    def _results(self) -> tuple[Stmt, Buffer]:
        """For each filter the sums transformed back into parts, every second row and column in one
        of its own; then the results of all points."""
        m, size, step = self.f.results, self.f.size, self.part + self.tiling.lanes
        first = Index.of(self.filter) * self.part + Index.of(self.tile)
        loads = [scalar.load("sums", first + n * self._step, self.dtype) for n in range(size**2)]
        sums = [loads[n * size : (n + 1) * size] for n in range(size)]
        back = [
            Store("parts", Index.of(self.tile) + (a * m + b) * step, value)
            for (a, b), value in zip(
                product(range(m), repeat=2), both_ways(self.f.sums, sums), strict=True
            )
        ]
        loop = For(self.tile, "vector", self.lanes, tuple(back))
        points = For(self.filter, "serial", 1, (loop, self._points(step)))
        return points, Buffer("parts", self.dtype, m**2 * step, True)

    def _points(self, step: int) -> Stmt:
        """The results of one filter, each from its place in the parts."""
        site, m, columns = self.site, self.f.results, self.tiling.columns
        h, w = site.axis(site.rows), site.axis(site.columns)
        rows = min(self.part // columns * m, site.extents[0])
        row = Var(h.name, rows)
        start = Index.of(self.tiling.block) * (self.tiling.rows * m)
        start = start + Index.of(self.planes.parts) * rows
        filters = Index.of(self.filter_block) * self.width + Index.of(self.filter)
        change = {h: start + Index.of(row), site.filters: filters}
        tile = Index.of(row) // m * columns + Index.of(w) // m
        part = Index.of(row) % m * (m * step) + Index.of(w) % m * step
        total, acc = scalar.load("parts", tile + part, self.dtype), sum_of(self.kernel)
        writes = [
            replace(
                x,
                index=x.index.substitute(change),
                value=scalar.rewrite(
                    scalar.substitute(x.value, change), lambda s: total if s is acc else None
                ),
            )
            for x in self.kernel.writes
        ]
        return For(row, "serial", 1, (across(w, self.tiling.lanes, stores(writes)),))
