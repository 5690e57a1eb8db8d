"""Takes weights of 3 x 3 taps, gives Winograd's transforms of them, made once for all images.

w[filter][channel][3][3]    ->    weights[block of filters][place][channel][filter] for all places
"""

from __future__ import annotations

from ir import scalar
from ir.index import Index, Var
from ir.loops import Buffer, For, Stmt, Store, Transpose
from ir.scalar import Scalar
from ir.types import DType
from nncompiler.codegen.target import Target
from nncompiler.schedule.heuristics import fitting_lanes
from nncompiler.schedule.pack import nest
from nncompiler.schedule.tiling import at
from nncompiler.schedule.transforms import TAPS, Transforms, both_ways


def place_of_weights(channel: Var, width: int, target: Target, dtype: DType) -> int:
    """How far one place is from the next: no power of two, for then they would fall on the same
    lines of the cache."""
    assert isinstance(channel.extent, int)
    return channel.extent * width + target.lanes(dtype)


def transformed_weights(
    weights: Scalar,
    taps: tuple[Var, Var],
    channel: Var,
    filters: Var,
    transforms: Transforms,
    width: int,
    target: Target,
) -> tuple[Stmt, Buffer, tuple[Buffer, ...]]:
    """(the statement that fills, what it fills, scratch): blocks of `width` filters."""
    assert isinstance(filters.extent, int)
    dtype, size = weights.dtype, transforms.size
    lanes = fitting_lanes(filters.extent, target.lanes(dtype))
    step = place_of_weights(channel, width, target, dtype)
    block = size**2 * step
    packed = Buffer("weights", dtype, filters.extent // width * block, True)
    around, rows = _parts(weights, channel, filters, lanes)
    whole = Index.of(rows) if not around else Index.of(around[0]) * lanes + Index.of(rows)
    here = scalar.substitute(weights, {filters: whole})
    load, copies, buffers = _side_by_side(here, taps, rows, lanes)
    i, j = taps
    elements = [[at(load, {i: a, j: b}) for b in range(TAPS)] for a in range(TAPS)]
    place = whole // width * block + whole % width
    place = place + Index.of(channel) * width
    values = both_ways(transforms.weights, elements)
    stores = [Store(packed.name, place + n * step, value) for n, value in enumerate(values)]
    loop = For(rows, "vector", lanes, tuple(stores))
    body = For(channel, "serial", 1, (*copies, loop))
    return nest(around, body), packed, buffers


def _parts(weights: Scalar, channel: Var, filters: Var, lanes: int) -> tuple[tuple[Var, ...], Var]:
    """(the loop over parts of the filters, if there is one; the filters of a part).

    Rows of filters lie thousands of bytes apart, on the same few lines of the first cache: of all
    of them at once no line would be there for the next channel; those of one vector stay.
    """
    assert isinstance(filters.extent, int)
    near, far = (abs(weights.index.coefficient(v) or 0) for v in (channel, filters))
    if far < near or filters.extent <= lanes or filters.extent % lanes:
        return (), filters
    return (Var(f"{filters.name}_part", filters.extent // lanes),), Var(filters.name, lanes)


def _side_by_side(
    weights: Scalar, taps: tuple[Var, Var], filters: Var, lanes: int
) -> tuple[Scalar, tuple[Stmt, ...], tuple[Buffer, ...]]:
    """The weights of one channel, filters side by side: where taps lie together they are turned
    in registers."""
    i, j = taps
    index, dtype = weights.index, weights.dtype
    down, right = index.coefficient(i), index.coefficient(j)
    turned = (down, right) in ((TAPS, 1), (-TAPS, -1))
    if not turned or index.coefficient(filters) == 1:
        return weights, (), ()
    assert isinstance(filters.extent, int)
    tap = Var("tap", TAPS**2)
    none = {i: Index(), j: Index()}
    first = 0 if right == 1 else TAPS**2 - 1
    source = index.substitute(none) - first + Index.of(tap)
    load = scalar.load(weights.name, source, dtype)
    target = Index.of(tap) * filters.extent + Index.of(filters)
    copy = Transpose(tap, filters, "taps", target, load, lanes)
    number = Index.of(i) * TAPS + Index.of(j)
    number = number if right == 1 else number * -1 + first
    turned_load = scalar.load("taps", number * filters.extent + Index.of(filters), dtype)
    return turned_load, (copy,), (Buffer("taps", dtype, TAPS**2 * filters.extent, True),)
