"""Every stage of the pipeline computes what NumPy computes, on random graphs and gradients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ir import ops
from ir.graph import Graph, Node
from ir.interpret import run_graph
from nncompiler.compilation import compile_graph
from nncompiler.options import Options
from nncompiler.separate import separate
from nncompiler.simplify import simplify
from runtime.artifact import FIXED
from runtime.buffers import aligned_copy
from runtime.session import Session
from tests.random_graphs import BATCHES, data_for, graphs, tolerance
from tests.stages import Arrays, stages

# many graphs are drawn in vain, and that is all right
ANY_GRAPH = settings(suppress_health_check=list(HealthCheck))


def assert_close(ours: Arrays, reference: Arrays, limit: float, what: str) -> None:
    """Largest difference at most `limit` times the largest value (at least 1)."""
    assert ours.keys() == reference.keys()
    for name, expected in reference.items():
        found = ours[name]
        assert found.shape == expected.shape, f"{what}, {name}"
        assert found.dtype == expected.dtype, f"{what}, {name}"
        if not expected.size:
            continue
        scale = max(1.0, float(np.max(np.abs(expected))))
        error = float(np.max(np.abs(found.astype(float) - expected.astype(float)))) / scale
        assert error <= limit, f"{what}, {name}: {error}\n{found}\n{expected}"


def check_every_stage(graph: Graph) -> None:
    runs = stages(graph)
    for batch in BATCHES:
        arrays = data_for(graph, batch, seed=batch)
        reference = run_graph(graph, arrays)
        for stage, run in runs.items():
            assert_close(run(arrays), reference, tolerance(graph), f"{stage}, batch {batch}")


@ANY_GRAPH
@given(graphs())
def test_every_stage_computes_what_numpy_computes(graph: Graph) -> None:
    check_every_stage(graph)


@ANY_GRAPH
@given(graphs(gradients=True))
def test_every_stage_computes_the_gradient(graph: Graph) -> None:
    check_every_stage(graph)


@ANY_GRAPH
@given(graphs(gradients=True))
def test_every_stage_computes_results_without_rows(graph: Graph) -> None:
    """Those of few columns are computed column by column."""
    outputs = {name: n for name, n in graph.outputs.items() if not n.type.symbols}
    check_every_stage(Graph(graph.name, graph.inputs, outputs, graph.names))


@ANY_GRAPH
@given(graphs(gradients=True))
def test_simplify_is_idempotent(graph: Graph) -> None:
    once = simplify(graph)
    twice = simplify(once)
    assert all(twice.outputs[name] is node for name, node in once.outputs.items())


@ANY_GRAPH
@given(graphs(gradients=True))
def test_gradients_are_those_of_differences(graph: Graph) -> None:
    """Along one random direction, in float64."""
    if tolerance(graph) > 1e-6:
        return
    arrays = data_for(graph, 3)
    r = np.random.default_rng(1)
    names = [n.attrs["id"] for n in graph.inputs if f"grad:{n.attrs['id']}" in graph.outputs]
    direction = {n: r.standard_normal(arrays[n].shape) for n in names}
    step = 1e-6

    def loss(sign: float) -> float:
        moved = {n: arrays[n] + sign * step * direction[n] for n in names}
        return float(run_graph(graph, {**arrays, **moved})["loss"])

    results = run_graph(graph, arrays)
    slope = sum(float(np.sum(results[f"grad:{n}"] * direction[n])) for n in names)
    assert slope == pytest.approx((loss(1) - loss(-1)) / (2 * step), rel=1e-4, abs=1e-4)


def test_a_table_with_one_row_may_be_made_where_it_is_read() -> None:
    x, rows = ops.input("x", "f64", (1, 3)), ops.input("rows", "i32", (1,))
    table = ops.tanh(ops.matmul(x, ops.input("w", "f64", (3, 1))))
    inputs = (x, ops.input("w", "f64", (3, 1)), rows)
    check_every_stage(Graph("one_row", inputs, {"table": table, "y": ops.gather(table, rows)}))


def test_a_scatter_may_be_an_output_under_two_names() -> None:
    x, rows = ops.input("x", "f64", ("batch", 2)), ops.input("rows", "i32", ("batch",))
    total = ops.scatter_add(x, rows, 4)
    check_every_stage(Graph("twice", (x, rows), {"a": total, "b": total, "c": total + 1}))


@ANY_GRAPH
@given(graphs(), st.data())
def test_a_graph_in_two_gives_what_it_gives_in_one(graph: Graph, data: st.DataObject) -> None:
    """What depends on some of the inputs alone is computed once (nncompiler/separate.py)."""
    free = [str(n.attrs["id"]) for n in graph.inputs if not n.type.symbols]
    ids = frozenset(data.draw(st.lists(st.sampled_from(free)))) if free else frozenset()
    halves = separate(graph, ids)
    artifact = compile_graph(halves.rest, options=Options(threads=1, cache=False))
    for batch in BATCHES:
        arrays = data_for(graph, batch, seed=batch)
        reference = run_graph(graph, arrays)
        once = run_graph(halves.once, {n: arrays[n] for n in map(id_of, halves.once.inputs)})
        fixed = {**once, **{FIXED + id: arrays[id] for id in halves.taken}}
        given = {n: a for n, a in arrays.items() if n not in ids}
        interpreted = run_graph(halves.rest, {**given, **fixed})
        assert_close(interpreted, reference, tolerance(graph), f"by NumPy, batch {batch}")
        session = Session(artifact, {n: aligned_copy(a) for n, a in fixed.items()})
        assert_close(session(given), reference, tolerance(graph), f"compiled, batch {batch}")


def id_of(node: Node) -> str:
    return str(node.attrs["id"])
