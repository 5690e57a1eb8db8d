"""Takes the cotangent of a matrix, gives its columns without those that are certainly zeros.

    pad(a, columns 3 ..) + pad(b, columns 9 ..)    ->    a's and b's columns, where each belongs

The cotangent of a few columns of a wide matrix is such a sum of matrices with zeros around them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ir.graph import Node
from ir.ops.core import Array
from ir.ops.structure import stretches
from ir.ops.sweeps import beside, width_of

Columns = tuple[Node, Array]  # a matrix, and what each of its columns belongs to


def parts_of(g: Node, codes: Array) -> list[Columns]:
    """Matrices whose sum is the cotangent; `codes` are what its columns belong to."""
    found: list[Columns] = []
    waiting = [(g, codes)]
    while waiting:
        node, here = waiting.pop()
        if node.op.name == "add" and any(map(_has_zeros, node.inputs)):
            waiting += [(i, here) for i in reversed(node.inputs)]
        elif _is_padded(node):
            (part,), first = node.inputs, node.attrs["low"][1]
            waiting.append((part, here[first : first + width_of(part.type)]))
        else:
            found.append((node, here))
    return found


def _has_zeros(node: Node) -> bool:
    """Is it padded, or a sum of what is?"""
    inner = node.inputs if node.op.name == "add" else ()
    return _is_padded(node) or any(map(_is_padded, inner))


def _is_padded(node: Node) -> bool:
    """Does it have zeros before and behind the columns, and no other rows?"""
    if node.op.name != "pad" or node.attrs["value"] != 0:
        return False
    (low, *columns), (high, *_) = node.attrs["low"], node.attrs["high"]
    return bool(low == high == 0 and min((*columns, node.attrs["high"][1])) >= 0)


def columns_between(parts: Sequence[Columns], low: int, high: int) -> Columns | None:
    """All columns of the parts whose codes lie in low .. high, side by side, and these codes."""
    found: list[Node] = []
    codes: list[Array] = []
    for node, every in parts:
        inside = ((every >= low) & (every < high)).astype(np.int64)
        for a, b in stretches(inside):
            if inside[a]:
                found.append(node if b - a == len(every) else node[:, a:b])
                codes.append(every[a:b])
    return (beside(found), np.concatenate(codes)) if found else None
