"""Any acyclic graph of neurons: values and gradients are those of the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nncompiler as nnc
from tests.nncompiler.dags import ends, evaluate, gradients, mixed_dag, random_dag

OPTIONS = nnc.Options(threads=1, cache=False)


def check(g: Any, batch: int, seed: int = 0) -> None:
    model = nnc.compile(g, loss="sse", dtype="float64", options=OPTIONS)
    inputs, outputs = ends(g)
    rng = np.random.default_rng(seed)
    x, t = rng.normal(size=(batch, len(inputs))), rng.normal(size=(batch, len(outputs)))
    w = {name: np.array(value) for name, value in model.parameters.items()}
    y, _, _ = evaluate(g, x, w, inputs, outputs)
    np.testing.assert_allclose(model(x), y, rtol=1e-10, atol=1e-10)
    loss, found = model.backward(x, t)
    expected = gradients(g, x, t, w, inputs, outputs)
    assert loss == pytest.approx(0.5 * ((y - t) ** 2).sum(1).mean(), rel=1e-10)
    assert set(found) == set(expected)
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-10, atol=1e-10, err_msg=name)


@given(
    seed=st.integers(0, 10**6),
    neurons=st.integers(2, 60),
    density=st.sampled_from([0.03, 0.1, 0.3]),
    isolated=st.integers(0, 2),
    batch=st.sampled_from([1, 3, 8, 21, 40]),
    build=st.sampled_from([random_dag, mixed_dag]),
)
def test_values_and_gradients_are_those_of_the_definition(
    seed: int, neurons: int, density: float, isolated: int, batch: int, build: Any
) -> None:
    """`NNC_EXAMPLES=500 pytest tests/nncompiler/test_dag_values.py` tries more of them."""
    check(build(seed, neurons, density=density, isolated=isolated), batch, seed)


@pytest.mark.parametrize("seed", range(3))
def test_dense_groups_among_single_neurons(seed: int) -> None:
    """Irregular neurons, a dense layer that sees them, irregular ones that see the layer."""
    g = random_dag(seed, 20, density=0.2, activations=("tanh",))
    before = sorted(n for n in g if g.in_degree(n))[:10]
    for i in range(8):
        g.add_node(f"d{i}", activation="tanh")
        g.add_edges_from((n, f"d{i}") for n in before)
    for i in range(3):
        g.add_node(f"after{i}", activation="sine")
        g.add_edges_from((f"d{k}", f"after{i}") for k in range(i, 8, 3))
        g.add_edge(before[i], f"after{i}")
    model = nnc.compile(g)
    kinds = [(layer.name, layer.op) for layer in model.blueprint.objective.inference.layers]
    assert any(name == "layer1" and op == "neurons" for name, op in kinds)
    assert sum("sparse" in op for _, op in kinds) == 2
    check(g, 7, seed)


def test_nearly_dense_neurons_are_one_layer_with_a_mask() -> None:
    g = random_dag(0, 2)
    g.clear()
    rng = np.random.default_rng(0)
    g.add_nodes_from(f"x{i}" for i in range(12))
    for j in range(16):
        g.add_node(f"h{j}", activation="tanh")
        g.add_edges_from((f"x{i}", f"h{j}") for i in range(12) if rng.random() < 0.8)
        g.add_edge(f"h{j}", "y")
    model = nnc.compile(g, loss="sse", optimizer=nnc.Adam(0.01), options=OPTIONS)
    (first, *_) = model.blueprint.objective.inference.layers
    assert "% of a dense layer" in first.op
    missing = model.state["layer1.weight"] == 0
    assert missing.sum() == 12 * 16 - sum(g.in_degree(f"h{j}") for j in range(16))
    x = rng.normal(size=(9, 12))
    for _ in range(3):
        model.step(x, np.ones((9, 1)))
    assert (model.state["layer1.weight"][missing] == 0).all()
    assert (model.state["layer1.weight"][~missing] != 0).all()
    check(g, 9)


def test_removed_edges_stay_absent_and_others_are_trained() -> None:
    g = random_dag(3, 30)
    inputs, outputs = ends(g)
    model = nnc.compile(g, loss="mse", optimizer=nnc.Adam(0.01), dtype="float64", options=OPTIONS)
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(16, len(inputs))), rng.normal(size=(16, len(outputs)))
    assert {n for n in model.parameters if "->" in n} == {f"{u}->{v}" for u, v in g.edges}
    first = model.evaluate(x, t)["loss"]
    model.fit(x, t, epochs=60, batch_size=8, verbose=0)
    assert model.evaluate(x, t)["loss"] < 0.7 * first


@pytest.mark.parametrize("batch", [1, 2, 3, 16, 17, 31, 32, 33, 70])
def test_every_number_of_rows_gives_the_same_rows(batch: int) -> None:
    """Whole vectors, masked ones, and single rows: one result."""
    g = random_dag(5, 40)
    inputs, _ = ends(g)
    model = nnc.compile(g, options=OPTIONS)
    x = np.random.default_rng(0).normal(size=(80, len(inputs))).astype(np.float32)
    np.testing.assert_allclose(model(x[:batch]), model(x)[:batch], rtol=2e-5, atol=2e-6)


def test_weights_are_memory() -> None:
    g = random_dag(5, 20)
    inputs, outputs = ends(g)
    model = nnc.compile(g, dtype="float64", options=OPTIONS)
    x = np.random.default_rng(0).normal(size=(4, len(inputs)))
    model(x)
    rng = np.random.default_rng(1)
    for name in model.parameters:
        model.parameters[name][...] = rng.normal()
    w = {name: np.array(value) for name, value in model.parameters.items()}
    expected, _, _ = evaluate(g, x, w, inputs, outputs)
    np.testing.assert_allclose(model(x), expected, rtol=1e-10)


def test_a_neuron_with_a_bias_alone_is_a_constant() -> None:
    g = random_dag(1, 5)
    g.clear()
    g.add_node("one", bias=2.0, activation="tanh")
    g.add_edges_from([("x", "y", {"weight": 3.0}), ("one", "y", {"weight": 1.0})])
    g.graph["inputs"] = ["x"]
    model = nnc.compile(g, dtype="float64", options=OPTIONS)
    np.testing.assert_allclose(model(np.ones((2, 1))), np.full((2, 1), 3 + np.tanh(2.0)))


def test_an_isolated_neuron_is_an_input_and_an_output() -> None:
    g = random_dag(1, 5)
    g.clear()
    g.add_edge("x", "y", weight=2.0)
    g.add_node("z")
    model = nnc.compile(g, options=OPTIONS)
    np.testing.assert_array_equal(model(np.array([[1.0, 5.0]])), [[2.0, 5.0]])


def test_hundreds_of_outputs_of_mixed_functions() -> None:
    g = random_dag(2, 2)
    g.clear()
    rng = np.random.default_rng(0)
    g.add_nodes_from(f"x{i}" for i in range(9))
    for j in range(700):
        g.add_node(f"y{j}", activation=["tanh", "sine", "sigmoid", "relu"][rng.integers(4)])
        for i in rng.choice(9, 2, replace=False):
            g.add_edge(f"x{i}", f"y{j}", weight=float(rng.normal()))
    check(g, 3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sources", [15, 16, 17, 40])
def test_one_row_of_neurons_with_many_edges(dtype: str, sources: int) -> None:
    """Where one row is computed alone, the edges of a neuron run over the lanes."""
    g = random_dag(2, 2)
    g.clear()
    g.add_nodes_from(f"x{i}" for i in range(sources))
    for j in range(3):
        g.add_node(f"h{j}", activation=["tanh", "sine", "relu"][j], bias=0.25)
        g.add_edges_from((f"x{i}", f"h{j}") for i in range(sources - j))
    g.add_edges_from((f"h{j}", "y") for j in range(3))
    model = nnc.compile(g, dtype=dtype, options=OPTIONS)
    assert "sparse" in model.blueprint.objective.inference.layers[0].op
    inputs, outputs = ends(g)
    x = np.random.default_rng(0).normal(size=(1, sources))
    w = {name: np.array(value, np.float64) for name, value in model.parameters.items()}
    expected, _, _ = evaluate(g, x, w, inputs, outputs)
    np.testing.assert_allclose(model(x), expected, rtol=1e-10 if dtype == "float64" else 1e-5)
