"""Takes a networkx graph, gives errors for what no network may have, and its outputs."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, cast

import networkx as nx

from nncompiler.errors import CompileError
from nncompiler.frontend.names import suggest

STAGE = "network"


def fail(message: str, *, node: Hashable = "", hint: str = "") -> CompileError:
    return CompileError(message, node=str(node), stage=STAGE, hint=hint)


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


def check_acyclic(graph: nx.DiGraph[Any]) -> None:
    """CompileError that names the cycle, if there is one."""
    if nx.is_directed_acyclic_graph(graph):
        return
    edges = nx.find_cycle(graph)
    path = [str(edge[0]) for edge in edges]
    text = " -> ".join([*path, path[0]])
    raise fail(f"the graph has a cycle: {text}", node=path[0], hint="remove one of its edges")


def output_nodes(
    graph: nx.DiGraph[Any], outputs: Sequence[Hashable] | Hashable | None
) -> list[Hashable]:
    """The nodes that the user chose as outputs, else all sinks, in the graph's order."""
    if outputs is None:
        outputs = graph.graph.get("outputs")
    if outputs is None:
        lonely = [n for n in graph if graph.degree(n) == 0]
        if lonely and len(graph) > 1:
            raise fail(f"node '{lonely[0]}' is not connected to anything", node=lonely[0])
        return [n for n in graph if graph.out_degree(n) == 0]
    chosen = [outputs] if isinstance(outputs, str) else list(cast(Iterable[Hashable], outputs))
    by_name = {str(n): n for n in graph}
    for name in chosen:
        if str(name) not in by_name:
            raise fail(f"the output '{name}' is not a node", hint=suggest(name, by_name))
    if not chosen or len({str(n) for n in chosen}) < len(chosen):
        raise fail(f"outputs have to be different nodes, at least one: {chosen}")
    return [by_name[str(n)] for n in chosen]
