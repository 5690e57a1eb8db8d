"""Takes a graph of neurons that may have cycles, gives the delay of every edge in steps of time.

    x -> h -> y,  y -> h      the edge back to h closes the cycle: h sees y as it was a step before

An edge is delayed by what its attribute `delay` says. Of the others, those that close a cycle are
delayed by one step: the edges back to a neuron on the way by which a walk came, where the walk
starts from the inputs, goes to the end of every way before the next, and takes neurons in the order
of their names. Where a cycle can be entered at one neuron only, that is the edge back to it,
whatever the names are; the order in which nodes and edges were added never counts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from nncompiler.frontend.graphs import fail, order

if TYPE_CHECKING:
    import networkx as nx

DELAY = "delay"


class Lagged(NamedTuple):
    """What a neuron gave `delay` steps before; 0 before the first step."""

    neuron: Hashable
    delay: int

    def __str__(self) -> str:
        return f"{self.neuron}[t-{self.delay}]"


Delays = Mapping[tuple[Hashable, Hashable], int]


def check_no_delays(graph: nx.DiGraph[Any]) -> None:
    """CompileError where an edge is delayed although data have no time."""
    for u, v, data in graph.edges(data=True):
        if data.get(DELAY):
            hint = "compile(graph, recurrent=True) takes data (batch, time, inputs)"
            raise fail(f"edge '{u}' -> '{v}' has a delay", node=v, hint=hint)


def find_delays(graph: nx.DiGraph[Any]) -> dict[tuple[Hashable, Hashable], int]:
    """The delay of every edge that has one; without them there is no cycle.

    CompileError for a delay that is no whole number from 0 on, and for a cycle of edges whose
    `delay` is 0.
    """
    found: dict[tuple[Hashable, Hashable], int] = {}
    fixed = set()
    for u, v, data in graph.edges(data=True):
        delay = data.get(DELAY)
        if delay is None:
            continue
        if isinstance(delay, bool) or not isinstance(delay, int) or delay < 0:
            raise fail(f"the delay of '{u}' -> '{v}' is no whole number: {delay!r}", node=v)
        if delay:
            found[u, v] = delay
        else:
            fixed.add((u, v))
    for edge in _closing(graph, found):
        if edge in fixed:
            raise fail(f"edge '{edge[0]}' -> '{edge[1]}' closes a cycle: delay=0", node=edge[1])
        found[edge] = 1
    return found


def _closing(graph: nx.DiGraph[Any], known: Delays) -> list[tuple[Hashable, Hashable]]:
    """The edges, of those without a delay, by which a walk comes back to its own way."""
    following: dict[Hashable, list[Hashable]] = {}
    for node in graph:
        ways = {v for v in graph.successors(node) if (node, v) not in known}
        following[node] = sorted(ways, key=order)
    closing = []
    on_way: set[Hashable] = set()
    done: set[Hashable] = set()
    for start in _starts(graph):
        if start in done:
            continue
        way: list[tuple[Hashable, Iterator[Hashable]]] = [(start, iter(following[start]))]
        on_way.add(start)
        while way:
            node, ahead = way[-1]
            after = next((v for v in ahead), None)
            if after is None:
                way.pop()
                on_way.discard(node)
                done.add(node)
            elif after in on_way:
                closing.append((node, after))
            elif after not in done:
                on_way.add(after)
                way.append((after, iter(following[after])))
    return closing


def _starts(graph: nx.DiGraph[Any]) -> list[Hashable]:
    """Inputs first, then the other neurons without predecessors, then the rest."""
    chosen = {str(n) for n in graph.graph.get("inputs", ())}
    return sorted(graph, key=lambda n: (str(n) not in chosen, graph.in_degree(n) > 0, order(n)))
