"""Takes a graph and arrays, gives what NumPy computes: the reference of every test.

Values are computed in the node's own dtype. Symbols are bound by the shapes of the inputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ir.graph import Body, Graph, Node, bind_attrs, topological
from ir.types import Extent, TupleType, bind_dim

Array = np.ndarray[Any, Any]


def run_graph(graph: Graph, inputs: Mapping[str, Any]) -> dict[str, Array]:
    """The graph's outputs for the inputs by id; ValueError where an input is missing or wrong."""
    roots = graph.outputs.values()
    values = _run(graph.nodes, graph.inputs, inputs, keep=set(roots))
    return {name: np.array(values[node], order="C") for name, node in graph.outputs.items()}


def run_nodes(
    roots: Iterable[Node], inputs: Mapping[str, Any], *, keep_all: bool = False
) -> dict[Node, Array]:
    """The values of nodes (with `keep_all`, of everything that they depend on)."""
    wanted = list(roots)
    nodes = topological(wanted)
    leaves = [n for n in nodes if n.op.name == "input"]
    return _run(nodes, leaves, inputs, keep=set(nodes if keep_all else wanted))


def run_body(body: Body, arrays: Iterable[Array]) -> tuple[Array, ...]:
    """The outputs of one step of a scan for arrays in the order of the body's inputs."""
    ids = {n.attrs["id"]: a for n, a in zip(body.inputs, arrays, strict=True)}
    values = _run(body.graph.nodes, body.inputs, ids, keep=set(body.outputs))
    return tuple(values[n] for n in body.outputs)


def evaluate(node: Node, inputs: Mapping[str, Any] | None = None) -> Array:
    """The value of one node."""
    return run_nodes([node], inputs or {})[node]


def bind_inputs(
    leaves: Iterable[Node], inputs: Mapping[str, Any]
) -> tuple[dict[Node, Array], dict[str, int]]:
    """The arrays of the input nodes, in their dtype, and the symbols that their shapes bind."""
    values: dict[Node, Array] = {}
    symbols: dict[str, int] = {}
    for leaf in leaves:
        name = leaf.attrs["id"]
        if name not in inputs:
            raise ValueError(f"input '{name}' ({leaf.type}) is missing")
        array = np.asarray(inputs[name])
        if array.dtype != leaf.dtype.numpy and not np.can_cast(
            array.dtype, leaf.dtype.numpy, "same_kind"
        ):
            raise TypeError(f"input '{name}' is {array.dtype}, the graph takes {leaf.type}")
        if not _fits(array.shape, leaf.shape, symbols):
            bound = ", ".join(f"{s} = {n}" for s, n in symbols.items())
            raise ValueError(
                f"input '{name}' has shape {array.shape}, the graph takes {leaf.type}"
                + (f" with {bound}" if bound else "")
            )
        values[leaf] = array.astype(leaf.dtype.numpy, copy=False)
    return values, symbols


def _fits(shape: tuple[int, ...], dims: tuple[Any, ...], symbols: dict[str, int]) -> bool:
    if len(shape) != len(dims):
        return False
    for size, dim in zip(shape, dims, strict=True):
        if isinstance(dim, Extent) and size % dim.coefficient == 0:
            symbols.setdefault(dim.symbol, size // dim.coefficient)
        elif isinstance(dim, Extent):
            return False
        if size != bind_dim(dim, symbols):
            return False
    return True


def _run(
    nodes: Iterable[Node], leaves: Iterable[Node], inputs: Mapping[str, Any], keep: set[Node]
) -> dict[Node, Array]:
    order = tuple(nodes)
    values, symbols = bind_inputs(leaves, inputs)
    uses = Counter(i for node in order for i in node.inputs)
    with np.errstate(all="ignore"):
        for node in order:
            if node not in values:
                values[node] = evaluate_node(node, [values[i] for i in node.inputs], symbols)
            for i in node.inputs:
                uses[i] -= 1
                if uses[i] == 0 and i not in keep:
                    values.pop(i)
    return {n: v for n, v in values.items() if n in keep}


def evaluate_node(node: Node, arrays: Iterable[Array], symbols: Mapping[str, int]) -> Array:
    """One op's reference on arrays, its extents bound to numbers."""
    try:
        attrs = {name: bind_attrs(value, symbols) for name, value in node.attrs.items()}
    except KeyError as missing:
        raise ValueError(f"symbol {missing} of {node!r} is not bound by any input") from None
    if isinstance(node.type, TupleType):
        results: Any = node.op.evaluate(*arrays, **attrs)
        return results  # type: ignore[no-any-return]
    value = np.asarray(node.op.evaluate(*arrays, **attrs))
    expected = tuple(bind_dim(d, symbols) for d in node.shape)
    if value.dtype != node.dtype.numpy or value.shape != expected:
        raise AssertionError(
            f"{node!r} gave {value.dtype}{value.shape}, not {node.dtype}{expected}"
        )
    return value
