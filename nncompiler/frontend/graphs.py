"""Takes a networkx graph, gives errors for what no network may have, its outputs, and its order.

networkx takes as long to import as NumPy, so it is not loaded before there is a graph.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from nncompiler.errors import CompileError
from nncompiler.frontend.names import suggest

if TYPE_CHECKING:
    import networkx as nx

STAGE = "network"


def fail(message: str, *, node: Hashable = "", hint: str = "") -> CompileError:
    return CompileError(message, node=str(node), stage=STAGE, hint=hint)


def check_directed(graph: object) -> None:
    """TypeError for what is no graph of networkx; CompileError for an undirected or empty one."""
    import networkx as nx

    if not isinstance(graph, nx.Graph):
        raise TypeError(f"a network is a networkx.DiGraph, not {type(graph).__name__}")
    if not graph.is_directed():
        raise fail("a network is a directed graph, this one is undirected", hint="use nx.DiGraph")
    if not graph:
        raise fail("the graph has no nodes")


def check_names(graph: nx.DiGraph[Any]) -> None:
    """CompileError where two nodes read the same, as 1 and "1" do."""
    seen: dict[str, Hashable] = {}
    for node in graph:
        name = str(node)
        if name in seen:
            raise fail(f"duplicate name '{name}': nodes {seen[name]!r} and {node!r}", node=name)
        if not name:
            raise fail("a node's name is empty")
        seen[name] = node


def check_acyclic(graph: nx.DiGraph[Any], hint: str = "remove one of its edges") -> None:
    """CompileError that names the cycle, if there is one."""
    import networkx as nx

    if nx.is_directed_acyclic_graph(graph):
        return
    edges = nx.find_cycle(graph)
    path = [str(edge[0]) for edge in edges]
    text = " -> ".join([*path, path[0]])
    raise fail(f"the graph has a cycle: {text}", node=path[0], hint=hint)


def output_nodes(
    graph: nx.DiGraph[Any], outputs: Sequence[Hashable] | Hashable | None
) -> list[Hashable]:
    """The nodes that the user chose as outputs, else all sinks, in the graph's order.

    CompileError where a layer has neither predecessors nor successors.
    """
    chosen = chosen_outputs(graph, outputs)
    if chosen is not None:
        return chosen
    lonely = [n for n in graph if graph.degree(n) == 0]
    if lonely and len(graph) > 1:
        raise fail(f"node '{lonely[0]}' is not connected to anything", node=lonely[0])
    return [n for n in graph if graph.out_degree(n) == 0]


def chosen_outputs(
    graph: nx.DiGraph[Any], outputs: Sequence[Hashable] | Hashable | None
) -> list[Hashable] | None:
    """The nodes of these names, or of graph.graph["outputs"]; None where there are neither."""
    if outputs is None:
        outputs = graph.graph.get("outputs")
    if outputs is None:
        return None
    chosen = [outputs] if isinstance(outputs, str) else list(cast(Iterable[Hashable], outputs))
    by_name = {str(n): n for n in graph}
    for name in chosen:
        if str(name) not in by_name:
            raise fail(f"the output '{name}' is not a node", hint=suggest(name, by_name))
    if not chosen or len({str(n) for n in chosen}) < len(chosen):
        raise fail(f"outputs have to be different nodes, at least one: {chosen}")
    return [by_name[str(n)] for n in chosen]


def order(node: Hashable) -> tuple[int, int, str]:
    """Where a neuron stands among others, whatever the order in which they were added."""
    if isinstance(node, int) and not isinstance(node, bool):
        return 0, node, ""
    return 1, 0, str(node)


def needed_nodes(
    graph: nx.DiGraph[Any],
    wanted: Iterable[Hashable],
    delayed: Collection[tuple[Hashable, Hashable]] = (),
) -> list[Hashable]:
    """The wanted nodes and all that they depend on, every one after its predecessors (but for the
    ends of delayed edges)."""
    import networkx as nx

    needed = set(wanted)
    waiting = list(needed)
    while waiting:
        found = set(graph.predecessors(waiting.pop())) - needed
        waiting.extend(found)
        needed |= found
    if delayed:
        now = nx.DiGraph()
        now.add_nodes_from(graph)
        now.add_edges_from(edge for edge in graph.edges() if edge not in delayed)
        graph = now
    return [node for node in nx.topological_sort(graph) if node in needed]
