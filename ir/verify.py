"""Takes a graph, gives nothing; ValueError naming the node where the graph is not well formed."""

from __future__ import annotations

from ir.graph import Graph, Node, make
from ir.op import REGISTRY, Lowering


def verify_graph(graph: Graph) -> None:
    """Check that every node is interned and typed by its op's rule, and the interface complete.

    Inputs must be distinct input nodes with distinct ids; every input node that an output needs
    must be among them, and the symbols of all shapes must stand in the shape of an input.
    """
    _verify_inputs(graph)
    for node in graph.nodes:
        _verify_node(graph, node)
    if not graph.outputs:
        raise ValueError(f"graph '{graph.name}' has no outputs")


def _verify_inputs(graph: Graph) -> None:
    ids: dict[str, Node] = {}
    for node in graph.inputs:
        if node.op.name != "input":
            raise ValueError(f"graph '{graph.name}': {_title(graph, node)} is not an input node")
        if node.attrs["id"] in ids:
            raise ValueError(f"graph '{graph.name}': two inputs have the id '{node.attrs['id']}'")
        ids[node.attrs["id"]] = node
    for node in graph.nodes:
        if node.op.name == "input" and ids.get(node.attrs["id"]) is not node:
            raise ValueError(
                f"graph '{graph.name}' reads {_title(graph, node)}, which is not among its inputs"
            )
    bound = {s for node in graph.inputs for s in node.type.symbols}
    for node in graph.nodes:
        if not node.type.symbols <= bound:
            raise ValueError(
                f"graph '{graph.name}': no input binds the symbol of {_title(graph, node)}"
            )


def _verify_node(graph: Graph, node: Node) -> None:
    if REGISTRY.get(node.op.name) is not node.op:
        raise ValueError(f"graph '{graph.name}': unknown op '{node.op.name}'")
    expected = node.op.type_rule(*(i.type for i in node.inputs), **node.attrs)
    if expected != node.type:
        raise ValueError(
            f"graph '{graph.name}': {_title(graph, node)} has type {node.type}, "
            f"its op gives {expected}"
        )
    if node.op.lowering is Lowering.SCAN:
        verify_graph(node.attrs["body"].graph)
    if make(node.op, *node.inputs, **node.attrs) is not node:
        raise ValueError(f"graph '{graph.name}': {_title(graph, node)} is not interned")


def _title(graph: Graph, node: Node) -> str:
    name = graph.name_of(node) or node.attrs.get("id")
    return f"'{name}' ({node.op.name} {node.type})" if name else repr(node)
