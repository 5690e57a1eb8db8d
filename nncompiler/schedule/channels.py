"""Takes a row kernel that combines images to numbers per channel, which lie last, gives its loops.

    for n in batch:  for block of 4 vectors of c:  for q in 1024:      sums[n, c] += x[n, q, c]
    for c (lanes):  for n in batch:                                    total[c] += sums[n, c]
    for n in batch:  for block of 4 vectors of c:  for q in 1024:      y[n, q, c] = ... total[c]

Lanes over channels leave one loop for all images, of which threads could share nothing; sums of
its own for every image can be shared, and keep the order of additions. Whole stretches of channels
are read at a time, of few enough points that the other stretches are not read from far away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod

from ir import scalar
from ir.index import Index, Var
from ir.loops import (
    Buffer,
    Directive,
    Function,
    Kernel,
    Parallel,
    Reduction,
    Split,
    Stmt,
    Vectorize,
    Write,
)
from ir.scalar import Scalar
from ir.types import Extent, multiply
from nncompiler.codegen.target import Target
from nncompiler.schedule.apply import depth, row_loops
from nncompiler.schedule.axes import map_kernel_indices
from nncompiler.schedule.heuristics import choose_rows, size_of
from nncompiler.schedule.results import row_major
from nncompiler.schedule.split import choose, cost_of_rows, nest_of

LARGE = 1 << 16  # elements of the images that are combined
SMALLEST = 1 << 5  # points of an image, each with all channels
VECTORS = 8  # of channels, at most, that are combined at once
PIECE = 1 << 13  # elements of a piece of an image that is read in several stretches

Stage = tuple[Stmt, Split | None]


def channel_loops(kernel: Kernel, target: Target) -> tuple[Kernel, Function] | None:
    """The scheduled kernel and its stages; None where lanes run along the images, or these are
    few and small."""
    if not kernel.reductions or len(kernel.axes) != 1 or not kernel.reduce_axes:
        return None
    lanes = next((d for d in choose_rows(kernel, target) if isinstance(d, Vectorize)), None)
    (channel,) = kernel.axes
    if lanes is None or lanes.axis != channel.name or not isinstance(channel.extent, int):
        return None
    cut = _cut(kernel, _vectors(kernel, channel.extent, lanes.lanes) * lanes.lanes)
    if cut is None:
        return None
    stages = _Plan(*cut, lanes, target)
    return stages.function(kernel)


def _vectors(kernel: Kernel, channels: int, lanes: int) -> int:
    """How many vectors of channels are combined at once: their sums stay in registers."""
    if channels % lanes:
        return 1
    most = min(VECTORS, 2 * VECTORS // len(kernel.reductions))
    return max(n for n in range(1, most + 1) if channels // lanes % n == 0)


def _cut(kernel: Kernel, width: int) -> tuple[Kernel, tuple[Var, ...], int] | None:
    """The kernel where images (and parts of them) have summed axes of their own, these axes, and
    how many channels are a stretch."""
    outer, *inner = kernel.reduce_axes
    channels = size_of(kernel.axes[0].extent)
    if size_of(multiply(v.extent for v in (*kernel.axes, outer, *inner))) < LARGE:
        return None
    pieces: list[Var] = []
    if not inner and isinstance(outer.extent, Extent):
        image = Var(f"{outer.name}n", Extent(1, outer.extent.symbol))
        kernel, point = _apart(kernel, outer, image, outer.extent.coefficient)
        pieces, outer = [image], point
    elif inner:
        pieces, (outer, *inner) = [outer], inner
    points = [v.extent for v in (outer, *inner)]
    if not all(isinstance(e, int) for e in points) or prod(map(size_of, points)) < SMALLEST:
        return None
    most = PIECE // (channels * prod(map(size_of, points[1:])))
    if width < channels and size_of(outer.extent) > most:
        size = max((n for n in range(1, most + 1) if size_of(outer.extent) % n == 0), default=1)
        part = Var(f"{outer.name}p", size_of(outer.extent) // size)
        kernel, _ = _apart(kernel, outer, part, size)
        pieces.append(part)
    return (kernel, tuple(pieces), width) if pieces else None


def _apart(kernel: Kernel, axis: Var, outer: Var, size: int) -> tuple[Kernel, Var]:
    """axis -> outer * size + inner"""
    inner = Var(f"{axis.name}q", size)
    change = {axis: Index.of(outer) * size + Index.of(inner)}
    kernel = map_kernel_indices(kernel, partial(Index.substitute, values=change))
    axes = [v for old in kernel.reduce_axes for v in ((outer, inner) if old == axis else (old,))]
    return replace(kernel, reduce_axes=tuple(axes)), inner


@dataclass
class _Plan:
    kernel: Kernel
    pieces: tuple[Var, ...]
    width: int
    lanes: Vectorize
    target: Target
    workspace: list[Buffer] = field(default_factory=list)

    def function(self, kernel: Kernel) -> tuple[Kernel, Function] | None:
        stages = self.stages()
        splits = tuple(split for _, split in stages)
        dealt = next((s for s in splits if s), None)
        if dealt is None:
            return None
        body, shared = tuple(stmt for stmt, _ in stages), tuple(self.workspace)
        function = Function(kernel.label, kernel.buffers, body, (), shared, splits)
        parallel = (Parallel(v.name, chunk) for v, chunk in dealt.axes)
        schedule: tuple[Directive, ...] = (self.lanes, *parallel)
        return replace(kernel, schedule=schedule), function

    def stages(self) -> list[Stage]:
        """A pass over the images for every depth, each followed by the totals of its sums."""
        kernel, found = self.kernel, list[Stage]()
        known: dict[Scalar, Scalar] = {}  # sums and stored values, as later passes read them
        inner = [(depth(w.value, kernel.reductions), w) for w in kernel.writes if w.inner]
        levels = {r.name: depth(r.value, kernel.reductions) for r in kernel.reductions}
        for level in sorted({*levels.values(), *(at for at, _ in inner)}):
            sums = [r for r in kernel.reductions if levels[r.name] == level]
            sums = [replace(r, value=scalar.rewrite(r.value, known.get)) for r in sums]
            made = [w for at, w in inner if at == level]
            found.append(self._pass(sums, _rewritten(made, known)))
            if sums:
                found.append(self._totals(sums, known))
            known |= {w.value: self._read_back(w) for w in made if self._is_dear(w.value)}
        last = _rewritten([w for w in kernel.writes if not w.inner], known)
        if last:
            found.append(self._stage(replace(kernel, reduce_axes=(), reductions=(), writes=last)))
        return found

    # ------------------------------------------------------------ stages

    def _pass(self, sums: Sequence[Reduction], writes: Sequence[Write]) -> Stage:
        """One pass over all images: sums of each piece, and what is written at every point.

        Every vector of a stretch of channels has sums of its own.
        """
        (channel,) = self.kernel.axes
        channels, lanes = size_of(channel.extent), self.lanes.lanes
        stretch, lane = Var(f"{channel.name}_stretch", 1), channel
        if channels % lanes == 0:
            stretch, lane = replace(stretch, extent=channels // self.width), Var(lane.name, lanes)
        parts = [self._part(r) for r in sums]
        reductions: list[Reduction] = []
        found: list[Write] = []
        for start in range(0, self.width, lanes):
            names = {r.name: f"{r.name}_{start}" for r in sums}
            place = Index.of(stretch) * self.width + start + Index.of(lane)
            change = {channel: place}
            for r in sums:
                value = scalar.substitute(r.value, change)
                reductions.append(Reduction(names[r.name], r.combine, value))
            for w in (*writes, *parts):
                value = scalar.rename(scalar.substitute(w.value, change), names)
                found.append(replace(w, index=w.index.substitute(change), value=value))
        points = tuple(v for v in self.kernel.reduce_axes if v not in self.pieces)
        axes = tuple(v for v in (*self.pieces, stretch, lane) if v.extent != 1)
        kernel = replace(self.kernel, axes=axes, reduce_axes=points)
        return self._stage(replace(kernel, reductions=tuple(reductions), writes=tuple(found)))

    def _part(self, r: Reduction) -> Write:
        """Stores a piece's sum."""
        name, dtype = f"sums {r.name}", r.value.dtype
        extents = (v.extent for v in (*self.pieces, *self.kernel.axes))
        self.workspace.append(Buffer(name, dtype, multiply(extents), True))
        return Write(name, self._place, scalar.ref(r.name, dtype), False)

    @property
    def _place(self) -> Index:
        """Where a piece's sum for a channel is."""
        first, *rest = (*self.pieces, *self.kernel.axes)
        index, size = row_major(rest)
        return Index.of(first) * size + index

    def _totals(self, sums: Sequence[Reduction], known: dict[Scalar, Scalar]) -> Stage:
        """The sums of all pieces in order, which later passes know."""
        (channel,) = self.kernel.axes
        place, writes, totals = Index.of(channel), list[Write](), list[Reduction]()
        for r in sums:
            ref, dtype, name = scalar.ref(r.name, r.value.dtype), r.value.dtype, f"total {r.name}"
            self.workspace.append(Buffer(name, dtype, channel.extent, True))
            totals.append(replace(r, value=scalar.load(f"sums {r.name}", self._place, dtype)))
            writes.append(Write(name, place, ref, False))
            known[ref] = scalar.load(name, place, dtype)
        kernel = replace(self.kernel, reduce_axes=self.pieces, reductions=tuple(totals))
        return self._stage(replace(kernel, writes=tuple(writes)))

    def _stage(self, kernel: Kernel) -> Stage:
        kernel = replace(kernel, schedule=(self.lanes,))
        (stmt,) = row_loops(kernel).body
        every = (*kernel.axes, *kernel.reduce_axes)
        symbols = {v.extent.symbol for v in every if isinstance(v.extent, Extent)}
        return stmt, choose(list(nest_of(stmt, self.target)), cost_of_rows(kernel), symbols)

    # ------------------------------------------------------------ values that were stored

    def _is_dear(self, value: Scalar) -> bool:
        """Is it made from more than one value as long as itself?"""
        return value.kind == "apply" and sum(map(self._moves, set(scalar.loads(value)))) > 1

    def _moves(self, s: Scalar) -> bool:
        return any(v in self.kernel.reduce_axes for v in scalar.variables(s))

    def _read_back(self, w: Write) -> Scalar:
        return scalar.load(w.buffer, w.index, w.value.dtype)


def _rewritten(writes: Sequence[Write], known: dict[Scalar, Scalar]) -> tuple[Write, ...]:
    return tuple(replace(w, value=scalar.rewrite(w.value, known.get)) for w in writes)
