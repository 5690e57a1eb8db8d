"""Takes a convolution that mixes no channels, or the gradient of its weights, gives its loops.

    for n in batch:  for c in channels:           for c in channels:  for n in batch:
        for 4 rows of y, a vector of columns:         for 4 rows of g, a vector of columns:
            sum all taps, a load serves 4 rows            sum into a register for every tap

There is nothing to multiply as matrices: lanes run along the rows of an image, and what counts is
how often memory is read. The vectors at the two ends of a row are loops of their own, for only they
meet the padding; what the taps of a row read is shifted out of its whole vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from ir import scalar
from ir.index import Guard, Index, Var
from ir.loops import (
    Accumulate,
    Directive,
    For,
    Function,
    Init,
    Kernel,
    Stmt,
    Unroll,
    Vectorize,
    Write,
)
from ir.places import Place, places
from ir.scalar import Scalar
from nncompiler.codegen.target import Target
from nncompiler.schedule.apply import stores
from nncompiler.schedule.heuristics import fitting_lanes
from nncompiler.schedule.results import sum_of

Point = tuple[int, ...]  # of the taps
Change = dict[Var, Index]  # of variables
Each = Callable[[Change], tuple[Stmt, ...]]  # the statements where columns lie so
MOST_ROWS, FEW_ROWS = (4, 7), 3  # of the result, computed at once; fewer read memory too often
SHIFTED = "shifted vector"  # the loops over a vector of columns


@dataclass(frozen=True)
class Depthwise:
    """The image and what it is multiplied by; per coordinate the variable along the image and the
    tap; `around` are the images and channels; `is_gradient`: images are summed, taps are not."""

    image: Scalar
    other: Scalar
    ways: tuple[Place, ...]
    around: tuple[Var, ...]
    is_gradient: bool

    @property
    def spots(self) -> list[Var]:
        return [p.terms[0][0] for p in self.ways]

    @property
    def taps(self) -> list[Var]:
        return [p.terms[1][0] for p in self.ways]


def find_depthwise(kernel: Kernel, number: int, target: Target) -> Depthwise | None:
    """The depthwise convolution that a kernel is, where operand `number` is its image."""
    (reduction,) = kernel.reductions
    image, other = (reduction.value.args[n] for n in (number, 1 - number))
    found = places(image)
    if found is None or other.kind != "load" or other.guards or other.args:
        return None
    alone = [p for p in found if len(p.terms) == 1]
    ways = [_ordered(p) for p in found if len(p.terms) == 2]
    if len(alone) + len(ways) < len(found) or not ways or any(p.guard for p in alone):
        return None
    spots, taps = ({p.terms[n][0] for p in ways} for n in (0, 1))
    around = [p.terms[0][0] for p in alone]
    channels, images = (
        {v for v in around if v in part} for part in (kernel.axes, kernel.reduce_axes)
    )
    is_gradient = not spots & set(kernel.axes)
    summed, kept = (spots | images, taps | channels) if is_gradient else (taps, spots | channels)
    if set(kernel.reduce_axes) != summed or set(kernel.axes) != kept:
        return None
    count = math.prod(v.extent for v in taps if isinstance(v.extent, int))
    if count > (target.registers - 6 if is_gradient else 32) or not _is_row(ways[-1]):
        return None
    if is_gradient and other.index.coefficient(ways[-1].terms[0][0]) != 1:
        return None
    return Depthwise(image, other, tuple(ways), tuple(around), is_gradient)


def _ordered(place: Place) -> Place:
    """The longer variable first: that along the image."""
    by_length = sorted(
        place.terms, key=lambda t: -t[0].extent if isinstance(t[0].extent, int) else 0
    )
    return replace(place, terms=tuple(by_length))


def _is_row(way: Place) -> bool:
    """Do columns lie together in memory, with results for each or every second of them?"""
    return way.unit == 1 and way.terms[0][1] <= 2


def plan_depthwise(kernel: Kernel, site: Depthwise, target: Target) -> tuple[Kernel, Function]:
    """The scheduled kernel and its loops."""
    column = site.spots[-1]
    lanes = fitting_lanes(column.extent, target.lanes(site.image.dtype))
    rows = site.spots[-2] if len(site.spots) > 1 else Var("one", 1)
    height, blocks = _rows_at_once(rows)
    block = Var(f"{rows.name}_rows", blocks)
    points = [Index.of(block) * height + t for t in range(height)]
    plan = _gradient if site.is_gradient else _results
    body = plan(kernel, site, _within_row(site), rows, points)
    inner: list[Stmt] = list(_vectors(column, lanes, body.each, is_sum=site.is_gradient))
    for v in (*site.spots[:-2], block):
        inner = [For(v, "serial", 1, tuple(inner))]
    images = [v for v in site.around if v in kernel.reduce_axes]
    stmts: list[Stmt] = inner
    for v in reversed(images):
        stmts = [For(v, "serial", 1, tuple(stmts))]
    stmts = [*body.before, *stmts, *body.after]
    outer = [v for v in site.around if v not in images]
    for v in reversed(outer):
        stmts = [For(v, "serial", 1, tuple(stmts))]
    schedule: tuple[Directive, ...] = (
        Vectorize(column.name, lanes),
        Unroll(rows.name, height),
    )
    function = Function(kernel.label, kernel.buffers, tuple(stmts))
    return replace(kernel, schedule=schedule), function


def _rows_at_once(rows: Var) -> tuple[int, int]:
    """How many, and how often: rows that are a multiple of few numbers allow some more."""
    extent = rows.extent
    assert isinstance(extent, int)
    few, more = (max(n for n in range(1, most + 1) if extent % n == 0) for most in MOST_ROWS)
    height = few if few >= FEW_ROWS else more
    return height, extent // height


def _within_row(site: Depthwise) -> Scalar:
    """The image, with a guard along its rows also where all that is read is there."""
    way, image = site.ways[-1], site.image
    if way.guard is not None:
        return image
    guards = (*image.guards, Guard(way.index, 0, way.extent))
    return scalar.load(image.name, image.index, image.dtype, guards=guards, fill=image.fill)


def _vectors(column: Var, lanes: int, each: Each, *, is_sum: bool) -> Iterator[Stmt]:
    """The statements for every vector along the axis: the first and the last ones by themselves."""
    assert isinstance(column.extent, int)
    count = -(-column.extent // lanes)
    last = 1 if column.extent % lanes == 0 else 2  # vectors that read beyond the end
    middle = count - 1 - last
    inside = range(1, 1 + middle) if middle > 1 else range(0)
    for number in range(count):
        here = Var(f"{column.name}_{number}", min(lanes, column.extent - number * lanes))
        if number not in inside:
            body = each({column: Index.of(number * lanes) + Index.of(here)})
            alone = here.extent == 1 and not is_sum  # a sum goes on in the lanes that it has
            yield For(here, "serial", 1, body) if alone else For(here, SHIFTED, lanes, body)
        elif number == 1:
            far = Var(f"{column.name}_vector", middle)
            first = Index.of(far) * lanes + lanes
            body = each({column: first + Index.of(here)})
            yield For(far, "serial", 1, (For(here, SHIFTED, lanes, body),))


@dataclass(frozen=True)
class _Body:
    """Statements before the image, at each of its points, and after it."""

    before: tuple[Stmt, ...]
    each: Each
    after: tuple[Stmt, ...]


def _results(
    kernel: Kernel, site: Depthwise, image: Scalar, rows: Var, points: list[Index]
) -> _Body:
    """All rows of a block: their sums over the taps, then what is written."""
    dtype, order = site.image.dtype, _in_order(site, len(points))
    weights = {taps: _at(site.other, site, taps, {}) for taps, _ in order}

    def each(where: Change) -> tuple[Stmt, ...]:
        stmts: list[Stmt] = [Init(f"acc{t}", scalar.const(0, dtype)) for t in range(len(points))]
        for taps, t in order:
            here = _at(image, site, taps, {rows: points[t], **where})
            value = scalar.apply("mul", (weights[taps], here), dtype)
            stmts.append(Accumulate(f"acc{t}", "sum", value))
        writes = [
            w
            for t, point in enumerate(points)
            for w in _written(kernel, f"acc{t}", {rows: point, **where})
        ]
        return (*stmts, *stores(writes))

    return _Body((), each, ())


def _gradient(
    kernel: Kernel, site: Depthwise, image: Scalar, rows: Var, points: list[Index]
) -> _Body:
    """A sum for every tap over all rows of all images."""
    dtype, order = site.image.dtype, _in_order(site, len(points))
    names = {taps: f"acc{number}" for number, taps in enumerate(_points(site.taps))}
    before = tuple(Init(name, scalar.const(0, dtype)) for name in names.values())

    def each(where: Change) -> tuple[Stmt, ...]:
        changes: list[Change] = [{rows: point, **where} for point in points]
        others = [scalar.substitute(site.other, change) for change in changes]
        values = (
            (taps, scalar.apply("mul", (others[t], _at(image, site, taps, changes[t])), dtype))
            for taps, t in order
        )
        return tuple(Accumulate(names[taps], "sum", value) for taps, value in values)

    writes = [
        w for taps, name in names.items() for w in _written(kernel, name, _tapped(site, taps))
    ]
    return _Body(before, each, tuple(stores(writes)))


def _written(kernel: Kernel, name: str, change: dict[Var, Index]) -> list[Write]:
    """What is written at a point, from the sum of that name."""
    acc = sum_of(kernel)
    total = scalar.ref(name, acc.dtype)
    found = []
    for w in kernel.writes:
        value = scalar.rewrite(w.value, lambda s: total if s is acc else None)
        value = scalar.substitute(value, change)
        found.append(replace(w, index=w.index.substitute(change), value=value))
    return found


def _points(taps: Sequence[Var]) -> Iterator[Point]:
    return product(*(range(v.extent) for v in taps if isinstance(v.extent, int)))


def _tapped(site: Depthwise, taps: Point) -> Change:
    return {v: Index.of(n) for v, n in zip(site.taps, taps, strict=True)}


def _at(value: Scalar, site: Depthwise, taps: Point, where: Change) -> Scalar:
    return scalar.substitute(value, {**_tapped(site, taps), **where})


def _in_order(site: Depthwise, height: int) -> list[tuple[Point, int]]:
    """Taps and rows of the result, in the order of the rows that are read: a load serves all that
    it meets."""
    pairs = product(_points(site.taps), range(height))
    return sorted(pairs, key=lambda pair: (_row_of(site, *pair), pair[0]))


def _row_of(site: Depthwise, taps: Point, t: int) -> int:
    """Which row of the image a tap reads for row t of the result."""
    if len(site.ways) == 1:
        return 0
    (_, step), (_, far) = site.ways[-2].terms
    return t * step + taps[-2] * far
