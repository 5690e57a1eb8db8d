"""Graphs with few numbers per row are computed column by column, in one kernel."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from ir import ops
from ir.graph import Graph, Node
from ir.interpret import run_graph
from ir.types import Extent, f32, f64
from nncompiler.narrow import narrow
from nncompiler.options import Options
from nncompiler.simplify import simplify
from tests.stages import stages

BATCH = Extent(1, "batch")
BATCHES = (1, 3, 16, 17, 70)


def network(hidden: int = 2, **options: Any) -> nnc.Model:
    g: nx.DiGraph[Any] = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 2))
    g.add_node("h", op="dense", units=hidden, activation="tanh")
    g.add_node("y", op="dense", units=1, activation="sigmoid")
    nx.add_path(g, ["x", "h", "y"])
    return nnc.compile(g, **{"loss": "mse", "optimizer": "sgd", **options})


def data(batch: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    r = np.random.default_rng(seed)
    return r.normal(size=(batch, 2)), r.uniform(size=(batch, 1))


def test_a_step_of_xor_is_one_kernel() -> None:
    model = network()
    assert model.stages["loops"].count("void k") == 1
    assert "h_0 = tanh" in model.stages["kernels"]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(
    "optimizer",
    [nnc.SGD(0.1), nnc.SGD(0.1, momentum=0.9, nesterov=True), nnc.Adam(0.01), nnc.RMSProp(0.01)],
    ids=lambda o: type(o).__name__,
)
def test_it_trains_as_numpy_does(batch: int, optimizer: Any) -> None:
    model = network(
        optimizer=optimizer, dtype="float64", regularizer=nnc.L2(0.01), options=Options(debug=True)
    )
    reference = model.reference
    for seed in range(3):
        x, t = data(batch, seed)
        assert model.step(x, t) == pytest.approx(reference.step(x, t), rel=1e-12)
    for name, value in model.parameters.items():
        np.testing.assert_allclose(value, reference.parameters[name], rtol=1e-10, atol=1e-12)


def test_a_wider_network_stays_as_it_is() -> None:
    model = network(hidden=16)
    assert model.stages["loops"].count("void k") > 1


def test_long_rows_stay_as_they_are() -> None:
    x, w = ops.input("x", f32, (BATCH, 16)), ops.input("w", f32, (16, 1))
    graph = simplify(Graph("sum", (x, w), {"s": ops.sum(x @ w, axis=0)}))
    assert narrow(graph) is graph


def test_results_with_rows_stay_as_they_are() -> None:
    x = ops.input("x", f32, (BATCH, 2))
    graph = simplify(Graph("forward", (x,), {"y": ops.tanh(x)}))
    assert narrow(graph) is graph


def test_gathers_stay_as_they_are() -> None:
    x = ops.input("x", f32, (BATCH, 2))
    table = ops.constant(np.arange(8.0).reshape(4, 2), f32)
    picked = ops.gather(table, ops.cast(x, "i32"))
    graph = simplify(Graph("sum", (x,), {"s": ops.sum(picked)}))
    assert narrow(graph) is graph


def rows() -> tuple[Node, Node]:
    return ops.input("x", f64, (BATCH, 3)), ops.input("w", f64, (3, 2))


FUNCTIONS = {
    "contraction over rows": lambda x, w: ops.contract(x, x, "ab,ac->bc"),
    "maximum of rows": lambda x, w: ops.max(ops.matmul(x, w), axis=0),
    "smallest of all": lambda x, w: ops.min(x * x),
    "product along a row": lambda x, w: ops.sum(ops.prod(x, axis=1)),
    "softmax of a row": lambda x, w: ops.sum(ops.softmax(ops.matmul(x, w)) ** 2, axis=0),
    "padded, joined and turned": lambda x, w: ops.sum(
        ops.pad(ops.concatenate([ops.flip(x, 1), x * 2], 1), (0, 1), (0, 2), 3.0), axis=0
    ),
    "numbered rows": lambda x, w: ops.sum(
        x * ops.reshape(ops.cast(ops.iota((BATCH,)), "f64"), (BATCH, 1)), axis=0
    ),
    "no rows at all": lambda x, w: ops.sum(w * w) + ops.sum(x) * 0.0,
    "transposed result": lambda x, w: ops.matmul(w.T, ops.contract(x, x, "ab,ac->bc")).T,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_columns_compute_what_numpy_computes(name: str) -> None:
    x, w = rows()
    graph = Graph("f", (x, w), {"result": FUNCTIONS[name](x, w)})
    assert narrow(simplify(graph)) is not simplify(graph)
    runs = stages(graph)
    r = np.random.default_rng(1)
    for batch in BATCHES:
        arrays = {"x": r.normal(size=(batch, 3)), "w": r.normal(size=(3, 2))}
        expected = run_graph(graph, arrays)["result"]
        for stage, run in runs.items():
            np.testing.assert_allclose(run(arrays)["result"], expected, rtol=1e-9, err_msg=stage)


def test_repeated_steps_are_steps() -> None:
    x, t = data(4)
    one, many = network(seed=1), network(seed=1)
    losses = [one.step(x, t) for _ in range(5)]
    bound = many.bind(x, t)
    assert bound.run(5) == losses[-1]
    for name, value in one.parameters.items():
        np.testing.assert_array_equal(value, many.parameters[name])
    bound.inputs["target"][2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        bound.run(3)
    for name, value in one.parameters.items():
        np.testing.assert_array_equal(value, many.parameters[name])
