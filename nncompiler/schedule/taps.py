"""Takes sums for every tap, channel and filter, gives the loops from them to the weights' results.

    sums[n][tap][c][f]  ->  total over n  ->  turned[f][c][tap]  ->  w[f, c, tap] - lr * ...

Filters run over the lanes until they are turned, some channels at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from ir import scalar
from ir.index import Index, Var
from ir.loops import Accumulate, Buffer, For, Init, Kernel, Stmt, Store, Transpose
from ir.scalar import Scalar
from nncompiler.codegen.target import Target
from nncompiler.schedule.heuristics import fitting_lanes
from nncompiler.schedule.results import results, sum_of
from nncompiler.schedule.tiling import nest

TURNED = 16  # channels whose taps are turned at a time

# the gradients of all taps, and the statements before, where variables are changed
Values = Callable[[dict[Var, Index]], tuple[list[Scalar], list[Stmt]]]


def sums_of_images(loads: Sequence[Scalar], image: Var | None) -> tuple[list[Scalar], list[Stmt]]:
    """The loads summed over the images, in order: (sums, statements before)."""
    if image is None:
        return list(loads), []
    names = [f"sum{n}" for n in range(len(loads))]
    before: list[Stmt] = [
        Init(name, scalar.const(0, x.dtype)) for name, x in zip(names, loads, strict=True)
    ]
    adds = [Accumulate(name, "sum", x) for name, x in zip(names, loads, strict=True)]
    before.append(For(image, "serial", 1, tuple(adds)))
    return [scalar.ref(name, x.dtype) for name, x in zip(names, loads, strict=True)], before


def finish_taps(
    kernel: Kernel, channel: Var, filter: Var, taps: Sequence[Var], values: Values, target: Target
) -> tuple[Sequence[Stmt], tuple[Buffer, ...], tuple[Buffer, ...]]:
    """The results of all weights: (statements, scratch, workspace)."""
    channels, filters, dtype = channel.extent, filter.extent, sum_of(kernel).dtype
    assert isinstance(channels, int) and isinstance(filters, int)
    lanes = fitting_lanes(filters, target.lanes(dtype))
    block = max(n for n in range(1, TURNED + 1) if channels % n == 0)
    outer, inner = Var("channels_block", channels // block), Var("channel", block)
    inside = [inner] if block > 1 else []  # no loop along an axis of length one
    place = Index.of(inner) if inside else Index()
    change = {channel: Index.of(outer) * block + place}
    size = math.prod(v.extent for v in taps if isinstance(v.extent, int))
    column, rows = Index.of(filter), size * block
    found, before = values(change)
    stores = [
        Store("taps", (place * size + n) * filters + column, value) for n, value in enumerate(found)
    ]
    body = [*nest(inside, [For(filter, "vector", lanes, (*before, *stores))])]
    number = place
    for v in taps:
        assert isinstance(v.extent, int)
        number = number * v.extent + Index.of(v)
    own = [Buffer("taps", dtype, rows * filters, True)]
    axes: tuple[Var, ...] = (*inside, *taps, filter)
    total = scalar.load("taps", number * filters + column, dtype)
    if rows > 1 and kernel.writes[0].index.coefficient(filter) != 1:
        tap = Var("tap", rows)
        value = scalar.load("taps", Index.of(tap) * filters + column, dtype)
        body.append(Transpose(filter, tap, "turned", column * rows + Index.of(tap), value, lanes))
        own.append(Buffer("turned", dtype, rows * filters, True))
        axes = (filter, *inside, *taps)
        total = scalar.load("turned", column * rows + number, dtype)
    writes = tuple(
        replace(w, index=w.index.substitute(change), value=scalar.substitute(w.value, change))
        for w in kernel.writes
    )
    last = results(kernel, writes, axes, total, target)
    body += last.body
    if outer.extent == 1:  # stages of their own share nothing but what all threads see
        return body, last.scratch, tuple(own)
    return nest([outer], body), (*own, *last.scratch), ()
