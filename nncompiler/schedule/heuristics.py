"""Takes a kernel and a target, gives the schedule: all policy about loops is in this file.

Figures are estimates in "vector instructions"; only their order matters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ir import scalar
from ir.index import Index, Var
from ir.loops import (
    Directive,
    Kernel,
    Outermost,
    Pack,
    Partial,
    Tile,
    TileBy,
    Unroll,
    Vectorize,
)
from ir.op import CHEAP, REGISTRY
from ir.scalar import Scalar
from ir.types import Dim, Extent, f32, f64
from nncompiler.codegen.lanes import cover, lane_offsets
from nncompiler.codegen.target import Target
from nncompiler.schedule.axes import kernel_scalars

TYPICAL_EXTENT = 64  # what a symbolic extent is taken for
CHEAP_COST, DEAR_COST, DIVIDE_COST = 1, 14, 3
HORIZONTAL_COST = 20  # combining the lanes of one vector
# When a contiguous operand is packed all the same: bytes in all, bytes of a row, times it is read.
LARGE, LONG, REUSED = 1 << 19, 1 << 11, 256
LARGE_TILE = 16  # vectors of sums that need little unrolling: their code is long enough
LONG_SLICE = 256  # summed elements between two additions to partial sums in memory
MANY_SLICES, REREAD = 2, 32  # slices pay from this many on, and where so many rows read a column
MOST_TURNED = 1 << 14  # elements of a block of the result that is written in another order
MOST_COLUMNS, MOST_COLUMN_SUMS = 512, 20  # of a graph that is computed column by column
MOST_WIDE = 7  # elements in the rows of its inputs: longer ones are better read as they lie
FULL_UNROLL = 16  # reductions no longer than this are written out


def size_of(dim: Dim) -> int:
    return dim if isinstance(dim, int) else dim.coefficient * TYPICAL_EXTENT


def kernel_lanes(kernel: Kernel, target: Target) -> int:
    """How many points are computed at once: as many as the widest float of the kernel allows."""
    values = list(scalar.walk(kernel_scalars(kernel)))
    is_wide = any(s.dtype == f64 for s in values if s.dtype.is_float)
    return target.lanes(f64 if is_wide else f32)


def cost_of(s: Scalar) -> int:
    """What one application of a scalar op costs."""
    if s.kind != "apply":
        return 0
    if s.name in ("div", "sqrt", "rsqrt"):
        return DIVIDE_COST
    return CHEAP_COST if CHEAP in REGISTRY[s.name].flags else DEAR_COST


def choose_rows(kernel: Kernel, target: Target) -> tuple[Directive, ...]:
    """Which axis of a row kernel runs over the lanes: the one with the smallest estimated cost."""
    lanes = kernel_lanes(kernel, target)
    candidates = [*kernel.axes, *kernel.reduce_axes]
    directives: list[Directive] = []
    if candidates:
        best = min(reversed(candidates), key=lambda v: row_cost(kernel, v, lanes))
        directives.append(Vectorize(best.name, fitting_lanes(best.extent, lanes)))
    return tuple(directives)


def fitting_lanes(extent: Dim, lanes: int) -> int:
    """Vectors no wider than a short axis: whole short vectors need no mask."""
    if not isinstance(extent, int) or extent >= lanes:
        return lanes
    return max(2, 1 << (extent - 1).bit_length())


def row_cost(kernel: Kernel, axis: Var, lanes: int) -> float:
    """The estimated cost of all points where `axis` runs over the lanes."""
    work = sum(cost_of(s) for s in scalar.walk(kernel_scalars(kernel)))
    memory = sum(_access_cost(index, axis, lanes) for index in _touched(kernel))
    # guards are vectors of conditions where they move with the lanes
    memory += sum(g.coefficient(axis) != 0 for g in _conditions(kernel))
    # a shuffle makes reading every second element cheap, not writing it
    memory += 6.0 * lanes * sum(w.index.coefficient(axis) == 2 for w in kernel.writes)
    steps = 1.0
    for v in (*kernel.axes, *kernel.reduce_axes):
        extent = max(size_of(v.extent), 1)
        steps *= -(-extent // lanes) if v == axis else extent
    total = steps * (work + memory + 1)
    if axis in kernel.reduce_axes:
        rows = 1
        for v in kernel.axes:
            rows *= max(size_of(v.extent), 1)
        total += rows * HORIZONTAL_COST * len(kernel.reductions)
    return total


def _touched(kernel: Kernel) -> Iterator[Index]:
    """Where the kernel reads and writes."""
    yield from (s.index for s in scalar.walk(kernel_scalars(kernel)) if s.kind == "load")
    yield from (w.index for w in kernel.writes)
    if kernel.scatter:
        yield kernel.scatter.index


def _conditions(kernel: Kernel) -> Iterator[Index]:
    """Indices that are compared, or values themselves."""
    for s in scalar.walk(kernel_scalars(kernel)):
        if s.kind == "at":
            yield s.index
        yield from (g.value for g in s.guards)


def _access_cost(index: Index, axis: Var, lanes: int) -> float:
    stride = index.coefficient(axis)
    if stride == 0:
        return 0.5
    if stride is None:  # every element twice, rows side by side: a pattern of lanes is shuffled
        offsets = lane_offsets(index, {v.name: lanes if v == axis else 1 for v in index.variables})
        return 4.0 if offsets and cover(offsets) else 3.0 * lanes
    return {1: 1.0, 2: 4.0}.get(stride, 3.0 * lanes)


# --------------------------------------------------------------------------- contractions


def choose_contract(
    kernel: Kernel, m: Var, n: Var, lhs: Scalar, rhs: Scalar, target: Target
) -> tuple[Directive, ...]:
    """Register tile, unrolling and packing of a contraction.

    The right operand is packed where its columns are not contiguous, and where it is so large that
    its rows fall on the same sets of the cache; the left one where it is read across rows that lie
    far apart (a transposed matrix).
    """
    (reduction,) = kernel.reductions
    lanes = fitting_lanes(n.extent, target.lanes(reduction.value.dtype))
    packs: list[Directive] = []
    vectors, height = tile_shape(m.extent, size_of(n.extent), lanes, target.registers)
    if rhs.index.coefficient(n) != 1 or _is_far_apart(kernel, m, n, rhs):
        packs.append(Pack("rhs"))
    if lhs.index.coefficient(m) == 1 and _is_far_apart(kernel, n, m, lhs):
        packs.append(Pack("lhs"))
        vectors, height = (3, 8) if target.registers >= 32 else (vectors, 4)
    block = math.prod(size_of(v.extent) for v in kernel.reduce_axes) * vectors * lanes
    is_reread = bool(packs) and len(kernel.axes) > 2  # by all loops around the tile
    is_flat = isinstance(m.extent, int) and m.extent <= height  # and so would a narrow one be
    if is_reread and vectors > 2 and not is_flat and 2 * block * rhs.dtype.bytes > target.l2:
        vectors, height = tile_shape(m.extent, 2 * lanes, lanes, target.registers)
    packs += _blocking(kernel, m, n, rhs, vectors * lanes, bool(packs), target)
    return (
        Vectorize(n.name, lanes),
        TileBy(n.name, vectors * lanes),
        TileBy(m.name, height),
        Unroll("k", 2 if vectors * height >= LARGE_TILE else 4),
        *packs,
    )


def _blocking(
    kernel: Kernel, m: Var, n: Var, rhs: Scalar, width: int, is_packed: bool, target: Target
) -> list[Directive]:
    """Whether partial sums, blocks of columns or a turned result keep data in the caches; partial
    sums where a packed block would not stay in the second one."""
    found: list[Directive] = []
    first, *rest = kernel.reduce_axes
    operands = sum(size_of(b.size) * b.dtype.bytes for b in kernel.buffers if not b.written)
    steps = math.prod(size_of(v.extent) for v in rest)
    is_static = all(isinstance(v.extent, int) for v in kernel.axes)
    assert isinstance(n.extent, int)
    columns = n.extent
    weights = math.prod(
        size_of(v.extent)
        for v in (*kernel.axes, *kernel.reduce_axes)
        if rhs.index.coefficient(v) != 0
    )
    is_large = 2 * weights * rhs.dtype.bytes > target.l2
    in_blocks = is_packed and is_large and columns % width == 0 and columns > width
    block = weights // max(columns, 1) * width * rhs.dtype.bytes
    if is_static and operands > target.l2 and not (in_blocks and block < 2 * target.l2):
        if rest and steps >= LONG_SLICE:
            return [Partial(first.name, 1)]
        length = -(-LONG_SLICE // max(steps, 1))
        is_long = size_of(first.extent) >= MANY_SLICES * length
        if is_long and not is_packed and size_of(m.extent) >= REREAD:
            return [Partial(first.name, length)]
    if in_blocks:
        found.append(Outermost(n.name))
        columns = width
    if m in near_axes(kernel, n, columns):
        found.append(Pack("result"))
    return found


def near_axes(kernel: Kernel, n: Var, columns: int) -> tuple[Var, ...]:
    """The axes whose points are neighbours in the result where those of `n` are not, outermost
    first, as many as fit a block of `columns`; a block is computed by rows and then turned.

    y[i*4096 + j*256 + p*16 + q], n = j   ->   p, q
    """
    stored = kernel.writes[0].index
    found: list[Var] = []
    size = 1
    while stored.coefficient(n) != 1:
        v = next((v for v in kernel.axes if stored.coefficient(v) == size), None)
        if v in (None, n) or not isinstance(v.extent, int):
            break
        if size * v.extent * columns > MOST_TURNED:
            break
        found.insert(0, v)
        size *= v.extent
    return tuple(found) if size >= 4 else ()


def _is_far_apart(kernel: Kernel, other: Var, axis: Var, operand: Scalar) -> bool:
    """Is the operand large, its rows `axis` long, and used often enough to pay for a copy?"""
    size = operand.dtype.bytes
    for v in (other, axis, *kernel.reduce_axes):
        if not isinstance(v.extent, int):
            return False
        size *= 1 if v == other else v.extent
    row = size_of(axis.extent) * operand.dtype.bytes
    return size >= LARGE and row >= LONG and size_of(other.extent) >= REUSED


def block_of_columns(kernel: Kernel, n: Var, rhs: Scalar, target: Target) -> int:
    """How many columns of the right operand are copied at a time, 0 for none: where every image has
    a matrix of its own, whose rows lie so far apart that they meet in the first cache, or whose
    columns do not lie together, but its rows do."""
    if rhs.name not in {b.name for b in kernel.buffers}:
        return 0
    own = [v for v in kernel.axes if v != n and rhs.index.coefficient(v) != 0]
    others = [v for v in kernel.axes if v != n and v not in own]
    steps = [rhs.index.coefficient(v) or 0 for v in kernel.reduce_axes]
    extents = [v.extent for v in (n, *others, *kernel.reduce_axes)]
    is_turned = rhs.index.coefficient(n) != 1
    fits = 1 in steps if is_turned else min(steps) * rhs.dtype.bytes >= LONG // 2
    if not own or not fits or any(isinstance(e, Extent) for e in extents):
        return 0
    rows, columns = math.prod(size_of(v.extent) for v in others), size_of(n.extent)
    lanes = target.lanes(rhs.dtype)
    width = tile_shape(rows, columns, lanes, target.registers)[0] * lanes
    block = math.prod(size_of(v.extent) for v in kernel.reduce_axes) * width * rhs.dtype.bytes
    share = target.l2 // 4 if is_turned else target.l1
    fits = rows >= 16 and columns > width and columns % width == 0 and block <= share
    return width if fits else 0


def tile_shape(rows: Dim, columns: int, lanes: int, registers: int) -> tuple[int, int]:
    """(vectors, rows) of a register tile: rows * vectors accumulators, `vectors` of the right
    operand and one broadcast must fit. Wide tiles read the left operand less often."""
    needed = max(1, -(-columns // lanes))
    widest = (_single_row(registers) if rows == 1 else 4) if registers >= 32 else 2
    if isinstance(rows, Extent):
        widest = min(widest, 3)  # 8 x 2 and 8 x 3 read the right operand half as often as 4 x 4
    vectors = min(needed, widest)
    if needed > widest:
        # fewest wasted vectors in the last tile, wide tiles first
        vectors = min(range(widest, 1, -1), key=lambda v: (-needed % v, -v))
    spare = 2 if registers < 32 else 4  # for what the next step reads meanwhile
    height = max(1, min((registers - spare - vectors) // vectors, 12))
    if isinstance(rows, Extent):
        # batches are powers of two more often than not: a height that divides them
        height = 2 ** (height.bit_length() - 1)
    return vectors, height


def _single_row(registers: int) -> int:
    """How many vectors one row sums at a time: half of all keep long stretches of memory busy."""
    return registers // 2


def single_row_vectors(tile: Tile, registers: int) -> int:
    """How many vectors of columns a tile takes at once where a batch turns out to have one row: as
    many as fit, but a multiple of those that it takes otherwise, where there are more blocks."""
    assert isinstance(tile.n.extent, int)
    needed = -(-tile.n.extent // tile.lanes)
    contiguous = tile.rhs.index.coefficient(tile.n) == 1  # not packed into blocks
    if isinstance(tile.m.extent, int) or needed <= tile.vectors or not contiguous:
        return tile.vectors
    most = _single_row(registers)
    return needed if needed <= most else most // tile.vectors * tile.vectors


def tile_rows(m: Dim, height: int, *, stream: bool = False) -> tuple[int, ...]:
    """Heights of the tiles that together serve `m` rows, tall ones first.

        64, 6  ->  4     17, 6  ->  6, 5     batch, 4  ->  4, 1     batch, 8  ->  8, 4, 2, 1

    One height for all is best, for every height is a piece of code of its own; but where the block
    of the right operand is a `stream` from beyond the first cache, tall tiles read it less often.
    """
    if not isinstance(m, int):
        return tuple(dict.fromkeys((height, *((4, 2) if height >= 8 else ()), 1)))
    if m <= height:
        return (max(m, 1),)
    for even in range(height, height - 1 if stream else height // 2, -1):
        if m % even == 0:
            return (even,)
    count = -(-m // height)
    even = -(-m // count)
    return (even, m % even) if m % even else (even,)
