"""The claims of the source texts: XOR, best linear model, digits, one program for all batches."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest
from sklearn.datasets import load_digits

import nncompiler as nnc

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
T = np.array([[0], [1], [1], [0]], np.float32)


def layers(sizes: tuple[int, ...], activation: str, last: str | None = None) -> nx.DiGraph:
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", sizes[0]))
    for i, units in enumerate(sizes[1:], 1):
        end = i == len(sizes) - 1
        g.add_node(f"layer{i}", op="dense", units=units, activation=last if end else activation)
    nx.add_path(g, ["x", *(f"layer{i}" for i in range(1, len(sizes)))])
    return g


def neurons(hidden: int, activation: str, last: str) -> nx.DiGraph:
    g = nx.DiGraph()
    names = [f"h{i}" for i in range(hidden)]
    g.add_nodes_from(["x1", "x2"])
    g.add_nodes_from(names, activation=activation)
    g.add_node("y", activation=last)
    g.add_edges_from((x, h) for h in names for x in ("x1", "x2"))
    g.add_edges_from((h, "y") for h in names)
    return g


# --------------------------------------------------------------------------- XOR (sources C)


def xor_neurons() -> Any:
    """W = [[1, 1], [1, 1]], c = [0, -1], w = [1, -2], b = 0, as single weights."""
    g = nx.DiGraph()
    g.add_nodes_from(["x1", "x2"])
    g.add_node("h1", activation="relu", bias=0.0)
    g.add_node("h2", activation="relu", bias=-1.0)
    g.add_node("y", activation="linear", bias=0.0)
    g.add_weighted_edges_from((x, h, 1.0) for h in ("h1", "h2") for x in ("x1", "x2"))
    g.add_weighted_edges_from([("h1", "y", 1.0), ("h2", "y", -2.0)])
    return nnc.compile(g)


def xor_layers() -> Any:
    model = nnc.compile(layers((2, 2, 1), "relu"))
    model.parameters["layer1.weight"][...] = [[1, 1], [1, 1]]
    model.parameters["layer1.bias"][...] = [0, -1]
    model.parameters["layer2.weight"][...] = [[1], [-2]]
    model.parameters["layer2.bias"][...] = 0
    return model


@pytest.mark.parametrize("build", [xor_neurons, xor_layers])
def test_xor_with_given_weights_is_exact(build: Any) -> None:
    assert np.array_equal(build()(X), T)


def test_hidden_values_of_xor_are_those_of_the_text() -> None:
    model = nnc.compile(layers((2, 2), "relu", "relu"))
    model.parameters["layer1.weight"][...] = [[1, 1], [1, 1]]
    model.parameters["layer1.bias"][...] = [0, -1]
    assert np.array_equal(model(X), [[0, 0], [1, 0], [1, 0], [2, 1]])


HIDDEN, STEPS, SEEDS = 8, 500, range(20)


@pytest.mark.parametrize(
    "graph", [neurons(HIDDEN, "tanh", "sigmoid"), layers((2, HIDDEN, 1), "tanh", "sigmoid")]
)
def test_xor_is_learned_by_20_of_20_seeds(graph: nx.DiGraph) -> None:
    """8 hidden tanh neurons, Adam(0.05), 500 steps over the whole table."""
    model = nnc.compile(graph, loss="mse", optimizer=nnc.Adam(0.05))
    bound = model.bind(X, T)
    learned = 0
    for seed in SEEDS:
        model.reset(seed)
        bound.run(STEPS)
        learned += int(abs(model(X) - T).max() < 0.25)
    assert learned == len(SEEDS)


def test_best_linear_model_of_xor_answers_one_half() -> None:
    g = layers((2, 1), "linear")
    model = nnc.compile(g, loss="mse", optimizer=nnc.SGD(0.5), dtype="float64", seed=3)
    model.bind(X, T).run(2000)
    np.testing.assert_allclose(model.parameters["layer1.weight"], 0, atol=1e-9)
    np.testing.assert_allclose(model.parameters["layer1.bias"], 0.5, atol=1e-9)
    np.testing.assert_allclose(model(X), 0.5, atol=1e-9)


# --------------------------------------------------------------------------- digits


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """80/20 split: x, t, x_test, t_test."""
    x, t = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(t))
    x, t, cut = x[order] / 16, t[order], len(t) * 4 // 5
    return x[:cut], t[:cut], x[cut:], t[cut:]


DIGITS = (64, 128, 64, 10)


def test_digits_reach_97_percent() -> None:
    x, t, x_test, t_test = digits()
    model = nnc.compile(
        layers(DIGITS, "relu"),
        loss="cross_entropy",
        optimizer=nnc.SGD(0.05, momentum=0.9),
        metrics=("accuracy",),
        seed=0,
    )
    history = model.fit(x, t, epochs=20, batch_size=32, verbose=0)
    assert model.evaluate(x_test, t_test)["accuracy"] >= 0.97
    assert history.history["loss"][-1] < 0.1 * history.history["loss"][0]


def test_compiled_and_reference_training_agree() -> None:
    x, t, _, _ = digits()
    model = nnc.compile(
        layers(DIGITS, "relu"),
        loss="cross_entropy",
        optimizer=nnc.SGD(0.05, momentum=0.9),
        dtype="float64",
        seed=0,
    )
    reference = model.reference
    ours = model.fit(x, t, epochs=3, batch_size=32, verbose=0)
    theirs = reference.fit(x, t, epochs=3, batch_size=32)
    for name, value in model.parameters.items():
        np.testing.assert_allclose(value, reference.parameters[name], rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours.history["loss"], theirs.history["loss"], rtol=1e-9)


# --------------------------------------------------------------------------- one program


def test_one_program_serves_every_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes 1, 3, 32, 1000 and a short last batch; forward and step are compiled once each."""
    compiled: list[str] = []
    count_compilations(monkeypatch, compiled)
    x, t, _, _ = digits()
    model = nnc.compile(
        layers(DIGITS, "relu"),
        loss="cross_entropy",
        optimizer="sgd",
        options=nnc.Options(cache=False),
    )
    reference = model.reference
    model(x[:2])
    model.step(x[:2], t[:2])
    reference.step(x[:2], t[:2])
    programs = len(compiled)
    assert 2 <= programs <= 5
    for size in (1, 3, 32, 1000, 7):
        np.testing.assert_allclose(
            model(x[:size]), reference.forward(x[:size]), rtol=2e-3, atol=2e-4
        )
        loss = model.step(x[:size], t[:size])
        np.testing.assert_allclose(loss, reference.step(x[:size], t[:size]), rtol=1e-3)
    model.fit(x[:75], t[:75], batch_size=32, epochs=2, verbose=0)  # 32, 32 and 11 rows
    assert len(compiled) == programs


def count_compilations(monkeypatch: pytest.MonkeyPatch, compiled: list[str]) -> None:
    """Notes every program that reaches the assembler."""
    from nncompiler import pipeline

    assemble = pipeline.assemble

    def counted(*args: Any, **kwargs: Any) -> Any:
        compiled.append("program")
        return assemble(*args, **kwargs)

    monkeypatch.setattr(pipeline, "assemble", counted)
