"""Takes a convolution with strides, gives its loops: lanes along the points of the result.

    for n in batch:  for block of rows p:
        unfolded[c, j, b, r, q] = x[n, c, r*2 + b, q*2 + j]          a tap along the row at a time
        y[n, f, block] = sum over c, i, j of w[f, c, i, j] * unfolded[c, j, i % 2, p + i // 2, q]

What a stride sets apart stands together in the copy, row after row as in the result: nothing is
transposed, and the sums are written where they belong. Rows are copied once for all taps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ir import scalar
from ir.index import Index, Var
from ir.loops import Buffer, For, Function, Kernel, Stmt, Store
from ir.places import Place, places, without
from ir.scalar import Scalar
from nncompiler.codegen.target import LINE, Target
from nncompiler.schedule.ahead import Walk, ask_ahead, lines_of
from nncompiler.schedule.axes import merge_axes
from nncompiler.schedule.heuristics import fitting_lanes, size_of
from nncompiler.schedule.images import (
    BLOCK,
    Plan,
    cut_axis,
    in_loops,
    operand_of,
    with_operand,
)
from nncompiler.schedule.pack import moves
from nncompiler.schedule.staging import MOST_APART, stage
from nncompiler.schedule.tiling import nest

UNFOLDED = "unfolded"  # the copy
LARGEST = 1 << 19  # bytes of it: all weights are read anew for every block
LEAST_POINTS, LEAST_FILL = 32, 0.9  # of a block of the result, and of its vectors


@dataclass(frozen=True)
class Way:
    """A direction of the image: the result's axis and how far it moves, the tap likewise."""

    spot: Var
    step: int
    tap: Var | None = None
    far: int = 0
    place: Place | None = None

    @property
    def points(self) -> int:
        return size_of(self.spot.extent)

    @property
    def residues(self) -> dict[int, int]:
        """What the places of taps leave when divided by the step: how many rows are read there."""
        taps = range(size_of(self.tap.extent)) if self.tap else range(1)
        found: dict[int, int] = {}
        for place in (t * self.far for t in taps):
            rows = self.points + place // self.step
            found[place % self.step] = max(rows, found.get(place % self.step, 0))
        return dict(sorted(found.items()))

    @property
    def shared(self) -> int:
        """How many rows of the image are read from the last block of results and the next one."""
        reach = self.far * (size_of(self.tap.extent) - 1) if self.tap else 0
        return max(reach + 1 - self.step, 0)

    def index(self, row: int, plane: int) -> Index:
        """Where the rows of a tap begin, in planes of rows."""
        place = Index.of(self.tap) * self.far if self.tap else Index()
        return (place % self.step) * plane + (place // self.step + Index.of(self.spot)) * row


@dataclass(frozen=True)
class Unfolded:
    """A convolution whose image, operand `number`, is read at a stride: the axes around an image,
    its channels, the direction of rows (one row without such), the others, the innermost last."""

    number: int
    around: tuple[Var, ...]
    channels: tuple[Var, ...]
    rows: Way
    ways: tuple[Way, ...]

    @property
    def taps(self) -> tuple[Var, ...]:
        """Those that have copies of their own."""
        return tuple(w.tap for w in self.ways if w.tap)

    @property
    def row(self) -> int:
        """The points of the result in a row."""
        return math.prod(w.points for w in self.ways)

    @property
    def size(self) -> int:
        """The values of an unfolded image, nearly."""
        copies = math.prod(size_of(v.extent) for v in (*self.channels, *self.taps))
        return copies * sum(self.rows.residues.values()) * self.row


def find_unfolded(kernel: Kernel, number: int, block: Var | None = None) -> Unfolded | None:
    """The strided convolution that a kernel is, where operand `number` is its image and `block` an
    axis of blocks of its rows; None where it is none, or its lanes are neighbours as they lie."""
    (reduction,) = kernel.reductions
    image, other = (reduction.value.args[n] for n in (number, 1 - number))
    found = places(image)
    if found is None or other.kind != "load" or other.guards or other.args:
        return None
    found = [p for p in (without(p, [block] if block else []) for p in found) if p.terms]
    ways = _ways(kernel, found, other)
    left = [p for p in found if all(p is not w.place for w in ways)]
    if not ways or any(len(p.terms) > 1 or p.guard for p in left):
        return None
    last = ways[-1]
    assert last.place is not None
    apart = last.place.unit * last.step
    if not 1 < apart <= MOST_APART or any(p.unit <= last.place.unit for p in left):
        return None
    alone = [p.terms[0][0] for p in left]
    around = [v for v in (*alone, *([block] if block else [])) if v in kernel.axes]
    channels = [v for v in alone if v in kernel.reduce_axes]
    summed = {*channels, *(w.tap for w in ways if w.tap)}
    filters = set(kernel.axes) - {*around, *(w.spot for w in ways)}
    if summed != set(kernel.reduce_axes) or not filters:
        return None
    if not all(isinstance(v.extent, int) for v in (*channels, *filters)):
        return None
    rows, *ways = ways if len(ways) > 1 else [Way(Var("row", 1), 1), *ways]
    return Unfolded(number, tuple(around), tuple(channels), rows, tuple(ways))


def _ways(kernel: Kernel, found: Sequence[Place], other: Scalar) -> list[Way]:
    """The directions along which the result lies together, outermost first."""
    ways: list[Way] = []
    written, size = kernel.writes[0].index, 1
    by_step = {
        written.coefficient(v): (v, step, p)
        for p in found
        for v, step in p.terms
        if v in kernel.axes and not moves(other, v) and isinstance(v.extent, int)
    }
    while size in by_step:
        v, step, place = by_step.pop(size)
        taps = [t for t in place.terms if t[0] != v]
        if len(taps) > 1 or any(t not in kernel.reduce_axes for t, _ in taps):
            break
        tap, far = taps[0] if taps else (None, 0)
        ways.insert(0, Way(v, step, tap, far, place))
        size *= size_of(v.extent)
    return ways


def plan_unfolded(
    kernel: Kernel, number: int, *, plan: Plan, target: Target
) -> tuple[Kernel, Function] | None:
    """The scheduled kernel and its loops; None where it is no strided convolution, or other loops
    are better. `plan` gives those of a block, as a product of matrices."""
    whole = find_unfolded(kernel, number)
    if whole is None:
        return None
    dtype = kernel.reductions[0].value.dtype
    size = _block_of_rows(whole, target.lanes(dtype), dtype.bytes)
    if not size:
        return None
    rows, part = whole.rows.spot, kernel
    site: Unfolded | None = whole
    if size < whole.rows.points:
        block = Var(f"{rows.name}{BLOCK}", whole.rows.points // size)
        part = cut_axis(kernel, rows, block, Var(rows.name, size))
        site = find_unfolded(part, number, block)
    if site is None:
        return None
    load, stmts, buffers = _unfold(operand_of(part, number), site, target)
    inner = with_operand(part, number, load)
    taps = (site.rows.tap,) if site.rows.tap else ()
    inner = replace(
        inner,
        axes=tuple(v for v in inner.axes if v not in site.around),
        reduce_axes=(*site.channels, *taps, *site.taps),
        buffers=tuple(b for b in kernel.buffers if b.name != operand_of(part, number).name),
    )
    planned, function = plan(merge_axes(inner), target)
    function = replace(function, body=_asking(function.body, operand_of(part, number), site))
    found = in_loops(function, site.around, stmts, buffers)
    if found is None:
        return None
    return replace(kernel, schedule=planned.schedule), replace(found, buffers=kernel.buffers)


def _block_of_rows(site: Unfolded, lanes: int, bytes: int) -> int:
    """How many rows of the result are computed from one copy: those that fill its vectors best, of
    these the most that fit; 0 where there are none that do."""
    best = (0.0, 0)
    for count in range(1, site.rows.points + 1):
        if site.rows.points % count:
            continue
        part = replace(site, rows=replace(site.rows, spot=Var("", count)))
        points = count * site.row
        fill = points / (-(-points // lanes) * lanes)
        if points >= LEAST_POINTS and fill >= LEAST_FILL and part.size * bytes <= LARGEST:
            best = max(best, (round(fill, 1), count))
    return best[1]


def _unfold(
    image: Scalar, site: Unfolded, target: Target
) -> tuple[Scalar, tuple[Stmt, ...], tuple[Buffer, ...]]:
    """The copy: (load of it, the statements that make it, what they fill)."""
    dtype = image.dtype
    first, lanes = site.rows, target.lanes(image.dtype)
    ways = [w for w in (first, *site.ways) if w.place]
    buffers: list[Buffer] = []
    copies: tuple[Stmt, ...] = ()
    if any(w.place.guard for w in ways if w.place):
        order = [without(w.place, site.around) for w in ways if w.place]
        image, copies, padded = stage(image, order, (), lanes, "padded")
        buffers.append(padded)
    most = max(first.residues.values())
    plane = most * site.row
    index, size = Index(), 1
    for w in reversed(site.ways):
        index, size = index + Index.of(w.spot) * size, size * w.points
    size = _odd_lines((max(first.residues) + 1) * plane, dtype.bytes)
    for v in reversed((*site.channels, *site.taps)):
        index, size = index + Index.of(v) * size, size * size_of(v.extent)
    buffers.append(Buffer(UNFOLDED, dtype, size, True))
    stmts: list[Stmt] = []
    for residue, rows in first.residues.items():
        row = Var(f"{UNFOLDED}_row", rows)
        change = {first.spot: Index.of(row)} | ({first.tap: Index()} if first.tap else {})
        unit = (image.index.coefficient(first.spot) or 0) // first.step
        source = image.index.substitute(change) + residue * unit
        value = scalar.load(image.name, source, dtype)
        here = index + Index.of(row) * site.row + residue * plane
        *outer, last = (w.spot for w in site.ways)
        width = fitting_lanes(last.extent, lanes)
        store = For(last, "vector", width, (Store(UNFOLDED, here, value),))
        stmts += nest([*site.taps, row, *outer], [store])
    load = scalar.load(UNFOLDED, index + first.index(site.row, plane), dtype)
    return load, nest(site.channels, [*copies, *stmts]), tuple(buffers)


def _asking(body: Sequence[Stmt], image: Scalar, site: Unfolded) -> tuple[Stmt, ...]:
    """The loops, where tiles ask for the rows that the next block does not share with theirs."""
    rows = site.rows
    step = image.index.coefficient(rows.spot) or 0
    length = 1 + step // rows.step * max(rows.residues)
    for w in site.ways:
        assert w.place is not None and isinstance(w.place.extent, int)
        length += (w.place.extent - 1) * w.place.unit
    places = [(rows.points, step)]
    if length >= step > 0:
        places, length = [], step * rows.points
    channels = [(size_of(v.extent), image.index.coefficient(v) or 0) for v in site.channels]
    walk: Walk = [*channels, *places, lines_of(length, image)]
    first = image.index + step // rows.step * rows.shared
    return ask_ahead(body, scalar.load(image.name, first, image.dtype), site.around, walk, UNFOLDED)


def _odd_lines(size: int, bytes: int) -> int:
    """An odd number of lines of the cache: copies that lie so far apart share no place in it."""
    return (-(-size * bytes // LINE) | 1) * LINE // bytes
