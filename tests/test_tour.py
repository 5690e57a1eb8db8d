"""A tour: every feature in about five lines, in under two seconds altogether."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from ir import ops
from ir.graph import Graph
from ir.interpret import run_graph
from ir.text import parse_graph, print_graph
from tests.networks import classifier, compiled, data, neurons

X, T = data(64)


def test_a_layer_graph_is_compiled() -> None:
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 4))
    g.add_node("y", op="dense", units=2, activation="relu")
    g.add_edge("x", "y")
    model = nnc.compile(g)
    p = model.parameters
    np.testing.assert_allclose(
        model(X), np.maximum(X @ p["y.weight"] + p["y.bias"], 0), rtol=1e-5, atol=1e-6
    )


def test_a_neuron_graph_is_compiled() -> None:
    model = nnc.compile(neurons(), loss="sse", optimizer="sgd")
    assert float(model.parameters["h2->y"]) == -2.0
    assert model(X[:, :2]).shape == (64, 1)


def test_it_learns() -> None:
    model = compiled()
    history = model.fit(X, T, epochs=15, batch_size=16, validation_split=0.25, verbose=0)
    assert history.history["loss"][-1] < 0.5 * history.history["loss"][0]
    assert model.evaluate(X, T)["accuracy"] > 0.8


def test_forward_backward_update_are_one_step() -> None:
    model, other = compiled(), compiled()
    loss, gradients = model.backward(X, T)
    model.update(gradients)
    assert abs(other.step(X, T) - loss) < 1e-6


def test_steps_run_natively_on_fixed_buffers() -> None:
    model = compiled()
    step = model.bind(X, T)
    assert step.run(100) < step.run(0) + 1
    assert model.evaluate(X, T)["loss"] < 0.5


def test_a_snapshot_gives_what_the_model_gives() -> None:
    model = compiled()
    fast = model.freeze()
    model.step(X, T)
    fast.refresh()
    np.testing.assert_allclose(fast(X), model(X), rtol=1e-5, atol=1e-6)


def test_optimizers_schedules_regularizers_initializers() -> None:
    model = compiled(
        optimizer=nnc.Adam(nnc.Cosine(0.01, steps=100), clip_norm=1.0),
        regularizer=nnc.L2(1e-4),
        initializer=("normal", {"std": 0.1}),
    )
    assert model.step(X, T) > 0


def test_a_python_function_is_an_activation() -> None:
    model = compiled(classifier(lambda x: x / (1 + abs(x))))
    assert model.check_gradients(X, T).worst < 1e-3


def test_a_python_function_is_a_loss() -> None:
    model = compiled(loss=lambda y, t: (y - t) ** 4, metrics=())
    y = model(X)
    t = np.eye(3, dtype=np.float32)[T]
    assert abs(model.backward(X, t)[0] - np.mean((y - t) ** 4)) < 1e-5


def test_one_program_serves_all_batch_sizes() -> None:
    model = compiled()
    for rows in (1, 3, 64):
        assert model(X[:rows]).shape == (rows, 3)
    assert model.compilations == 2


def test_every_stage_can_be_read() -> None:
    for name, text in compiled().stages.items():
        assert text, name


def test_summary_and_profile(capsys: object) -> None:
    model = compiled()
    assert "kernels" in str(model.summary())
    assert "GFLOP/s" in str(model.profile(X, T))


def test_compiled_equals_reference() -> None:
    model = compiled(dtype="float64")
    assert model.compare(X, T).worst < 1e-12
    assert abs(model.reference.step(X, T) - model.step(X, T)) < 1e-12


def test_models_are_saved(tmp_path: Path) -> None:
    model = compiled()
    model.save(tmp_path / "m.nnc")
    np.testing.assert_array_equal(nnc.load(tmp_path / "m.nnc")(X), model(X))
    model.save_weights(tmp_path / "w.npz")
    model.load_weights(tmp_path / "w.npz")


def test_hyper_parameters_are_searched() -> None:
    result = nnc.search(
        lambda rate: compiled(optimizer=nnc.SGD(rate)), {"rate": [0.0, 0.5]}, X, T, epochs=3
    )
    assert result.best == {"rate": 0.5}


def test_many_graphs_at_once() -> None:
    population = nnc.compile_population([neurons(), neurons()])
    population.parameters(1)["y.bias"] = 1.0
    first, second = population([[0.5, -1.0]])
    np.testing.assert_allclose(first, population[0]([[0.5, -1.0]]))
    assert first.shape == (1, 1) and first != second


def test_functions_are_compiled_and_differentiated() -> None:
    f = nnc.jit(lambda x: nnc.sum(nnc.exp(x) * x))
    v = np.array([0.0, 1.0])
    np.testing.assert_allclose(f(v), np.e)
    np.testing.assert_allclose(nnc.grad(f)(v), np.exp(v) * (v + 1))
    np.testing.assert_allclose(nnc.hessian(f)(v), np.diag(np.exp(v) * (v + 2)))


def test_jvp_and_vjp() -> None:
    y, dy = nnc.jvp(nnc.sin, (np.array(0.0),), (np.array(2.0),))
    assert (y, dy) == (0.0, 2.0)
    _, pull = nnc.vjp(nnc.sin, np.array(0.0))
    assert pull(3.0) == (3.0,)


def test_graphs_are_values() -> None:
    x = ops.input("x", "f32", ("batch", 2))
    assert x + 1 is x + 1
    g = Graph("g", (x,), {"y": ops.tanh(x) * 2})
    assert parse_graph(print_graph(g)).outputs["y"] is g.outputs["y"]
    assert run_graph(g, {"x": np.zeros((3, 2), np.float32)})["y"].shape == (3, 2)


def test_errors_name_the_node() -> None:
    g = classifier()
    g.nodes["hidden"]["op"] = "dens"
    with pytest.raises(nnc.CompileError, match="did you mean 'dense'") as caught:
        nnc.compile(g)
    assert caught.value.node == "hidden"
