"""Takes the gradient of a convolution's weights, gives its loops image by image.

    for n in batch:
        staged = x[n], padded, channels last;  staged g[n], filters last
        sums[n][i, j, c, f] = sum over h, w of x[h*s + i, w*s + j, c] * g[h, w, f]
    w[f, c, i, j] = ... the sum of sums over n

Both operands of an image stay in the second cache while all taps read them, which ask for those of
the next image; sums of its own for every image let threads share the images and keep the order of
additions. With one tap lanes run over the channels, and g is read as it lies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ir import scalar
from ir.index import Index, Var
from ir.loops import Buffer, Function, Kernel, Stmt, Store, Tile, TileBy, Vectorize
from ir.places import Place, places
from ir.scalar import Scalar
from ir.types import Extent, multiply
from nncompiler.codegen.target import Target
from nncompiler.schedule.ahead import ask_for_image
from nncompiler.schedule.heuristics import fitting_lanes, size_of, tile_rows, tile_shape
from nncompiler.schedule.results import row_major, sum_of
from nncompiler.schedule.staging import stage
from nncompiler.schedule.taps import finish_taps, sums_of_images
from nncompiler.schedule.tiling import nest
from nncompiler.schedule.winograd import UNROLL, fits

LEAST_CHANNELS, LEAST_FILTERS, LEAST_SPOTS = 8, 16, 64  # else other loops are better


@dataclass(frozen=True)
class Gradient:
    """The image's and the other operand's coordinates within an image, and the axes."""

    image: Scalar
    other: Scalar
    ways: tuple[Place, ...]  # along the image, then channels
    other_ways: tuple[Place, ...]  # along the image, then filters
    channel: Var
    filter: Var
    taps: tuple[Var, ...]
    spots: tuple[Var, ...]
    images: Var | None


def find_image_gradient(kernel: Kernel, number: int) -> Gradient | None:
    """The gradient that a kernel is, where operand `number` is the image; None where it is none,
    or too small for these loops."""
    (reduction,) = kernel.reductions
    image, other = (reduction.value.args[n] for n in (number, 1 - number))
    found, others = places(image), places(other)
    if found is None or others is None or any(len(p.terms) > 1 or p.guard for p in others):
        return None
    by_var = {p.terms[0][0]: p for p in others}
    terms = [v for p in found for v, _ in p.terms]
    own = [v for v in terms if v in kernel.axes and v not in by_var]
    alone = [p.terms[0][0] for p in found if len(p.terms) == 1 and p.guard is None]
    channels = [v for v in own if v in alone]
    filters = [v for v in by_var if v in kernel.axes and v not in terms]
    summed = [v for v in terms if v in kernel.reduce_axes]
    taps = tuple(v for v in kernel.axes if v in own and v not in channels)
    images = [v for v in summed if v in alone][: None if taps else 1]
    if len(channels) != 1 or len(filters) != 1 or len(images) > 1 or len(by_var) != len(others):
        return None
    (channel,), (filter,) = channels, filters
    spots = tuple(v for v in summed if v not in images)
    is_whole = {*own, filter} == set(kernel.axes) and set(summed) == set(kernel.reduce_axes)
    if not is_whole or set(by_var) != {filter, *summed}:
        return None
    if any(isinstance(v.extent, Extent) for v in (*own, filter, *spots)):
        return None
    small = (
        size_of(channel.extent) < LEAST_CHANNELS
        or size_of(filter.extent) < LEAST_FILTERS
        or math.prod(size_of(v.extent) for v in spots) < LEAST_SPOTS
    )
    if small or not spots:
        return None
    last = [p for p in found if p.terms[0][0] == channel]
    ways = [p for p in found if p not in last and not set(images) & {v for v, _ in p.terms}]
    image_of = images[0] if images else None
    is_in_order = not taps and kernel.writes[0].index.coefficient(channel) == 1
    if is_in_order and size_of(channel.extent) >= LEAST_FILTERS:
        # the image is turned instead, and the result lies as it is computed
        rows = (by_var[filter], *(by_var[v] for v in spots))
        lanes = (*ways, *last)
        return Gradient(other, image, rows, lanes, filter, channel, (), spots, image_of)
    return Gradient(
        image,
        other,
        (*ways, *last) if last[0].unit == 1 else (*last, *ways),
        (*(by_var[v] for v in spots), by_var[filter]),
        channel,
        filter,
        taps,
        spots,
        image_of,
    )


def plan_image_gradient(
    kernel: Kernel, site: Gradient, target: Target
) -> tuple[Kernel, Function] | None:
    """The scheduled kernel and its loops; None where a thread would need too much memory."""
    dtype, channel, filter = site.image.dtype, site.channel, site.filter
    lanes = target.lanes(dtype)
    right, copies, other = stage(site.other, site.other_ways, (), lanes, "other")
    left, buffers = site.image, [other]
    if site.taps or all(p.unit != 1 for p in site.ways):
        left, others, staged = stage(site.image, site.ways, (), lanes, "staged")
        copies, buffers = (*others, *copies), [staged, other]
    index, size = row_major((*site.taps, channel, filter))
    around = [] if site.images is None else [site.images]
    whole = index + Index.of(site.images) * size if site.images else index
    acc = sum_of(kernel)
    filter_lanes = fitting_lanes(filter.extent, lanes)
    channels = size_of(channel.extent)
    vectors, height = tile_shape(channels, size_of(filter.extent), filter_lanes, target.registers)
    tile = Tile(
        channel,
        filter,
        site.spots,
        acc.name,
        left,
        right,
        (Store("sums", whole, acc),),
        tile_rows(channels, height, stream=True),
        vectors,
        filter_lanes,
        UNROLL,
    )
    inside = nest(site.taps, [tile])
    for v in around:
        inside = ask_for_image(inside, site.image, site.ways, v, right.name)
        inside = ask_for_image(inside, site.other, site.other_ways, v, right.name)
    body = nest(around, [*copies, *inside])
    sums = Buffer("sums", dtype, multiply([*(v.extent for v in around), size]), True)

    def values(change: dict[Var, Index]) -> tuple[list[Scalar], list[Stmt]]:
        loads = [
            scalar.load("sums", whole.substitute({**point, **change}), dtype)
            for point in _points(site.taps)
        ]
        return sums_of_images(loads, site.images)

    last, scratch, workspace = finish_taps(kernel, channel, filter, site.taps, values, target)
    own, shared = (buffers, []) if around else ([], buffers)
    function = Function(
        kernel.label,
        kernel.buffers,
        (*body, *last),
        (*own, *scratch),
        (sums, *shared, *workspace),
    )
    schedule = (
        Vectorize(filter.name, filter_lanes),
        TileBy(filter.name, vectors * filter_lanes),
        TileBy(channel.name, height),
    )
    return (replace(kernel, schedule=schedule), function) if fits(function) else None


def _points(taps: Sequence[Var]) -> list[dict[Var, Index]]:
    """All values of the taps, the last one fastest."""
    found: list[dict[Var, Index]] = [{}]
    for v in taps:
        found = [{**point, v: Index.of(n)} for point in found for n in range(size_of(v.extent))]
    return found
