"""Takes a kernel, gives the same kernel over fewer axes: neighbours that memory walks as one.

i:batch j:128   y[i*128 + j] = relu(x[i*128 + j])   ->   i:128*batch   y[i] = relu(x[i])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise

from ir import scalar
from ir.index import Index, Var
from ir.loops import Kernel
from ir.scalar import Scalar


def merge_axes(kernel: Kernel) -> Kernel:
    """Merge neighbouring axes wherever every index allows it."""
    merged = _merge_once(kernel)
    while merged is not None:
        kernel = merged
        merged = _merge_once(kernel)
    return kernel


def _merge_once(kernel: Kernel) -> Kernel | None:
    indices = list(kernel_indices(kernel))
    for axes in (kernel.axes, kernel.reduce_axes):
        for outer, inner in pairwise(axes):
            if isinstance(inner.extent, int) and _is_one_walk(indices, outer, inner):
                return _merge(kernel, outer, inner)
    return None


def kernel_scalars(kernel: Kernel) -> Iterator[Scalar]:
    """The roots of all expressions of a kernel."""
    for reduction in kernel.reductions:
        yield reduction.value
    for write in kernel.writes:
        yield write.value
    if kernel.scatter:
        yield kernel.scatter.row
        yield kernel.scatter.value


def kernel_indices(kernel: Kernel) -> Iterator[Index]:
    """Every index expression of a kernel."""
    for s in scalar.walk(kernel_scalars(kernel)):
        if s.kind in ("load", "at"):
            yield s.index
            yield from (g.value for g in s.guards)
    for write in kernel.writes:
        yield write.index
    if kernel.scatter:
        yield kernel.scatter.index


def map_kernel_indices(kernel: Kernel, function: Callable[[Index], Index]) -> Kernel:
    """Rewrite every index expression of a kernel."""
    reductions = tuple(
        replace(r, value=scalar.map_indices(r.value, function)) for r in kernel.reductions
    )
    writes = tuple(
        replace(w, index=function(w.index), value=scalar.map_indices(w.value, function))
        for w in kernel.writes
    )
    scatter = kernel.scatter
    if scatter:
        scatter = replace(
            scatter,
            index=function(scatter.index),
            row=scalar.map_indices(scatter.row, function),
            value=scalar.map_indices(scatter.value, function),
        )
    return replace(kernel, reductions=reductions, writes=writes, scatter=scatter)


def join_short_axes(kernel: Kernel) -> Kernel:
    """Short last axes of what is written in order become part of the one before, so that lanes are
    not left empty: where operands repeat, they do so in a pattern that lanes know.

        i:1176 r:2 s:2   y[i*4 + r*2 + s] = x[i]   ->   i:4704   y[i] = x[i // 4]
    """
    while len(kernel.axes) > 1 and not kernel.reductions and not kernel.scatter:
        outer, inner = kernel.axes[-2:]
        written = [w.index for w in kernel.writes]
        in_order = all(
            i.coefficient(inner) == 1 and i.coefficient(outer) == inner.extent for i in written
        )
        if inner.extent not in (2, 4) or not in_order:
            break
        joined = Var(outer.name, outer.extent * inner.extent)
        place = Index.of(joined)
        values = {outer: place // inner.extent, inner: place % inner.extent}
        kernel = map_kernel_indices(kernel, partial(Index.substitute, values=values))
        kernel = replace(kernel, axes=(*kernel.axes[:-2], joined))
    return kernel


def _is_one_walk(indices: list[Index], outer: Var, inner: Var) -> bool:
    assert isinstance(inner.extent, int)
    for index in indices:
        far, near = index.coefficient(outer), index.coefficient(inner)
        if far is None or near is None or far != near * inner.extent:
            return False
    return True


def _merge(kernel: Kernel, outer: Var, inner: Var) -> Kernel:
    assert isinstance(inner.extent, int)
    joined = Var(outer.name, outer.extent * inner.extent)

    def change(index: Index) -> Index:
        near = index.coefficient(inner)
        gone = index.substitute({outer: Index(), inner: Index()})
        return gone + Index.of(joined) * (near or 0)

    def shorten(axes: tuple[Var, ...]) -> tuple[Var, ...]:
        return tuple(joined if v == outer else v for v in axes if v != inner)

    kernel = map_kernel_indices(kernel, change)
    return replace(kernel, axes=shorten(kernel.axes), reduce_axes=shorten(kernel.reduce_axes))
