"""Takes a genome and configuration of neat-python, gives its network as a graph.

Only their attributes are read, so neat-python itself is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

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


class Gene(NamedTuple):
    """A neuron, with the response multiplied into its weights."""

    key: Any
    activation: str
    aggregation: str
    bias: float
    sources: list[Any]
    weights: list[float]


def from_neat(genome: Any, config: Any, *, recurrent: bool = False) -> nx.DiGraph[Any]:
    """The graph of what `neat.nn.FeedForwardNetwork.create(genome, config)` computes; `recurrent`:
    of RecurrentNetwork, to be compiled with `recurrent=True`, where neurons see each other as they
    were at the time before, and those without connections give 0.

    Nodes have neat-python's keys; a node's response is multiplied into its weights. CompileError
    for functions that have no counterpart, and (when compiled) for cycles.
    """
    keys = config.genome_config
    g: nx.DiGraph[Any] = nx.DiGraph(inputs=list(keys.input_keys), outputs=list(keys.output_keys))
    g.add_nodes_from(keys.input_keys)
    for gene in read_genes(genome, config):
        if recurrent and not gene.sources:
            g.add_node(gene.key, bias=0.0, trainable=False)
            continue
        g.add_node(
            gene.key, activation=gene.activation, bias=gene.bias, aggregation=gene.aggregation
        )
        for source, weight in zip(gene.sources, gene.weights, strict=True):
            g.add_edge(source, gene.key, weight=weight)
            if recurrent and source not in keys.input_keys:
                g.edges[source, gene.key]["delay"] = 1
    return g


def read_genes(genome: Any, config: Any) -> Iterator[Gene]:
    """The neurons that some output depends on, each once."""
    keys = config.genome_config
    inputs = frozenset(keys.input_keys)
    incoming: dict[Any, list[Any]] = {}
    for connection in genome.connections.values():
        if connection.enabled:
            incoming.setdefault(connection.key[1], []).append(connection)
    found = set(keys.output_keys)
    waiting = list(keys.output_keys)
    while waiting:
        key = waiting.pop()
        connections = incoming.get(key, [])
        sources = [c.key[0] for c in connections]
        yield _gene(key, genome.nodes[key], sources, [float(c.weight) for c in connections])
        new = {s for s in sources if s not in found and s not in inputs}
        found |= new
        waiting += new


def _gene(key: Any, node: Any, sources: list[Any], weights: list[float]) -> Gene:
    activation = OURS.get(node.activation)
    if activation is None:
        message = f"neuron '{key}': neat-python's '{node.activation}' has no counterpart"
        raise CompileError(message, node=str(key), stage="network")
    response, aggregation = float(node.response), str(node.aggregation)
    bias = float(node.bias)
    if aggregation == "product":
        if weights:
            weights[sources.index(min(sources, key=str))] *= response
        else:
            bias += response  # the product of nothing
    elif aggregation in SCALED or aggregation in SWAPPED:
        if response != 1.0:
            weights = [response * w for w in weights]
        if response < 0:
            aggregation = SWAPPED.get(aggregation, aggregation)
    else:
        message = f"neuron '{key}': neat-python's '{aggregation}' has no counterpart"
        raise CompileError(message, node=str(key), stage="network")
    return Gene(key, activation, aggregation, bias, sources, weights)
