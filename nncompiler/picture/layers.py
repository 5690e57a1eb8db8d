"""Takes a network of layers (or the layers found among neurons), gives boxes and links."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ir.interpret import run_nodes
from nncompiler.frontend.lifting import DENSE, SPARSE
from nncompiler.frontend.site import Layer
from nncompiler.picture.boxes import Array, Box, Link
from nncompiler.picture.neurons import Scene, activation_of
from nncompiler.picture.ranks import ranks_of

if TYPE_CHECKING:
    from nncompiler.model import Model

MANY_VALUES = 4096  # of a layer, above which the strip shows the first ones


def layer_values(model: Model, x: Mapping[str, Any]) -> dict[str, Array]:
    """What every layer gives for one example, by its name, flat."""
    built = model.blueprint.objective.inference
    named = {name: node for node, name in built.names.items() if node.dtype.is_float}
    found = run_nodes(named.values(), {**model.state, **x})
    values = {name: found[node].reshape(-1)[:MANY_VALUES] for name, node in named.items()}
    return values | {n: v.reshape(-1) for n, v in x.items() if v.dtype.kind == "f"}


def boxes_of_layers(model: Model, values: Mapping[str, Array]) -> tuple[list[Box], list[Link]]:
    """A box per node of the user's graph, in its order."""
    graph = model.source
    ranks = ranks_of(graph)
    parts = [part.blueprint for part in (*model.objectives.values(), model)]
    layers = {layer.name: layer for b in parts for layer in b.objective.training.layers}
    known = [*dict.fromkeys(name for b in parts for name in b.network.parameters)]
    boxes = []
    for node, data in graph.nodes(data=True):
        layer = layers.get(str(node))
        owner = str(data.get("share") or node)
        own = {p: model.state[p] for p in known if p.startswith(f"{owner}.")}
        value = values.get(str(node))
        boxes.append(_layer_box(str(node), ranks[node], data, layer, own, value))
    links = [
        Link(
            str(u), str(v), f"{u} -> {v}" + (f": {layers[str(u)].type}" if str(u) in layers else "")
        )
        for u, v in dict.fromkeys(graph.edges())
    ]
    return boxes, links


def _layer_box(
    name: str,
    rank: int,
    data: Mapping[str, Any],
    layer: Layer | None,
    parameters: Mapping[str, Array],
    values: Array | None,
) -> Box:
    head = str(data["op"])
    activation = data.get("activation")
    if isinstance(activation, str):
        head += f", {activation}"
    if layer is None:
        return Box(name, rank, name, (head, "takes no part"), f"{name}: takes no part", quiet=True)
    count = sum(array.size for array in parameters.values())
    lines = [head, str(layer.type)]
    if count:
        lines.append(f"{count:,} parameters")
    tip = [f"{name}: {head}, {layer.type}"]
    tip += [f"{p} {array.shape}" for p, array in parameters.items()]
    weights = [a for p, a in parameters.items() if p.endswith(".weight") and a.ndim > 1]
    matrix = weights[0].reshape(weights[0].shape[0], -1) if weights else None
    return Box(name, rank, name, tuple(lines), "\n".join(tip), matrix, values)


def boxes_of_blocks(model: Model, scene: Scene) -> tuple[list[Box], list[Link]]:
    """A box for the inputs and for every block of neurons; links tell how many edges they are."""
    import networkx as nx

    names: dict[Hashable, str] = dict.fromkeys(scene.inputs, "inputs")
    names |= {n: b.name for b in scene.blocks for n in b.members}
    counts: dict[tuple[str, str], int] = {}
    for u, v in scene.numbers:
        pair = names[u], names[v]
        if pair[0] != pair[1]:
            counts[pair] = counts.get(pair, 0) + 1
    graph = nx.DiGraph()
    graph.add_nodes_from(["inputs", *(b.name for b in scene.blocks)])
    graph.add_edges_from(counts)
    ranks = ranks_of(graph)

    def values_of(nodes: Any) -> Array | None:
        return np.asarray([scene.values[n] for n in nodes]) if scene.values else None

    boxes = [
        Box(
            "inputs",
            ranks["inputs"],
            "inputs",
            (f"{len(scene.inputs)} neurons",),
            f"inputs: {len(scene.inputs)} neurons",
            values=values_of(scene.inputs),
        )
    ]
    for block in scene.blocks:
        kind = "edge by edge"
        if block.kind != SPARSE:
            kind = activation_of(scene.graph, block.members[0])
            kind = kind if block.kind == DENSE else f"{block.kind}, {kind}"
        lines = (f"{len(block.members):,} neurons, {kind}", f"{block.weights:,} weights")
        weight = f"{block.name}.weight"
        matrix = model.state.get(weight)
        matrix = matrix if matrix is not None and matrix.ndim == 2 else None
        tip = f"{block.name}: {lines[0]}, {lines[1]}"
        boxes.append(
            Box(
                block.name,
                ranks[block.name],
                block.name,
                lines,
                tip,
                matrix,
                values_of(block.members),
            )
        )
    most = max(counts.values(), default=1)
    links = [
        Link(u, v, f"{u} -> {v}: {count:,} edges", 1.0 + 4.0 * (count / most) ** 0.5)
        for (u, v), count in sorted(counts.items())
    ]
    return boxes, links
