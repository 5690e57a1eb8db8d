"""What of a graph of neurons becomes layers, and that the order of adding changes nothing."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from ir.types import f32
from nncompiler.frontend.lifting import Block, lift
from nncompiler.frontend.wiring import read_wiring
from tests.nncompiler.dags import ends, random_dag

OPTIONS = nnc.Options(threads=1, cache=False)


def blocks(g: Any) -> list[Block]:
    return lift(read_wiring(g, None, f32))


def kinds(g: Any) -> list[tuple[str, int, int]]:
    return [(b.kind, len(b.sources), len(b.members)) for b in blocks(g)]


def mlp(*sizes: int) -> Any:
    g: Any = nx.DiGraph()
    layers = [[f"l{k}_{i}" for i in range(n)] for k, n in enumerate(sizes)]
    for k, names in enumerate(layers):
        for v in names:
            g.add_node(v, **({"activation": "tanh"} if k else {}))
            g.add_edges_from((u, v) for u in (layers[k - 1] if k else ()))
    return g


def test_a_network_of_layers_is_dense_however_small() -> None:
    assert kinds(mlp(2, 3, 1)) == [("dense", 2, 3), ("dense", 3, 1)]


def test_a_long_chain_of_single_neurons_is_sparse() -> None:
    g: Any = nx.DiGraph()
    for i in range(2000):
        g.add_node(i + 1, activation="tanh")
        g.add_edge(i, i + 1, weight=1.5)
    assert kinds(g) == [("sparse", 1, 2000)]
    model = nnc.compile(g, dtype="float64", options=OPTIONS)
    value = 0.25
    for _ in range(2000):
        value = np.tanh(1.5 * value)
    np.testing.assert_allclose(model(np.array([[0.25]])), [[value]], rtol=1e-12)


def test_a_skip_connection_is_a_layer_of_concatenated_inputs() -> None:
    g = mlp(4, 8, 8, 3)
    g.add_edges_from((f"l0_{i}", f"l3_{j}") for i in range(4) for j in range(3))
    assert kinds(g) == [("dense", 4, 8), ("dense", 8, 8), ("dense", 12, 3)]


def test_a_neuron_that_misses_a_connection_leaves_its_layer() -> None:
    g = mlp(8, 16, 16, 8)
    g.remove_edge("l1_3", "l2_5")
    assert kinds(g) == [("dense", 8, 16), ("dense", 16, 15), ("sparse", 15, 1), ("dense", 16, 8)]


def test_irregular_neurons_are_one_sparse_block_whatever_their_depth() -> None:
    g = random_dag(0, 50, density=0.1)
    inputs, _ = ends(g)
    reached = sum(g.out_degree(n) > 0 for n in inputs)
    assert kinds(g) == [("sparse", reached, 50 - len(inputs))]


def shuffled(g: Any, seed: int) -> Any:
    """The same graph, added in another order; inputs and outputs keep theirs."""
    rng = np.random.default_rng(seed)
    inputs, outputs = ends(g)
    other: Any = nx.DiGraph(inputs=inputs, outputs=outputs)
    nodes, edges = list(g.nodes(data=True)), list(g.edges(data=True))
    other.add_nodes_from(nodes[i] for i in rng.permutation(len(nodes)))
    other.add_edges_from(edges[i] for i in rng.permutation(len(edges)))
    return other


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("build", [lambda s: random_dag(s, 40), lambda s: mlp(5, 9, 9, 4)])
def test_the_order_of_adding_changes_no_bit(build: Any, seed: int) -> None:
    g = build(seed)
    other = shuffled(g, seed)
    assert blocks(g) == blocks(other)
    a, b = (nnc.compile(n, loss="sse", options=OPTIONS) for n in (g, other))
    inputs, outputs = ends(g)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(5, len(inputs))).astype(np.float32)
    t = rng.normal(size=(5, len(outputs))).astype(np.float32)
    np.testing.assert_array_equal(a(x), b(x))
    (loss_a, of_a), (loss_b, of_b) = a.backward(x, t), b.backward(x, t)
    assert loss_a == loss_b
    assert all(of_a[name] == of_b[name] for name in of_a)


def test_summary_and_graph_tell_what_was_found() -> None:
    model = nnc.compile(random_dag(0, 30, density=0.1), options=OPTIONS)
    assert "edges, sparse" in str(model.describe())
    assert "sweep(" in model.stages["graph"]
    for stage in ("kernels", "loops"):
        assert "formula 0:" in model.stages[stage]


def test_a_cycle_is_named() -> None:
    g = mlp(2, 2, 1)
    g.add_edge("l2_0", "l1_1")
    with pytest.raises(nnc.CompileError, match="l1_1 -> l2_0 -> l1_1|l2_0 -> l1_1 -> l2_0"):
        nnc.compile(g)
