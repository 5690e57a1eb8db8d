"""Takes a graph, gives a networkx.DiGraph of its nodes, or a DOT picture of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ir.graph import Graph
from ir.op import Lowering

if TYPE_CHECKING:
    import networkx as nx

COLOURS = {
    Lowering.LEAF: "lightgrey",
    Lowering.MAP: "white",
    Lowering.VIEW: "lightcyan",
    Lowering.REDUCE: "moccasin",
    Lowering.CONTRACT: "lightsalmon",
    Lowering.GATHER: "palegreen",
    Lowering.SCATTER: "palegreen",
    Lowering.SPARSE: "lightsalmon",
    Lowering.SCAN: "gold",
    Lowering.ITEM: "lemonchiffon",
    Lowering.FOLD: "lightcyan",
}


def to_networkx(graph: Graph) -> nx.DiGraph:
    """One networkx node per value, numbered in topological order, edges from operand to user.

    Node attributes: op, attrs, dtype, shape, name (the user's, or None), input, outputs. Edge
    attribute `slots`: the operand positions that the edge feeds (x * x is one edge, slots 0 and 1).
    """
    import networkx as nx

    result = nx.DiGraph(name=graph.name)
    number = {node: i for i, node in enumerate(graph.nodes)}
    for node, i in number.items():
        result.add_node(
            i,
            op=node.op.name,
            attrs=dict(node.attrs),
            dtype=str(node.dtype),
            shape=tuple(d if isinstance(d, int) else str(d) for d in node.shape),
            name=graph.name_of(node),
            input=node.attrs["id"] if node in graph.inputs else None,
            outputs=[k for k, n in graph.outputs.items() if n is node],
        )
        for operand in dict.fromkeys(node.inputs):
            slots = tuple(s for s, n in enumerate(node.inputs) if n is operand)
            result.add_edge(number[operand], i, slots=slots)
    return result


def to_dot(graph: Graph) -> str:
    """A picture of the graph in the DOT language of Graphviz."""
    number = {node: i for i, node in enumerate(graph.nodes)}
    lines = [f"digraph {_quoted(graph.name)} {{", "  node [shape=box, style=filled];"]
    for node, i in number.items():
        title = graph.name_of(node) or node.attrs.get("id")
        label = "\n".join([*([str(title)] if title else []), node.op.name, str(node.type)])
        colour = COLOURS[node.op.lowering]
        lines.append(f"  n{i} [label={_quoted(label)}, fillcolor={colour}];")
        lines += [f"  n{number[operand]} -> n{i};" for operand in node.inputs]
    for position, (name, node) in enumerate(graph.outputs.items()):
        lines.append(f"  o{position} [label={_quoted(name)}, shape=ellipse];")
        lines.append(f"  n{number[node]} -> o{position};")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    """A DOT string; Graphviz reads UTF-8, not the escapes of JSON."""
    return json.dumps(text, ensure_ascii=False)
