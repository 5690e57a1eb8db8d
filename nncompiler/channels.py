"""Takes a graph, gives the images in it that had better lie channels last in memory.

    y = contract(window(pad(x)), W);  h = relu(y * scale + shift);  z = contract(h[::2, ::2], V)

y and h are a family: where one is read in step with the other, both need the same layout. Channels
last serve whoever mixes channels at steps or at single points; who reads or writes in another order
(a flattened image, a result for the user, a convolution that mixes no channels) pays for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from ir.graph import Graph, Node
from ir.index import Var
from ir.op import Lowering
from nncompiler.access import Indices
from nncompiler.groups import Read, Reads, contract_variables, own_group, split_spec
from nncompiler.schedule.heuristics import size_of
from nncompiler.stored import has_buffer

PLAIN = 1  # gained per element that a contraction reads or makes
SPREAD = 1  # lost where elements have zeros between them, whose phases run over the lanes
FEW = {1: 3, 2: 2}  # lost by vectors of channels, along which tiles run (winograd_planes.py)
STRANGE = 4  # lost per element that is read or written in another order
CACHED = 1 << 21  # elements of a batch that two passes over all channels find in a cache; channel
# by channel, the second one always does


def turned_images(graph: Graph, lanes: int) -> frozenset[Node]:
    """The values (batch, channels, ...) whose channels, `lanes` at least, are to stand last."""
    if not any(_is_image(n) for n in graph.nodes):
        return frozenset()
    families = _Families(graph, lanes)
    gains: dict[Node, int] = {}
    for node, gain in families.gains():
        root = families.root(node)
        gains[root] = gains.get(root, 0) + gain
    return frozenset(
        n
        for n in families.parents
        if gains.get(families.root(n), 0) > 0 and size_of(n.shape[1]) >= lanes
    )


def _is_image(node: Node) -> bool:
    """Does a contraction give points of an image with channels made from weights?

    ncij,fc->nfij
    """
    if node.op.lowering is not Lowering.CONTRACT or node.ndim < 3:
        return False
    left, right, out = split_spec(node.attrs["spec"])
    pairs = ((left, right), (right, left))
    return any(
        {out[0], out[2]} <= set(image) - set(weights) and out[1] in set(weights) - set(image)
        for image, weights in pairs
    )


class _Families:
    """Images that are read in step, as a forest: the root stands for all."""

    def __init__(self, graph: Graph, lanes: int) -> None:
        self.graph, self.lanes = graph, lanes
        views = {Lowering.VIEW, Lowering.LEAF}
        inside = (n for n in graph.nodes if n.op.lowering in views and not has_buffer(n))
        self.reads = Reads(frozenset(inside))
        self.parents: dict[Node, Node] = {}
        for node in graph.nodes:
            if _is_image(node) or (
                node.op.lowering in (Lowering.MAP, Lowering.REDUCE) and node.ndim >= 3
            ):
                self.parents[node] = node
                for source, indices in self._reads(node):
                    if source in self.parents and self._is_in_step(node, indices):
                        self.parents[self.root(source)] = self.root(node)

    def root(self, node: Node) -> Node:
        while self.parents[node] is not node:
            node = self.parents[node]
        return node

    def _reads(self, node: Node) -> list[Read]:
        return self.reads(node, own_group(node, 0))

    def _is_in_step(self, node: Node, indices: Indices) -> bool:
        """Does a map or a reduction read channel c where it computes channel c?"""
        if node.op.lowering is Lowering.CONTRACT:
            return False
        place = own_group(node, 0).position(node.shape)
        own = _plain(place, 1) if place else None
        return own is not None and _plain(indices, 1) == own

    # ------------------------------------------------------------ gains

    def gains(self) -> Iterator[tuple[Node, int]]:
        """What a family gains by channels last, for every time that one of it is read or made."""
        outputs = set(self.graph.outputs.values())
        for node in self.graph.nodes:
            if node.op.lowering in (Lowering.LEAF, Lowering.VIEW):
                if node in outputs:
                    yield from self._strange(node)
                continue
            if node in self.parents:
                yield node, -STRANGE * (node in outputs) * _elements(node)
                if node.op.lowering is Lowering.CONTRACT:
                    yield node, self._of_contraction(node) * _elements(node)
            for source, indices in self._reads(node):
                if source in self.parents:
                    yield source, self._gain(node, source, indices) * _elements(source)
                elif node in self.parents and _elements(source) >= _elements(node):
                    yield node, -STRANGE * self._is_in_step(node, indices) * _elements(node)

    def _strange(self, view: Node) -> Iterator[tuple[Node, int]]:
        """A result for the user that is a view of an image."""
        while view.op.lowering is Lowering.VIEW and len(view.inputs) == 1:
            view = view.inputs[0]
        if view in self.parents:
            yield view, -STRANGE * _elements(view)

    def _gain(self, node: Node, source: Node, indices: Indices) -> int:
        channel = _plain(indices, 1)
        if channel is None:
            return -STRANGE
        match node.op.lowering:
            case Lowering.CONTRACT:
                left, right, out = split_spec(node.attrs["spec"])
                letters = {v: c for c, v in contract_variables(node).items()}
                if letters[channel] in set(left) & set(right) & set(out):
                    return -STRANGE  # nothing is summed over channels
                return self._of_contraction(node)
            case Lowering.REDUCE if node.ndim < 3:
                if 0 not in node.attrs["axes"]:
                    return -PLAIN  # lanes along the points of an image serve it as well
                return -STRANGE if _elements(source) > CACHED else 0
            case Lowering.MAP | Lowering.REDUCE:
                return 0 if self._is_in_step(node, indices) else -STRANGE
        return -STRANGE

    def _of_contraction(self, node: Node) -> int:
        """What it gains for every element of an image that it reads or makes."""
        if not _is_image(node):
            return PLAIN  # a gradient of weights
        for source, indices in self._reads(node):
            if source.type.symbols and _plain(indices, 1) is not None:
                lost = self._lost(node, source, indices)
                if lost:
                    return -lost
        return PLAIN

    def _lost(self, node: Node, source: Node, indices: Indices) -> int:
        """By a convolution that has its lanes along the image."""
        ways = [i.terms for i in indices[2:]]
        if any(not isinstance(atom, Var) for terms in ways for atom, _ in terms):
            return SPREAD
        is_window = any(len(terms) > 1 for terms in ways)
        if is_window and size_of(node.shape[1]) < self.lanes:
            return STRANGE
        plain = all(len(terms) == 2 and all(step == 1 for _, step in terms) for terms in ways)
        vectors = -(-max(size_of(source.shape[1]), size_of(node.shape[1])) // self.lanes)
        tiles = prod(-(-size_of(n) // 2) for n in node.shape[2:])
        fill = len(ways) == 2 and tiles % self.lanes == 0 and tiles > self.lanes
        return FEW.get(vectors, 0) if plain and fill else 0


def _plain(indices: Indices, axis: int) -> Var | None:
    """The variable that is the index along an axis."""
    terms = indices[axis].terms if axis < len(indices) else ()
    if len(terms) != 1 or indices[axis].constant or terms[0][1] != 1:
        return None
    return terms[0][0] if isinstance(terms[0][0], Var) else None


def _elements(node: Node) -> int:
    return size_of(node.type.size)
