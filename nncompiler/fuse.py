"""Takes a simplified graph, gives groups of nodes: what belongs in one kernel.

    z = contract(x, W); y = relu(z + b)          one group: the contraction with its epilogue
    m = max(z); e = exp(z - m); s = sum(e)       one group: a row loop that reads z once
    v' = 0.9 v + g; W' = W - lr v'               in the epilogue of the contraction that makes g

Decided by lowering class alone. Views, constants, and maps that are cheaper to compute again than
to store are in no group: whoever reads them computes them (`Fusion.inline`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from itertools import chain, product

from ir import scalar
from ir.graph import Graph, Node
from ir.index import Guard, Index, Var, flatten
from ir.op import CHEAP, Lowering
from ir.places import places
from ir.types import Shape, boolean
from nncompiler.access import Indices, axis_variables, element, point
from nncompiler.again import computed_again

Read = tuple[Node, Indices]
MUCH, MOST_SMALL = 16, 4  # times as large; small tensors that a value is computed from again
MOST_PARTS = 64  # elements of a view that one kernel writes one by one
STRETCH = 64  # columns that are worth a loop of their own
ALONE = ("scatter", "sparse", "scan")  # kinds of groups that nothing can be fused into


@dataclass(eq=False)
class Group:
    """Nodes computed by one kernel, over the points of `full`; `reduced` axes are combined away.

    kind: "map" (no reduction), "rows" (reductions over the same axes), "contract", "scatter",
    "sparse", "scan". The last three compute one node and nothing else; the items of a scan are
    members of its group.
    """

    number: int
    kind: str
    full: Shape
    reduced: tuple[int, ...] = ()
    nodes: list[Node] = field(default_factory=list)
    ancestors: int = 0  # bit set of the numbers of all groups that this one depends on

    @property
    def variables(self) -> tuple[Var, ...]:
        return axis_variables(self.full)

    @property
    def is_single(self) -> bool:
        """Is there one row only, whose results are numbers?"""
        return all(v.extent == 1 for v in self.row_variables)

    @property
    def row_variables(self) -> tuple[Var, ...]:
        return tuple(v for axis, v in enumerate(self.variables) if axis not in self.reduced)

    def position(self, shape: Shape) -> Indices | None:
        """Where a value of this shape stands at a point of the group: per row, or per element."""
        row = _match(shape, self.row_variables)
        return row if row is not None else _match(shape, self.variables)


def _match(shape: Shape, variables: tuple[Var, ...]) -> Indices | None:
    """Indices over the variables for a shape that equals theirs up to extents of one."""
    long = [v for v in variables if v.extent != 1]
    if [d for d in shape if d != 1] != [v.extent for v in long]:
        return None
    rest = iter(long)
    return tuple(Index() if dim == 1 else Index.of(next(rest)) for dim in shape)


@dataclass(frozen=True)
class Fusion:
    """The partition: groups in an order in which they can run, who computes which node, and what a
    group stores for a later pass of its own."""

    graph: Graph
    groups: tuple[Group, ...]
    owner: Mapping[Node, Group]
    inline: frozenset[Node]
    reads: Reads
    again: frozenset[Node]


def fuse(graph: Graph) -> Fusion:
    """Partition the nodes of a graph into kernels."""
    return _Fuser(graph).run()


def has_buffer(node: Node) -> bool:
    """True for leaves that live in memory: inputs, and constants that are not one number."""
    if node.op.name == "input":
        return True
    return node.op.name == "constant" and node.attrs["value"].shape != ()


class _Fuser:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.forced = _forced(graph)
        self.inline = _inline(graph, self.forced)
        self.reads = Reads(self.inline)
        self.groups: dict[int, Group] = {}
        self.owner: dict[Node, Group] = {}

    def run(self) -> Fusion:
        for node in self.graph.nodes:
            if node not in self.inline and not has_buffer(node):
                self._place(node)
        for node in reversed(self.graph.nodes):
            if node in self.owner and node not in self.forced:
                self._sink(node)
        groups = [g for g in self.groups.values() if g.nodes]
        order = {node: at for at, node in enumerate(self.graph.nodes)}
        for group in groups:
            group.nodes.sort(key=order.__getitem__)
        order_of = tuple(_sorted(groups, self))
        found = [computed_again(group, self.owner, self.graph) for group in groups]
        again = frozenset(chain.from_iterable(found))
        return Fusion(self.graph, order_of, self.owner, self.inline, self.reads, again)

    # ------------------------------------------------------------ placing one node

    def _place(self, node: Node) -> None:
        if node.op.lowering is Lowering.ITEM:
            self.owner[node] = self.owner[node.inputs[0]]
            self.owner[node].nodes.append(node)
            return
        fresh = _own_group(node, len(self.groups))
        producers = self._producers(node, fresh)
        candidates = sorted(producers, key=lambda g: g.number, reverse=True)
        if node.op.lowering is Lowering.REDUCE:
            candidates += self._siblings(node, fresh, producers)
        for group in candidates:
            if self._may_join(node, group):
                self._join(node, group)
                return
        self.groups[fresh.number] = fresh
        fresh.ancestors = _bits(producers)
        fresh.nodes.append(node)
        self.owner[node] = fresh

    def _producers(self, node: Node, group: Group) -> list[Group]:
        found = {self.owner[n]: None for n, _ in self.reads(node, group) if n in self.owner}
        return list(found)

    def _siblings(self, node: Node, fresh: Group, producers: list[Group]) -> list[Group]:
        """Row groups over the same axes that read one of the node's operands already."""
        wanted = {n for n, _ in self.reads(node, fresh)}
        found = []
        for group in self.groups.values():
            if group.kind != "rows" or _domain(group) != _domain(fresh) or group in producers:
                continue
            if any(n in wanted for m in group.nodes for n, _ in self.reads(m, group)):
                found.append(group)
        return found

    def _may_join(self, node: Node, group: Group) -> bool:
        match node.op.lowering:
            case Lowering.MAP | Lowering.VIEW | Lowering.GATHER:
                if group.kind in ALONE:
                    return False
                if group.position(node.shape) is None and not self._is_made_of(node, group):
                    return False
            case Lowering.REDUCE:
                if group.kind not in ("map", "rows") or node.inputs[0].shape != group.full:
                    return False
                if group.kind == "rows" and group.reduced != node.attrs["axes"]:
                    return False
            case _:
                return False
        if node.op.lowering is Lowering.REDUCE and group.kind == "map":
            group = Group(group.number, "rows", group.full, node.attrs["axes"], list(group.nodes))
            if not self._still_consistent(group):
                return False
        bit = 1 << group.number
        for source, indices in self.reads(node, group):
            owner = self.owner.get(source)
            if owner is None:
                continue
            if owner.number == group.number:
                if indices != self._home(source, group):
                    return False
            elif owner.ancestors & bit:
                return False
        return True

    def _is_made_of(self, node: Node, group: Group) -> bool:
        """Is the node put together from numbers that the group computes?"""
        if not group.is_single or group.kind != "rows" or element_places(node) is None:
            return False
        return set(self._producers(node, group)) == {group}

    def _still_consistent(self, group: Group) -> bool:
        """Do the members of a map group stand at the same points once it has reduced axes?"""
        plain = Group(group.number, "map", group.full)
        return all(group.position(n.shape) == plain.position(n.shape) for n in group.nodes)

    def _home(self, node: Node, group: Group) -> Indices | None:
        return group.position(node.shape)

    def _join(self, node: Node, group: Group) -> None:
        if node.op.lowering is Lowering.REDUCE and group.kind == "map":
            group.kind, group.reduced = "rows", node.attrs["axes"]
        sources = [g for g in self._producers(node, group) if g is not group]
        group.nodes.append(node)
        self.owner[node] = group
        for other in sources:
            if not self._merge(group, other, node):
                self._depend(group, other)

    def _merge(self, group: Group, other: Group, node: Node) -> bool:
        """Make two independent loops over the same points one."""
        if group.kind not in ("map", "rows") or other.kind not in ("map", "rows"):
            return False
        if other.full != group.full or (other.reduced and group.reduced != other.reduced):
            return False
        if group.reduced and not other.reduced:
            trial = Group(other.number, "rows", other.full, group.reduced, list(other.nodes))
            if not self._still_consistent(trial):
                return False
        if group.ancestors >> other.number & 1 or other.ancestors >> group.number & 1:
            return False
        for source, indices in self.reads(node, group):
            if self.owner.get(source) is other and indices != self._home(source, group):
                return False
        group.nodes.extend(other.nodes)
        for member in other.nodes:
            self.owner[member] = group
        other.nodes = []
        mask = 1 << other.number
        self._depend_bits(group, other.ancestors)
        for third in self.groups.values():
            if third.ancestors & mask:
                self._depend(third, group)
        return True

    def _depend(self, group: Group, on: Group) -> None:
        self._depend_bits(group, on.ancestors | 1 << on.number)

    def _depend_bits(self, group: Group, bits: int) -> None:
        if bits & ~group.ancestors:
            group.ancestors |= bits
            for later in self.groups.values():
                if later.ancestors >> group.number & 1:
                    later.ancestors |= group.ancestors

    # ------------------------------------------------------------ moving a map to its only reader

    def _sink(self, node: Node) -> None:
        """Compute a map where it is read, if that is one other group: then it needs no memory."""
        if node.op.lowering not in (Lowering.MAP, Lowering.VIEW):
            return
        home = self.owner[node]
        readers = self._readers(node)
        if len(readers) != 1:
            return
        (target,) = readers
        if target is home or target.kind in ALONE or target.position(node.shape) is None:
            return
        place = target.position(node.shape)
        for member in target.nodes:
            for source, indices in self.reads(member, target):
                if source is node and indices != place:
                    return
        stored = {n for n, _ in self.reads(node, target) if n in self.owner}
        if sum(1 for n in stored if not self._is_stored(n, home)) > 1:
            return
        if any(self.owner[n] is target for n in stored):
            return
        home.nodes.remove(node)
        target.nodes.append(node)
        self.owner[node] = target
        for source in stored:
            self._depend(target, self.owner[source])

    def _readers(self, node: Node) -> set[Group]:
        """The groups that read a node, directly or through nodes that are computed in place."""
        found: set[Group] = set()
        stack = list(self.graph.users[node])
        while stack:
            user = stack.pop()
            if user in self.inline:
                stack.extend(self.graph.users[user])
            elif user in self.owner:
                found.add(self.owner[user])
        return found

    def _is_stored(self, node: Node, home: Group) -> bool:
        """Is `node` in memory anyway, even if no member of `home` read it?"""
        return node in self.forced or any(g is not home for g in self._readers(node))


def _own_group(node: Node, number: int) -> Group:
    match node.op.lowering:
        case Lowering.REDUCE:
            return Group(number, "rows", node.inputs[0].shape, node.attrs["axes"])
        case Lowering.CONTRACT:
            return Group(number, "contract", node.shape)
        case Lowering.SCATTER:
            return Group(number, "scatter", node.inputs[-2].shape)
        case Lowering.SPARSE:
            return Group(number, "sparse", node.shape)
        case Lowering.SCAN:
            return Group(number, "scan", node.shape)
    return Group(number, "map", node.shape)


def _domain(group: Group) -> tuple[Shape, tuple[int, ...]]:
    return group.full, group.reduced


def element_places(node: Node) -> list[Indices] | None:
    """The indices of every element of a small view; None for anything else."""
    if node.op.lowering is not Lowering.VIEW or not isinstance(node.type.size, int):
        return None
    if not 0 < node.type.size <= MOST_PARTS:
        return None
    ranges = (range(d) for d in node.shape if isinstance(d, int))
    return [tuple(map(Index.of, place)) for place in product(*ranges)]


def _bits(groups: Iterable[Group]) -> int:
    bits = 0
    for group in groups:
        bits |= group.ancestors | 1 << group.number
    return bits


def contract_variables(node: Node) -> dict[str, Var]:
    """The loop variable of every letter of a spec; output letters as a group's axes."""
    left, right, out = split_spec(node.attrs["spec"])
    extents = dict(zip(left, node.inputs[0].shape, strict=True))
    extents.update(zip(right, node.inputs[1].shape, strict=True))
    letters = dict(zip(out, axis_variables(node.shape), strict=True))
    summed = [c for c in dict.fromkeys(left + right) if c not in out]
    for number, letter in enumerate(summed):
        letters[letter] = Var("k" if len(summed) == 1 else f"k{number}", extents[letter])
    return letters


def split_spec(spec: str) -> tuple[str, str, str]:
    operands, out = spec.split("->")
    left, right = operands.split(",")
    return left, right, out


class Reads:
    """What computing a node in a group reads: stored nodes, and the indices they are read at."""

    def __init__(self, inline: frozenset[Node]) -> None:
        self.inline = inline
        self._memo: dict[tuple[Node, Shape, tuple[int, ...]], list[Read]] = {}

    def __call__(self, node: Node, group: Group) -> list[Read]:
        key = (node, group.full, group.reduced)
        if key not in self._memo:
            self._memo[key] = _reads(node, group, self.inline)
        return self._memo[key]


def _reads(node: Node, group: Group, inline: frozenset[Node]) -> list[Read]:
    found: dict[Read, None] = {}

    def resolve(source: Node, indices: Indices, guards: tuple[Guard, ...]) -> scalar.Scalar | None:
        if source in inline:
            return None
        found[source, indices] = None
        offset = flatten(indices, source.type.strides)
        return scalar.load(f"#{id(source)}", offset, source.dtype, guards=guards)

    match node.op.lowering:
        case Lowering.REDUCE:
            element(node.inputs[0], point(group.variables), resolve)
        case Lowering.CONTRACT:
            letters = contract_variables(node)
            for operand, spec in zip(node.inputs, split_spec(node.attrs["spec"]), strict=False):
                element(operand, point(letters[c] for c in spec), resolve)
        case Lowering.SCATTER:
            *base, updates, rows = node.inputs
            for start in base:
                element(start, point(axis_variables(start.shape)), resolve)
            element(updates, point(group.variables), resolve)
            element(rows, point(group.variables[: rows.ndim]), resolve)
        case Lowering.SPARSE | Lowering.SCAN:
            for operand in node.inputs:
                element(operand, point(axis_variables(operand.shape)), resolve)
        case Lowering.ITEM:
            pass
        case _:
            position = group.position(node.shape)
            places = [position] if position is not None else element_places(node)
            assert places is not None
            outside = inline | {node}
            if node.op.lowering is Lowering.MAP:
                for i in node.inputs:
                    element(i, places[0], resolve)
            else:
                for place in places:
                    element(node, place, lambda n, i, g: None if n in outside else resolve(n, i, g))
    return list(found)


# --------------------------------------------------------------------------- what is stored


def _forced(graph: Graph) -> frozenset[Node]:
    """Nodes that must have memory: outputs, and what is read at other points than it is made."""
    forced = {n for n in graph.outputs.values() if not has_buffer(n)}
    for node in graph.nodes:
        match node.op.lowering:
            case Lowering.CONTRACT | Lowering.SPARSE:
                for i in node.inputs:
                    forced.add(contract_base(i))
            case Lowering.GATHER:
                forced.add(node.inputs[0])
            case Lowering.SCATTER:
                forced.update(node.inputs[:-2])
            case Lowering.SCAN:
                forced.update(node.inputs)
            case Lowering.ITEM:
                forced.add(node)
    return frozenset(n for n in forced if not has_buffer(n))


def contract_base(operand: Node) -> Node:
    """The node that a contraction reads from memory: below views that are plain addressing."""
    base = operand
    while base.op.lowering is Lowering.VIEW and len(base.inputs) == 1:
        if not _is_addressing(operand, base.inputs[0]):
            break
        base = base.inputs[0]
    return base


def _is_addressing(operand: Node, base: Node) -> bool:
    """Can `operand` be read from `base` at a constant stride along every axis? With guards only
    where zeros stand around overlapping windows: those are copied before they are read."""
    variables = axis_variables(operand.shape)
    seen: list[bool] = []

    def resolve(n: Node, indices: Indices, guards: tuple[Guard, ...]) -> scalar.Scalar | None:
        if n is not base:
            return None
        offset = flatten(indices, n.type.strides)
        seen.append(all(offset.coefficient(v) is not None for v in variables))
        return scalar.load("#", offset, n.dtype, guards=guards)

    value = element(operand, point(variables), resolve)
    if value.kind != "load" or seen != [True]:
        return False
    return not value.guards or (value.fill == 0 and _is_padded_window(value))


def _is_padded_window(value: scalar.Scalar) -> bool:
    found = places(value)
    return found is not None and any(p.is_window for p in found)


def _inline(graph: Graph, forced: frozenset[Node]) -> frozenset[Node]:
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


def _sorted(groups: list[Group], fuser: _Fuser) -> list[Group]:
    """Groups in dependency order; ties keep the order of the graph."""
    needs: dict[Group, set[Group]] = {g: set() for g in groups}
    for group in groups:
        for node in group.nodes:
            for source, _ in fuser.reads(node, group):
                owner = fuser.owner.get(source)
                if owner is not None and owner is not group:
                    needs[group].add(owner)
    order: list[Group] = []
    done: set[Group] = set()

    def visit(group: Group, path: tuple[Group, ...]) -> None:
        assert group not in path, "fusion made a cycle of groups"
        if group in done:
            return
        for other in sorted(needs[group], key=lambda g: g.number):
            visit(other, (*path, group))
        done.add(group)
        order.append(group)

    for group in sorted(groups, key=lambda g: g.number):
        visit(group, ())
    return order
