"""Takes a group of rows, gives the values that a later pass had better read than compute again.

    g = where(0 < y, a + b, 0);  s = sum(g);  d = g - s / n      g is made from three others: the
                                                                first pass stores it for the second

A row that fits a thread's scratch memory is kept there (nncompiler/schedule/apply.py); this is for
longer ones: channels of a batch, which come from beyond the first cache in every pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from ir.graph import Graph, Node
from ir.op import Lowering
from ir.types import Extent, Shape

STREAMS = 3  # as many operands of a value's size cost more to read again than the value


class Rows(Protocol):
    """What has to be known of a group."""

    kind: str
    full: Shape
    reduced: tuple[int, ...]
    nodes: list[Node]


def computed_again(group: Rows, owner: Mapping[Node, Rows], graph: Graph) -> Iterator[Node]:
    """The values, largest first, that a pass needs which an earlier one has computed."""
    is_long = any(isinstance(group.full[a], Extent) for a in group.reduced)
    if group.kind != "rows" or not is_long:
        return
    members = set(group.nodes)
    levels = _Levels(members, owner)
    passes: dict[int, list[Node]] = {}
    for node in group.nodes:
        if node.op.lowering is Lowering.REDUCE:
            passes.setdefault(levels(node.inputs[0]), []).append(node.inputs[0])
        elif node.shape == group.full and _is_needed_outside(node, members, owner, graph):
            passes.setdefault(levels(node), []).append(node)
    made: set[Node] = set()
    for level in sorted(passes):
        now: set[Node] = set()
        stack = passes[level]
        while stack:
            node = stack.pop()
            if node in now or not levels.is_inside(node):
                continue
            now.add(node)
            is_value = node in members and node.shape == group.full
            if is_value and node in made and levels.streams(node) >= STREAMS:
                yield node
            elif node.op.lowering is not Lowering.REDUCE:
                stack.extend(node.inputs)
        made |= now


def _is_needed_outside(
    node: Node, members: set[Node], owner: Mapping[Node, Rows], graph: Graph
) -> bool:
    """Does an output or another group read the node, directly or through what it computes?"""
    if node in graph.outputs.values():
        return True
    stack = list(graph.users[node])
    while stack:
        user = stack.pop()
        if user in members:
            continue
        if user in owner:
            return True
        stack.extend(graph.users[user])
    return False


class _Levels:
    """How many passes have to be over before a value can be computed."""

    def __init__(self, members: set[Node], owner: Mapping[Node, Rows]) -> None:
        self.members, self.owner = members, owner
        self._memo: dict[Node, int] = {}
        self._streams: dict[Node, frozenset[Node]] = {}

    def is_inside(self, node: Node) -> bool:
        """Is the node computed by the group: a member, or cheap enough to be nobody's?"""
        return node in self.members or (node not in self.owner and bool(node.inputs))

    def __call__(self, node: Node) -> int:
        if not self.is_inside(node):
            return 0
        if node not in self._memo:
            below = max((self(i) for i in node.inputs), default=0)
            self._memo[node] = below + (node.op.lowering is Lowering.REDUCE)
        return self._memo[node]

    def streams(self, node: Node) -> int:
        """How many operands as long as the rows the value is computed from."""
        return sum(s.ndim == node.ndim for s in self._sources(node))

    def _sources(self, node: Node) -> frozenset[Node]:
        if not self.is_inside(node):
            return frozenset([node])
        if node not in self._streams:
            self._streams[node] = frozenset[Node]().union(*map(self._sources, node.inputs))
        return self._streams[node]
