"""Takes a kernel that reduces everything to a few numbers, gives its loops in two stages.

    for p in 24: sum = 0; for q in 8192: sum += f(x[p*8192 + q]); partial[p] = sum
    sum = 0; for p in 24: sum += partial[p]; for the rest q in 17: sum += f(x[24*8192 + q])

One thread could do no part of a single sum while another one does the rest; of the first stage it
can. Pieces depend on the shape alone, and so does the order of all additions.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from ir import scalar
from ir.index import Index, Var
from ir.loops import (
    Accumulate,
    Buffer,
    For,
    Function,
    Init,
    Kernel,
    Parallel,
    Reduction,
    Stmt,
    Vectorize,
    Write,
)
from ir.nests import identity
from ir.scalar import Scalar
from ir.types import Extent
from nncompiler.codegen.target import Target
from nncompiler.schedule.apply import row_loops, stores
from nncompiler.schedule.axes import map_kernel_indices
from nncompiler.schedule.heuristics import choose_rows, kernel_lanes, size_of
from nncompiler.schedule.split import choose, cost_of_rows, nest_of

LARGE = 1 << 16  # elements of a reduction in two stages
PIECE = 1 << 13  # elements of its pieces, where they are not given
SMALLEST = 1 << 10


def partial_loops(kernel: Kernel, target: Target) -> tuple[Kernel, Function] | None:
    """The scheduled kernel and its stages; None where it is no such reduction, or a small one."""
    axes = _pieces(kernel)
    if axes is None:
        return None
    piece, inner, rest = axes
    first = _sums_of_pieces(kernel, piece, inner)
    first = replace(first, schedule=choose_rows(first, target))
    sums = row_loops(first)
    last = _sum_of_all(kernel, piece, rest, kernel_lanes(kernel, target))
    symbols = {v.extent.symbol for v in kernel.reduce_axes if isinstance(v.extent, Extent)}
    found = choose(list(nest_of(sums.body[0], target)), cost_of_rows(first), symbols)
    function = Function(
        kernel.label,
        kernel.buffers,
        (*sums.body, For(Var("once", 1), "serial", 1, last)),
        sums.scratch,
        _partials(kernel, piece),
        (found, None) if found else (),
    )
    lanes = tuple(d for d in first.schedule if isinstance(d, Vectorize))
    dealt = tuple(Parallel(v.name, chunk) for v, chunk in (found.axes if found else ()))
    return replace(kernel, schedule=(*lanes, *dealt)), function


def _pieces(kernel: Kernel) -> tuple[Var, tuple[Var, ...], Var | None] | None:
    """The axis of the pieces, the axes inside of one, and the axis of what is left over."""
    names = {r.name for r in kernel.reductions}
    nested = any(s.name in names for s in scalar.walk([r.value for r in kernel.reductions]))
    if kernel.axes or nested or not names or any(w.inner for w in kernel.writes):
        return None
    if prod(size_of(v.extent) for v in kernel.reduce_axes) < LARGE:
        return None
    outer, *inner = kernel.reduce_axes
    if inner:
        static = [v.extent for v in inner if isinstance(v.extent, int)]
        if len(static) < len(inner) or prod(static) < SMALLEST or outer.extent == 1:
            return None
        return outer, tuple(inner), None
    piece, element = Var(f"{outer.name}p", 0), Var(f"{outer.name}q", 0)
    if isinstance(outer.extent, Extent):
        if outer.extent.coefficient < SMALLEST:
            return None
        piece = replace(piece, extent=Extent(1, outer.extent.symbol))
        return piece, (replace(element, extent=outer.extent.coefficient),), None
    count, left = divmod(outer.extent, PIECE)
    rest = Var(f"{outer.name}r", left) if left else None
    return replace(piece, extent=count), (replace(element, extent=PIECE),), rest


def _sums_of_pieces(kernel: Kernel, piece: Var, inner: tuple[Var, ...]) -> Kernel:
    """The first stage: one partial result for every piece."""
    if len(kernel.reduce_axes) == 1:
        (element,) = inner
        assert isinstance(element.extent, int)
        place = Index.of(piece) * element.extent + Index.of(element)
        kernel = _moved(kernel, place)
    writes = tuple(
        Write(b.name, Index.of(piece), scalar.ref(r.name, r.value.dtype), False)
        for b, r in zip(_partials(kernel, piece), kernel.reductions, strict=True)
    )
    return replace(kernel, axes=(piece,), reduce_axes=inner, writes=writes)


def _sum_of_all(kernel: Kernel, piece: Var, rest: Var | None, lanes: int) -> tuple[Stmt, ...]:
    """The second stage: the pieces in order, then what is left over, then the results."""
    body: list[Stmt] = [Init(r.name, identity(r.combine, r.value.dtype)) for r in kernel.reductions]
    found = zip(_partials(kernel, piece), kernel.reductions, strict=True)
    loads = [(r, scalar.load(b.name, Index.of(piece), b.dtype)) for b, r in found]
    body.append(_accumulate(piece, lanes, loads))
    if rest is not None:
        (axis,) = kernel.reduce_axes
        assert isinstance(axis.extent, int) and isinstance(rest.extent, int)
        left = _moved(kernel, Index.of(rest) + (axis.extent - rest.extent))
        body.append(_accumulate(rest, lanes, [(r, r.value) for r in left.reductions]))
    return (*body, *stores(kernel.writes))


def _accumulate(axis: Var, lanes: int, values: list[tuple[Reduction, Scalar]]) -> For:
    return For(
        axis, "vector", lanes, tuple(Accumulate(r.name, r.combine, value) for r, value in values)
    )


def _moved(kernel: Kernel, place: Index) -> Kernel:
    """The kernel with `place` for its only reduce axis."""
    (axis,) = kernel.reduce_axes
    return map_kernel_indices(kernel, lambda index: index.substitute({axis: place}))


def _partials(kernel: Kernel, piece: Var) -> tuple[Buffer, ...]:
    return tuple(
        Buffer(f"partial {r.name}", r.value.dtype, piece.extent, True) for r in kernel.reductions
    )
