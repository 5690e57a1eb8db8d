"""Laws of the graph: equal nodes are one object, rewriting keeps structure and names."""

from __future__ import annotations

import gc
import threading

import networkx as nx
import numpy as np
import pytest

from ir import ops
from ir.convert import COLOURS, to_dot, to_networkx
from ir.graph import Graph, Literal, make, rebuild, rewrite, substitute, topological
from ir.interpret import run_graph
from ir.op import Lowering
from ir.types import Extent, TensorType, divide, dtype_of, f32, f64, i32, multiply
from ir.verify import verify_graph

X = ops.input("x", f32, ("batch", 4))
W = ops.input("w", f32, (4, 3))


def test_the_same_expression_is_the_same_node() -> None:
    assert ops.tanh(X @ W) is ops.tanh(X @ W)
    assert (X + 1) is (X + 1.0)
    assert ops.sum(X, -1) is ops.sum(X, 1)


@pytest.mark.parametrize(
    ("a", "b"),
    [(0.0, -0.0), (1.0, 2.0), (float("nan"), 0.0)],
)
def test_constants_of_different_bits_are_different_nodes(a: float, b: float) -> None:
    assert ops.constant(a) is not ops.constant(b)
    assert ops.constant(a) is ops.constant(a)


def test_one_true_and_one_point_zero_are_different_attributes() -> None:
    pads = [make("pad", X, low=(0, 1), high=(0, 0), value=v) for v in (1, 1.0, True)]
    assert len(set(pads)) == 3


def test_inputs_with_different_ids_are_different_nodes() -> None:
    assert ops.input("a", f32, (3,)) is not ops.input("b", f32, (3,))


def test_nodes_are_immutable_and_have_no_truth_value() -> None:
    with pytest.raises(AttributeError):
        X.type = W.type
    with pytest.raises(TypeError, match="where"):
        bool(X < 1)


def test_iteration_takes_rows_and_stops() -> None:
    assert list(W) == [W[i] for i in range(4)]
    assert len(W) == 4
    with pytest.raises(TypeError):
        iter(X)


def test_the_table_of_nodes_is_weak() -> None:
    from ir.graph import _table

    gc.collect()
    before = len(_table)
    kept = ops.exp(ops.input("weak", f32, (3,)))
    assert len(_table) == before + 2
    del kept
    gc.collect()
    assert len(_table) == before


def test_threads_build_one_node() -> None:
    found = []

    def work() -> None:
        found.append([ops.input("t", f32, (n,)) * 2 for n in range(1, 200)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(a is b for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_topological_order_puts_operands_first() -> None:
    y = ops.relu(X @ W) + 1
    order = topological([y])
    assert all(order.index(i) < order.index(n) for n in order for i in n.inputs)


def test_deep_graphs_do_not_recurse() -> None:
    y = X
    for _ in range(5000):
        y = ops.tanh(y)
    assert len(topological([y])) == 5001


def test_rewrite_with_rebuild_gives_the_same_graph() -> None:
    graph = Graph("g", (X, W), {"y": ops.relu(X @ W)}, {X: "x"})
    again = rewrite(graph, rebuild)
    assert again.outputs["y"] is graph.outputs["y"]
    assert again.names == graph.names


def test_substitute_replaces_an_input_and_keeps_names() -> None:
    graph = Graph("g", (X, W), {"y": ops.relu(X @ W)}, {X @ W: "product"})
    other = ops.input("w2", f32, (4, 3))
    again = substitute(graph, {W: other})
    assert again.outputs["y"] is ops.relu(X @ other)
    assert again.names == {X @ other: "product"}
    assert again.inputs == (X, other)


def test_users_and_symbols() -> None:
    y = X * X
    graph = Graph("g", (X,), {"y": y})
    assert graph.users[X] == (y,)
    assert graph.symbols == ("batch",)


# --------------------------------------------------------------------------- interpreter


def test_one_graph_runs_every_batch_size() -> None:
    graph = Graph("g", (X, W), {"y": ops.mean(X @ W, 0), "n": ops.extent("batch", i32)})
    w = np.ones((4, 3), np.float32)
    for batch in (1, 3, 32, 1000):
        found = run_graph(graph, {"x": np.ones((batch, 4), np.float32), "w": w})
        np.testing.assert_array_equal(found["y"], np.full(3, 4.0, np.float32))
        assert found["y"].dtype == np.float32
        assert found["n"] == batch


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": np.ones((2, 4), np.float32)}, "'w'.*missing"),
        ({"x": np.ones((2, 5), np.float32), "w": np.ones((4, 3), np.float32)}, "'x' has shape"),
        ({"x": np.ones(4, np.float32), "w": np.ones((4, 3), np.float32)}, "'x' has shape"),
    ],
)
def test_wrong_inputs_name_the_input(inputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_graph(Graph("g", (X, W), {"y": X @ W}), inputs)


def test_inputs_that_bind_a_symbol_twice_must_agree() -> None:
    t = ops.input("t", f32, ("batch", 3))
    feed = {"x": np.ones((2, 4)), "w": np.ones((4, 3)), "t": np.ones((3, 3))}
    with pytest.raises(ValueError, match="batch = 2"):
        run_graph(Graph("g", (X, W, t), {"y": X @ W - t}), feed)


def test_complex_input_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="complex128"):
        run_graph(Graph("g", (X,), {"y": X}), {"x": np.ones((2, 4), complex)})


# --------------------------------------------------------------------------- verifier


def test_well_formed_graph_passes() -> None:
    verify_graph(Graph("g", (X, W), {"y": X @ W}))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (Graph("g", (X,), {"y": X @ W}), "not among its inputs"),
        (Graph("g", (X, X + 1), {"y": X}), "not an input node"),
        (Graph("g", (X, ops.input("x", f32, (2,))), {"y": X}), "two inputs have the id"),
        (Graph("g", (X,), {}), "no outputs"),
        (Graph("g", (), {"y": ops.iota(("batch", 3))}), "no input binds the symbol"),
    ],
)
def test_malformed_graphs_are_named(graph: Graph, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verify_graph(graph)


# --------------------------------------------------------------------------- types, conversion


def test_literals_keep_rank_zero() -> None:
    assert Literal.of(np.asarray(1.0), f32).shape == ()


def test_symbol_off_the_leading_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="leading axis"):
        TensorType(f32, (3, Extent(1, "batch")))


def test_extents_multiply_and_divide_exactly() -> None:
    batch = Extent(1, "batch")
    assert multiply((batch, 8, 8)) == Extent(64, "batch")
    assert divide(Extent(64, "batch"), 16) == Extent(4, "batch")
    assert divide(Extent(64, "batch"), batch) == 64
    assert divide(Extent(64, "batch"), 7) is None
    assert divide(7, batch) is None
    with pytest.raises(ValueError, match="two symbolic"):
        multiply((batch, batch))


def test_dtype_names() -> None:
    assert dtype_of("float64") is dtype_of(np.float64) is dtype_of("f64") is f64
    with pytest.raises(TypeError, match="float16"):
        dtype_of(np.float16)


def test_conversion_keeps_operands_and_names() -> None:
    square = X * X
    graph = Graph("g", (X, W), {"y": square @ W}, {square: "square"})
    found = to_networkx(graph)
    assert nx.is_directed_acyclic_graph(found)
    number = {n: i for i, n in enumerate(graph.nodes)}
    assert found.nodes[number[square]]["name"] == "square"
    assert found.edges[number[X], number[square]]["slots"] == (0, 1)
    assert found.nodes[number[X]]["shape"] == ("batch", 4)
    assert found.nodes[number[square @ W]]["outputs"] == ["y"]
    assert to_dot(graph).count("->") == 5


def test_pictures_know_every_class_of_ops() -> None:
    assert set(COLOURS) == set(Lowering)


def test_picture_keeps_names_of_any_alphabet() -> None:
    graph = Graph("g", (X,), {"\u65e5": ops.relu(X)}, {ops.relu(X): 'é "quoted" \\'})
    text = to_dot(graph)
    assert 'label="é \\"quoted\\" \\\\\\nrelu' in text
    assert 'label="\u65e5"' in text
