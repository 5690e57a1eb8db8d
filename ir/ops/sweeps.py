"""Takes edges, formulas and values, gives the node of a sweep along them (see sparse.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ir.graph import Literal, Node, make
from ir.ops.core import Array
from ir.ops.leaves import constant
from ir.ops.pieces import concatenate
from ir.ops.structure import Edges, Structure
from ir.types import DType, TensorType, i32

Formulas = Sequence[tuple[str, int]]


def plan(edges: Edges, formulas: Formulas, width: int, kept: Array) -> dict[str, Any]:
    texts = tuple(dict.fromkeys(text for text, _ in formulas))
    kinds = np.repeat([texts.index(text) for text, _ in formulas], [n for _, n in formulas])
    s = Structure.of(edges.slots, edges.targets, edges.weights, kinds, kept, width)
    return attributes(s, texts)


def attributes(s: Structure, formulas: tuple[str, ...]) -> dict[str, Any]:
    tables = {name: Literal.of(getattr(s, name), i32) for name in ("runs", "rows", "edges", "kept")}
    return {**tables, "formulas": formulas, "sources": s.sources}


def sweep(
    weights: Node,
    edges: Edges,
    formulas: Formulas,
    *,
    x: Node | None = None,
    extras: Sequence[Node] = (),
    kept: Sequence[int] | None = None,
) -> Node:
    """(batch, kept) states and sums; `formulas` lists (text, number of nodes) in their order.

    `x` is (batch, sources), each of `extras` (batch, nodes): the arguments x0, x1 ... of formulas.
    `kept` holds different slots: first the states of x's columns, then those of the nodes, then the
    nodes' sums. Without it the result has the sums of all nodes.
    """
    count = sum(n for _, n in formulas)
    width = 0 if x is None else width_of(x.type)
    codes = range(width + count, width + 2 * count) if kept is None else kept
    attrs = plan(edges, formulas, width, np.asarray(codes, np.int64))
    return make("sweep", weights, *(() if x is None else (x,)), *extras, **attrs)


def width_of(type: TensorType) -> int:
    """The number of columns of a matrix."""
    assert isinstance(type.shape[1], int)
    return type.shape[1]


def beside(parts: Sequence[Node]) -> Node:
    """Matrices side by side."""
    return parts[0] if len(parts) == 1 else concatenate(parts, 1)


def ones(dtype: DType) -> Node:
    """The weight of edges that change nothing."""
    return constant(np.ones(1), dtype)


def spread(x: Node, slots: Array, targets: Array, count: int, combine: str = "") -> Node:
    """(batch, count): the columns `slots` of x, put together at their targets."""
    edges = Edges(slots, targets, np.zeros(len(slots), np.int64))
    return sweep(ones(x.dtype), edges, ((combine, count),), x=x)


def columns(x: Node, numbers: Array) -> Node:
    """x[:, numbers]"""
    return spread(x, numbers, np.arange(len(numbers)), len(numbers))
