"""Takes a node that moves values, gives a simpler one of equal value.

Normal form: no view does nothing, no view stands on one of its own kind, a view of a broadcast is
the broadcast of a view, a broadcast adds axes longer than one to a value without axes of length one
(what changes only such axes is a reshape, but what spreads a scalar is always a broadcast).
"""

from __future__ import annotations

from typing import Any

from ir.graph import Node, attribute_key, make
from ir.ops.core import uniform_value
from ir.types import Dim, Extent, Shape
from nncompiler.rules.match import constant_of, known, spread


def does_nothing(node: Node) -> Node | None:
    """reshape, transpose, slice, pad, flip, broadcast, concatenate that change nothing  ->  x

    stop_gradient(x) -> x too: derivatives are taken before simplifying.
    """
    if len(node.inputs) != 1:
        return None
    (x,), same = node.inputs, node.shape == node.inputs[0].shape
    match node.op.name:
        case "reshape" | "slice" | "pad" | "broadcast" if same:
            return x
        case "transpose" if node.attrs["perm"] == tuple(range(x.ndim)):
            return x
        case "flip" if all(x.shape[a] == 1 for a in node.attrs["axes"]):
            return x
        case "concatenate" | "stop_gradient":
            return x
    return None


def reshape(node: Node) -> Node | None:
    """reshape(reshape(x)) -> reshape(x),  reshape(constant) -> constant

    reshape(broadcast(scalar)) -> broadcast(scalar),  reshape(scalar) -> broadcast(scalar)
    """
    if node.op.name != "reshape":
        return None
    (x,) = node.inputs
    shape: Shape = node.attrs["shape"]
    if x.ndim == 0:
        return spread(x, shape, ())
    match x.op.name:
        case "reshape":
            return make("reshape", x.inputs[0], shape=shape)
        case "broadcast" if x.inputs[0].ndim == 0:
            return spread(x.inputs[0], shape, ())
        case "constant":
            return constant_of(x.attrs["value"].array.reshape(shape), x.dtype)
    return None


def transpose(node: Node) -> Node | None:
    """transpose(transpose(x)) -> transpose(x),  transpose(broadcast(x)) -> broadcast(transpose(x))

    transpose that moves only axes of length one  ->  reshape
    """
    if node.op.name != "transpose":
        return None
    (x,) = node.inputs
    perm: tuple[int, ...] = node.attrs["perm"]
    long = [a for a in perm if x.shape[a] != 1]
    if long == sorted(long):
        return make("reshape", x, shape=node.shape)
    match x.op.name:
        case "transpose":
            inner = x.attrs["perm"]
            return make("transpose", x.inputs[0], perm=tuple(inner[p] for p in perm))
        case "broadcast":
            return spread(x.inputs[0], node.shape, tuple(perm.index(a) for a in x.attrs["axes"]))
    return None


def broadcast(node: Node) -> Node | None:
    """broadcast(broadcast(x)) -> broadcast(x);  one that adds only axes of length one -> reshape

    broadcast(x with axes of length one)  ->  broadcast(reshape(x))
    """
    if node.op.name != "broadcast":
        return None
    (x,) = node.inputs
    axes: tuple[int, ...] = node.attrs["axes"]
    if x.ndim and all(dim == 1 for a, dim in enumerate(node.shape) if a not in axes):
        return make("reshape", x, shape=node.shape)
    if 1 in x.shape:
        long = [k for k, dim in enumerate(x.shape) if dim != 1]
        bare = make("reshape", x, shape=tuple(x.shape[k] for k in long))
        return spread(bare, node.shape, tuple(axes[k] for k in long))
    if x.op.name == "broadcast":
        return spread(x.inputs[0], node.shape, tuple(axes[a] for a in x.attrs["axes"]))
    return None


def slices(node: Node) -> Node | None:
    """slice(slice(x)) -> slice(x),  slice(broadcast(x)) -> broadcast(slice(x))

    slice(concatenate(x, y)) -> slice(x) where it takes from x alone
    """
    if node.op.name != "slice":
        return None
    match node.inputs[0].op.name:
        case "slice":
            return _slice_of_slice(node, node.inputs[0])
        case "broadcast":
            return _slice_of_broadcast(node, node.inputs[0])
        case "concatenate":
            return _slice_of_concatenate(node, node.inputs[0])
    return None


def _slice_of_slice(node: Node, inner: Node) -> Node:
    starts, stops, steps = list[int](), list[Dim](), list[int]()
    for axis, dim in enumerate(node.shape):
        step = inner.attrs["steps"][axis] * node.attrs["steps"][axis]
        start = inner.attrs["starts"][axis]
        start += inner.attrs["steps"][axis] * node.attrs["starts"][axis]
        if dim == 0:
            start = 0
        steps.append(step)
        starts.append(start)
        whole = isinstance(dim, Extent) or dim == 0
        stops.append(dim if whole else start + (int(dim) - 1) * step + 1)  # type: ignore[arg-type]
    return _slice(inner.inputs[0], starts, stops, steps)


def _slice_of_broadcast(node: Node, inner: Node) -> Node:
    axes: tuple[int, ...] = inner.attrs["axes"]
    parts = [[node.attrs[key][a] for a in axes] for key in ("starts", "stops", "steps")]
    return spread(_slice(inner.inputs[0], *parts), node.shape, axes)


def _slice_of_concatenate(node: Node, inner: Node) -> Node | None:
    axis: int = inner.attrs["axis"]
    keys = ("starts", "stops", "steps")
    starts, stops, steps = (list(node.attrs[key]) for key in keys)
    if node.shape[axis] == 0:
        return None
    last = starts[axis] + (node.shape[axis] - 1) * steps[axis]  # type: ignore[operator]
    offset = 0
    for part in inner.inputs:
        length = part.shape[axis]
        assert isinstance(length, int), "a symbolic axis is never concatenated"
        if offset <= starts[axis] and last < offset + length:
            starts[axis], stops[axis] = starts[axis] - offset, last + 1 - offset
            return _slice(part, starts, stops, steps)
        offset += length
    return None


def _slice(x: Node, starts: list[int], stops: list[Any], steps: list[int]) -> Node:
    return make("slice", x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


def pad(node: Node) -> Node | None:
    """pad(pad(x)) -> pad(x) of the same value;  pad of a uniform value by itself -> that value"""
    if node.op.name != "pad":
        return None
    (x,), value = node.inputs, node.attrs["value"]
    if x.op.name == "pad" and attribute_key(x.attrs["value"]) == attribute_key(value):
        low = tuple(a + b for a, b in zip(node.attrs["low"], x.attrs["low"], strict=True))
        high = tuple(a + b for a, b in zip(node.attrs["high"], x.attrs["high"], strict=True))
        return make("pad", x.inputs[0], low=low, high=high, value=value)
    inside = uniform_value(x)
    if inside is not None and attribute_key(inside) == attribute_key(value):
        scalar = x
        while scalar.ndim:
            if scalar.op.name == "constant":
                return None
            scalar = scalar.inputs[0]
        return spread(scalar, node.shape, ())
    return None


def flip(node: Node) -> Node | None:
    """flip(flip(x)) -> flip(x),  flip(broadcast(x)) -> broadcast(flip(x)),  no axes of length 1"""
    if node.op.name != "flip":
        return None
    (x,), axes = node.inputs, set(node.attrs["axes"])
    if any(x.shape[a] == 1 for a in axes):
        return _flip(x, {a for a in axes if x.shape[a] != 1})
    if x.op.name == "flip":
        return _flip(x.inputs[0], axes ^ set(x.attrs["axes"]))
    if x.op.name == "broadcast":
        own = {k for k, a in enumerate(x.attrs["axes"]) if a in axes}
        return spread(_flip(x.inputs[0], own), node.shape, x.attrs["axes"])
    return None


def _flip(x: Node, axes: set[int]) -> Node:
    return make("flip", x, axes=tuple(sorted(axes))) if axes else x


def concatenate(node: Node) -> Node | None:
    """concatenate(x, concatenate(y, z)) -> concatenate(x, y, z), without empty parts"""
    if node.op.name != "concatenate":
        return None
    axis: int = node.attrs["axis"]
    parts: list[Node] = []
    for part in node.inputs:
        nested = part.op is node.op and part.attrs["axis"] == axis
        parts += part.inputs if nested else [part]
    parts = [p for p in parts if p.shape[axis] != 0] or parts[:1]
    if parts == list(node.inputs):
        return None
    return parts[0] if len(parts) == 1 else make("concatenate", *parts, axis=axis)


def gather(node: Node) -> Node | None:
    """gather of known rows that follow each other  ->  slice and reshape

    gather(x, [3, 4, 5])  ->  slice(x, 3:6)
    """
    if node.op.name != "gather" or isinstance(node.inputs[0].shape[0], Extent):
        return None
    x, indices = node.inputs
    rows = known(indices)
    if rows is None or rows.size == 0 or x.shape[0] == 0:
        return None
    flat = [min(max(int(r), 0), int(x.shape[0]) - 1) for r in rows.reshape(-1)]  # type: ignore[arg-type]
    if flat != list(range(flat[0], flat[0] + len(flat))):
        return None
    starts = [flat[0]] + [0] * (x.ndim - 1)
    stops: list[Dim] = [flat[-1] + 1, *x.shape[1:]]
    return make("reshape", _slice(x, starts, stops, [1] * x.ndim), shape=node.shape)


RULES = (
    does_nothing,
    reshape,
    transpose,
    broadcast,
    slices,
    pad,
    flip,
    concatenate,
    gather,
)
