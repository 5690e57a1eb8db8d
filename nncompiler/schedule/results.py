"""Takes a contraction's sums in memory, gives the loops that compute its results from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ir import scalar
from ir.index import Index, Var
from ir.loops import Function, Kernel, Write
from ir.scalar import Scalar
from nncompiler.codegen.target import Target
from nncompiler.schedule.apply import row_loops
from nncompiler.schedule.axes import merge_axes
from nncompiler.schedule.heuristics import choose_rows


def sum_of(kernel: Kernel) -> Scalar:
    """The sum of a contraction, by its name."""
    (reduction,) = kernel.reductions
    return scalar.ref(reduction.name, reduction.value.dtype)


def row_major(axes: Sequence[Var]) -> tuple[Index, int]:
    """The place of a point of the axes in memory of its own, and how much there is."""
    index, size = Index(), 1
    for v in reversed(axes):
        assert isinstance(v.extent, int)
        index, size = index + Index.of(v) * size, size * v.extent
    return index, size


def results(
    kernel: Kernel,
    writes: tuple[Write, ...],
    axes: tuple[Var, ...],
    total: Scalar,
    target: Target,
) -> Function:
    """The loops over `axes` that write the results, with the sum read from memory."""
    acc = sum_of(kernel)
    known = tuple(
        replace(w, value=scalar.rewrite(w.value, lambda s: total if s is acc else None))
        for w in writes
    )
    rows = merge_axes(
        replace(kernel, recipe="rows", axes=axes, reduce_axes=(), reductions=(), writes=known)
    )
    return row_loops(replace(rows, schedule=choose_rows(rows, target)))
