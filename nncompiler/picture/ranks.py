"""Takes a graph, gives the column of every node: the longest path to it, cycles left out."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from nncompiler.frontend.lifting import SPARSE, Block

if TYPE_CHECKING:
    import networkx as nx


def natural(node: Hashable) -> tuple[tuple[int, int, str], ...]:
    """The order in which people list names: h2 before h10."""
    parts = re.findall(r"\d+|\D+", str(node))
    return tuple((0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts)


def ranks_of(
    graph: nx.DiGraph[Any],
    blocks: Sequence[Block] = (),
    without: Collection[tuple[Hashable, Hashable]] = (),
) -> dict[Hashable, int]:
    """Sinks stand in the last column, with the layer that they are part of if all of it are; the
    edges of `without` do not count."""
    if without:
        graph = graph.copy()
        graph.remove_edges_from(without)
    ranks: dict[Hashable, int] = {}
    for node in _walk(graph):
        before = [ranks[u] for u in graph.predecessors(node) if u in ranks and u != node]
        ranks[node] = 1 + max(before) if before else 0
    last = max(ranks.values(), default=0)
    partners = {n: b.members for b in blocks for n in b.members if b.kind != SPARSE}
    for node in graph:
        together = partners.get(node, (node,))
        if graph.in_degree(node) and not any(graph.out_degree(n) for n in together):
            ranks[node] = last
    return ranks


def _walk(graph: nx.DiGraph[Any]) -> list[Hashable]:
    """Every node after its predecessors, but for edges that close a cycle; by name where free."""
    done: dict[Hashable, None] = {}
    for root in sorted(graph, key=natural):
        stack, on_way = [(root, False)], set()
        while stack:
            node, ready = stack.pop()
            if ready:
                done[node] = None
            elif node not in done and node not in on_way:
                on_way.add(node)
                stack.append((node, True))
                before = sorted(graph.predecessors(node), key=natural, reverse=True)
                stack += [(u, False) for u in before if u not in done and u not in on_way]
    return list(done)
