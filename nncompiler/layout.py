"""Takes a graph, gives the same with channels last where that is better (nncompiler/channels.py).

    y f32[batch,64,32,32] = contract(x, W);  h = relu(y + b);  dx = contract(window(dh), W')

    y' f32[batch,32,32,64] = contract(x, W); h' = relu(y' + b); transpose(h') stands for h

Nothing is moved: who makes a value writes it in the other order, and a transpose is a view. Users
see channels first, for inputs and results are never turned.
"""

from __future__ import annotations

from collections.abc import Set

from ir.graph import Graph, Node, make, rebuild
from ir.op import Lowering
from ir.types import f32
from nncompiler.channels import turned_images
from nncompiler.codegen.target import Target
from nncompiler.groups import split_spec
from nncompiler.rules import views

Perm = tuple[int, ...]


def layout(graph: Graph, target: Target) -> Graph:
    """The graph with turned images, or the graph itself where there are none."""
    chosen = turned_images(graph, target.lanes(f32))
    return turned(graph, chosen) if chosen else graph


def turned(graph: Graph, chosen: Set[Node]) -> Graph:
    """The graph where the chosen maps, reductions and contractions of rank 3 or more are made with
    axis 1 last."""
    turning = _Turning(chosen)
    new = {node: turning.node(node) for node in graph.nodes}
    names: dict[Node, str] = {}
    for node, name in graph.names.items():
        if node in new:
            names.setdefault(turning.turned.get(node, new[node]), name)
    outputs = {name: new[node] for name, node in graph.outputs.items()}
    return Graph(graph.name, graph.inputs, outputs, names)


class _Turning:
    """New nodes by old ones, as they were; `turned` has those with channels last."""

    def __init__(self, chosen: Set[Node]) -> None:
        self.chosen = chosen
        self.new: dict[Node, Node] = {}
        self.turned: dict[Node, Node] = {}

    def node(self, node: Node) -> Node:
        """The new node of a value all of whose inputs have one."""
        if node in self.chosen:
            perm = channels_last(node.ndim)
            self.turned[node] = self._turn(node, perm)
            found = moved(self.turned[node], inverse(perm))
        elif node.op.lowering is Lowering.REDUCE and node.inputs[0] in self.turned:
            kept = [a for a in channels_last(node.inputs[0].ndim) if a not in node.attrs["axes"]]
            found = moved(self._reduced(node), tuple(kept.index(a) for a in sorted(kept)))
        else:
            found = rebuild(node, tuple(self.new[i] for i in node.inputs))
        self.new[node] = found
        return found

    def _operand(self, x: Node, perm: Perm) -> Node:
        if x in self.turned and perm == channels_last(x.ndim):
            return self.turned[x]
        return moved(self.new[x], perm)

    def _turn(self, node: Node, perm: Perm) -> Node:
        """The same value with its axes in another order."""
        match node.op.lowering:
            case Lowering.CONTRACT:
                left, right, out = split_spec(node.attrs["spec"])
                spec = f"{left},{right}->{''.join(out[a] for a in perm)}"
                return make(node.op, *(self.new[i] for i in node.inputs), spec=spec)
            case Lowering.REDUCE:
                return self._reduced(node)
        return make(node.op, *(self._operand(i, perm) for i in node.inputs), **node.attrs)

    def _reduced(self, node: Node) -> Node:
        """A reduction that walks its operand as it lies: what shares its loops does, too."""
        (x,), gone = node.inputs, node.attrs["axes"]
        perm = channels_last(x.ndim)
        if node in self.chosen and {0, 1} & set(gone):  # its axis 1 is another one of the operand
            kept = [a for a in range(x.ndim) if a not in gone]
            perm = (*(kept[a] for a in channels_last(node.ndim)), *(a for a in gone if a))
            perm = (0, *perm) if 0 in gone else perm  # a batch leads
        axes = tuple(sorted(perm.index(a) for a in gone))
        return make(node.op, self._operand(x, perm), axes=axes)


def channels_last(rank: int) -> Perm:
    """(n, c, h, w) -> (n, h, w, c)"""
    return (0, *range(2, rank), 1)


def inverse(perm: Perm) -> Perm:
    return tuple(perm.index(a) for a in range(len(perm)))


def moved(x: Node, perm: Perm) -> Node:
    """The transpose in its normal form: two of them are one, that of a broadcast is a broadcast."""
    node = make("transpose", x, perm=perm)
    for rule in (views.does_nothing, views.transpose):
        better = rule(node)
        if better is None:
            continue
        if better.op.name == "transpose":
            return moved(better.inputs[0], better.attrs["perm"])
        return better
    return node
