"""Takes values, gives sliding windows over them: window, its adjoint fold, diagonal, first_max.

window of [a b c d], size 3        [[a b c]          fold of it        [a, 2b, 2c, d]
                                    [b c d]]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ir.graph import Node, make
from ir.index import Index
from ir.op import Lowering, Op, Sample, Source, register
from ir.ops.core import NUMBERS, Array, Value, as_node, random_for, reduction, samples_of, view
from ir.ops.elementwise import eq, ne, or_, where
from ir.ops.leaves import iota
from ir.types import Dim, Shape, TensorType, i32

Indices = tuple[Index, ...]
Types = Sequence[TensorType]
Ints = tuple[int, ...]


def window_count(extent: int, size: int, stride: int, dilation: int) -> int:
    """How many windows fit in an axis."""
    span = (size - 1) * dilation + 1
    return max(0, (extent - span) // stride + 1)


# --------------------------------------------------------------------------- window


def _check(name: str, x: TensorType, axes: Ints, *others: Ints) -> None:
    good = list(axes) == sorted(set(axes)) and all(0 <= a < x.rank for a in axes)
    fit = all(len(o) == len(axes) and all(v >= 1 for v in o) for o in others)
    if not good or not fit or not all(isinstance(x.shape[a], int) for a in axes):
        raise ValueError(f"{name} of {x} over axes {axes} with {', '.join(map(str, others))}")


def _window_type(
    x: TensorType, *, axes: Ints, sizes: Ints, strides: Ints, dilations: Ints
) -> TensorType:
    _check("window", x, axes, sizes, strides, dilations)
    shape = list(x.shape)
    for axis, size, stride, dilation in zip(axes, sizes, strides, dilations, strict=True):
        extent = shape[axis]
        assert isinstance(extent, int)
        shape[axis] = window_count(extent, size, stride, dilation)
    return x.with_shape((*shape, *sizes))


def _window_evaluate(x: Array, *, axes: Ints, sizes: Ints, strides: Ints, dilations: Ints) -> Array:
    for axis, size, stride, dilation in zip(axes, sizes, strides, dilations, strict=True):
        count = window_count(x.shape[axis], size, stride, dilation)
        rows = np.arange(count)[:, None] * stride + np.arange(size) * dilation
        x = np.moveaxis(np.take(x, rows, axis), axis + 1, -1)
    return x


def _window_sources(
    indices: Indices, types: Types, *, axes: Ints, sizes: Ints, strides: Ints, dilations: Ints
) -> tuple[Source, ...]:
    rank = types[0].rank
    inner = list(indices[:rank])
    for number, axis in enumerate(axes):
        inner[axis] = inner[axis] * strides[number] + indices[rank + number] * dilations[number]
    return (Source(0, tuple(inner)),)


def _window_vjp(
    g: Node, y: Node, x: Node, *, axes: Ints, sizes: Ints, strides: Ints, dilations: Ints
) -> Node:
    extents = tuple(x.shape[a] for a in axes)
    return make("fold", g, axes=axes, strides=strides, dilations=dilations, extents=extents)


def _attrs(axes: Ints, sizes: Ints, strides: Ints, dilations: Ints) -> dict[str, Any]:
    return {"axes": axes, "sizes": sizes, "strides": strides, "dilations": dilations}


_WINDOWS = [
    ((7,), _attrs((0,), (3,), (1,), (1,))),
    ((8,), _attrs((0,), (3,), (2,), (1,))),
    ((3, 11), _attrs((1,), (2,), (3,), (2,))),
    ((2, 6, 7), _attrs((1, 2), (2, 3), (1, 2), (2, 1))),
    ((2, 5, 19), _attrs((1, 2), (3, 3), (1, 1), (1, 1))),
    ((2, 4, 6), _attrs((1, 2), (2, 2), (2, 2), (1, 1))),
    ((2,), _attrs((0,), (3,), (1,), (1,))),
    ((33,), _attrs((0,), (5,), (1,), (1,))),
]

view(
    "window",
    _window_type,
    _window_evaluate,
    _window_sources,
    vjp=_window_vjp,
    samples=lambda: samples_of("window", *_WINDOWS),
    doc="windows of `sizes` that slide over `axes`; their own axes come last",
)


def window(
    x: Value,
    axes: Sequence[int],
    sizes: Sequence[int],
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
) -> Node:
    """Windows sliding over `axes` (ascending): each axis counts windows, `sizes` are appended."""
    node = as_node(x)
    ones = (1,) * len(tuple(axes))
    return make(
        "window",
        node,
        axes=tuple(a % max(node.ndim, 1) for a in axes),
        sizes=tuple(sizes),
        strides=ones if strides is None else tuple(strides),
        dilations=ones if dilations is None else tuple(dilations),
    )


# --------------------------------------------------------------------------- fold


def _fold_type(
    g: TensorType, *, axes: Ints, strides: Ints, dilations: Ints, extents: Ints
) -> TensorType:
    rank = g.rank - len(axes)
    if rank < 0 or g.dtype.kind not in NUMBERS or not all(isinstance(e, int) for e in extents):
        raise ValueError(f"fold of {g} over axes {axes} to extents {extents}")
    shape = list(g.shape[:rank])
    for number, axis in enumerate(axes):
        shape[axis] = extents[number]
    result = g.with_shape(shape)
    sizes = tuple(int(d) for d in g.shape[rank:])  # type: ignore[arg-type]
    expected = _window_type(result, axes=axes, sizes=sizes, strides=strides, dilations=dilations)
    if expected != g:
        raise ValueError(f"fold to {result} takes {expected}, not {g}")
    return result


def _fold_evaluate(g: Array, *, axes: Ints, strides: Ints, dilations: Ints, extents: Ints) -> Array:
    rank = g.ndim - len(axes)
    shape = list(g.shape[:rank])
    for number, axis in enumerate(axes):
        shape[axis] = extents[number]
    result = np.zeros(shape, g.dtype)
    for offsets in np.ndindex(*g.shape[rank:]):
        place = [slice(None)] * rank
        for number, axis in enumerate(axes):
            start = offsets[number] * dilations[number]
            stop = start + (g.shape[axis] - 1) * strides[number] + 1
            place[axis] = slice(start, max(stop, start), strides[number])
        result[tuple(place)] += g[(..., *offsets)]
    return result


def _fold_vjp(
    g: Node, y: Node, x: Node, *, axes: Ints, strides: Ints, dilations: Ints, extents: Ints
) -> Node:
    sizes = x.shape[x.ndim - len(axes) :]
    return make("window", g, axes=axes, sizes=sizes, strides=strides, dilations=dilations)


def _fold_samples() -> list[Sample]:
    random = random_for("fold")
    found = []
    for shape, attrs in _WINDOWS:
        windows = _window_evaluate(np.zeros(shape), **attrs).shape
        extents = tuple(shape[a] for a in attrs["axes"])
        kept = {k: v for k, v in attrs.items() if k != "sizes"}
        values = np.asarray(random.normal(size=windows))
        found.append(Sample((values,), {**kept, "extents": extents}))
    return found


register(
    Op(
        "fold",
        Lowering.FOLD,
        _fold_type,
        _fold_evaluate,
        _fold_vjp,
        _fold_samples,
        doc="the adjoint of `window`: the sum of what overlapping windows hold for an element",
    )
)


def fold(
    g: Value,
    axes: Sequence[int],
    extents: Sequence[int],
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
) -> Node:
    """The sum of overlapping windows, over `axes` that get the given extents."""
    ones = (1,) * len(tuple(axes))
    return make(
        "fold",
        as_node(g),
        axes=tuple(axes),
        strides=ones if strides is None else tuple(strides),
        dilations=ones if dilations is None else tuple(dilations),
        extents=tuple(extents),
    )


# --------------------------------------------------------------------------- diagonal


def _diagonal_type(x: TensorType, *, axis1: int, axis2: int) -> TensorType:
    good = 0 <= axis1 < x.rank and 0 <= axis2 < x.rank and axis1 != axis2
    if not good or x.shape[axis1] != x.shape[axis2]:
        raise ValueError(f"diagonal of {x} along axes {axis1} and {axis2}")
    return x.with_shape((*_without(x.shape, axis1, axis2), x.shape[axis1]))


def _without(shape: Shape, *gone: int) -> Shape:
    return tuple(d for a, d in enumerate(shape) if a not in gone)


def _diagonal_sources(
    indices: Indices, types: Types, *, axis1: int, axis2: int
) -> tuple[Source, ...]:
    rest = iter(indices[:-1])
    both = (axis1, axis2)
    return (
        Source(0, tuple(indices[-1] if a in both else next(rest) for a in range(types[0].rank))),
    )


def _diagonal_vjp(g: Node, y: Node, x: Node, *, axis1: int, axis2: int) -> Node:
    """g on the diagonal, zeros beside it."""
    kept = tuple(a for a in range(x.ndim) if a != axis2)
    last = kept.index(axis1)
    perm = [*range(g.ndim - 1)]
    perm.insert(last, g.ndim - 1)
    moved = make("transpose", g, perm=tuple(perm)) if perm != sorted(perm) else g
    spread = make("broadcast", moved, shape=x.shape, axes=kept)
    return where(eq(iota(x.shape, axis1, i32), iota(x.shape, axis2, i32)), spread, 0)


view(
    "diagonal",
    _diagonal_type,
    lambda x, *, axis1, axis2: np.diagonal(x, 0, axis1, axis2),
    _diagonal_sources,
    vjp=_diagonal_vjp,
    samples=lambda: samples_of(
        "diagonal",
        ((5, 5), {"axis1": 0, "axis2": 1}),
        ((3, 4, 2, 3), {"axis1": 0, "axis2": 3}),
        ((2, 17, 17), {"axis1": 2, "axis2": 1}),
        ((0, 0), {"axis1": 0, "axis2": 1}),
    ),
    doc="the elements whose indices on two axes agree, on a new last axis",
)


def diagonal(x: Value, axis1: int = 0, axis2: int = 1) -> Node:
    """numpy.diagonal of two axes of one extent."""
    node = as_node(x)
    rank = max(node.ndim, 1)
    return make("diagonal", node, axis1=axis1 % rank, axis2=axis2 % rank)


# --------------------------------------------------------------------------- first_max


def _first_max_vjp(g: Node, y: Node, x: Node, *, axes: Ints) -> Node:
    """The cotangent at the first element that attains the largest value (or is the first NaN)."""
    if not axes:
        return g
    kept = tuple(a for a in range(x.ndim) if a not in axes)
    hit = eq(x, make("broadcast", y, shape=x.shape, axes=kept))
    hit = or_(hit, ne(x, x)) if x.dtype.is_float else hit
    position = _positions(x.shape, axes)
    first = make("min", where(hit, position, 2**31 - 1), axes=axes)
    chosen = eq(position, make("broadcast", first, shape=x.shape, axes=kept))
    return where(chosen, make("broadcast", g, shape=x.shape, axes=kept), 0)


def _positions(shape: Shape, axes: Ints) -> Node:
    """The row-major number of an element among those that differ along `axes` only."""
    total: Node | None = None
    step = 1
    for axis in reversed(axes):
        dim: Dim = shape[axis]
        here = iota(shape, axis, i32) * step
        total = here if total is None else total + here
        step *= dim if isinstance(dim, int) else 1
    assert total is not None
    return total


reduction(
    "first_max",
    lambda x, *, axes: np.asarray(
        np.max(x, axis=axes, initial=-np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min)
    ),
    vjp=_first_max_vjp,
    combine="max",
    doc="the largest as `max`; its derivative is that of the first element that attains it",
)


def first_max(x: Value, axes: Sequence[int]) -> Node:
    """The largest along axes; all of the cotangent goes to the first element that attains it."""
    node = as_node(x)
    return make("first_max", node, axes=tuple(sorted(a % node.ndim for a in axes)))


__all__ = ["diagonal", "first_max", "fold", "window", "window_count"]
