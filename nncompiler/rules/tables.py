"""Takes additions to a table and renewals of its rows, gives ones that touch only these rows.

Normal form: no multiple of a scatter_add is added to (or subtracted from) an input or a scatter; no
input is renewed where a scatter_add is not zero; no zeros between its rows are summed.

The cost of an optimizer's step does not depend on the size of an embedding's table.
Scalars that are infinite or NaN reach the touched rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ir.graph import Node, make, topological
from ir.interpret import evaluate
from ir.op import Lowering
from ir.ops import as_node, concatenate, full, iota, latest, reshape, scatter_add, where
from ir.ops.indexing import inside
from ir.types import Dim, Shape, i32
from nncompiler.rules.match import spread

Pieces = list[tuple[Node, Node]]


def add_rows(node: Node) -> Node | None:
    """p - c * scatter_add(u, i)  ->  scatter_onto(p, -c * u, i)"""
    if node.op.name not in ("add", "sub"):
        return None
    a, b = node.inputs
    orders = ((a, b), (b, a)) if node.op.name == "add" else ((a, b),)
    for base, other in orders:
        pieces = _pieces(other)
        if pieces is None or not _is_table(base):
            continue
        joined = _joined(pieces, base.shape) if len(pieces) > 1 else None
        for updates, indices in [joined] if joined else pieces:
            signed = updates if node.op.name == "add" else make("neg", updates)
            base = make("scatter_onto", base, signed, indices)
        return base
    return None


def _is_table(node: Node) -> bool:
    return node.op.name == "input" or node.op.lowering is Lowering.SCATTER


def _pieces(node: Node) -> Pieces | None:
    """(updates, indices) of all scatters whose sum the node is, or None."""
    match node.op.name:
        case "scatter_add":
            return [(node.inputs[0], node.inputs[1])]
        case "scatter_onto":
            below = _pieces(node.inputs[0])
            return None if below is None else [*below, (node.inputs[1], node.inputs[2])]
        case "neg":
            below = _pieces(node.inputs[0])
            return below and [(make("neg", u), i) for u, i in below]
        case "mul":
            a, b = node.inputs
            for factor, other in ((a, b), (b, a)):
                number = _number(factor)
                below = _pieces(other) if number is not None else None
                if number is not None and below is not None:
                    return [(make("mul", u, spread(number, u.shape, ())), i) for u, i in below]
    return None


def _number(node: Node) -> Node | None:
    """The scalar that is the value at every point, or None."""
    if node.ndim == 0:
        return node
    if node.op.name == "broadcast" and node.inputs[0].ndim == 0:
        return node.inputs[0]
    return None


# --------------------------------------------------------------------------- whole rows


def renew_rows(node: Node) -> Node | None:
    """where(any of s != 0, f(s, p), p), s = scatter_add(u, i)  ->  scatter_set(p, rows, i)

    rows = where(any of c != 0, f(c, p[i]), p[i]), where c has the sum of all updates of a row in
    the place of the last one, the one that counts.
    """
    if node.op.name != "where" or node.inputs[2].op.name != "input":
        return None
    touched, _, table = node.inputs
    rows = _rows_of(node)
    if rows is None or not _vanishes(touched, table.shape):
        return None
    renewed = rows.only(node)
    return None if renewed is None else make("scatter_set", table, renewed, rows.indices)


def sum_rows(node: Node) -> Node | None:
    """sum(f(s)), s = scatter_add(u, i) and f(0) = 0  ->  sum(f(c)), c as in `renew_rows`"""
    if node.op.lowering is not Lowering.REDUCE or node.op.combine != "sum" or node.ndim:
        return None
    (values,) = node.inputs
    rows = _rows_of(values)
    if rows is None or not _vanishes(values, values.shape):
        return None
    found = rows.only(values)
    return None if found is None else make(node.op, found, **node.attrs)


@dataclass
class _Rows:
    """What is computed of tables of `size` rows, at `indices` alone, to which something is added.

    `last` has the place of the last index that is the same, -1 for one outside of the tables; None:
    rows to which nothing is added.
    `parts` are what is known by now, None where a node has no such part.
    """

    size: Dim
    indices: Node
    last: Node | None
    parts: dict[Node, Node | None] = field(default_factory=dict)

    def only(self, root: Node) -> Node | None:
        """The rows of a node in the places of their indices; None where they are not known."""
        for node in _between(root):
            if node not in self.parts:
                self.parts[node] = self._part(node)
        return self.parts[root]

    def _part(self, node: Node) -> Node | None:
        count, shape = self.indices.shape[0], node.shape
        number = _number(node)
        if number is not None:
            return number if node.ndim == 0 else spread(number, (count, *shape[1:]), ())
        if shape[0] != self.size:
            return None
        if node.op.name == "input":
            return make("gather", node, self.indices)
        if node.op.lowering is Lowering.SCATTER:
            return self._sum(node)
        found = [self.parts[i] for i in node.inputs]
        parts = [p for p in found if p is not None]
        if len(parts) < len(found):
            return None
        match node.op.lowering, node.op.name:
            case Lowering.MAP, _:
                return make(node.op, *parts, **node.attrs)
            case Lowering.REDUCE, _ if 0 not in node.attrs["axes"]:
                return make(node.op, *parts, **node.attrs)
            case Lowering.VIEW, "reshape" if node.inputs[0].shape[:1] == shape[:1]:
                return reshape(parts[0], (count, *shape[1:]))
            case Lowering.VIEW, "broadcast" if node.attrs["axes"][:1] == (0,):
                return make(node.op, *parts, **{**node.attrs, "shape": (count, *shape[1:])})
        return None

    def _sum(self, node: Node) -> Node | None:
        base, pieces = _chain(node)
        joined = _joined(pieces, node.shape)
        if joined is None or (self.last is not None and joined[1] is not self.indices):
            return None
        count = self.indices.shape[0]
        if self.last is None:
            total = full((count, *node.shape[1:]), 0.0, node.dtype)
        else:
            total = scatter_add(joined[0], self.last, count)
        if base is None:
            return total
        below = self.only(base)
        return None if below is None else below + total


def _rows_of(root: Node) -> _Rows | None:
    """The rows that a sum of scatters adds to in what the node computes, if they are fewer."""
    for node in _between(root):
        if node.op.lowering is Lowering.SCATTER and _chain(node)[0] is None:
            joined = _joined(_chain(node)[1], node.shape)
            size = node.shape[0]
            if joined is None or not isinstance(size, int) or joined[1].shape[0] == size:
                return None
            indices = joined[1]
            last = latest(iota(indices.shape, 0, i32), indices, size)
            return _Rows(size, indices, where(inside(indices, size), last, -1))
    return None


def _between(root: Node) -> list[Node]:
    """The node and what it is computed from, operands first, down to scatters and numbers."""
    order: dict[Node, None] = {}
    stack = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if node in order:
            continue
        if ready or _number(node) is not None or node.op.lowering is Lowering.SCATTER:
            order[node] = None
            continue
        stack.append((node, True))
        stack.extend((i, False) for i in node.inputs)
    return list(order)


def _chain(node: Node) -> tuple[Node | None, Pieces]:
    """What a chain of scatters adds to (None: zeros), and (updates, indices) of all of them."""
    pieces: Pieces = []
    base: Node | None = node
    while base is not None and base.op.name in ("scatter_add", "scatter_onto"):
        *below, updates, indices = base.inputs
        pieces.insert(0, (updates, indices))
        base = below[0] if below else None
    return base, pieces


def _joined(pieces: Pieces, shape: Shape) -> tuple[Node, Node] | None:
    """All updates (count, *row) and their indices (count,); None where they cannot be joined."""
    if len(pieces) == 1:
        ((updates, indices),) = pieces
        return reshape(updates, (-1, *shape[1:])), reshape(indices, (-1,))
    leads = {i.shape[0] if i.ndim else None for _, i in pieces}
    lead = leads.pop() if len(leads) == 1 else None
    if lead is None:
        return None
    indices = concatenate([reshape(i, (lead, -1)) for _, i in pieces], 1)
    updates = concatenate([reshape(u, (lead, -1, *shape[1:])) for u, _ in pieces], 1)
    return reshape(updates, (-1, *shape[1:])), reshape(indices, (-1,))


def _vanishes(node: Node, shape: Shape) -> bool:
    """Is a value of scatters and constants alone zero (or False) in rows that nothing is added to?

    The value is computed for such a row.
    """
    found = _Rows(shape[0], as_node(np.zeros(1, np.int32)), None).only(node)
    if found is None or any(n.op.name == "input" for n in topological([found])):
        return False
    return not evaluate(found).any()


RULES = (add_rows, renew_rows, sum_rows)
