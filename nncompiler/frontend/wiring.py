"""Takes a networkx graph of neurons, gives its neurons and edges, checked.

    z = f(bias + sum over the predecessors of weight * z_j)

What a delayed edge brings is a source of its own, `Lagged(neuron, delay)`.

Neurons have `activation`, `bias`, `aggregation` (of weight * z_j: "sum"), edges `weight` and
`weight_name` (edges of one name share one weight); both have `trainable` and `regularizer`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ir.ops import formula
from ir.types import DType
from nncompiler.frontend.activations import ROW_WISE, make_activation
from nncompiler.frontend.delays import DELAY, Delays, Lagged, check_no_delays
from nncompiler.frontend.graphs import chosen_outputs, fail, needed_nodes, order
from nncompiler.frontend.names import suggest
from nncompiler.frontend.regularizers import Regularizer, make_regularizer

if TYPE_CHECKING:
    import networkx as nx

NODE = ("activation", "bias", "aggregation", "trainable", "regularizer")
EDGE = ("weight", "weight_name", "trainable", "regularizer", DELAY)
AGGREGATIONS = ("sum", "product", "min", "max", "mean", "median", "maxabs")
ALIASES = {"prod": "product"}
COMBINE = {
    "product": formula.PRODUCT,
    "min": formula.MIN,
    "max": formula.MAX,
    "median": formula.MEDIAN,
    "maxabs": formula.MAXABS,
}


@dataclass(frozen=True)
class Terms:
    """How a number is trained; numbers of equal terms may share one array."""

    trainable: bool = True
    regularizer: Regularizer | None = None

    @property
    def rank(self) -> tuple[bool, str]:
        """The order in which arrays of several terms are numbered."""
        return not self.trainable, repr(self.regularizer)


@dataclass(frozen=True)
class Neuron:
    node: Hashable
    activation: object
    key: object  # equal where the activation is the same function
    formula: str | None  # of (z, bias); None where it is no composition of elementwise functions
    aggregation: str
    bias: float
    terms: Terms

    @property
    def text(self) -> str | None:
        """The formula, and how its terms are combined: the mean is a sum of smaller weights."""
        way = COMBINE.get(self.aggregation, formula.SUM)
        return None if self.formula is None else formula.combined(way, self.formula)


class Edge(NamedTuple):
    """`weight` is NaN where it is to be drawn."""

    source: Hashable
    target: Hashable
    weight: float
    terms: Terms
    shared: str

    @property
    def name(self) -> str:
        source = self.source.neuron if isinstance(self.source, Lagged) else self.source
        return f"{source}->{self.target}"

    @property
    def is_plain(self) -> bool:
        return not self.shared


@dataclass(frozen=True)
class Wiring:
    """What takes part: inputs and outputs in the user's order, neurons, their incoming edges in the
    order of the sources' names, the length of the longest path to each, edges that leave, and the
    values of earlier times that edges bring."""

    inputs: tuple[Hashable, ...]
    outputs: tuple[Hashable, ...]
    neurons: dict[Hashable, Neuron]
    incoming: dict[Hashable, tuple[Edge, ...]]
    depth: dict[Hashable, int]
    leaving: dict[Hashable, int]
    lagged: tuple[Lagged, ...] = ()

    @property
    def given(self) -> tuple[Hashable, ...]:
        """What the neurons of one time are computed from."""
        return self.inputs + self.lagged


def read_wiring(
    graph: nx.DiGraph[Any],
    outputs: Sequence[Hashable] | None,
    dtype: DType,
    delays: Delays | None = None,
) -> Wiring:
    """CompileError naming the neuron for whatever is wrong. `delays` are of data with times."""
    if delays is None:
        check_no_delays(graph)
        delays = {}
    inputs, wanted = read_ends(graph, outputs, delays)
    _check_attributes(graph, set(inputs))
    neurons, incoming = {}, {}
    depth = dict.fromkeys(inputs, 0)
    leaving: dict[Hashable, int] = {}
    keys: dict[object, tuple[object, str | None]] = {}
    lagged: set[Lagged] = set()
    for node in needed_nodes(graph, wanted, delays):
        if node in depth:  # an input
            continue
        neurons[node] = _neuron(graph, node, keys, dtype)
        edges = []
        for u, _, data in graph.in_edges(node, data=True):
            delay = delays.get((u, node), 0)
            edges.append(_edge(Lagged(u, delay) if delay else u, node, data))
        incoming[node] = tuple(sorted(edges, key=lambda e: order(e.source)))
        found = {e.source for e in edges if isinstance(e.source, Lagged)}
        lagged |= found
        depth |= dict.fromkeys(found, 0)
        depth[node] = 1 + max((depth[e.source] for e in edges), default=0)
        for edge in edges:
            leaving[edge.source] = leaving.get(edge.source, 0) + 1
    past = tuple(sorted(lagged, key=lambda s: (s.delay, order(s.neuron))))
    return Wiring(tuple(inputs), tuple(wanted), neurons, incoming, depth, leaving, past)


def _neuron(
    graph: nx.DiGraph[Any],
    node: Hashable,
    keys: dict[object, tuple[object, str | None]],
    dtype: DType,
) -> Neuron:
    data = graph.nodes[node]
    activation = data.get("activation", "linear")
    known = activation if isinstance(activation, str) else id(activation)
    if known not in keys:
        keys[known] = _activation_key(node, activation, dtype)
    aggregation = str(data.get("aggregation", "sum"))
    aggregation = ALIASES.get(aggregation, aggregation)
    if aggregation not in AGGREGATIONS:
        hint = suggest(aggregation, AGGREGATIONS)
        raise fail(f"neuron '{node}': unknown aggregation '{aggregation}'", node=node, hint=hint)
    if not graph.in_degree(node):
        aggregation = "sum"  # of nothing
    terms = _terms(data, f"neuron '{node}'", node)
    bias = float(data.get("bias", 0.0))
    return Neuron(node, activation, *keys[known], aggregation, bias, terms)


def _edge(u: Hashable, v: Hashable, data: dict[str, Any]) -> Edge:
    terms = _terms(data, f"edge '{u}' -> '{v}'", v)
    shared = data.get("weight_name")
    return Edge(u, v, float(data.get("weight", math.nan)), terms, "" if shared is None else shared)


PLAIN = Terms()


def _terms(data: dict[str, Any], what: str, node: Hashable) -> Terms:
    if "trainable" not in data and "regularizer" not in data:
        return PLAIN
    trainable = data.get("trainable", True)
    if not isinstance(trainable, (bool, np.bool_)):
        raise fail(f"{what}: trainable is True or False, not {trainable!r}", node=node)
    try:
        regularizer = make_regularizer(data.get("regularizer"))
    except (ValueError, TypeError) as error:
        raise fail(f"{what}: {error}", node=node) from error
    return Terms(bool(trainable), regularizer)


def _activation_key(node: Hashable, activation: object, dtype: DType) -> tuple[object, str | None]:
    try:
        name, function = make_activation(activation)
    except (ValueError, TypeError) as error:
        raise fail(f"neuron '{node}': {error}", node=node) from error
    if name in ROW_WISE:
        hint = f"use a layer graph, or the loss on the scores before {name}"
        raise fail(f"neuron '{node}': {name} is not a function of one neuron", node=node, hint=hint)
    try:
        text = formula.trace(lambda z, bias: function(z + bias), extras=1, dtype=dtype)
    except (ValueError, TypeError):
        return activation, None
    return text, text


# --------------------------------------------------------------------------- inputs, outputs


def read_ends(
    graph: nx.DiGraph[Any],
    outputs: Sequence[Hashable] | Hashable | None,
    delays: Delays = MappingProxyType({}),
) -> tuple[list[Hashable], list[Hashable]]:
    """(inputs, outputs) in the user's order; CompileError where a chosen one cannot be."""
    return _inputs(graph), _outputs(graph, outputs, delays)


def _inputs(graph: nx.DiGraph[Any]) -> list[Hashable]:
    sources = [n for n in graph if graph.in_degree(n) == 0]
    chosen = graph.graph.get("inputs")
    if chosen is None:
        return sources
    by_name = {str(n): n for n in graph}
    for name in chosen:
        if str(name) not in by_name:
            raise fail(f"the input '{name}' is not a node", hint=suggest(name, by_name))
    inputs = [by_name[str(n)] for n in chosen]
    if len(set(inputs)) < len(inputs):
        raise fail(f"an input is named twice in graph['inputs']: {list(chosen)}")
    for node in inputs:
        if graph.in_degree(node):
            raise fail(f"the input neuron '{node}' has predecessors", node=node)
    for node in sources:
        if node not in set(inputs) and not graph.nodes[node]:
            hint = "add it to graph['inputs'], or give it a predecessor or a bias"
            raise fail(f"neuron '{node}' has no predecessors", node=node, hint=hint)
    return inputs


def _outputs(
    graph: nx.DiGraph[Any], outputs: Sequence[Hashable] | Hashable | None, delays: Delays
) -> list[Hashable]:
    """Where no neuron is without successors, those are outputs that all see at a later time."""
    chosen = chosen_outputs(graph, outputs)
    if chosen is not None:
        return chosen
    ends = [n for n in graph if graph.out_degree(n) == 0]
    return ends or [n for n in graph if all((n, v) in delays for v in graph.successors(n))]


# --------------------------------------------------------------------------- attributes


def _check_attributes(graph: nx.DiGraph[Any], inputs: set[Hashable]) -> None:
    for node, attributes in graph.nodes(data=True):
        for name in attributes:
            if name not in NODE:
                hint = suggest(name, NODE)
                raise fail(f"neuron '{node}' has no attribute '{name}'", node=node, hint=hint)
            if node in inputs:
                message = f"the input neuron '{node}' has no {name}: it only brings data"
                raise fail(message, node=node)
        if "bias" in attributes:
            _number(attributes["bias"], f"the bias of '{node}'", node)
    for u, v, attributes in graph.edges(data=True):
        for name in attributes:
            if name not in EDGE:
                message = f"edge '{u}' -> '{v}' has no attribute '{name}'"
                raise fail(message, node=v, hint=suggest(name, EDGE))
        if "weight" in attributes:
            _number(attributes["weight"], f"the weight of '{u}' -> '{v}'", v)
        if not isinstance(attributes.get("weight_name", ""), str):
            raise fail(f"the weight_name of '{u}' -> '{v}' is no text", node=v)
    if graph.is_multigraph():
        for u, v in graph.edges():
            if graph.number_of_edges(u, v) > 1:
                raise fail(f"two edges '{u}' -> '{v}'", node=v)


def _number(value: Any, what: str, node: Hashable) -> None:
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value[()]  # as a model's parameters are
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise fail(f"{what} is not a number: {value!r}", node=node)
    if not np.isfinite(value):
        raise fail(f"{what} is not finite: {value!r}", node=node)
