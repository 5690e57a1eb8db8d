"""Takes the gradient of 3 x 3 weights, gives its loops by the adjoints of Winograd's transforms.

    dw = G' [ sum over tiles of (B' d B) * (A g A') ] G

Each of the 16 places is a product of matrices, channels x tiles times tiles x filters. Where its
sums are small every image has sums of its own, from blocks of tiles that stay in the second cache;
else the tiles of all images are transformed first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ir import scalar
from ir.index import Guard, Index, Var
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
    Vectorize,
)
from ir.places import Place, places
from ir.scalar import Scalar
from ir.types import multiply
from nncompiler.codegen.target import Target
from nncompiler.schedule.heuristics import fitting_lanes, tile_rows, tile_shape
from nncompiler.schedule.results import sum_of
from nncompiler.schedule.taps import finish_taps, sums_of_images
from nncompiler.schedule.tiling import Tiling, nest
from nncompiler.schedule.transforms import TAPS, Transforms, both_ways, transposed
from nncompiler.schedule.winograd import BLOCK, UNROLL, block_of_rows, fits, is_worth


@dataclass(frozen=True)
class Gradient:
    """The gradient of a convolution's weights of 3 x 3 taps, and the places of its operands."""

    image: Scalar
    result: Scalar  # the gradient of the convolution's result
    ways: tuple[Place, Place]
    channels: Place
    result_ways: tuple[Place, Place]
    filters: Place
    images: Var | None

    @property
    def extents(self) -> tuple[int, int]:
        rows, columns = (p.terms[0][0].extent for p in self.ways)
        assert isinstance(rows, int) and isinstance(columns, int)
        return rows, columns


def find_gradient(kernel: Kernel, number: int) -> Gradient | None:
    """The gradient that a kernel is, where operand `number` is the image; None where it is that of
    other taps than 3 x 3, of strides, dilation or groups, or one whose channels are a batch."""
    (reduction,) = kernel.reductions
    image, result = (reduction.value.args[n] for n in (number, 1 - number))
    found, others = places(image), places(result)
    if found is None or others is None or not image.dtype.is_float:
        return None
    ways = [_ordered(p, kernel) for p in found if len(p.terms) == 2]
    alone = [p for p in found if len(p.terms) == 1]
    channels = [p for p in alone if p.terms[0][0] in kernel.axes]
    images = [p.terms[0][0] for p in alone if p not in channels]
    if len(ways) != 2 or len(found) != len(ways) + len(alone) or len(channels) != 1:
        return None
    rows, columns = ways
    if rows is None or columns is None or len(images) > 1 or any(p.guard for p in alone):
        return None
    by_var = {p.terms[0][0]: p for p in others if len(p.terms) == 1 and p.guard is None}
    spots = [rows.terms[0][0], columns.terms[0][0]]
    filters = [v for v in by_var if v in kernel.axes and v != channels[0].terms[0][0]]
    if len(others) != len(by_var) or set(by_var) != {*spots, *images, *filters}:
        return None
    axes = {*filters, channels[0].terms[0][0], rows.terms[1][0], columns.terms[1][0]}
    whole = set(kernel.axes) == axes and set(kernel.reduce_axes) == {*spots, *images}
    known = all(isinstance(v.extent, int) for v in (channels[0].terms[0][0], *filters))
    if len(filters) != 1 or filters[0] == channels[0].terms[0][0] or not whole or not known:
        return None
    here = (by_var[spots[0]], by_var[spots[1]])
    image_axis = images[0] if images else None
    gradient = (rows, columns), channels[0], here, by_var[filters[0]], image_axis
    return Gradient(image, result, *gradient)


def _ordered(place: Place, kernel: Kernel) -> Place | None:
    """What is summed first, then the taps; None where it is no row of three taps without a step."""
    place = replace(place, terms=tuple(sorted(place.terms, key=lambda t: t[0] in kernel.axes)))
    (spot, _), (tap, _) = place.terms
    plain = all(step == 1 for _, step in place.terms) and isinstance(spot.extent, int)
    if not plain or spot not in kernel.reduce_axes or tap not in kernel.axes:
        return None
    return place if tap.extent == TAPS else None


def gradient_pays(site: Gradient, transforms: Transforms) -> bool:
    """Is it worth the transforms?"""
    channels, filters = (p.terms[0][0].extent for p in (site.channels, site.filters))
    assert isinstance(channels, int) and isinstance(filters, int)
    return is_worth(site.extents, channels, filters, transforms)


def plan_gradient(
    kernel: Kernel, site: Gradient, transforms: Transforms, target: Target
) -> tuple[Kernel, Function] | None:
    """The scheduled kernel and its loops; None where a thread would need too much memory."""
    plan = Plan(kernel, site, transforms, target)
    function = plan.function()
    return (replace(kernel, schedule=plan.schedule), function) if fits(function) else None


class Plan:
    def __init__(
        self, kernel: Kernel, site: Gradient, transforms: Transforms, target: Target
    ) -> None:
        self.kernel, self.site, self.f, self.target = kernel, site, transforms, target
        self.dtype = site.image.dtype
        self.channel, self.filter = site.channels.terms[0][0], site.filters.terms[0][0]
        assert isinstance(self.channel.extent, int) and isinstance(self.filter.extent, int)
        self.channels, self.filters = self.channel.extent, self.filter.extent
        self.lanes = target.lanes(self.dtype)
        self.filter_lanes = fitting_lanes(self.filters, self.lanes)
        shape = tile_shape(self.channels, self.filters, self.filter_lanes, target.registers)
        self.vectors, self.height = shape
        m, size = transforms.results, transforms.size
        rows, columns = (-(-e // m) for e in site.extents)
        self.place = Var("place", size**2)
        # sums of every image, or tiles of every image: what is less to write and to read
        both = self.channels + self.filters
        self.by_image = 2 * self.channels * self.filters <= rows * columns * both
        tile = size**2 * columns * both * self.dtype.bytes
        most = 2 * BLOCK // tile if self.by_image else rows
        tall = block_of_rows(site.extents[0], m, most)
        self.tiling = Tiling(m, rows // tall, tall, columns, self.lanes)

    @property
    def schedule(self) -> tuple[Directive, ...]:
        return (
            Vectorize(self.filter.name, self.filter_lanes),
            TileBy(self.filter.name, self.vectors * self.filter_lanes),
            TileBy(self.channel.name, self.height),
        )

    def function(self) -> Function:
        images, tiling = self.site.images, self.tiling
        kept = None if self.by_image else images
        transforms, buffers = self.transforms(kept)
        around = [] if images is None else [images]
        if self.by_image:
            blocks = [*transforms, self.products(images)]
            if tiling.blocks > 1:
                blocks = [For(tiling.block, "ordered", 1, tuple(blocks))]
            body = nest(around, blocks)
        else:
            body = (*nest(around, transforms), self.products(images))
        # stages of their own share nothing but buffers that all threads see
        tiles = ("elements", "gradients")
        own = [b for b in buffers if around and (self.by_image or b.name not in tiles)]
        shared = [b for b in buffers if b not in own]
        taps = [p.terms[1][0] for p in self.site.ways]
        last, scratch, workspace = finish_taps(
            self.kernel, self.channel, self.filter, taps, self._taps, self.target
        )
        sums = self._sums(images if self.by_image else None)
        return Function(
            self.kernel.label,
            self.kernel.buffers,
            (*body, *last),
            (*own, *scratch),
            (sums, *shared, *workspace),
        )

    def transforms(self, kept: Var | None) -> tuple[list[Stmt], list[Buffer]]:
        """The tiles of both operands, those of all images where their variable is given."""
        site, f, tiling = self.site, self.f, self.tiling
        elements, tiles = tiling.transformed(
            site.image, site.ways, site.channels, f.elements, "elements", kept
        )
        gradients, others = tiling.transformed(
            site.result, site.result_ways, site.filters, transposed(f.sums), "gradients", kept
        )
        return [*elements, *gradients], [*tiles, *others]

    # ------------------------------------------------------------ products

    def _sums(self, image: Var | None) -> Buffer:
        size = len(self.f.elements) ** 2 * self._step
        return Buffer("sums", self.dtype, multiply([image.extent, size] if image else [size]), True)

    @property
    def _step(self) -> int:
        """From one place of the sums to the next."""
        return self.channels * self.filters + self.lanes

    def index(self, image: Var | None, place: Index) -> Index:
        index = place * self._step + Index.of(self.channel) * self.filters + Index.of(self.filter)
        whole = len(self.f.elements) ** 2 * self._step
        return index + Index.of(image) * whole if image and self.by_image else index

    def products(self, image: Var | None) -> Stmt:
        """sums[place][channel][filter], those of the blocks before with them."""
        tile, acc = Var("tile", self.tiling.count), sum_of(self.kernel)
        left, right = (
            self.tiling.load(name, self.dtype, channel, self.place, tile)
            for name, channel in (("elements", self.channel), ("gradients", self.filter))
        )
        value = acc
        summed: tuple[Var, ...] = (tile,)
        index = self.index(image, Index.of(self.place))
        if not self.by_image and image is not None:
            summed = (image, tile)
            left, right = (self._of_image(x, image) for x in (left, right))
        elif self.tiling.blocks > 1:
            first = Guard(Index.of(self.tiling.block), 1, self.tiling.blocks)
            before = scalar.load("sums", index, self.dtype, guards=(first,))
            value = scalar.apply("add", (before, acc), self.dtype)
        product = Tile(
            self.channel,
            self.filter,
            summed,
            acc.name,
            left,
            right,
            (Store("sums", index, value),),
            tile_rows(self.channels, self.height, stream=True),
            self.vectors,
            self.filter_lanes,
            UNROLL,
        )
        return For(self.place, "serial", 1, (product,))

    def _of_image(self, load: Scalar, image: Var) -> Scalar:
        channels = self.channels if load.name == "elements" else self.filters
        whole = len(self.f.elements) ** 2 * self.tiling.place(channels)
        return scalar.load(load.name, load.index + Index.of(image) * whole, self.dtype)

    # ------------------------------------------------------------ results

    def _taps(self, change: dict[Var, Index]) -> tuple[list[Scalar], list[Stmt]]:
        """(the gradients of the taps, the statements before) at a channel and a filter."""
        size = len(self.f.elements)
        image = self.site.images if self.by_image else None
        loads = [
            scalar.load("sums", self.index(image, Index.of(n)).substitute(change), self.dtype)
            for n in range(size**2)
        ]
        sums, before = sums_of_images(loads, image)
        rows = [sums[n * size : (n + 1) * size] for n in range(size)]
        return both_ways(transposed(self.f.weights), rows), before
