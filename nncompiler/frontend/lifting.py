"""Takes neurons and edges, gives blocks: dense layers, and what stays sparse.

Neurons that share their predecessors and their function are one dense layer; neurons of one level
that nearly do are one with a mask. All others are nodes of a sparse block, which is computed edge
by edge. A sparse block takes in as many levels as it can:

    x -> a few hundred irregular neurons -> 64 neurons that see all of them -> y
    sparse1                                 layer1                             sparse2

Nothing here depends on the order in which nodes and edges were added.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from itertools import groupby

from nncompiler.frontend.graphs import order
from nncompiler.frontend.wiring import Wiring

DENSE_WEIGHTS, DENSE_MEMBERS = 64, 4  # a smaller group is no layer of its own
FEW_LAYERS = 8  # a network of so many layers is dense however small these are
MASKED_MEMBERS, MASKED_SHARE = 8, 0.5  # least size, and least share of weights that exist

DENSE, SPARSE = "dense", "sparse"


@dataclass(frozen=True)
class Block:
    """Neurons that are computed together. kind: "dense" or "sparse".

    `sources` are the neurons outside of the block that feed it, in the order of blocks and of
    their members (inputs first).
    """

    kind: str
    name: str
    members: tuple[Hashable, ...]
    sources: tuple[Hashable, ...]
    weights: int  # that exist

    @property
    def is_masked(self) -> bool:
        return self.kind == DENSE and self.weights < len(self.members) * len(self.sources)


def lift(wiring: Wiring) -> list[Block]:
    """Blocks in an order in which each comes after those that feed it."""
    groups = _groups(wiring)
    unit = {n: i for i, (_, members) in enumerate(groups) for n in members}
    stage = _stages(wiring, groups, unit)
    rank = {n: i for i, n in enumerate(wiring.outputs)}
    rest: dict[int, list[Hashable]] = {}
    for node in wiring.neurons:
        if node not in unit:
            rest.setdefault(stage[node], []).append(node)
    parts: list[tuple[int, int, int, str, list[Hashable]]] = []
    for kind, members in groups:
        first = members[0]
        parts.append((stage[first], 1, wiring.depth[first], kind, members))
    parts += [(number, 0, 0, SPARSE, members) for number, members in rest.items()]
    parts.sort(key=lambda p: (p[:3], [order(n) for n in p[4]][:1], p[3]))
    place: dict[Hashable, tuple[int, int]] = {n: (-1, i) for i, n in enumerate(wiring.given)}
    blocks: list[Block] = []
    numbers = {"layer": 0, "sparse": 0}
    for number, (*_, kind, nodes) in enumerate(parts):
        title = "sparse" if kind == SPARSE else "layer"
        numbers[title] += 1
        nodes.sort(key=order)
        if kind == SPARSE:
            nodes.sort(key=lambda n: wiring.neurons[n].text or "")
        # outputs last and in the user's order, so that they lie side by side
        nodes.sort(key=lambda n: (n in rank, rank.get(n, 0)))
        ordered = tuple(nodes)
        edges = [e for n in ordered for e in wiring.incoming[n]]
        own = set(ordered)
        sources = sorted({e.source for e in edges} - own, key=place.__getitem__)
        name = f"{title}{numbers[title]}"
        blocks.append(Block(kind, name, ordered, tuple(sources), len(edges)))
        place |= {n: (number, i) for i, n in enumerate(ordered)}
    return blocks


# --------------------------------------------------------------------------- groups


def _groups(wiring: Wiring) -> list[tuple[str, list[Hashable]]]:
    """(kind, members) of everything that is not sparse; members of one group have one depth."""
    alike: dict[object, list[Hashable]] = {}
    found: list[tuple[str, list[Hashable]]] = []
    for node in sorted(wiring.neurons, key=order):
        neuron, edges = wiring.neurons[node], wiring.incoming[node]
        if not edges or neuron.aggregation != "sum":
            continue
        if all(e.is_plain for e in edges) and len({e.terms for e in edges}) == 1:
            key = (frozenset(e.source for e in edges), neuron.key, edges[0].terms)
            alike.setdefault(key, []).append(node)
    exact = list(alike.values())
    grouped = sum(map(len, exact))
    few = len(exact) <= FEW_LAYERS and grouped == len(wiring.neurons)
    if few and _is_layered(wiring, exact):
        return [(DENSE, members) for members in exact]
    left: list[Hashable] = []
    for members in exact:
        if _is_large(len(members), len(members) * len(wiring.incoming[members[0]])):
            found.append((DENSE, members))
        else:
            left += members
    found += [(DENSE, members) for members in _nearly_dense(wiring, left)]
    return found


def _is_large(members: int, weights: int) -> bool:
    return weights >= DENSE_WEIGHTS and (members >= DENSE_MEMBERS or weights >= 4 * DENSE_WEIGHTS)


def _is_layered(wiring: Wiring, groups: Iterable[list[Hashable]]) -> bool:
    """Are all predecessors of every group whole groups (or all inputs)?"""
    owner: dict[Hashable, int] = dict.fromkeys(wiring.given, -1)
    size = {-1: len(wiring.given)}
    groups = list(groups)
    for number, members in enumerate(groups):
        owner |= dict.fromkeys(members, number)
        size[number] = len(members)
    for members in groups:
        sources = [e.source for e in wiring.incoming[members[0]]]
        if len(sources) != sum(size[k] for k in {owner[n] for n in sources}):
            return False
    return True


def _nearly_dense(wiring: Wiring, nodes: Iterable[Hashable]) -> list[list[Hashable]]:
    """Neurons of one depth and function whose weights nearly fill a matrix."""
    buckets: dict[object, list[Hashable]] = {}
    for node in nodes:
        terms = wiring.incoming[node][0].terms
        where = (wiring.depth[node], wiring.neurons[node].key, terms)
        buckets.setdefault(where, []).append(node)
    found = []
    for members in buckets.values():
        edges = [e for n in members for e in wiring.incoming[n]]
        size = len({e.source for e in edges}) * len(members)
        if len(members) >= MASKED_MEMBERS and len(edges) >= MASKED_SHARE * size:
            found.append(members)
    return found


def _stages(
    wiring: Wiring, groups: list[tuple[str, list[Hashable]]], unit: dict[Hashable, int]
) -> dict[Hashable, int]:
    """How many times computation has to change from groups back to single neurons before each."""
    stage: dict[Hashable, int] = dict.fromkeys(wiring.given, 0)
    by_depth = sorted(wiring.neurons, key=wiring.depth.__getitem__)
    needs: dict[int, int] = {}
    for _, nodes in groupby(by_depth, wiring.depth.__getitem__):
        level = list(nodes)
        for node in level:
            after = 0
            for edge in wiring.incoming[node]:
                grouped = edge.source in unit and node not in unit
                after = max(after, stage[edge.source] + grouped)
            if node in unit:
                needs[unit[node]] = max(after, needs.get(unit[node], 0))
            else:
                stage[node] = after
        for node in level:
            if node in unit:
                stage[node] = needs[unit[node]]
    return stage
