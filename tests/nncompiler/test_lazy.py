"""Lazy optimizers: of a table only the rows that the gradient reaches are read or written."""

from __future__ import annotations

import functools
from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from ir import ops
from ir.graph import Graph, topological
from ir.interpret import run_graph
from ir.types import f64, i32
from nncompiler.codegen.costs import moved
from nncompiler.reference import Reference
from nncompiler.simplify import simplify
from tests.layer_laws import assert_same_state, check_model

WORDS, WIDTH, LENGTH = 40, 5, 6
OPTIMIZERS = [
    nnc.SGD(0.1, lazy=True),
    nnc.SGD(0.1, momentum=0.9, lazy=True),
    nnc.SGD(0.1, momentum=1.0, weight_decay=1.0, lazy=True),
    nnc.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01, lazy=True),
    nnc.Adam(0.01, lazy=True, clip_norm=0.05),
    nnc.AdamW(nnc.InverseTime(0.01, 0.1), lazy=True, rates={"n.*": 0.5}),
    nnc.RMSProp(0.01, lazy=True, clip_value=0.001),
    nnc.Adagrad(0.1, lazy=True, clip_value=0.1, clip_norm=0.1),
]


def network(op: str = "embedding", inputs: str = "x", **attributes: Any) -> Any:
    """Sums of the layer at every input, and a dense layer; one table for all inputs."""
    g: Any = nx.DiGraph()
    g.add_node("sum", op="add")
    for name in inputs:
        g.add_node(name, op="input", shape=("batch", LENGTH), dtype="int32")
        layer = f"n{name}"
        g.add_node(layer, op=op, num_embeddings=WORDS, embedding_dim=WIDTH, share="n", **attributes)
        g.add_node(f"f{name}", op="flatten")
        nx.add_path(g, [name, layer, f"f{name}", "sum"])
    g.add_node("y", op="dense", units=2)
    g.add_edge("sum", "y")
    if len(inputs) == 1:
        g.remove_node("sum")
        g.add_edge(f"f{inputs}", "y")
    return g


def words(rows: int, high: int = WORDS) -> Any:
    return np.random.default_rng(rows).integers(0, high, (rows, LENGTH))


def compiled(g: Any, optimizer: Any, dtype: str = "float64", **settings: Any) -> nnc.Model:
    return nnc.compile(g, loss="mse", optimizer=optimizer, dtype=dtype, **settings)


def writers(model: nnc.Model) -> Any:
    """The kernels of a step that write a whole table, without those that change rows in place."""
    size = WORDS * WIDTH
    return [
        k.label
        for k in model.program("step").lowered.kernels
        if any(b.written and b.size == size for b in k.buffers)
        and not (k.scatter is not None and k.scatter.base == k.scatter.buffer)
    ]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize(("op", "dtype"), [("embedding", "float64"), ("embedding_bag", "float32")])
def test_compiled_is_the_reference(optimizer: Any, op: str, dtype: str) -> None:
    model = compiled(network(op), optimizer, dtype)
    assert not writers(model)
    check_model(model, words)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_a_step_is_update_after_backward(optimizer: Any) -> None:
    parts, whole = (compiled(network("embedding_bag"), optimizer) for _ in range(2))
    for rows in (3, 7, 1):
        x, t = words(rows, 12), np.ones((rows, 2))
        parts.update(parts.backward(x, t)[1])
        whole.step(x, t)
    assert_same_state(whole, parts, 1e-13)


def sparse_adam(table: Any, m: Any, v: Any, rows: Any, g: Any, t: int) -> None:
    """torch's SparseAdam at its defaults, but for where epsilon stands, in place."""
    m[rows] = 0.9 * m[rows] + 0.1 * g
    v[rows] = 0.999 * v[rows] + 0.001 * g * g
    spread = np.sqrt(v[rows] / (1 - 0.999**t)) + 1e-8
    table[rows] -= 0.01 * m[rows] / (1 - 0.9**t) / spread


def test_lazy_adam_is_sparse_adam_and_leaves_other_rows_alone() -> None:
    model = compiled(network(), nnc.Adam(0.01, lazy=True))
    table = np.array(model.parameters["n.weight"])
    m, v = np.zeros_like(table), np.zeros_like(table)
    for t, rows in enumerate((4, 2, 1, 6), 1):
        x, target = words(rows, 30), np.ones((rows, 2))
        gradient = model.backward(x, target)[1]["n.weight"]
        touched = np.unique(x)
        sparse_adam(table, m, v, touched, gradient[touched], t)
        before = model.state.copy()
        model.step(x, target)
        others = np.setdiff1d(np.arange(WORDS), touched)
        for name, expected in {"n.weight": table, "optimizer.m.n.weight": m}.items():
            np.testing.assert_allclose(model.state[name], expected, rtol=1e-10, atol=1e-14)
            np.testing.assert_array_equal(model.state[name][others], before[name][others])


def test_a_plain_optimizer_moves_the_other_rows_too() -> None:
    for lazy in (False, True):
        model = compiled(network(), nnc.Adam(0.01, lazy=lazy))
        model.step(np.full((1, LENGTH), 3), np.ones((1, 2)))
        before = np.array(model.parameters["n.weight"][3])
        model.step(np.full((1, LENGTH), 5), np.ones((1, 2)))
        assert np.array_equal(model.parameters["n.weight"][3], before) == lazy


def test_a_table_with_several_readers_is_still_changed_by_rows() -> None:
    for op in ("embedding", "embedding_bag"):
        for optimizer in (nnc.SGD(0.1), nnc.SGD(0.1, momentum=0.9, lazy=True), OPTIMIZERS[4]):
            model = compiled(network(op, "ab"), optimizer)
            assert not writers(model)
            check_model(model, lambda rows: {"a": words(rows), "b": words(rows + 1)[:rows]})


def test_a_table_that_is_also_a_weight_follows_its_whole_gradient() -> None:
    g = network("embedding_bag")
    g.add_node("tied", op="dense", units=WIDTH, share="n")
    g.nodes["nx"].update(num_embeddings=WIDTH)
    g.remove_node("y")
    g.add_edge("fx", "tied")
    for optimizer in OPTIMIZERS:
        model = compiled(g, optimizer)
        check_model(model, lambda rows: words(rows, WIDTH))


@pytest.mark.parametrize(
    "more",
    [{"accumulate": 2}, {"average": 0.9}, {"accumulate": 2, "average": 0.9, "clip_norm": 0.1}],
    ids=str,
)
def test_what_needs_the_whole_table_has_it(more: Any) -> None:
    model = compiled(network(), nnc.Adam(0.01, lazy=True, **more))
    check_model(model, words)


def test_a_regularizer_gives_every_row_a_gradient() -> None:
    model = compiled(network(), nnc.Adam(0.01, lazy=True), regularizer=nnc.L2(0.1))
    before = np.array(model.parameters["n.weight"])
    model.step(np.full((1, LENGTH), 3), np.ones((1, 2)))
    assert (model.parameters["n.weight"] != before).any(1).all()
    check_model(model, words)


def test_threads_and_debugging_see_the_same() -> None:
    """Every pass is interpreted; rows with several updates do not depend on the threads."""
    optimizer = nnc.Adam(0.01, lazy=True, clip_norm=0.05)
    debugged = compiled(network(), optimizer, options=nnc.Options(debug=True, cache=False))
    assert np.isfinite(debugged.step(words(3), np.ones((3, 2))))
    models = [compiled(network(), optimizer, options=nnc.Options(threads=n)) for n in (1, 2)]
    for _ in range(3):
        assert len({m.step(words(64, 9), np.ones((64, 2))) for m in models}) == 1
    for name, array in models[0].state.items():
        np.testing.assert_array_equal(models[1].state[name], array)


@pytest.mark.parametrize("forms", [1, 2])
def test_rows_are_summed_and_renewed_whatever_the_indices(forms: int) -> None:
    """Indices outside of the table add nothing: neither to a row nor to a sum over the rows."""
    p = ops.input("p", f64, (7, 3))
    u = [ops.input(f"u{k}", f64, ("batch", 2, 3)) for k in range(forms)]
    i = [ops.input(f"i{k}", i32, ("batch", 2)) for k in range(forms)]
    total = functools.reduce(ops.add, (ops.scatter_add(a, b, 7) for a, b in zip(u, i, strict=True)))
    touched = ops.any(ops.ne(total, 0.0), 1, keepdims=True)
    outputs = {
        "renewed": ops.where(touched, 2.0 * p - total * total, p),
        "norm": ops.sum(total * total),
        "kept": ops.where(touched, p, p + 1.0),  # not the rows that are touched
        "count": ops.sum(total * total + 1.0),  # of all rows
    }
    graph = Graph("g", (p, *u, *i), outputs)
    simple = simplify(graph)
    assert simple.outputs["renewed"].op.name == "scatter_set"
    assert all(n.shape[:1] != (7,) for n in topological([simple.outputs["norm"]]) if n is not p)
    random = np.random.default_rng(3)
    for batch in (0, 1, 9):
        values: Any = {"p": random.normal(size=(7, 3))}
        values |= {f"u{k}": random.normal(size=(batch, 2, 3)) for k in range(forms)}
        values |= {f"i{k}": random.integers(-3, 10, (batch, 2), np.int32) for k in range(forms)}
        expected, found = run_graph(graph, values), run_graph(simple, values)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-12, atol=1e-12)


def test_a_profile_counts_the_rows_that_are_moved_not_the_table() -> None:
    model = compiled(network(), nnc.Adam(lazy=True))
    kernels = {k.label: moved(k) for k in model.program("step").lowered.kernels}
    found = [cost for label, cost in kernels.items() if "new" in label and "n_weight" in label]
    rows = LENGTH * (2 * WIDTH * 8 + 4)  # rows of the batch are read and stored, and their numbers
    assert found == [[0, {"batch": rows}]] * 3


def test_no_index_at_all_changes_nothing() -> None:
    model = compiled(network(), nnc.Adam(0.01, lazy=True))
    before = model.state.copy()
    model.update({n: np.zeros_like(p) for n, p in model.parameters.items()})
    for name in ("n.weight", "optimizer.m.n.weight"):
        np.testing.assert_array_equal(model.state[name], before[name])


def test_a_saved_model_goes_on(tmp_path: Any) -> None:
    model = compiled(network(), nnc.Adam(0.01, lazy=True))
    model.step(words(4), np.ones((4, 2)))
    model.save(tmp_path / "m.nnc")
    again = nnc.load(tmp_path / "m.nnc")
    for machine in (model, again):
        machine.step(words(5), np.ones((5, 2)))
    twin = Reference(model.blueprint, model.state.copy())
    assert_same_state(again, twin, 0.0)


def test_lazy_without_an_embedding_is_a_mistake() -> None:
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 3))
    g.add_node("y", op="dense", units=2)
    g.add_edge("x", "y")
    with pytest.raises(nnc.CompileError, match="lazy is for embeddings"):
        compiled(g, nnc.Adam(lazy=True))
    with pytest.raises(nnc.CompileError, match="lazy is for embeddings"):
        compiled(network(trainable=False), nnc.Adam(lazy=True))
    with pytest.raises(TypeError, match="lazy is True or False"):
        nnc.Adam(lazy="n.weight")
