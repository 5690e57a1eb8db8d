"""Takes values with their cotangents, gives the cotangents of what they depend on.

    y = tanh(x @ w), g    ->      d_w = x' @ (g * (1 - y * y))

A scan has a cotangent for each of its results: `item` hands its own to that of the scan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ir.graph import Node, topological
from ir.op import Lowering
from ir.types import TupleType


def pull_back(seeds: Sequence[tuple[Node, Node]], wrt: Iterable[Node]) -> dict[Node, Node]:
    """The cotangents of all real values between `wrt` and the seeds (value, cotangent)."""
    order = topological(node for node, _ in seeds)
    active = _depending(order, wrt)
    found: dict[Node, Node] = {}
    parts: dict[Node, dict[int, Node]] = {}
    for node, g in seeds:
        found[node] = found[node] + g if node in found else g
    for node in reversed(order):
        if node not in active:
            continue
        if node.op.lowering is Lowering.ITEM and node in found:
            items = parts.setdefault(node.inputs[0], {})
            index, g = node.attrs["index"], found[node]
            items[index] = items[index] + g if index in items else g
            continue
        for operand, part in _contributions(node, found, parts):
            if operand in active and operand.dtype.is_float:
                known = found.get(operand)
                found[operand] = part if known is None else known + part
    return found


def _depending(order: Sequence[Node], wrt: Iterable[Node]) -> set[Node]:
    """The nodes through which a value depends on one of `wrt`."""
    active = set(wrt)
    for node in order:
        if any(i in active for i in node.inputs):
            active.add(node)
    return active


def _contributions(
    node: Node, found: dict[Node, Node], parts: dict[Node, dict[int, Node]]
) -> list[tuple[Node, Node]]:
    """What the cotangent of a node adds to those of its operands."""
    g: object = found.get(node)
    if isinstance(node.type, TupleType) and node in parts:
        g = tuple(parts[node].get(i) for i in range(len(node.type.parts)))
    if g is None or node.op.vjp is None or not node.inputs:
        return []
    results = node.op.vjp(g, node, *node.inputs, **node.attrs)
    if not isinstance(results, tuple):
        results = (results,)
    return [(i, p) for i, p in zip(node.inputs, results, strict=True) if p is not None]
