"""Takes an addition to a table, gives one that touches only the rows that something is added to.

Normal form: no multiple of a scatter_add is added to (or subtracted from) an input or a scatter.

Scalars that are infinite or NaN reach the touched rows alone.
"""

from __future__ import annotations

from ir.graph import Node, make
from ir.op import Lowering
from nncompiler.rules.match import spread

Pieces = list[tuple[Node, Node]]


def add_rows(node: Node) -> Node | None:
    """p - c * scatter_add(u, i)  ->  scatter_onto(p, -c * u, i)

    The cost of an embedding's plain gradient step does not depend on the size of its table.
    """
    if node.op.name not in ("add", "sub"):
        return None
    a, b = node.inputs
    orders = ((a, b), (b, a)) if node.op.name == "add" else ((a, b),)
    for base, other in orders:
        pieces = _pieces(other)
        if pieces is None or not _is_table(base):
            continue
        for updates, indices in pieces:
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


RULES = (add_rows,)
