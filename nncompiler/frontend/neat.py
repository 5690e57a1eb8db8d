"""Takes a genome and configuration of neat-python, gives its feed-forward network as a graph.

Only their attributes are read, so neat-python itself is not needed.
"""

from __future__ import annotations

from typing import Any

import networkx as nx

from nncompiler.errors import CompileError

# neat-python's names of functions, and ours where they differ.
OURS = {
    "sigmoid": "neat_sigmoid",
    "tanh": "neat_tanh",
    "sin": "neat_sin",
    "gauss": "neat_gauss",
    "softplus": "neat_softplus",
    "lelu": "neat_lelu",
    "identity": "linear",
    "clamped": "hard_tanh",
    "inv": "neat_inv",
    "log": "neat_log",
    "exp": "neat_exp",
    "relu": "relu",
    "elu": "elu",
    "selu": "selu",
    "abs": "abs",
    "hat": "hat",
    "square": "square",
    "cube": "cube",
}
SCALED = ("sum", "mean", "median")  # response * f(terms) = f(response * terms)
SWAPPED = {"max": "min", "min": "max"}  # ... but for a negative response


def from_neat(genome: Any, config: Any) -> nx.DiGraph[Any]:
    """The graph of what `neat.nn.FeedForwardNetwork.create(genome, config)` computes.

    Nodes have neat-python's keys; a node's response is multiplied into its weights. CompileError
    for functions that have no counterpart, and (when compiled) for cycles.
    """
    keys = config.genome_config
    edges = [c for c in genome.connections.values() if c.enabled]
    g: nx.DiGraph[Any] = nx.DiGraph(inputs=list(keys.input_keys), outputs=list(keys.output_keys))
    g.add_nodes_from(keys.input_keys)
    incoming: dict[Any, list[Any]] = {}
    for connection in edges:
        incoming.setdefault(connection.key[1], []).append(connection)
    for key in _required(keys, incoming):
        node = genome.nodes[key]
        _add(g, key, node, sorted(incoming.get(key, ()), key=lambda c: str(c.key)))
    return g


def _required(keys: Any, incoming: dict[Any, list[Any]]) -> list[Any]:
    """The nodes that some output depends on."""
    found = dict.fromkeys(keys.output_keys)
    waiting = list(found)
    while waiting:
        for connection in incoming.get(waiting.pop(), ()):
            source = connection.key[0]
            if source not in found and source not in keys.input_keys:
                found[source] = None
                waiting.append(source)
    return list(found)


def _add(g: nx.DiGraph[Any], key: Any, node: Any, connections: list[Any]) -> None:
    activation = OURS.get(node.activation)
    if activation is None:
        message = f"neuron '{key}': neat-python's '{node.activation}' has no counterpart"
        raise CompileError(message, node=str(key), stage="network")
    response, aggregation = float(node.response), str(node.aggregation)
    bias, weights = float(node.bias), [float(c.weight) for c in connections]
    if aggregation == "product":
        if weights:
            weights[0] *= response
        else:
            bias += response  # the product of nothing
    elif aggregation in SCALED or aggregation in SWAPPED:
        weights = [response * w for w in weights]
        if response < 0:
            aggregation = SWAPPED.get(aggregation, aggregation)
    else:
        message = f"neuron '{key}': neat-python's '{aggregation}' has no counterpart"
        raise CompileError(message, node=str(key), stage="network")
    g.add_node(key, activation=activation, bias=bias, aggregation=aggregation)
    for connection, weight in zip(connections, weights, strict=True):
        g.add_edge(connection.key[0], key, weight=weight)
