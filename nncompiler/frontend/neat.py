"""Takes a genome and configuration of neat-python, or a network it made, gives a graph of neurons.

Of genomes only attributes are read, so neat-python itself is not needed; networks hold functions,
which are looked up in its tables.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
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
SCALED = ("sum", "mean", "median", "maxabs")  # response * f(terms) = f(response * terms)
SWAPPED = {"max": "min", "min": "max"}  # ... but for a negative response


class Gene(NamedTuple):
    """A neuron, with the response multiplied into its weights."""

    key: Any
    activation: str
    aggregation: str
    bias: float
    sources: list[Any]
    weights: list[float]


class Settings(NamedTuple):
    """What neat-python says of a neuron."""

    activation: str
    aggregation: str
    bias: float
    response: float


def from_neat(genome: Any, config: Any = None, *, recurrent: bool = False) -> nx.DiGraph[Any]:
    """The graph of what `neat.nn.FeedForwardNetwork.create(genome, config)` computes; `recurrent`:
    of RecurrentNetwork, to be compiled with `recurrent=True`, where neurons see each other as they
    were at the time before, and those without connections give 0.

    `genome` may also be such a network, without a config: its class says whether it is recurrent,
    and its values so far are left out (the graph starts as after `reset()`).

    Nodes have neat-python's keys; a node's response is multiplied into its weights. CompileError
    for functions that have no counterpart (all but neat-python's own, in a network), and (when
    compiled) for cycles; TypeError for anything else than a genome with its config, or a network.
    """
    if hasattr(genome, "node_evals"):
        recurrent = _is_recurrent(genome, config, recurrent)
        inputs, outputs = genome.input_nodes, genome.output_nodes
        genes = list(_read_network(genome, recurrent))
    elif hasattr(genome, "connections") and config is not None:
        inputs, outputs = config.genome_config.input_keys, config.genome_config.output_keys
        genes = [gene for gene in read_genes(genome, config) if gene.sources or not recurrent]
    else:
        found = type(genome).__name__
        raise TypeError(f"a genome and its config, or a network of neat.nn, not {found} alone")
    return _graph(list(inputs), list(outputs), genes, recurrent)


def _graph(
    inputs: list[Any], outputs: list[Any], genes: list[Gene], recurrent: bool
) -> nx.DiGraph[Any]:
    g: nx.DiGraph[Any] = nx.DiGraph(inputs=inputs, outputs=outputs)
    g.add_nodes_from(inputs)
    for gene in genes:
        g.add_node(
            gene.key, activation=gene.activation, bias=gene.bias, aggregation=gene.aggregation
        )
    for key in [*outputs, *(source for gene in genes for source in gene.sources)]:
        if key not in g:  # never computed: neat-python leaves its 0
            g.add_node(key, bias=0.0, trainable=False)
    for gene in genes:
        for source, weight in zip(gene.sources, gene.weights, strict=True):
            g.add_edge(source, gene.key, weight=weight)
            if recurrent and source not in inputs:
                g.edges[source, gene.key]["delay"] = 1
    return g


def read_genes(genome: Any, config: Any) -> Iterator[Gene]:
    """The neurons that some output depends on, each once."""
    keys = config.genome_config
    incoming: dict[Any, list[Any]] = {}
    for connection in genome.connections.values():
        if connection.enabled:
            incoming.setdefault(connection.key[1], []).append(connection)

    def read(key: Any) -> Gene:
        connections = incoming.get(key, [])
        sources = [c.key[0] for c in connections]
        return _gene(key, genome.nodes[key], sources, [float(c.weight) for c in connections])

    return _needed(keys.input_keys, keys.output_keys, read)


def _needed(
    inputs: Sequence[Any], outputs: Sequence[Any], read: Callable[[Any], Gene | None]
) -> Iterator[Gene]:
    """What `read` gives of the outputs, and of all that they depend on."""
    found = set(outputs)
    waiting = list(outputs)
    known = frozenset(inputs)
    while waiting:
        gene = read(waiting.pop())
        if gene is not None:
            yield gene
            new = {s for s in gene.sources if s not in found and s not in known}
            found |= new
            waiting += new


# --------------------------------------------------------------------------- networks


def _is_recurrent(network: Any, config: Any, recurrent: bool) -> bool:
    """TypeError for what is no network of neat.nn, or goes with other arguments."""
    neat = importlib.import_module("neat")
    name = type(network).__name__
    if not isinstance(network, (neat.nn.FeedForwardNetwork, neat.nn.RecurrentNetwork)):
        raise TypeError(f"a FeedForwardNetwork or RecurrentNetwork of neat.nn, not {name}")
    found = isinstance(network, neat.nn.RecurrentNetwork)
    if config is not None:
        raise TypeError(f"a {name} is taken without a config")
    if recurrent and not found:
        raise TypeError(f"a {name} is not recurrent")
    return found


def _read_network(network: Any, recurrent: bool) -> Iterator[Gene]:
    """The neurons that some output depends on; those that are never computed are left out."""
    activations, aggregations = (
        {id(f): name for name, f in getattr(importlib.import_module(m), c)().functions.items()}
        for m, c in (
            ("neat.activations", "ActivationFunctionSet"),
            ("neat.aggregations", "AggregationFunctionSet"),
        )
    )
    evaluations = {evaluation[0]: evaluation for evaluation in network.node_evals}
    if not recurrent:
        _check_order(network.node_evals)

    def read(key: Any) -> Gene | None:
        if key not in evaluations:
            return None
        _, activation, aggregation, bias, response, links = evaluations[key]
        sources = [source for source, _ in links]
        if len(set(sources)) < len(sources):
            raise _fail(key, "has two connections from one neuron")
        settings = Settings(
            _own_name(key, activation, activations, "activation"),
            _own_name(key, aggregation, aggregations, "aggregation"),
            bias,
            response,
        )
        return _gene(key, settings, sources, [float(weight) for _, weight in links])

    return _needed(network.input_nodes, network.output_nodes, read)


def _check_order(evaluations: Sequence[Any]) -> None:
    """A neuron that reads a later one would get what that was at the call before."""
    position = {evaluation[0]: i for i, evaluation in enumerate(evaluations)}
    for i, (key, *_, links) in enumerate(evaluations):
        for source, _ in links:
            if position.get(source, -1) >= i:
                raise _fail(key, f"reads '{source}', which is evaluated later")


def _own_name(key: Any, function: Any, names: dict[int, str], kind: str) -> str:
    name = names.get(id(function))
    if name is None:
        called = getattr(function, "__name__", repr(function))
        raise _fail(key, f"its {kind} '{called}' is none of neat-python's own")
    return name


# --------------------------------------------------------------------------- one neuron


def _gene(key: Any, node: Any, sources: list[Any], weights: list[float]) -> Gene:
    activation = OURS.get(node.activation)
    if activation is None:
        raise _fail(key, f"neat-python's '{node.activation}' has no counterpart")
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
        raise _fail(key, f"neat-python's '{aggregation}' has no counterpart")
    return Gene(key, activation, aggregation, bias, sources, weights)


def _fail(key: Any, what: str) -> CompileError:
    return CompileError(f"neuron '{key}': {what}", node=str(key), stage="network")
