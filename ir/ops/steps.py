"""Takes the leaves and results of one step, gives the scan: closed, with what derivatives need.

What a step uses from outside is captured: computed before the loop and handed in. The scan also
gives sequences of the carried values as each step found them, and of all that is costly to compute
again; a derivative reads those, and what nobody reads is never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count

from ir.graph import Body, Node, make, rebuild, topological
from ir.op import CHEAP, Lowering
from ir.ops.contraction import contract, parse_spec
from ir.ops.leaves import input
from ir.ops.views import transpose
from ir.types import TensorType

Nodes = tuple[Node, ...]

_numbers = count()


def fresh_leaf(type: TensorType) -> Node:
    """A value that no other graph has."""
    return input(f"scan.{next(_numbers)}", type.dtype, type.shape)


def stacked(step: TensorType, length: int) -> TensorType:
    """The type of a sequence whose values are of type `step`."""
    return step.with_shape((*step.shape[:1], length, *step.shape[1:]))


def step_of(sequence: TensorType) -> TensorType:
    """The type of one value of a sequence; ValueError where it has no time."""
    axis = min(1, sequence.rank - 1)
    if axis < 0 or not isinstance(sequence.shape[axis], int):
        raise ValueError(f"a sequence has time behind its leading axis, not {sequence}")
    return sequence.with_shape(sequence.shape[:axis] + sequence.shape[axis + 1 :])


def make_scan(
    carried: Nodes,
    streams: Nodes,
    new: Sequence[Node],
    results: Sequence[Node],
    starts: Sequence[Node],
    sequences: Sequence[Node],
    length: int,
    reverse: bool,
) -> Node:
    """The scan of a step from the leaves `carried` and `streams` to the values `new` and `results`.

    Its results are the last carried values, the sequences of `results`, and those it keeps.
    """
    capture = _Capture((*carried, *streams))
    outputs = [capture(n) for n in (*new, *results)]
    kept = [n for n in topological(outputs) if n not in outputs and is_kept(n)]
    outputs += list(dict.fromkeys([*carried, *kept]))
    leaves = (*carried, *streams, *capture.leaves.values())
    names = {leaf: input(f"step.{i}", leaf.dtype, leaf.shape) for i, leaf in enumerate(leaves)}
    closed = replace_nodes(outputs, names.get)
    body = Body(tuple(names.values()), closed)
    operands = (*starts, *sequences, *capture.leaves)
    return make(
        "scan",
        *operands,
        body=body,
        carries=len(carried),
        sequences=len(streams),
        length=length,
        reverse=reverse,
    )


def is_kept(node: Node) -> bool:
    """Is a value dearer to compute again than to store?"""
    match node.op.lowering:
        case Lowering.MAP:
            return CHEAP not in node.op.flags
        case Lowering.CONTRACT | Lowering.REDUCE:
            return True
    return False


def replace_nodes(roots: Iterable[Node], rule: Callable[[Node], Node | None]) -> Nodes:
    """The roots with nodes replaced, from the top: rule(node) gives another, or None to go on."""
    done: dict[Node, Node] = {}
    wanted = tuple(roots)
    stack = list(wanted)
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
            continue
        other = rule(node)
        waiting = [] if other is not None else [i for i in node.inputs if i not in done]
        if waiting:
            stack += waiting
            continue
        done[node] = rebuild(node, tuple(done[i] for i in node.inputs)) if other is None else other
        stack.pop()
    return tuple(done[root] for root in wanted)


class _Capture:
    """Makes steps closed: `leaves` maps what they use from outside to the leaf that stands for it.

    Views of outer values are made inside, so that no value is handed in larger than it is; but a
    matrix is handed in with its columns in order, so that it is not turned at every step.
    """

    def __init__(self, inner: Nodes) -> None:
        self.inside: dict[Node, bool] = dict.fromkeys(inner, True)
        self.symbols = frozenset(s for n in inner for s in n.type.symbols)
        self.leaves: dict[Node, Node] = {}

    def __call__(self, root: Node) -> Node:
        for node in topological([root]):
            if node not in self.inside:
                self.inside[node] = any(self.inside[i] for i in node.inputs)
        turned = replace_nodes([root], self._turn)
        for node in topological(turned):
            if node not in self.inside:
                self.inside[node] = any(self.inside[i] for i in node.inputs)
        return replace_nodes(turned, self._outer)[0]

    def _turn(self, node: Node) -> Node | None:
        """A contraction with one outer operand reads it in the order of the result's letters."""
        if node.op.lowering is not Lowering.CONTRACT or not self.inside.get(node, False):
            return None
        left, right, out = parse_spec(node.attrs["spec"])
        a, b = node.inputs
        if self.inside[a] == self.inside[b]:
            return None
        outer, letters = (b, right) if self.inside[a] else (a, left)
        order = sorted(letters, key=lambda c: (c in out, out.find(c)))
        if "".join(order) == letters or outer.type.symbols:
            return None
        other = transpose(outer, [letters.index(c) for c in order])
        spec = "".join(order)
        (inner,) = replace_nodes([a if outer is b else b], self._turn)
        if outer is b:
            return contract(inner, other, f"{left},{spec}->{out}")
        return contract(other, inner, f"{spec},{right}->{out}")

    def _outer(self, node: Node) -> Node | None:
        """The leaf that stands for a value from outside; None where it is made inside."""
        if node in self.leaves.values():
            return node
        if self.inside[node]:
            return node if node.op.name == "input" else None
        lowering = node.op.lowering
        if lowering is Lowering.LEAF and node.op.name == "constant":
            return node
        if lowering is Lowering.VIEW and len(node.inputs) == 1 and self._grows(node):
            return None
        return self.leaves.setdefault(node, fresh_leaf(node.type))

    def _grows(self, node: Node) -> bool:
        return node.op.name == "broadcast" and node.type.symbols <= self.symbols
