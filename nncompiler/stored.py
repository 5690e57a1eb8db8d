"""Takes a graph, gives which values have memory and which every reader computes for itself."""

from __future__ import annotations

from collections.abc import Sequence, Set

from ir import scalar
from ir.dilated import dilated
from ir.graph import Graph, Node
from ir.index import Guard, flatten
from ir.op import CHEAP, Lowering
from ir.places import places
from ir.types import boolean
from nncompiler.access import Indices, axis_variables, element, point
from nncompiler.groups import split_spec

MUCH, MOST_SMALL = 16, 4  # times as large; small tensors that a value is computed from again
STRETCH = 64  # columns that are worth a loop of their own


def has_buffer(node: Node) -> bool:
    """True for leaves that live in memory: inputs, and constants that are not one number."""
    if node.op.name == "input":
        return True
    return node.op.name == "constant" and node.attrs["value"].shape != ()


def forced_nodes(graph: Graph) -> frozenset[Node]:
    """Nodes that must have memory: outputs, and what is read at other points than it is made."""
    forced = {n for n in graph.outputs.values() if not has_buffer(n)}
    for node in graph.nodes:
        match node.op.lowering:
            case Lowering.CONTRACT:
                forced.update(contract_bases(node))
            case Lowering.SPARSE:
                forced.update(contract_base(i) for i in node.inputs)
            case Lowering.GATHER:
                forced.add(node.inputs[0])
            case Lowering.SCATTER:
                forced.update(node.inputs[:-2])
            case Lowering.SCAN:
                forced.update(node.inputs)
            case Lowering.ITEM:
                forced.add(node)
    return frozenset(n for n in forced if not has_buffer(n))


def contract_bases(node: Node) -> list[Node]:
    """The nodes that a contraction reads from memory. One of its operands may have zeros between
    its elements where windows of taps that are summed run over them."""
    *operands, out = split_spec(node.attrs["spec"])
    found = []
    for number, (x, letters) in enumerate(zip(node.inputs, operands, strict=True)):
        other = node.inputs[1 - number]
        taps = [a for a, c in enumerate(letters) if c not in out]
        is_alone = _is_addressing(other, contract_base(other), guarded=False)
        found.append(contract_base(x, taps if is_alone else ()))
    return found


def contract_base(operand: Node, taps: Sequence[int] = ()) -> Node:
    """The node that a contraction reads from memory: below views that are plain addressing."""
    base = operand
    while base.op.lowering is Lowering.VIEW and len(base.inputs) == 1:
        if not _is_addressing(operand, base.inputs[0], taps):
            break
        base = base.inputs[0]
    return base


def _is_addressing(
    operand: Node, base: Node, taps: Sequence[int] = (), *, guarded: bool = True
) -> bool:
    """Can `operand` be read from `base` at a constant stride along every axis? With guards only
    where zeros stand around overlapping windows, or between their elements: those are copied before
    they are read."""
    variables = axis_variables(operand.shape)
    seen: list[bool] = []

    def resolve(n: Node, indices: Indices, guards: tuple[Guard, ...]) -> scalar.Scalar | None:
        if n is not base:
            return None
        offset = flatten(indices, n.type.strides)
        seen.append(all(offset.coefficient(v) is not None for v in variables))
        return scalar.load("#", offset, n.dtype, guards=guards)

    value = element(operand, point(variables), resolve)
    if value.kind != "load" or len(seen) != 1:
        return False
    if seen == [True] and not value.guards:
        return True
    if not guarded or value.fill != 0:
        return False
    return dilated(value, [variables[a] for a in taps]) is not None or (
        seen == [True] and _is_padded_window(value)
    )


def _is_padded_window(value: scalar.Scalar) -> bool:
    found = places(value)
    return found is not None and any(p.is_window for p in found)


def inline_nodes(graph: Graph, forced: frozenset[Node]) -> frozenset[Node]:
    """Nodes that every reader computes for itself: views, leaves without memory, cheap maps."""
    inline: set[Node] = set()
    pieces = _pieces(graph, forced)
    tensors: dict[Node, frozenset[Node]] = {}
    for node in graph.nodes:
        if has_buffer(node) or node in forced:
            tensors[node] = frozenset([node]) if node.shape else frozenset()
            continue
        below = frozenset(t for i in node.inputs for t in tensors[i])
        kept = {t for t in below if t in forced or has_buffer(t) or len(graph.users[t]) > 1}
        if _is_recomputed(node, below, kept) or node in pieces:
            inline.add(node)
            tensors[node] = below
        else:
            tensors[node] = frozenset([node]) if node.shape else frozenset()
    return frozenset(inline)


def _is_recomputed(node: Node, tensors: Set[Node], kept: Set[Node]) -> bool:
    """Does it cost less to compute the node from `tensors` than to store it and read it again?

    Where those of its size are `kept` for others anyway, much smaller ones are read for nothing:
    a batch norm is computed from its operand and four numbers of the channel.
    """
    match node.op.lowering:
        case Lowering.LEAF | Lowering.VIEW:
            return True
        case Lowering.MAP:
            if not tensors:
                return True
            if CHEAP not in node.op.flags:
                return False
            limit = 2 if node.dtype == boolean else 1
            small = {t for t in tensors if _is_much_smaller(t, node)}
            if len(tensors) <= limit:
                return True
            return (
                len(small) <= MOST_SMALL
                and len(large := tensors - small) <= limit
                and large <= kept
            )
    return False


def _pieces(graph: Graph, forced: frozenset[Node]) -> set[Node]:
    """Cheap maps that are read once and for all as a stretch of longer rows, and those that only
    they read: they are computed there, in a loop of their own (schedule/pieces.py).

    d_gates = concat(d_i, d_f, d_g, d_o)
    """
    found: set[Node] = set()
    users = graph.users
    for node in reversed(graph.nodes):
        is_cheap = node.op.lowering is Lowering.MAP and CHEAP in node.op.flags
        if not is_cheap or node in forced or len(users[node]) != 1 or not node.ndim:
            continue
        (reader,) = users[node]
        if reader in found or (len(users[reader]) <= 1 and _is_stretch(node, reader)):
            found.add(node)
    return found


def _is_stretch(node: Node, whole: Node) -> bool:
    width, length = node.shape[-1], whole.shape[-1] if whole.ndim else 1
    if whole.op.sources is None or node.shape[:-1] != whole.shape[:-1]:
        return False
    if not isinstance(width, int) or not isinstance(length, int) or not STRETCH <= width < length:
        return False
    last = axis_variables(whole.shape)[-1]
    types = [i.type for i in whole.inputs]
    for source in whole.op.sources(point(axis_variables(whole.shape)), types, **whole.attrs):
        if whole.inputs[source.operand] is node and source.indices[-1].coefficient(last) != 1:
            return False
    return True


def _is_much_smaller(tensor: Node, node: Node) -> bool:
    """By what is known: a batch counts as one row."""
    size, whole = (
        d if isinstance(d, int) else d.coefficient for d in (tensor.type.size, node.type.size)
    )
    return MUCH * size <= whole
