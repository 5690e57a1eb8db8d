"""Takes a simplified graph, gives groups of nodes: what belongs in one kernel.

    z = contract(x, W); y = relu(z + b)          one group: the contraction with its epilogue
    m = max(z); e = exp(z - m); s = sum(e)       one group: a row loop that reads z once
    v' = 0.9 v + g; W' = W - lr v'               in the epilogue of the contraction that makes g

Decided by lowering class alone. Views, constants, and maps that are cheaper to compute again than
to store are in no group: whoever reads them computes them (`Fusion.inline`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from ir.graph import Graph, Node
from ir.op import Lowering
from nncompiler.access import Indices
from nncompiler.again import computed_again
from nncompiler.groups import Group, Reads, domain, element_places, own_group
from nncompiler.stored import forced_nodes, has_buffer, inline_nodes

ALONE = ("scatter", "sparse", "scan")  # kinds of groups that nothing can be fused into


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


class _Fuser:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.forced = forced_nodes(graph)
        self.inline = inline_nodes(graph, self.forced)
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
        fresh = own_group(node, len(self.groups))
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
            if group.kind != "rows" or domain(group) != domain(fresh) or group in producers:
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


def _bits(groups: Iterable[Group]) -> int:
    bits = 0
    for group in groups:
        bits |= group.ancestors | 1 << group.number
    return bits


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
