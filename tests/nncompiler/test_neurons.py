"""Neuron graphs: the same numbers as the definition, neuron by neuron."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pytest

from ir.graph import Graph
from ir.interpret import run_graph
from nncompiler.errors import CompileError
from nncompiler.frontend.network import read_network
from nncompiler.frontend.site import Network

F = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh, "linear": lambda z: z}


def run(network: Network, x: Any, seed: int = 0) -> Any:
    parameters = [p.node for p in network.parameters.values()]
    graph = Graph("f", (*network.inputs.values(), *parameters), network.build(False).outputs)
    return run_graph(graph, {**network.draw(seed), "inputs": x})["outputs"]


def by_definition(g: Any, network: Network, x: Any, inputs: Any, outputs: Any) -> Any:
    """z = f(bias + sum of weight * z_j), one neuron after the other."""
    arrays = network.draw(0)
    value = {name: arrays[v.array][v.index] for name, v in network.views.items()}
    z = {n: x[:, i] for i, n in enumerate(inputs)}
    for v in nx.topological_sort(g):
        if v not in z:
            total = value[f"{v}.bias"] + sum(value[f"{u}->{v}"] * z[u] for u in g.predecessors(v))
            z[v] = F[g.nodes[v].get("activation", "linear")](total)
    return np.stack([z[n] for n in outputs], 1)


def xor() -> Any:
    g: Any = nx.DiGraph()
    g.add_nodes_from(["x1", "x2"])
    g.add_node("h1", activation="relu", bias=0.0)
    g.add_node("h2", activation="relu", bias=-1.0)
    g.add_node("y", activation="linear", bias=0.0)
    g.add_weighted_edges_from((x, h, 1.0) for h in ("h1", "h2") for x in ("x1", "x2"))
    g.add_weighted_edges_from([("h1", "y", 1.0), ("h2", "y", -2.0)])
    return g


def layered(*sizes: int) -> Any:
    """Numbered neurons, tanh, a linear last layer."""
    g: Any = nx.DiGraph()
    layers, number = [], 0
    for size in sizes:
        layers.append(list(range(number, number + size)))
        number += size
    g.add_nodes_from(range(number))
    for k, (a, b) in enumerate(itertools.pairwise(layers)):
        for v in b:
            g.nodes[v]["activation"] = "linear" if k == len(layers) - 2 else "tanh"
            g.add_edges_from((u, v) for u in a)
    return g


def test_xor_of_the_text_is_exact() -> None:
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    np.testing.assert_array_equal(run(read_network(xor()), x), [[0], [1], [1], [0]])


def test_neurons_with_the_same_inputs_and_function_are_one_layer() -> None:
    network = read_network(layered(2, 3, 1))
    shapes = {k: p.node.shape for k, p in network.parameters.items()}
    assert shapes == {
        "layer1.weight": (2, 3),
        "layer1.bias": (3,),
        "layer2.weight": (3, 1),
        "layer2.bias": (1,),
    }
    assert set(network.views) == {
        *(f"{u}->{v}" for u in (0, 1) for v in (2, 3, 4)),
        *(f"{u}->5" for u in (2, 3, 4)),
        *(f"{v}.bias" for v in (2, 3, 4, 5)),
    }


def skips() -> Any:
    g = layered(2, 3, 2)
    g.add_edges_from((u, v) for u in (0, 1) for v in (5, 6))
    return g


def different_functions() -> Any:
    g = layered(2, 4, 1)
    for v in (3, 5):
        g.nodes[v]["activation"] = "relu"
    return g


@pytest.mark.parametrize("build", [lambda: layered(3, 4, 5, 2), skips, different_functions, xor])
def test_values_are_those_of_the_definition(build: Callable[[], Any]) -> None:
    g = build()
    network = read_network(g, dtype="float64")
    inputs = [n for n in g if not g.in_degree(n)]
    outputs = [n for n in g if not g.out_degree(n)]
    x = np.random.default_rng(1).normal(size=(6, len(inputs)))
    expected = by_definition(g, network, x, inputs, outputs)
    np.testing.assert_allclose(run(network, x), expected, rtol=1e-13)


def shuffled(g: Any, keep: Any, seed: int) -> Any:
    """The same graph, nodes and edges added in another order; inputs and outputs stay."""
    rng = np.random.default_rng(seed)
    nodes, edges = list(g.nodes(data=True)), list(g.edges(data=True))
    other: Any = nx.DiGraph(**keep)
    other.add_nodes_from(nodes[i] for i in rng.permutation(len(nodes)))
    other.add_edges_from(edges[i] for i in rng.permutation(len(edges)))
    return other


@pytest.mark.parametrize("seed", range(5))
def test_order_of_nodes_and_edges_changes_nothing(seed: int) -> None:
    g = layered(3, 4, 5, 2)
    other = shuffled(g, {"inputs": [0, 1, 2], "outputs": [12, 13]}, seed)
    x = np.random.default_rng(1).normal(size=(6, 3))
    a, b = read_network(g, dtype="float64"), read_network(other, dtype="float64")
    np.testing.assert_allclose(run(a, x), run(b, x), rtol=1e-12)


def test_inputs_and_outputs_may_be_chosen_and_ordered() -> None:
    g = layered(2, 3, 2)
    x = np.random.default_rng(1).normal(size=(4, 2))
    first = run(read_network(g, dtype="float64"), x)
    g.graph |= {"inputs": [1, 0], "outputs": [6, 5]}
    again = run(read_network(g, dtype="float64"), x[:, ::-1])
    np.testing.assert_allclose(again, first[:, ::-1], rtol=1e-12)
    hidden = run(read_network(g, dtype="float64", outputs=[3]), x)
    assert hidden.shape == (4, 1)


def test_given_weights_stay_and_missing_ones_are_drawn() -> None:
    g = layered(2, 3, 1)
    g.edges[0, 2]["weight"] = 0.125
    g.nodes[3]["bias"] = -2.0
    network = read_network(g)
    arrays = network.draw(3)
    assert arrays["layer1.weight"][network.views["0->2"].index] == 0.125
    assert (arrays["layer1.weight"] != 0).all()
    np.testing.assert_array_equal(arrays["layer1.bias"], [0, -2, 0])


def test_a_function_may_be_a_pair_or_python() -> None:
    g = layered(2, 2, 1)
    g.nodes[2]["activation"] = g.nodes[3]["activation"] = lambda z: z * z
    network = read_network(g, dtype="float64")
    w, x = network.draw(0), np.random.default_rng(1).normal(size=(4, 2))
    expected = (x @ w["layer1.weight"]) ** 2 @ w["layer2.weight"]
    np.testing.assert_allclose(run(network, x), expected, rtol=1e-13)


def changed(**edit: Any) -> Callable[[], Any]:
    def build() -> Any:
        g = layered(2, 3, 1)
        g.nodes[3].update(edit)
        return g

    return build


def with_edge(**edit: Any) -> Callable[[], Any]:
    def build() -> Any:
        g = layered(2, 3, 1)
        g.edges[0, 3].update(edit)
        return g

    return build


def with_graph(**edit: Any) -> Callable[[], Any]:
    def build() -> Any:
        g = layered(2, 3, 1)
        g.graph.update(edit)
        return g

    return build


ERRORS: list[tuple[Callable[[], Any], str, str]] = [
    (changed(activation="softmax"), "neuron '3': softmax is not a function of one neuron", "3"),
    (changed(activation="rellu"), "neuron '3': unknown activation 'rellu'", "3"),
    (changed(color="red"), "neuron '3' has no attribute 'color'", "3"),
    (changed(bias="big"), "the bias of '3' is not a number", "3"),
    (changed(bias=float("nan")), "the bias of '3' is not finite", "3"),
    (with_edge(weight="w"), "the weight of '0' -> '3' is not a number", "3"),
    (with_edge(wieght=1.0), "'0' -> '3' has no attribute 'wieght'", "3"),
    (with_graph(inputs=[0]), "neuron '1' has no predecessors", "1"),
    (with_graph(inputs=[0, 1, 2]), "input neuron '2' has predecessors", "2"),
    (with_graph(inputs=[0, 9]), "the input '9' is not a node", ""),
    (with_graph(outputs=["z"]), "the output 'z' is not a node", ""),
]


@pytest.mark.parametrize(("build", "text", "node"), ERRORS, ids=[e[1][:40] for e in ERRORS])
def test_wrong_neuron_graphs_name_the_neuron(
    build: Callable[[], Any], text: str, node: str
) -> None:
    with pytest.raises(CompileError, match=text) as caught:
        read_network(build())
    assert caught.value.node == node


def test_bias_of_an_input_is_told() -> None:
    g = layered(2, 3, 1)
    g.nodes[0]["bias"] = 1.0
    with pytest.raises(CompileError, match="input neuron '0' has no bias"):
        read_network(g)
