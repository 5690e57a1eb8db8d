"""Takes a graph of single neurons, gives a Network of dense layers.

A neuron computes z = f(bias + sum over its predecessors of weight * z_j). Neurons that share their
predecessors and their function are one dense layer (laboratory text, sources.md E):

    x1, x2 -> h1, h2 (relu) -> y (linear)     ->     layer1: (2, 2) relu     layer2: (2, 1) linear

A layer's predecessors have to be whole layers (or all inputs): the fully connected form.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from ir import ops
from ir.graph import Node
from ir.types import DType
from nncompiler.errors import CompileError
from nncompiler.frontend.activations import ROW_WISE, make_activation
from nncompiler.frontend.graphs import fail, output_nodes
from nncompiler.frontend.initializers import Array, Fans, Initializer
from nncompiler.frontend.layers import activate
from nncompiler.frontend.names import suggest
from nncompiler.frontend.site import Built, Layer, Network, Program, Site, View

INPUT, OUTPUT = "inputs", "outputs"
ATTRIBUTES = ("activation", "bias")


@dataclass(frozen=True)
class Group:
    """Neurons that become one dense layer; `sources` are the neurons that feed each of them."""

    name: str
    members: tuple[Hashable, ...]
    sources: tuple[Hashable, ...]
    parts: tuple[str, ...]  # the groups (or the inputs) that make up `sources`
    activation: object


@dataclass(frozen=True, eq=False)
class PartlyGiven:
    """The weights that the graph gives; the others (NaN) are drawn.

    They are drawn for the neurons in the order of their names, so that the order in which nodes
    and edges were added changes nothing.
    """

    given: Array
    rows: tuple[int, ...]  # the position of every row in the sorted order
    columns: tuple[int, ...]
    initializer: Initializer

    def draw(
        self, rng: np.random.Generator, shape: Sequence[int], fans: Fans, dtype: DType
    ) -> Array:
        given = self.given.astype(dtype.numpy)
        if not np.isnan(given).any():
            return given
        drawn = self.initializer.draw(rng, shape, fans, dtype)
        return np.where(np.isnan(given), drawn[np.ix_(self.rows, self.columns)], given)


def read_neurons(
    graph: nx.DiGraph[Any],
    *,
    dtype: DType,
    outputs: Sequence[Hashable] | None,
    initializer: Initializer,
) -> Network:
    """The network of a neuron graph; data are (batch, inputs) -> (batch, outputs).

    Raises CompileError naming the neuron where the graph is not of fully connected form.
    """
    inputs = _input_nodes(graph)
    wanted = output_nodes(graph, outputs)
    _check_attributes(graph, inputs)
    for node in wanted:
        if node in inputs:
            raise fail(f"the output '{node}' is an input neuron", node=node)
    needed = set(wanted).union(*(nx.ancestors(graph, n) for n in wanted)) - set(inputs)
    groups = _group(graph, inputs, needed, wanted)

    def run(training: bool) -> tuple[Program, Built]:
        program = Program(dtype, training, initializer)
        site = Site(program, INPUT, INPUT, False, "input")
        values = {INPUT: site.input(("batch", len(inputs)), dtype)}
        for group in groups:
            values[group.name] = _build_group(program, graph, group, values, initializer)
        result = _collect(groups, wanted, values)
        program.names.setdefault(result, OUTPUT)
        ends = {OUTPUT: program.ends[result]} if result in program.ends else {}
        return program, Built(
            {OUTPUT: result}, dict(program.names), {}, ends, tuple(program.layers)
        )

    program, _ = run(False)
    return Network(
        dtype=dtype,
        inputs=program.inputs,
        parameters=program.parameters,
        states={},
        build=lambda training: run(training)[1],
        views=_views(groups),
    )


def _input_nodes(graph: nx.DiGraph[Any]) -> list[Hashable]:
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
        if node not in inputs:
            hint = "add it to graph['inputs'] or give it a predecessor"
            raise fail(f"neuron '{node}' has no predecessors", node=node, hint=hint)
    return inputs


def _check_attributes(graph: nx.DiGraph[Any], inputs: Sequence[Hashable]) -> None:
    for node, attributes in graph.nodes(data=True):
        for name in attributes:
            if name not in ATTRIBUTES:
                hint = suggest(name, ATTRIBUTES)
                raise fail(f"neuron '{node}' has no attribute '{name}'", node=node, hint=hint)
            if node in inputs:
                message = f"the input neuron '{node}' has no {name}: it only brings data"
                raise fail(message, node=node)
        if "bias" in attributes:
            _number(attributes["bias"], f"the bias of '{node}'", node)
    for u, v, attributes in graph.edges(data=True):
        for name in attributes:
            if name != "weight":
                message = f"edge '{u}' -> '{v}' has no attribute '{name}'"
                raise fail(message, node=v, hint="edges between neurons carry 'weight'")
        if "weight" in attributes:
            _number(attributes["weight"], f"the weight of '{u}' -> '{v}'", v)
    if graph.is_multigraph():
        for u, v in graph.edges():
            if graph.number_of_edges(u, v) > 1:
                raise fail(f"two edges '{u}' -> '{v}'", node=v)


def _number(value: Any, what: str, node: Hashable) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise fail(f"{what} is not a number: {value!r}", node=node)
    if not np.isfinite(value):
        raise fail(f"{what} is not finite: {value!r}", node=node)
    return float(value)


# --------------------------------------------------------------------------- grouping


def _group(
    graph: nx.DiGraph[Any],
    inputs: Sequence[Hashable],
    needed: Iterable[Hashable],
    wanted: Sequence[Hashable],
) -> list[Group]:
    """Dense layers in an order in which each comes after those that feed it.

    Layers are numbered by depth and names, so that the numbers do not depend on the order in which
    the graph was made; members stand in the order of the outputs, then of the graph.
    """
    needed = set(needed)
    depth = _depths(graph)
    place = {n: (wanted.index(n) if n in wanted else -1, i) for i, n in enumerate(graph)}
    by_key: dict[Any, list[Hashable]] = {}
    for node in sorted(needed, key=lambda n: place[n]):
        key = (frozenset(graph.predecessors(node)), _activation_key(graph, node))
        by_key.setdefault(key, []).append(node)
    ordered = sorted(
        by_key.items(), key=lambda item: (depth[item[1][0]], sorted(map(str, item[1])))
    )
    owner: dict[Hashable, str] = dict.fromkeys(inputs, INPUT)
    members: dict[str, tuple[Hashable, ...]] = {INPUT: tuple(inputs)}
    groups: list[Group] = []
    for number, ((sources, _), nodes) in enumerate(ordered, 1):
        name = f"layer{number}"
        parts = _whole_groups(nodes[0], sources, owner, members)
        row = tuple(n for part in parts for n in members[part])
        activation = graph.nodes[nodes[0]].get("activation", "linear")
        groups.append(Group(name, tuple(nodes), row, parts, activation))
        members[name] = tuple(nodes)
        owner |= dict.fromkeys(nodes, name)
    return groups


def _depths(graph: nx.DiGraph[Any]) -> dict[Hashable, int]:
    depth: dict[Hashable, int] = {}
    for node in nx.topological_sort(graph):
        depth[node] = 1 + max((depth[u] for u in graph.predecessors(node)), default=-1)
    return depth


def _activation_key(graph: nx.DiGraph[Any], node: Hashable) -> object:
    activation = graph.nodes[node].get("activation", "linear")
    try:
        name, function = make_activation(activation)
    except (ValueError, TypeError) as error:
        raise fail(f"neuron '{node}': {error}", node=node) from error
    if name in ROW_WISE:
        hint = f"use a layer graph, or the loss on the scores before {name}"
        raise fail(f"neuron '{node}': {name} is not a function of one neuron", node=node, hint=hint)
    if callable(activation):
        return activation
    return name, repr(sorted(getattr(function, "keywords", {}).items()))


def _whole_groups(
    node: Hashable,
    sources: Iterable[Hashable],
    owner: Mapping[Hashable, str],
    members: Mapping[str, Sequence[Hashable]],
) -> tuple[str, ...]:
    """The groups that make up the predecessors; CompileError where one is used only in part."""
    sources = set(sources)
    parts = sorted({owner[n] for n in sources}, key=list(members).index)
    for part in parts:
        missing = [n for n in members[part] if n not in sources]
        if missing:
            seen = next(n for n in members[part] if n in sources)
            what = "inputs" if part == INPUT else "neurons of one layer"
            raise fail(
                f"neuron '{node}' is connected to '{seen}' but not to '{missing[0]}', and both are "
                f"{what}",
                node=node,
                hint="only fully connected layers are compiled so far: add the edge with weight 0",
            )
    return tuple(parts)


# --------------------------------------------------------------------------- building


def _build_group(
    program: Program,
    graph: nx.DiGraph[Any],
    group: Group,
    values: Mapping[str, Node],
    initializer: Initializer,
) -> Node:
    title = str(group.members[0]) if len(group.members) == 1 else group.name
    site = Site(program, title, group.name, False, "neurons")
    shape = (len(group.sources), len(group.members))
    given = _given_weights(graph, group)
    drawn = PartlyGiven(given, _ranks(group.sources), _ranks(group.members), initializer)
    biases = np.asarray([float(graph.nodes[n].get("bias", 0.0)) for n in group.members])
    weight = site.parameter("weight", shape, fans=shape, initializer=drawn)
    bias = site.parameter("bias", shape[1:], fans=shape, initializer=biases, is_weight=False)
    inputs = [values[part] for part in group.parts]
    x = inputs[0] if len(inputs) == 1 else ops.concatenate(inputs, 1)
    try:
        value = activate(site, x @ weight + bias, group.activation)
    except CompileError:
        raise
    except (ValueError, TypeError) as error:
        raise fail(f"neuron '{group.members[0]}': {error}", node=group.members[0]) from error
    site.call_it(value)
    made = (f"{group.name}.weight", f"{group.name}.bias")
    program.layers.append(Layer(title, "neurons", value.type, made))
    return value


def _given_weights(graph: nx.DiGraph[Any], group: Group) -> Array:
    """(sources, members); NaN where the graph gives no weight."""
    simple = nx.DiGraph(graph) if graph.is_multigraph() else graph
    return np.asarray(
        [
            [float(simple.edges[u, v].get("weight", np.nan)) for v in group.members]
            for u in group.sources
        ]
    )


def _ranks(nodes: Sequence[Hashable]) -> tuple[int, ...]:
    """The place of every node in the order of names."""
    order = sorted(map(str, nodes))
    return tuple(order.index(str(n)) for n in nodes)


def _collect(
    groups: Sequence[Group], wanted: Sequence[Hashable], values: Mapping[str, Node]
) -> Node:
    """The outputs side by side, in the user's order."""
    place = {n: (g.name, i) for g in groups for i, n in enumerate(g.members)}
    columns: list[Node] = []
    at = 0
    while at < len(wanted):
        name, first = place[wanted[at]]
        length = 1
        while at + length < len(wanted) and place[wanted[at + length]] == (name, first + length):
            length += 1
        columns.append(values[name][:, first : first + length])
        at += length
    return columns[0] if len(columns) == 1 else ops.concatenate(columns, 1)


def _views(groups: Sequence[Group]) -> dict[str, View]:
    views: dict[str, View] = {}
    for group in groups:
        for j, v in enumerate(group.members):
            for i, u in enumerate(group.sources):
                views[f"{u}->{v}"] = View(f"{group.name}.weight", (i, j))
            views[f"{v}.bias"] = View(f"{group.name}.bias", (j,))
    return views
