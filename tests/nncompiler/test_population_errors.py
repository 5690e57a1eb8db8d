"""What is wrong with a graph of a population, or with data, is said with the graph's number."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from tests.nncompiler.test_population import OPTIONS, layered


def small(**attributes: Any) -> Any:
    g = nx.DiGraph()
    g.add_node("x")
    g.add_node("y", **attributes)
    g.add_edge("x", "y", weight=1.0)
    return g


def cyclic() -> Any:
    g = small()
    g.add_weighted_edges_from([("y", "z", 1.0), ("z", "a", 1.0), ("a", "y", 1.0)])
    g.graph["outputs"] = ["z"]
    return g


def edge(**attributes: Any) -> Any:
    g = small()
    g.remove_edge("x", "y")
    g.add_edge("x", "y", **attributes)
    return g


def layer() -> Any:
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 1))
    return g


def two_of_a_name() -> Any:
    g = nx.DiGraph()
    g.add_edge(1, "1", weight=1.0)
    return g


def two_inputs() -> Any:
    g = small()
    g.add_edge("w", "y", weight=1.0)
    return g


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (cyclic(), "genome 1: the graph has a cycle: y -> z -> a -> y"),
        (edge(), "genome 1: edge 'x->y' has no weight"),
        (edge(weight=float("nan")), "genome 1: the weight of 'x' -> 'y' is not finite"),
        (edge(weight="1"), "genome 1: the weight of 'x' -> 'y' is not a number"),
        (edge(weight=1.0, wieght=2.0), "genome 1: edge 'x' -> 'y' has no attribute 'wieght'"),
        (small(activation="tanhh"), "genome 1: neuron 'y': unknown activation 'tanhh'"),
        (small(activation="softmax"), "genome 1: neuron 'y': softmax is not a function of one"),
        (small(aggregation="maxx"), "genome 1: neuron 'y': unknown aggregation 'maxx'"),
        (small(bias=True), "genome 1: the bias of 'y' is not a number"),
        (small(bias=float("inf")), "genome 1: the bias of 'y' is not finite"),
        (small(size=3), "genome 1: neuron 'y' has no attribute 'size'"),
        (
            small(activation=lambda z: nnc.reshape(z, (1,))),
            "genome 1: the activation of 'y' is not made of elementwise",
        ),
        (layer(), "genome 1: neuron 'x' has no attribute 'op'"),
        (two_of_a_name(), "genome 1: duplicate name '1'"),
        (two_inputs(), "genome 1: 2 inputs, but genome 0 has 1"),
        (nx.DiGraph(), "genome 1: the graph has no nodes"),
        (nx.Graph([("x", "y")]), "genome 1: a network is a directed graph"),
    ],
)
def test_errors_name_the_graph_and_the_neuron(graph: Any, message: str) -> None:
    with pytest.raises(nnc.CompileError) as caught:
        nnc.compile_population([small(), graph])
    assert message in str(caught.value)


def test_errors_of_the_arguments() -> None:
    with pytest.raises(ValueError, match="at least one graph"):
        nnc.compile_population([])
    with pytest.raises(TypeError, match=r"networkx\.DiGraph, not int"):
        nnc.compile_population([3])
    with pytest.raises(nnc.CompileError, match="float32 or float64"):
        nnc.compile_population([small()], dtype="int32")
    with pytest.raises(ValueError, match="specialize_after"):
        nnc.compile_population([small()], specialize_after=-1)
    with pytest.raises(nnc.CompileError, match="genome 0: the input 'q' is not a node"):
        nnc.compile_population([small()], inputs=["q"])
    with pytest.raises(nnc.CompileError, match="genome 0: the output 'q' is not a node"):
        nnc.compile_population([small()], outputs=["q"])


def test_errors_of_data() -> None:
    population = nnc.compile_population([layered(0), layered(1)], options=OPTIONS)
    for shape in ((3,), (4, 2), (3, 5, 3), (2, 5, 4), (1, 2, 5, 3)):
        with pytest.raises(ValueError, match=r"expected shape \(batch, 3\) or \(2, batch, 3\)"):
            population(np.zeros(shape))
    with pytest.raises(ValueError, match=r"expected shape \(batch, 3\), got"):
        population[0](np.zeros((2, 5, 3)))
    with pytest.raises(TypeError, match="complex"):
        population(np.zeros((4, 3), complex))
    with pytest.raises(IndexError, match="no network 2"):
        population[2]
    assert population(np.zeros((0, 3))).shape == (2, 0, 2)
    assert population[1](np.zeros((0, 3))).shape == (0, 2)
    mixed = nnc.compile_population([layered(0), layered(1, outputs=1)], options=OPTIONS)
    assert [y.shape for y in mixed(np.zeros((2, 0, 3)))] == [(0, 2), (0, 1)]
