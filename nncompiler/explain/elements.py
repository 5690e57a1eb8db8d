"""Takes a value with a batch, gives the formula of one of its elements for one example.

    sum((y - t) * (y - t), 1)   ->   (y_1 - t_1) (y_1 - t_1) + (y_2 - t_2) (y_2 - t_2)

The batch stays an axis: an element is a value of shape (batch,), or () where there is no batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import reduce

from ir import ops
from ir.graph import Literal, Node, make
from ir.index import Guard, Index, Var
from ir.op import Lowering
from ir.types import Dim
from nncompiler.explain.tensors import has_batch

Place = tuple[int, ...]  # indices along the axes behind the batch
COMBINE: Mapping[str, Callable[[Node, Node], Node]] = {
    "sum": ops.add,
    "prod": ops.mul,
    "max": ops.maximum,
    "min": ops.minimum,
}


class Elements:
    """`leaf(node, place)` gives the elements of inputs."""

    def __init__(self, leaf: Callable[[Node, Place], Node]) -> None:
        self._leaf = leaf
        self._found: dict[tuple[Node, Place], Node] = {}

    def __call__(self, node: Node, place: Place = ()) -> Node:
        """ValueError where an element depends on others of the batch in a way that is no sum,
        product or extreme over all of them."""
        key = (node, place)
        if key not in self._found:
            self._found[key] = self._make(node, place)
        return self._found[key]

    def _make(self, node: Node, place: Place) -> Node:
        match node.op.lowering:
            case Lowering.LEAF:
                return self._of_leaf(node, place)
            case Lowering.MAP:
                return make(node.op, *(self(i, place) for i in node.inputs), **node.attrs)
            case Lowering.VIEW:
                return self._of_view(node, place)
            case Lowering.REDUCE:
                return self._of_reduction(node, place)
        raise ValueError(f"{node.op.name} of {node.type} has no formula element by element")

    def _of_leaf(self, node: Node, place: Place) -> Node:
        match node.op.name:
            case "constant":
                literal: Literal = node.attrs["value"]
                return ops.constant(literal.array[place].item(), node.dtype)
            case "iota" if node.attrs["axis"] >= has_batch(node):
                number = place[node.attrs["axis"] - has_batch(node)]
                value = ops.constant(number, node.dtype)
                return _with_batch(value, node)
            case "extent":
                return node
            case "input":
                return self._leaf(node, place)
        raise ValueError(f"{node.op.name} of {node.type} has no formula element by element")

    def _of_view(self, node: Node, place: Place) -> Node:
        assert node.op.sources is not None
        batch = node.shape[0] if has_batch(node) else None
        row = [Index.of(Var("n", batch))] if batch is not None else []
        indices = (*row, *map(Index.of, place))
        types = [i.type for i in node.inputs]
        for source in node.op.sources(indices, types, **node.attrs):
            if not all(_holds(g, batch) for g in source.guards):
                continue
            inner = node.inputs[source.operand]
            behind = source.indices[1:] if has_batch(inner) else source.indices
            if has_batch(inner) and source.indices[0] != (row[0] if row else None):
                raise ValueError(f"{node.op.name} to {node.type} moves values between examples")
            if any(i.terms for i in behind):
                raise ValueError(f"{node.op.name} to {node.type} moves values between examples")
            return _with_batch(self(inner, tuple(i.constant for i in behind)), node)
        return _with_batch(ops.constant(node.attrs["value"], node.dtype), node)

    def _of_reduction(self, node: Node, place: Place) -> Node:
        (x,) = node.inputs
        axes: tuple[int, ...] = node.attrs["axes"]
        first = has_batch(x)
        outer = iter(place)
        ranges = [
            range(_length(x.shape[a])) if a in axes else (next(outer),)
            for a in range(first, x.ndim)
        ]
        assert node.op.combine is not None
        total = reduce(COMBINE[node.op.combine], (self(x, p) for p in itertools.product(*ranges)))
        if first and 0 in axes and total.ndim:
            return make(node.op, total, axes=(0,))
        return total


def _with_batch(value: Node, like: Node) -> Node:
    return ops.broadcast_to(value, like.shape[:1]) if has_batch(like) else value


def _holds(guard: Guard, batch: Dim | None) -> bool:
    low, high = guard.value.bounds
    if guard.value.terms:  # the row itself, which is always there
        if guard.low <= 0 and guard.high == batch:
            return True
        raise ValueError("values move between examples")
    assert low is not None and isinstance(guard.high, int) and high == low
    return guard.low <= low < guard.high


def _length(dim: Dim) -> int:
    assert isinstance(dim, int)
    return dim
