"""Takes values, gives parts of them or larger wholes: slice, pad, flip, concatenate.

A symbolic extent is carried along whole: it is never cut, padded or reversed.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np

from ir.graph import Node, make
from ir.index import Guard, Index
from ir.op import Sample, Source
from ir.ops.core import (
    Array,
    Value,
    as_node,
    dim_less,
    index_of,
    promote,
    random_for,
    samples_of,
    view,
)
from ir.ops.views import expand_dims
from ir.types import Dim, Extent, Shape, TensorType

Indices = tuple[Index, ...]
Types = Sequence[TensorType]
Ints = tuple[int, ...]

# --------------------------------------------------------------------------- slice, pad, flip


def _slice_type(x: TensorType, *, starts: Ints, stops: Shape, steps: Ints) -> TensorType:
    shape: list[Dim] = []
    for axis, dim in enumerate(x.shape):
        start, stop, step = starts[axis], stops[axis], steps[axis]
        if isinstance(dim, Extent):
            if (start, stop, step) != (0, dim, 1):
                raise ValueError(f"slice of the symbolic extent '{dim}' on axis {axis} of {x}")
            shape.append(dim)
            continue
        if step < 1 or not isinstance(stop, int) or not 0 <= start <= stop <= dim:
            raise ValueError(f"slice {start}:{stop}:{step} does not fit axis {axis} of {x}")
        shape.append(-(-(stop - start) // step))
    return x.with_shape(shape)


def _slice_vjp(g: Node, y: Node, x: Node, *, starts: Ints, stops: Shape, steps: Ints) -> Node:
    """Zeros between the elements of g, then zeros around them."""
    g = dilate(g, steps)
    return pad(
        g, starts, tuple(_rest(*dims) for dims in zip(x.shape, g.shape, starts, strict=True))
    )


def _rest(whole: Dim, part: Dim, start: int) -> int:
    return 0 if isinstance(whole, Extent) else whole - start - _static(part)


def _static(dim: Dim) -> int:
    assert isinstance(dim, int)
    return dim


def _slice_evaluate(x: Array, *, starts: Ints, stops: Ints, steps: Ints) -> Array:
    return x[tuple(builtins.slice(*key) for key in zip(starts, stops, steps, strict=True))]


def _slice_sources(
    indices: Indices, types: Types, *, starts: Ints, stops: Shape, steps: Ints
) -> tuple[Source, ...]:
    return (Source(0, tuple(i * k + s for i, s, k in zip(indices, starts, steps, strict=True))),)


view(
    "slice",
    _slice_type,
    _slice_evaluate,
    _slice_sources,
    vjp=_slice_vjp,
    samples=lambda: samples_of(
        "slice",
        ((7,), {"starts": (2,), "stops": (6,), "steps": (1,)}),
        ((7,), {"starts": (1,), "stops": (7,), "steps": (2,)}),
        ((7,), {"starts": (0,), "stops": (7,), "steps": (3,)}),
        ((5, 8), {"starts": (1, 0), "stops": (4, 7), "steps": (2, 3)}),
        ((3,), {"starts": (2,), "stops": (2,), "steps": (1,)}),
        ((1000,), {"starts": (17,), "stops": (993,), "steps": (1,)}),
    ),
    doc="elements starts, starts + steps, ... below stops of every axis",
)


def slice_(x: Value, starts: Sequence[int], stops: Shape, steps: Sequence[int]) -> Node:
    """x[start:stop:step, ...] with exact bounds on every axis and steps > 0."""
    node = as_node(x)
    if stops == node.shape and not any(starts) and all(s == 1 for s in steps):
        return node
    return make("slice", node, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


def slice_axis(x: Value, axis: int, start: int, stop: int, step: int = 1) -> Node:
    """x[start:stop:step] along one axis, all of the others."""
    x = as_node(x)
    at = axis % x.ndim
    starts, steps, stops = [0] * x.ndim, [1] * x.ndim, list(x.shape)
    starts[at], stops[at], steps[at] = start, stop, step
    return slice_(x, starts, tuple(stops), steps)


def _pad_type(x: TensorType, *, low: Ints, high: Ints, value: float) -> TensorType:
    if len(low) != x.rank or len(high) != x.rank or any(p < 0 for p in (*low, *high)):
        raise ValueError(f"pad of {x} by {low} and {high}")
    return x.with_shape(dim_less(d, -a - b) for d, a, b in zip(x.shape, low, high, strict=True))


def _pad_evaluate(x: Array, *, low: Ints, high: Ints, value: float) -> Array:
    widths = list(zip(low, high, strict=True))
    return np.pad(x, widths, constant_values=value) if widths else x


def _pad_sources(
    indices: Indices, types: Types, *, low: Ints, high: Ints, value: float
) -> tuple[Source, ...]:
    inner = tuple(i - a for i, a in zip(indices, low, strict=True))
    guards = tuple(
        Guard(i, 0, d)
        for i, d, a, b in zip(inner, types[0].shape, low, high, strict=True)
        if a or b
    )
    # an axis of one element is read at 0, wherever it is read
    inside = (Index() if d == 1 else i for i, d in zip(inner, types[0].shape, strict=True))
    return (Source(0, tuple(inside), guards),)


def _pad_vjp(g: Node, y: Node, x: Node, *, low: Ints, high: Ints, value: float) -> Node:
    stops = tuple(d if a == 0 else d + a for d, a in zip(x.shape, low, strict=True))  # type: ignore[operator]
    return slice_(g, low, stops, (1,) * x.ndim)


view(
    "pad",
    _pad_type,
    _pad_evaluate,
    _pad_sources,
    vjp=_pad_vjp,
    samples=lambda: samples_of(
        "pad",
        ((7,), {"low": (2,), "high": (1,), "value": 0.0}),
        ((3, 5), {"low": (0, 1), "high": (2, 0), "value": 1.5}),
        ((0,), {"low": (1,), "high": (2,), "value": 3.0}),
        ((33,), {"low": (17,), "high": (0,), "value": 0.0}),
        ((1000,), {"low": (1,), "high": (7,), "value": -1.0}),
    ),
    doc="`low` elements of `value` before and `high` after every axis",
)


def pad(x: Value, low: Sequence[int], high: Sequence[int], value: float = 0) -> Node:
    """x with `low` elements of `value` before and `high` after every axis."""
    node = as_node(x)
    if not any(low) and not any(high):
        return node
    return make("pad", node, low=tuple(low), high=tuple(high), value=_filler(node, value))


def _filler(x: Node, value: float) -> float | int | bool:
    """The value as a Python number of the dtype's kind."""
    if isinstance(value, float) and not x.dtype.is_float:
        raise TypeError(f"{value!r} does not fit a value of dtype {x.dtype}")
    convert = {"float": float, "bool": bool}.get(x.dtype.kind, int)
    return convert(value)


def _dilate_type(x: TensorType, *, steps: Ints, value: float) -> TensorType:
    if len(steps) != x.rank or any(s < 1 for s in steps):
        raise ValueError(f"dilate of {x} by {steps}")
    if any(s > 1 and isinstance(d, Extent) for d, s in zip(x.shape, steps, strict=True)):
        raise ValueError(f"dilate of {x} by {steps}: the symbolic extent is never spread")
    return x.with_shape(
        d if s == 1 else (_static(d) - 1) * s + 1 if d else 0
        for d, s in zip(x.shape, steps, strict=True)
    )


def _dilate_evaluate(x: Array, *, steps: Ints, value: float) -> Array:
    shape = tuple((d - 1) * s + 1 if d else 0 for d, s in zip(x.shape, steps, strict=True))
    result = np.full(shape, value, x.dtype)
    result[tuple(builtins.slice(None, None, s) for s in steps)] = x
    return result


def _dilate_sources(
    indices: Indices, types: Types, *, steps: Ints, value: float
) -> tuple[Source, ...]:
    inner = tuple(i // s for i, s in zip(indices, steps, strict=True))
    guards = tuple(Guard(i % s, 0, 1) for i, s in zip(indices, steps, strict=True) if s > 1)
    return (Source(0, inner, guards),)


def _dilate_vjp(g: Node, y: Node, x: Node, *, steps: Ints, value: float) -> Node:
    return slice_(g, (0,) * x.ndim, g.shape, steps)


view(
    "dilate",
    _dilate_type,
    _dilate_evaluate,
    _dilate_sources,
    vjp=_dilate_vjp,
    samples=lambda: samples_of(
        "dilate",
        ((4,), {"steps": (2,), "value": 0.0}),
        ((3, 5), {"steps": (1, 3), "value": 1.5}),
        ((2, 1, 3), {"steps": (2, 3, 2), "value": 0.0}),
        ((0,), {"steps": (2,), "value": 0.0}),
        ((100,), {"steps": (3,), "value": 0.0}),
    ),
    doc="the elements `steps` apart, `value` between them",
)


def dilate(x: Value, steps: Sequence[int], value: float = 0) -> Node:
    """x with its elements `steps` apart and `value` between them."""
    node = as_node(x)
    if all(s == 1 for s in steps):
        return node
    return make("dilate", node, steps=tuple(steps), value=_filler(node, value))


def _flip_type(x: TensorType, *, axes: Ints) -> TensorType:
    for axis in axes:
        if not 0 <= axis < x.rank or isinstance(x.shape[axis], Extent):
            raise ValueError(f"flip of axis {axis} of {x}")
    return x


def _flip_sources(indices: Indices, types: Types, *, axes: Ints) -> tuple[Source, ...]:
    shape = types[0].shape
    flipped = (
        index_of(_static(shape[a]) - 1) - i if a in axes else i for a, i in enumerate(indices)
    )
    return (Source(0, tuple(flipped)),)


view(
    "flip",
    _flip_type,
    lambda x, *, axes: np.flip(x, axes),
    _flip_sources,
    vjp=lambda g, y, x, *, axes: make("flip", g, axes=axes),
    samples=lambda: samples_of(
        "flip",
        ((7,), {"axes": (0,)}),
        ((3, 5), {"axes": (0, 1)}),
        ((2, 3, 7), {"axes": (1,)}),
        ((0,), {"axes": (0,)}),
        ((33,), {"axes": (0,)}),
        ((1000,), {"axes": (0,)}),
    ),
    doc="the order along `axes` reversed",
)


def flip(x: Value, axis: Any = None) -> Node:
    """x reversed along one axis, several, or all."""
    from_axes = range(as_node(x).ndim) if axis is None else np.atleast_1d(axis).tolist()
    axes = tuple(sorted(a % as_node(x).ndim for a in from_axes))
    return make("flip", as_node(x), axes=axes) if axes else as_node(x)


# --------------------------------------------------------------------------- concatenate


def _concatenate_type(*types: TensorType, axis: int) -> TensorType:
    first = types[0] if types else None
    if first is None or not 0 <= axis < first.rank:
        raise ValueError(f"concatenate of {', '.join(map(str, types)) or 'nothing'}, axis {axis}")
    total = 0
    for t in types:
        dim = t.shape[axis] if t.rank == first.rank else None
        same = t.rank == first.rank and all(
            a == b for k, (a, b) in enumerate(zip(t.shape, first.shape, strict=True)) if k != axis
        )
        if not same or t.dtype != first.dtype or not isinstance(dim, int):
            raise ValueError(f"cannot concatenate {first} and {t} along axis {axis}")
        total += dim
    return first.with_shape((*first.shape[:axis], total, *first.shape[axis + 1 :]))


def _concatenate_sources(indices: Indices, types: Types, *, axis: int) -> tuple[Source, ...]:
    found, offset = [], 0
    for number, t in enumerate(types):
        dim = _static(t.shape[axis])
        inner = indices[axis] - offset
        at = (*indices[:axis], inner, *indices[axis + 1 :])
        found.append(Source(number, at, (Guard(inner, 0, dim),)))
        offset += dim
    return tuple(found)


def _concatenate_vjp(g: Node, y: Node, *parts: Node, axis: int) -> tuple[Node, ...]:
    found, offset = [], 0
    for part in parts:
        dim = _static(part.shape[axis])
        found.append(slice_axis(g, axis, offset, offset + dim))
        offset += dim
    return tuple(found)


def _concatenate_samples() -> list[Sample]:
    random = random_for("concatenate")
    cases: list[tuple[list[tuple[int, ...]], int]]
    cases = [([(3,), (4,)], 0), ([(2, 3), (2, 1), (2, 0)], 1), ([(17, 2), (33, 2)], 0), ([(0,)], 0)]
    return [Sample(tuple(random.normal(size=s) for s in ss), {"axis": a}) for ss, a in cases]


view(
    "concatenate",
    _concatenate_type,
    lambda *parts, axis: np.concatenate(parts, axis),
    _concatenate_sources,
    vjp=_concatenate_vjp,
    samples=_concatenate_samples,
    doc="operands one after the other along `axis`",
)


def concatenate(values: Sequence[Value], axis: int = 0) -> Node:
    """The values one after the other along an axis that is not symbolic."""
    nodes = promote(*values)
    if not nodes:
        raise ValueError("concatenate of nothing")
    at = axis % max(nodes[0].ndim, 1)
    return nodes[0] if len(nodes) == 1 else make("concatenate", *nodes, axis=at)


def stack(values: Sequence[Value], axis: int = 0) -> Node:
    """The values side by side along a new axis."""
    nodes = promote(*values)
    at = axis % (nodes[0].ndim + 1)
    return concatenate([expand_dims(n, at) for n in nodes], at)
