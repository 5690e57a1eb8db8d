"""Takes the gradient of 3 x 3 weights of few channels, gives its loops by the adjoints of
Winograd's transforms with lanes over tiles.

    sums[place][channel][filter] = sum over tiles of elements * gradients

Both operands stay channels first; the sums over the tiles of an image are dot products.
"""

from __future__ import annotations

from dataclasses import replace

from ir.index import Index, Var
from ir.loops import Buffer, Directive, For, Function, Kernel, Stmt, Store, Tile, TileBy, Vectorize
from nncompiler.codegen.target import Target
from nncompiler.schedule.heuristics import tile_rows
from nncompiler.schedule.planes import Planes, fills_lanes
from nncompiler.schedule.results import sum_of
from nncompiler.schedule.tiling import Tiling
from nncompiler.schedule.transforms import Transforms, transposed
from nncompiler.schedule.winograd import fits
from nncompiler.schedule.winograd_weights import Gradient, Plan

ROWS, COLUMNS = 4, 4  # of dot products at a time
LONG = 8  # vectors of tiles whose sum is worth adding up the lanes


def has_rows_of_few(site: Gradient, transforms: Transforms, target: Target) -> bool:
    """Are channels and filters a vector at most, do both operands lie in rows, and are the tiles of
    an image many, but no more than the second cache holds?"""
    dtype = site.image.dtype
    channels, filters = (p.terms[0][0].extent for p in (site.channels, site.filters))
    assert isinstance(channels, int) and isinstance(filters, int)
    in_rows = site.ways[1].unit == 1 and site.result_ways[1].unit == 1
    tiling = _tiles_of(site, transforms, target)
    tiles = transforms.size**2 * tiling.count * (channels + filters) * dtype.bytes
    few = max(channels, filters) <= tiling.lanes and 2 * tiles <= target.l2
    whole = fills_lanes(tiling) and tiling.count >= LONG * tiling.lanes
    return transforms.results == 2 and in_rows and few and whole


def _tiles_of(site: Gradient, transforms: Transforms, target: Target) -> Tiling:
    rows, columns = (-(-e // transforms.results) for e in site.extents)
    return Tiling(transforms.results, 1, rows, columns, target.lanes(site.image.dtype))


def plan_dots(
    kernel: Kernel, site: Gradient, transforms: Transforms, target: Target
) -> tuple[Kernel, Function] | None:
    """The scheduled kernel and its loops; None where a thread would need too much memory."""
    plan = _Plan(kernel, site, transforms, target)
    function = plan.function()
    return (replace(kernel, schedule=plan.schedule), function) if fits(function) else None


class _Plan(Plan):
    def __init__(
        self, kernel: Kernel, site: Gradient, transforms: Transforms, target: Target
    ) -> None:
        super().__init__(kernel, site, transforms, target)
        self.tiling, self.by_image = _tiles_of(site, transforms, target), True
        self.left, self.right = (
            Planes(self.tiling, v, transforms.size**2, self.tiling.count)
            for v in (self.channel, self.filter)
        )

    @property
    def schedule(self) -> tuple[Directive, ...]:
        return (
            Vectorize(self.left.tile.name, self.lanes),
            TileBy(self.filter.name, COLUMNS),
            TileBy(self.channel.name, ROWS),
        )

    def transforms(self, kept: Var | None) -> tuple[list[Stmt], list[Buffer]]:
        site, f = self.site, self.f
        elements, *tiles = self.left.transformed(site.image, site.ways, f.elements, "elements")
        gradients, *others = self.right.transformed(
            site.result, site.result_ways, transposed(f.sums), "gradients"
        )
        return [elements, gradients], [*tiles, *others]

    def products(self, image: Var | None) -> Stmt:
        """sums[place][channel][filter] of an image."""
        place, acc = Index.of(self.place), sum_of(self.kernel)
        product = Tile(
            self.channel,
            self.filter,
            (self.left.tile,),
            acc.name,
            self.left.load("elements", self.dtype, place),
            self.right.load("gradients", self.dtype, place),
            (Store("sums", self.index(image, place), acc),),
            tile_rows(self.channels, ROWS),
            min(COLUMNS, self.filters),
            self.lanes,
            1,
            dot=True,
        )
        return For(self.place, "serial", 1, (product,))
