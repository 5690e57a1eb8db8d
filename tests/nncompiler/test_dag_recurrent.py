"""Graphs of neurons with cycles: against a direct evaluation over networkx, time after time."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from nncompiler.frontend.delays import find_delays
from nncompiler.frontend.neat import OURS, from_neat

TIMES = 7
FUNCTIONS: dict[str, Any] = {
    "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "linear": lambda z: z,
    "sin": np.sin,
}
COMBINE: dict[str, Any] = {
    "sum": np.sum,
    "max": np.max,
    "min": np.min,
    "mean": np.mean,
    "product": np.prod,
}


def compiled(g: Any, **settings: Any) -> nnc.Model:
    settings = {"recurrent": True, "loss": "mse", "optimizer": nnc.SGD(0.05)} | settings
    options = nnc.Options(threads=1, cache=False)
    return nnc.compile(g, dtype="float64", options=options, **settings)


def evaluate(g: Any, delays: dict[Any, int], x: Any, outputs: list[Any]) -> Any:
    """One neuron after the other, one time after the other; x is (batch, time, inputs)."""
    inputs = [n for n in g if not g.in_degree(n)]
    now = nx.DiGraph((u, v) for u, v in g.edges if (u, v) not in delays)
    now.add_nodes_from(g)
    history: list[dict[Any, Any]] = []
    zero = np.zeros(len(x))
    for t in range(x.shape[1]):
        values = {n: x[:, t, i] for i, n in enumerate(inputs)}
        for node in nx.topological_sort(now):
            if node in values:
                continue
            terms = []
            for u, _, data in g.in_edges(node, data=True):
                back = delays.get((u, node), 0)
                seen = values[u] if not back else zero if back > t else history[t - back][u]
                terms.append(data["weight"] * seen)
            data = g.nodes[node]
            total = COMBINE[data.get("aggregation", "sum")](terms, axis=0)
            values[node] = FUNCTIONS[data["activation"]](total + data["bias"])
        history.append(values)
    return np.stack([np.stack([h[n] for n in outputs], -1) for h in history], 1)


def cyclic(seed: int) -> Any:
    """Two components, edges in every direction, some with delays of 1 to 3 steps."""
    rng = np.random.default_rng(seed)
    g: Any = nx.DiGraph()
    for part, size in (("a", 3 + 3 * seed), ("b", 4)):
        inputs, neurons = [f"{part}x0", f"{part}x1"], [f"{part}n{i}" for i in range(size)]
        g.add_nodes_from(inputs)
        for n in neurons:
            g.add_node(n, activation=str(rng.choice(list(FUNCTIONS))), bias=float(rng.normal()))
            if rng.random() < 0.25:
                g.nodes[n]["aggregation"] = str(rng.choice(list(COMBINE)))
        for v in neurons:
            for u in [str(rng.choice(inputs)), *rng.choice(neurons, 2).tolist()]:
                g.add_edge(u, v, weight=float(rng.normal() / 2))
                if rng.random() < 0.3:
                    g.edges[u, v]["delay"] = int(rng.integers(1, 4))
        g.add_weighted_edges_from((u, neurons[0], 0.5) for u in inputs)
        g.add_node(f"{part}y", activation="tanh", bias=0.1)
        g.add_weighted_edges_from((n, f"{part}y", float(rng.normal())) for n in neurons)
    return g


def shuffled(g: Any, seed: int) -> Any:
    """The same graph, its neurons (but for inputs and outputs) and edges added in another order."""
    rng = random.Random(seed)
    ends = [n for n in g if not g.in_degree(n) or not g.out_degree(n)]
    inner = [n for n in g if n not in ends]
    edges = list(g.edges(data=True))
    rng.shuffle(inner)
    rng.shuffle(edges)
    other: Any = nx.DiGraph()
    for n in [*inner, *ends]:
        other.add_node(n, **g.nodes[n])
    other.add_edges_from(edges)
    return other


@pytest.mark.parametrize("seed", range(6))
def test_it_computes_what_python_does(seed: int) -> None:
    g = cyclic(seed)
    outputs = ["ay", "by"]
    x = np.random.default_rng(seed).normal(size=(3, TIMES, 4))
    expected = evaluate(g, find_delays(g), x, outputs)
    model = compiled(g)
    np.testing.assert_allclose(model(x), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(model(x[:, :2]), expected[:, :2], rtol=1e-10, atol=1e-12)
    last = compiled(g, recurrent="last")
    np.testing.assert_allclose(last(x), expected[:, -1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("recurrent", [True, "last"])
def test_gradients_through_time_are_differences(seed: int, recurrent: Any) -> None:
    g = cyclic(seed)
    model = compiled(g, recurrent=recurrent)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, TIMES, 4))
    t = rng.normal(size=model(x).shape)
    errors = model.check_gradients(x, t)
    assert max(errors.values()) < 1e-6
    edges = {f"{u}->{v}" for u, v in g.edges}
    assert {n for n in errors if "->" in n} == edges
    assert max(model.compare(x, t).values()) < 1e-9


def test_the_order_of_nodes_and_edges_changes_nothing() -> None:
    for seed in range(4):
        g = cyclic(seed)
        x = np.random.default_rng(seed).normal(size=(2, TIMES, 4))
        expected = compiled(g)(x)
        for order in range(3):
            other = shuffled(g, order)
            assert find_delays(other) == find_delays(g)
            np.testing.assert_array_equal(compiled(other)(x), expected)


def edges(*pairs: str) -> Any:
    g: Any = nx.DiGraph()
    g.add_edges_from((p[0], p[1]) for p in pairs)
    return g


@pytest.mark.parametrize("names", ["xabcy", "xcbay", "xbcay"])
def test_the_edge_back_to_the_only_way_in_closes_the_cycle(names: str) -> None:
    """x -> a -> b -> c -> y with c -> a, b -> b and c -> b, whatever the neurons are called."""
    x, a, b, c, y = names
    g = edges(x + a, a + b, b + c, c + y, c + a, b + b, c + b)
    assert find_delays(g) == {(c, a): 1, (b, b): 1, (c, b): 1}


def test_of_several_ways_in_the_first_by_name_counts() -> None:
    assert find_delays(edges("xa", "xb", "ab", "ba", "by")) == {("b", "a"): 1}
    g = edges("xa", "xb", "ab", "ba", "by")
    g.edges["a", "b"]["delay"] = 2
    assert find_delays(g) == {("a", "b"): 2}


def test_delays_that_cannot_be_are_named() -> None:
    g = edges("xa", "ab", "ba", "by")
    g.edges["b", "a"]["delay"] = 0
    with pytest.raises(nnc.CompileError, match="'b' -> 'a' closes a cycle: delay=0"):
        compiled(g)
    for wrong in (-1, 1.5, True, "1"):
        g.edges["b", "a"]["delay"] = wrong
        with pytest.raises(nnc.CompileError, match="delay of 'b' -> 'a' is no whole number"):
            compiled(g)
    g.edges["b", "a"]["delay"] = 1
    with pytest.raises(nnc.CompileError, match="has a cycle: a -> b -> a .*recurrent=True"):
        compiled(g, recurrent=False)
    g.remove_edge("a", "b")
    with pytest.raises(nnc.CompileError, match="edge 'b' -> 'a' has a delay .*recurrent=True"):
        compiled(g, recurrent=False)
    with pytest.raises(nnc.CompileError, match="recurrent is True, False or 'last', not 3"):
        compiled(g, recurrent=3)
    layers: Any = nx.DiGraph()
    layers.add_node("x", op="input", shape=("batch", 3))
    layers.add_node("y", op="dense", units=2)
    layers.add_edge("x", "y")
    with pytest.raises(nnc.CompileError, match="is for graphs of neurons"):
        compiled(layers)


def test_data_need_a_time() -> None:
    model = compiled(cyclic(0))
    for shape in ((3, 4), (3, 5, 2), (3, 0, 4)):
        with pytest.raises(ValueError, match=r"expected shape \(batch, time, 4\), got"):
            model(np.zeros(shape))


def test_an_acyclic_graph_sees_every_time_alone() -> None:
    g: Any = nx.DiGraph()
    g.add_nodes_from(["x0", "x1"])
    g.add_node("y", activation="tanh", bias=0.5)
    g.add_weighted_edges_from([("x0", "y", 1.5), ("x1", "y", -1.0)])
    x = np.random.default_rng(0).normal(size=(3, 4, 2))
    plain = compiled(g, recurrent=False)
    found = compiled(g)(x)
    np.testing.assert_allclose(found[:, 2], plain(x[:, 2]), rtol=1e-12)
    g.edges["x0", "y"]["delay"] = 2  # of an input
    late = compiled(g)(x)
    np.testing.assert_allclose(late[:, 3, 0], np.tanh(0.5 + 1.5 * x[:, 1, 0] - x[:, 3, 1]))
    np.testing.assert_allclose(late[:, 1, 0], np.tanh(0.5 - x[:, 1, 1]))


def test_it_learns_to_remember_and_gives_the_graph_back(tmp_path: Path) -> None:
    """y is the input of two times before, through two neurons and what they give each other."""
    g: Any = nx.DiGraph()
    g.add_node("x")
    for n in ("h", "k", "y"):
        g.add_node(n, activation="linear", bias=0.0)
    g.add_edge("x", "h", weight=0.5)
    g.add_edge("h", "k", weight=0.4, delay=1)
    g.add_edge("k", "y", weight=0.3, delay=1)
    g.add_edge("k", "k", weight=0.2)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(64, TIMES, 1))
    t = np.concatenate([np.zeros((64, 2, 1)), x[:, :-2]], 1)
    model = compiled(g, optimizer=nnc.Adam(0.05))
    model.fit(x, t, epochs=150, batch_size=16, verbose=0, validation_data=(x[:8, :5], t[:8, :5]))
    assert model.evaluate(x, t)["loss"] < 1e-4
    assert model.history.history["val_loss"][-1] < 1e-4
    trained = model.to_networkx()
    assert trained.edges["h", "k"]["delay"] == 1
    product = np.prod([trained.edges[e]["weight"] for e in (("x", "h"), ("h", "k"), ("k", "y"))])
    assert product == pytest.approx(1.0, abs=0.02)
    np.testing.assert_array_equal(compiled(trained)(x), model(x))
    model.save(tmp_path / "m.nnc")
    again = nnc.load(tmp_path / "m.nnc")
    np.testing.assert_array_equal(again(x), model(x))
    assert again.step(x, t) == model.step(x, t)


def test_pruning_leaves_the_delays_of_all_other_edges() -> None:
    g = cyclic(3)
    model = compiled(g)
    pruned = nnc.prune(model, 0.3)
    delays = {e: d for e, d in find_delays(g).items() if e in pruned.edges}
    assert find_delays(pruned) == delays
    zeroed = g.copy()
    for edge in g.edges - pruned.edges:
        zeroed.edges[edge]["weight"] = 0.0
    for node, aggregation in g.nodes(data="aggregation"):
        if aggregation in ("product", "max", "min", "mean"):  # where no edge is not an edge of 0
            zeroed.nodes[node].pop("aggregation")
            pruned.nodes.get(node, {}).pop("aggregation", None)
    x = np.random.default_rng(0).normal(size=(2, TIMES, 4))
    np.testing.assert_allclose(compiled(pruned)(x), compiled(zeroed)(x), rtol=1e-9, atol=1e-11)
    fewer = nnc.prune(model, 0.3, neurons=True)
    assert len(fewer) < len(g)
    assert find_delays(fewer) == {e: d for e, d in find_delays(g).items() if e in fewer.edges}
    with pytest.raises(ValueError, match="does not write derivatives through time"):
        model.explain("ay.bias")


def test_a_sigmoid_before_its_cross_entropy_is_undone() -> None:
    g = cyclic(1)
    for n in ("ay", "by"):
        g.nodes[n].update(activation="sigmoid", bias=40.0)  # 1 but for rounding
    x = np.random.default_rng(0).normal(size=(3, TIMES, 4))
    t = np.zeros((3, TIMES, 2))
    loss, gradients = compiled(g, loss="binary_cross_entropy").backward(x, t)
    assert 30 < loss < 50
    assert gradients["ay.bias"] == pytest.approx(0.5, rel=1e-6)


def test_bound_calls_and_threads_of_several_lengths() -> None:
    model = compiled(cyclic(2))
    rng = np.random.default_rng(0)
    for length in (4, 6, 4, 1, 6):
        x = rng.normal(size=(2, length, 4))
        expected = model.reference(x)
        for _ in range(3):
            np.testing.assert_allclose(model(x), expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(model.bind(x)(), expected, rtol=1e-12, atol=1e-12)


# --------------------------------------------------------------------------- neat-python


def genome(seed: int, count: int) -> Any:
    """Connections in every direction, some of them switched off; neurons without any."""
    rng = np.random.default_rng(seed)
    inputs, outputs = [-1, -2, -3], [0, 1]
    keys = list(range(2 + count))
    names = [n for n in OURS if n not in ("inv", "exp", "log", "square", "cube")]
    nodes = {
        key: SimpleNamespace(
            bias=float(rng.normal()),
            response=float(rng.choice([1.0, 0.5, -2.0])),
            activation=str(rng.choice(names)),
            aggregation=str(
                rng.choice(["sum", "product", "max", "min", "mean", "median", "maxabs"])
            ),
        )
        for key in keys
    }
    connections = {}
    for target in keys[: len(keys) - 1]:
        for source in (*inputs, *keys):
            if rng.random() < 0.3:
                weight, enabled = float(rng.normal()), bool(rng.random() < 0.9)
                gene = SimpleNamespace(key=(source, target), weight=weight, enabled=enabled)
                connections[source, target] = gene
    return SimpleNamespace(nodes=nodes, connections=connections), (inputs, outputs)


@pytest.mark.parametrize("seed", range(8))
def test_a_genome_computes_what_neat_python_does(seed: int) -> None:
    neat = pytest.importorskip("neat")
    genes, (inputs, outputs) = genome(seed, 2 * seed)
    config = SimpleNamespace(
        genome_config=SimpleNamespace(
            input_keys=inputs,
            output_keys=outputs,
            activation_defs=neat.activations.ActivationFunctionSet(),
            aggregation_function_defs=neat.aggregations.AggregationFunctionSet(),
        )
    )
    network = neat.nn.RecurrentNetwork.create(genes, config)
    x = np.random.default_rng(seed).normal(size=(4, TIMES, 3))
    expected = []
    for sequence in x:
        network.reset()
        expected.append([network.activate(row) for row in sequence])
    model = compiled(from_neat(genes, config, recurrent=True), loss=None, optimizer=None)
    np.testing.assert_allclose(model(x), expected, rtol=1e-9, atol=1e-11)
