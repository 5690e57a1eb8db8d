"""Training graphs of neurons: frozen and shared numbers, penalties of their own, weights written
back."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from tests.nncompiler.dags import ends, evaluate, gradients, random_dag

OPTIONS = nnc.Options(threads=1, cache=False)


def data(g: Any, batch: int = 11) -> tuple[Any, Any]:
    inputs, outputs = ends(g)
    rng = np.random.default_rng(4)
    return rng.normal(size=(batch, len(inputs))), rng.normal(size=(batch, len(outputs)))


def trained(g: Any, **options: Any) -> Any:
    options = {"loss": "sse", "optimizer": nnc.SGD(0.05), **options}
    return nnc.compile(g, dtype="float64", options=OPTIONS, **options)


def snapshot(model: Any) -> dict[str, float]:
    return {name: float(value) for name, value in model.parameters.items()}


@pytest.mark.parametrize("density", [0.1, 0.5])
def test_frozen_edges_and_biases_keep_their_values(density: float) -> None:
    g = random_dag(2, 20, density=density)
    rng = np.random.default_rng(0)
    frozen = set()
    for u, v in g.edges:
        if rng.random() < 0.4:
            g.edges[u, v]["trainable"] = False
            frozen.add(f"{u}->{v}")
    for v in g:
        if g.in_degree(v) and rng.random() < 0.4:
            g.nodes[v]["trainable"] = False
            frozen.add(f"{v}.bias")
    model = trained(g)
    before, (x, t) = snapshot(model), data(g)
    _, found = model.backward(x, t)
    assert set(found) == set(before) - frozen
    expected = gradients(g, x, t, {n: np.array(v) for n, v in before.items()}, *ends(g))
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-10)
    model.step(x, t)
    after = snapshot(model)
    assert {name for name in before if after[name] == before[name]} >= frozen
    for name in found:
        np.testing.assert_allclose(after[name], before[name] - 0.05 * expected[name], atol=1e-10)


def test_a_frozen_dense_layer_stays() -> None:
    g: Any = nx.DiGraph()
    for j in range(8):
        g.add_node(f"h{j}", activation="tanh", trainable=False)
        g.add_edges_from(((f"x{i}", f"h{j}") for i in range(8)), trainable=False)
        g.add_edge(f"h{j}", "y")
    model = trained(g)
    before, (x, t) = snapshot(model), data(g)
    model.step(x, t)
    changed = {n for n, v in snapshot(model).items() if v != before[n]}
    assert changed == {"y.bias", *(f"h{j}->y" for j in range(8))}


def test_a_shared_weight_is_one_parameter_with_the_sum_of_gradients() -> None:
    g = random_dag(6, 25, density=0.2)
    edges = sorted(g.edges)
    for u, v in edges[::3]:
        g.edges[u, v].pop("weight", None)
        g.edges[u, v]["weight_name"] = "w"
    for u, v in edges[1::7]:
        g.edges[u, v].pop("weight", None)
        g.edges[u, v]["weight_name"] = "v"
    g.edges[edges[0]]["weight"] = 0.25
    model = trained(g)
    start, (x, t) = snapshot(model), data(g)
    assert start["w"] == 0.25 and "v" in start
    assert f"{edges[0][0]}->{edges[0][1]}" not in start
    w = {n: np.array(v) for n, v in start.items()}
    np.testing.assert_allclose(model(x), evaluate(g, x, w, *ends(g))[0], atol=1e-10)
    _, found = model.backward(x, t)
    expected = gradients(g, x, t, w, *ends(g))
    assert set(found) == set(expected)
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-10)
    model.update(found)
    np.testing.assert_allclose(model.parameters["w"], 0.25 - 0.05 * expected["w"])


def test_every_edge_and_neuron_may_have_its_own_penalty() -> None:
    g = random_dag(7, 15, density=0.3)
    edges = sorted(g.edges)
    g.edges[edges[0]]["regularizer"] = nnc.L2(0.5)
    g.edges[edges[1]]["regularizer"] = nnc.L1(0.25)
    neuron = edges[2][1]
    g.nodes[neuron]["regularizer"] = ("l2", {"c": 2.0})
    plain, own, (x, t) = trained(g), trained(g, regularizer=nnc.L2(0.125)), data(g)
    w = snapshot(plain)
    assert w == snapshot(own)
    (_, a), (_, b) = plain.backward(x, t), own.backward(x, t)
    bare = gradients(g, x, t, {n: np.array(v) for n, v in w.items()}, *ends(g))
    for name in w:
        extra, penalty = 0.0, 0.25 * w[name] if "->" in name else 0.0
        if name == f"{edges[0][0]}->{edges[0][1]}":
            extra = penalty = 2 * 0.5 * w[name]
        if name == f"{edges[1][0]}->{edges[1][1]}":
            extra = penalty = 0.25 * np.sign(w[name])
        if name == f"{neuron}.bias":
            extra = penalty = 2 * 2.0 * w[name]
        np.testing.assert_allclose(a[name], bare[name] + extra, atol=1e-10, err_msg=name)
        np.testing.assert_allclose(b[name], bare[name] + penalty, atol=1e-10, err_msg=name)


def test_trained_weights_go_back_into_the_users_graph() -> None:
    g = random_dag(8, 20)
    first = next(iter(g.edges))
    g.edges[first].pop("weight", None)
    g.edges[first]["weight_name"] = "w"
    g.add_edge("n0", "unused")  # an output of its own
    g.graph |= {"title": "mine", "outputs": [n for n in ends(g)[1] if n != "unused"]}
    model = trained(g)
    (x, t) = data(g)
    t = t[:, : len(g.graph["outputs"])]
    model.fit(x, t, epochs=2, batch_size=4, verbose=0)
    back = model.to_networkx()
    assert list(back.nodes) == list(g.nodes) and set(back.edges) == set(g.edges)
    assert back.graph == g.graph
    assert back.edges[first]["weight"] == float(model.parameters["w"])
    assert "weight" not in back.edges["n0", "unused"]
    for node, attributes in g.nodes(data=True):
        assert attributes.items() - {("bias", attributes.get("bias"))} <= set(
            back.nodes[node].items()
        )
    again = nnc.compile(back, dtype="float64", options=OPTIONS)
    np.testing.assert_allclose(again(x), model(x), rtol=1e-12)


def test_layers_have_no_graph_of_neurons() -> None:
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 2))
    g.add_node("y", op="dense", units=1)
    g.add_edge("x", "y")
    with pytest.raises(ValueError, match="graphs of neurons"):
        nnc.compile(g).to_networkx()


def test_a_model_of_neurons_is_saved_with_its_weights(tmp_path: Any) -> None:
    g = random_dag(9, 20, density=0.2)
    model, (x, t) = trained(g), data(g)
    model.fit(x, t, epochs=2, verbose=0)
    model.save(tmp_path / "m.nnc")
    np.testing.assert_array_equal(nnc.load(tmp_path / "m.nnc")(x), model(x))


def test_the_reference_and_the_gradient_check_agree() -> None:
    g = random_dag(10, 20, density=0.2, activations=("tanh", "sigmoid"))
    model, (x, t) = trained(g), data(g)
    assert model.compare(x, t).worst < 1e-10
    assert model.check_gradients(x, t).worst < 1e-5


def test_binary_cross_entropy_takes_the_sum_that_a_last_sigmoid_saw() -> None:
    g = random_dag(11, 20, density=0.2, activations=("tanh",))
    for n in ends(g)[1]:
        if g.in_degree(n):
            g.nodes[n]["activation"] = "sigmoid"
    g.graph["outputs"] = [n for n in ends(g)[1] if g.in_degree(n)]
    model = nnc.compile(g, loss="binary_cross_entropy", dtype="float64", options=OPTIONS)
    inputs = ends(g)[0]
    x = np.random.default_rng(0).normal(size=(6, len(inputs)))
    p = model(x)
    t = (p > 0.5).astype(float)
    expected = -np.log(np.where(t == 1, p, 1 - p)).mean()
    assert model.evaluate(x, t)["loss"] == pytest.approx(expected, rel=1e-9)


ERRORS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"weight_name": "w", "weight": 1.0}, {"weight_name": "w", "weight": 2.0}, "start from"),
    ({"weight_name": "w"}, {"weight_name": "w", "trainable": False}, "trained differently"),
    ({"weight_name": "a->b"}, {}, "another parameter"),
    ({"weight_name": 3}, {}, "no text"),
    ({"trainable": "no"}, {}, "True or False"),
    ({"regularizer": "l7"}, {}, "unknown regularizer"),
]


@pytest.mark.parametrize(("first", "second", "text"), ERRORS, ids=[e[2] for e in ERRORS])
def test_wrong_edges_are_named(first: Any, second: Any, text: str) -> None:
    g: Any = nx.DiGraph()
    g.add_edge("x", "b", **first)
    g.add_edge("a", "b", **second)
    with pytest.raises(nnc.CompileError, match=text) as caught:
        nnc.compile(g)
    assert caught.value.node == "b"


def test_an_unknown_aggregation_is_named() -> None:
    g: Any = nx.DiGraph()
    g.add_node("y", aggregation="medain")
    g.add_edge("x", "y")
    with pytest.raises(nnc.CompileError, match="unknown aggregation 'medain'") as caught:
        nnc.compile(g)
    assert "median" in caught.value.hint


def test_live_parameters_are_numbers_for_another_graph() -> None:
    g: Any = nx.DiGraph()
    g.add_edge("x", "y", weight=2.0)
    model = trained(g)
    other: Any = nx.DiGraph()
    other.add_node("y", bias=model.parameters["y.bias"])
    other.add_edge("x", "y", weight=model.parameters["x->y"])
    assert snapshot(trained(other)) == snapshot(model) == {"x->y": 2.0, "y.bias": 0.0}
