"""Many graphs at once: each computes what its definition says, whatever is evaluated beside it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nncompiler as nnc
from nncompiler.codegen import llvm
from nncompiler.codegen.target import preset
from nncompiler.frontend.activations import ACTIVATIONS, ROW_WISE
from nncompiler.frontend.neat import OURS
from nncompiler.programs import comparators
from tests.nncompiler.dags import AGGREGATIONS, ends, evaluate, random_dag

OPTIONS = nnc.Options(threads=1)
NAMES = sorted(ACTIVATIONS.keys() - ROW_WISE)
SMOOTH = ("tanh", "sigmoid", "linear", "gaussian", "softplus", "sine")


def weighted(g: Any, seed: int = 0) -> Any:
    """The graph, with numbers where it has none."""
    rng = np.random.default_rng(seed)
    for _, _, data in g.edges(data=True):
        data.setdefault("weight", float(rng.normal()))
    return g


def values(g: Any, x: Any) -> Any:
    w = {f"{u}->{v}": d["weight"] for u, v, d in g.edges(data=True)}
    w |= {f"{n}.bias": d.get("bias", 0.0) for n, d in g.nodes(data=True)}
    inputs, outputs = ends(g)
    inputs, outputs = g.graph.get("inputs", inputs), g.graph.get("outputs", outputs)
    return evaluate(g, x, w, inputs, outputs)[0]


def layered(seed: int, inputs: int = 3, outputs: int = 2, hidden: int = 12) -> Any:
    """A random graph with so many inputs and outputs."""
    rng = np.random.default_rng(seed)
    count = inputs + hidden + outputs
    g = nx.DiGraph(inputs=list(range(inputs)), outputs=list(range(count - outputs, count)))
    g.add_nodes_from(range(inputs))
    for v in range(inputs, count):
        kind, name = str(rng.choice(AGGREGATIONS)), str(rng.choice(SMOOTH))
        g.add_node(v, activation=name, aggregation=kind, bias=float(rng.normal()))
        for u in rng.choice(min(v, count - outputs), size=int(rng.integers(1, 4)), replace=False):
            g.add_edge(int(u), v, weight=float(rng.normal()))
    return g


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**6),
    neurons=st.integers(2, 60),
    density=st.sampled_from([0.03, 0.1, 0.3]),
    isolated=st.integers(0, 2),
    batch=st.sampled_from([1, 2, 16, 17, 64, 100, 130]),
    own=st.booleans(),
)
def test_values_are_those_of_the_definition(
    seed: int, neurons: int, density: float, isolated: int, batch: int, own: bool
) -> None:
    graphs = [
        weighted(random_dag(seed + i, neurons, density=density, isolated=isolated), seed + i)
        for i in range(2)
    ]
    graphs += [
        weighted(random_dag(seed + 2, neurons, aggregations=AGGREGATIONS, activations=SMOOTH), seed)
    ]
    for g in graphs:
        rng = np.random.default_rng(seed)
        width = len(ends(g)[0])
        many = nnc.compile_population([g, g], dtype="float64", options=OPTIONS)
        x = rng.normal(size=(2, batch, width) if own else (batch, width))
        found = many(x)
        for i in range(2):
            expected = values(g, x[i] if own else x)
            np.testing.assert_allclose(found[i], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [1, 5, 37, 300])
def test_every_member_computes_what_its_compiled_graph_does(dtype: str, batch: int) -> None:
    graphs = [layered(seed) for seed in range(12)]
    population = nnc.compile_population(graphs, dtype=dtype, options=OPTIONS)
    x = np.random.default_rng(1).normal(size=(12, batch, 3)).astype(dtype)
    y = population(x)
    assert y.shape == (12, batch, 2) and y.dtype == dtype
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    for i, g in enumerate(graphs):
        model = nnc.compile(g, dtype=dtype, options=OPTIONS)
        np.testing.assert_allclose(y[i], model(x[i]), rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(population[i](x[i]), y[i])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [1, 40])
def test_every_activation_is_the_one_of_single_graphs(dtype: str, batch: int) -> None:
    g = nx.DiGraph(inputs=["x"], outputs=NAMES)
    for name in NAMES:
        g.add_node(name, activation=name, bias=0.25)
        g.add_edge("x", name, weight=1.5)
    x = np.linspace(0.01, 3, batch).reshape(-1, 1)
    found = nnc.compile_population([g], dtype=dtype, options=OPTIONS)(x)[0]
    expected = nnc.compile(g, dtype=dtype, options=OPTIONS)(x)
    tolerance = 1e-6 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_activations_of_ones_own_are_formulas_too() -> None:
    g = nx.DiGraph()
    g.add_edge("x", "a", weight=2.0)
    g.add_edge("x", "b", weight=-3.0)
    g.nodes["a"]["activation"] = lambda x: x / (1.0 + abs(x))
    g.nodes["b"]["activation"] = ("leaky_relu", {"slope": 0.25})
    y = nnc.compile_population([g], options=OPTIONS)([[1.0], [2.0]])
    np.testing.assert_allclose(y[0], [[2 / 3, -0.75], [4 / 5, -1.5]], rtol=1e-6)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("terms", [1, 2, 3, 7, 18, 33])
def test_aggregations_of_many_terms(aggregation: str, terms: int) -> None:
    g = nx.DiGraph()
    for i in range(terms):
        g.add_edge(f"x{i:02}", "y", weight=0.5 + 0.1 * i)
    g.nodes["y"]["aggregation"] = aggregation
    population = nnc.compile_population([g], dtype="float64", options=OPTIONS)
    for batch in (1, 50):
        x = np.random.default_rng(terms).normal(size=(batch, terms))
        np.testing.assert_allclose(population(x)[0], values(g, x), rtol=1e-12)


def test_different_numbers_of_outputs_give_a_list() -> None:
    graphs = [layered(i, outputs=1 + i % 3) for i in range(5)]
    x = np.random.default_rng(0).normal(size=(7, 3))
    found = nnc.compile_population(graphs, dtype="float64", options=OPTIONS)(x)
    assert [y.shape for y in found] == [(7, 1), (7, 2), (7, 3), (7, 1), (7, 2)]
    for g, y in zip(graphs, found, strict=True):
        np.testing.assert_allclose(y, values(g, x), rtol=1e-10, atol=1e-12)


def test_chosen_inputs_and_outputs() -> None:
    g = layered(3)
    x = np.random.default_rng(0).normal(size=(4, 3))
    y = nnc.compile_population([g], options=OPTIONS)(x)[0]
    turned = nnc.compile_population([g], inputs=[2, 1, 0], outputs=[16], options=OPTIONS)
    np.testing.assert_array_equal(turned(x[:, ::-1])[0], y[:, 1:])


def test_an_input_may_be_an_output() -> None:
    g = nx.DiGraph(outputs=["x", "y"])
    g.add_edge("x", "y", weight=3.0)
    y = nnc.compile_population([g], options=OPTIONS)([[2.0]])
    np.testing.assert_array_equal(y, [[[2.0, 6.0]]])


@pytest.mark.parametrize("batch", [1, 3, 70])
def test_large_graphs_and_long_chains(batch: int) -> None:
    """Their values do not fit on the stack; small ones beside them do."""
    chain = nx.DiGraph()
    for i in range(1500):
        chain.add_edge(i, i + 1, weight=1.0)
        chain.nodes[i + 1].update(activation="tanh" if i % 2 else "linear", bias=0.1)
    wide = nx.DiGraph()
    for i in range(2500):
        wide.add_edge("x", f"h{i}", weight=i / 2500)
        wide.add_edge(f"h{i}", "y", weight=1.0)
    wide.nodes["y"]["aggregation"] = "median"
    small = nx.DiGraph()
    small.add_edge("x", "y", weight=2.0)
    graphs = [small, chain, small, wide, small]
    x = np.random.default_rng(0).normal(size=(batch, 1))
    found = nnc.compile_population(graphs, dtype="float64", options=OPTIONS)(x)
    for g, y in zip(graphs, found, strict=True):
        np.testing.assert_allclose(y, values(g, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("batch", [1, 33])
def test_the_number_of_threads_changes_no_bit(batch: int) -> None:
    graphs = [layered(seed) for seed in range(200)]
    x = np.random.default_rng(0).normal(size=(batch, 3))
    one, three = (
        nnc.compile_population(graphs, options=nnc.Options(threads=threads)) for threads in (1, 3)
    )
    expected = one(x)
    for _ in range(20):
        np.testing.assert_array_equal(three(x), expected)


def test_many_python_threads_may_call_one_population() -> None:
    """5,000 graphs: their table of places is too large to be copied into a call's frame."""
    graphs = []
    for i in range(5000):
        g = nx.DiGraph()
        g.add_weighted_edges_from([("a", "y", float(i)), ("b", "y", 1.0)])
        graphs.append(g)
    population = nnc.compile_population(graphs, dtype="float64", options=nnc.Options(threads=2))

    def right(seed: int) -> bool:
        x = np.random.default_rng(seed).normal(size=(5, 2))
        expected = np.arange(5000)[:, None] * x[:, 0] + x[:, 1]
        own = np.broadcast_to(x, (5000, 5, 2))
        return all(np.allclose(population(v)[:, :, 0], expected) for v in (x, own, x))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, range(40)))


def test_the_order_of_nodes_and_edges_changes_no_bit() -> None:
    g = layered(5)
    turned = nx.DiGraph(**g.graph)
    turned.add_nodes_from(reversed(list(g.nodes(data=True))))
    turned.add_edges_from(reversed(list(g.edges(data=True))))
    x = np.random.default_rng(0).normal(size=(9, 3))
    a, b = nnc.compile_population([g, turned], options=OPTIONS)(x)
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["sse", "avx2", "avx512"])
def test_every_target_computes_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, target = llvm.host(), preset(name)
    if not here.is_x86 or here.vector_bits < target.vector_bits:
        pytest.skip(f"this machine does not run {name}")
    graphs = [layered(seed) for seed in range(4)]
    monkeypatch.setattr(llvm, "host", lambda: replace(target, triple=here.triple))
    population = nnc.compile_population(graphs, dtype="float64", options=OPTIONS)
    for batch in (1, 3, 50):
        x = np.random.default_rng(0).normal(size=(batch, 3))
        for g, y in zip(graphs, population(x), strict=True):
            np.testing.assert_allclose(y, values(g, x), rtol=1e-10, atol=1e-12)


# --------------------------------------------------------------------------- members


def test_a_member_that_is_called_often_is_compiled_and_computes_the_same() -> None:
    graphs = [layered(seed) for seed in range(3)]
    population = nnc.compile_population(graphs, specialize_after=2, options=OPTIONS)
    x = np.random.default_rng(0).normal(size=(6, 3))
    expected, member = population(x)[1], population[1]
    for _ in range(2):
        np.testing.assert_array_equal(member(x), expected)
    assert not member.is_compiled
    np.testing.assert_allclose(member(x), expected, rtol=1e-6, atol=1e-6)
    assert member.is_compiled and member.calls == 3 and population[-2] is member
    assert not population[0].is_compiled and len(list(population)) == 3


def test_parameters_are_live_for_the_population_and_its_members() -> None:
    graphs = [layered(seed) for seed in range(4)]
    population = nnc.compile_population(graphs, specialize_after=1, dtype="float64")
    x = np.random.default_rng(0).normal(size=(6, 3))
    before = population(x)
    population[2](x)
    rng = np.random.default_rng(7)
    changed = graphs[2].copy()
    for name in population.parameters(2):
        value = float(rng.normal())
        population.parameters(2)[name] = value
        if name.endswith(".bias"):
            changed.nodes[int(name[:-5])]["bias"] = value
        else:
            changed.edges[tuple(map(int, name.split("->")))]["weight"] = value
    after = population(x)
    np.testing.assert_allclose(after[2], values(changed, x), rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(after[[0, 1, 3]], before[[0, 1, 3]])
    for _ in range(2):  # by the evaluator, then compiled
        np.testing.assert_allclose(population[2](x), after[2], rtol=1e-12, atol=1e-13)
    assert population[2].is_compiled
    population.parameters(2)["16.bias"] = 0.5
    np.testing.assert_allclose(population[2](x), population(x)[2], rtol=1e-12, atol=1e-13)


def test_a_member_gives_its_graph_back() -> None:
    graphs = [layered(seed) for seed in range(3)]
    x = np.random.default_rng(0).normal(size=(6, 3))
    population = nnc.compile_population(graphs, dtype="float64", options=OPTIONS)
    again = nnc.compile_population([m.graph for m in population], dtype="float64", options=OPTIONS)
    np.testing.assert_array_equal(again(x), population(x))
    g = population[1].graph
    assert set(g.edges) <= set(graphs[1].edges)
    assert all(g.edges[e]["weight"] == graphs[1].edges[e]["weight"] for e in g.edges)
    assert all(g.nodes[n] == graphs[1].nodes[n] for n in g)


def test_a_changed_graph_changes_no_population() -> None:
    g = layered(0)
    x = np.ones((2, 3))
    population = nnc.compile_population([g], specialize_after=0, dtype="float64")
    expected = values(g, x)
    g.clear_edges()
    np.testing.assert_allclose(population(x)[0], expected, rtol=1e-10)
    np.testing.assert_allclose(population[0](x), expected, rtol=1e-10)


def test_shared_weights_and_other_kinds_of_numbers() -> None:
    g = nx.MultiDiGraph()
    g.add_edge("a", "y", weight=np.float32(2.0), weight_name="w")
    g.add_edge("b", "y", weight_name="w")
    g.nodes["y"].update(bias=1, trainable=False)
    y = nnc.compile_population([g], options=OPTIONS)(np.array([[1, 2]], np.int64))
    np.testing.assert_array_equal(y, [[[7.0]]])


def test_all_of_neat_pythons_functions_are_there() -> None:
    assert set(OURS.values()) <= set(NAMES)


@pytest.mark.parametrize("count", range(1, 12))
def test_the_network_of_comparators_sorts(count: int) -> None:
    rng = np.random.default_rng(count)
    for _ in range(20):
        values = rng.integers(0, 5, count).tolist()
        expected = sorted(values)
        for i, j in comparators(count):
            values[i], values[j] = min(values[i], values[j]), max(values[i], values[j])
        assert values == expected
