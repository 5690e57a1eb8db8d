"""Embedding, embedding bag, positional encoding, spatial dropout: values, derivatives, checks."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from nncompiler.frontend.embedding import sinusoids
from tests.layer_laws import Case, check_layer, check_model

RNG = np.random.default_rng(12)
WORDS, WIDTH, LENGTH = 11, 5, 6


def network(op: str, **attributes: Any) -> Any:
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", LENGTH), dtype="int32")
    g.add_node("n", op=op, num_embeddings=WORDS, embedding_dim=WIDTH, **attributes)
    g.add_node("f", op="flatten")
    g.add_node("y", op="dense", units=2)
    nx.add_path(g, ["x", "n", "f", "y"])
    return g


def words(rows: int) -> Any:
    return np.random.default_rng(rows).integers(0, WORDS, (rows, LENGTH))


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("embedding", {}),
        ("embedding", {"activation": "tanh"}),
        ("embedding_bag", {}),
        ("embedding_bag", {"mode": "sum"}),
        ("embedding_bag", {"padding_index": 3}),
        ("embedding_bag", {"mode": "sum", "padding_index": 0}),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_is_the_reference(op: str, attributes: Any, dtype: str) -> None:
    g = network(op, **attributes)
    optimizer = nnc.SGD(0.1, momentum=0.9)
    check_model(nnc.compile(g, loss="mse", optimizer=optimizer, dtype=dtype), words)


@pytest.mark.parametrize(
    "case",
    [
        Case("positional_encoding", (5, 7)),
        Case("positional_encoding", (4, 6), {"mode": "learned"}),
        Case("dropout", (5, 4, 3), {"rate": 0.4, "spatial": True}),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_on_values(case: Case, dtype: str) -> None:
    check_layer(case, dtype)


def model_of(op: str, **attributes: Any) -> nnc.Model:
    g = network(op, **attributes)
    return nnc.compile(g, outputs="n", loss="mse", optimizer=nnc.SGD(1.0), dtype="float64")


def test_embedding_picks_rows_and_adds_their_gradients() -> None:
    model = model_of("embedding")
    x, table = words(4), np.array(model.parameters["n.weight"])
    np.testing.assert_array_equal(model.forward(x), table[x])
    t = RNG.normal(size=(4, LENGTH, WIDTH))
    expected = np.zeros_like(table)
    np.add.at(expected, x, 2 * (table[x] - t) / t.size)
    np.testing.assert_allclose(model.backward(x, t)[1]["n.weight"], expected, rtol=1e-12)


def test_bags_are_sums_or_means_of_what_is_not_padding() -> None:
    x = np.array([[1, 2, 3, 3, 3, 3], [3, 3, 3, 3, 3, 3], [4, 4, 5, 0, 1, 2]])
    model = model_of("embedding_bag", padding_index=3)
    table = model.parameters["n.weight"]
    expected = [table[[1, 2]].mean(0), np.zeros(WIDTH), table[x[2]].mean(0)]
    np.testing.assert_allclose(model.forward(x), expected, rtol=1e-12)
    model = model_of("embedding_bag", mode="sum")
    table = model.parameters["n.weight"]
    np.testing.assert_allclose(model.forward(x), table[x].sum(1), rtol=1e-12)


def test_entries_of_a_sum_can_be_weighed() -> None:
    g = network("embedding_bag", mode="sum", padding_index=3)
    g.add_node("w", op="input", shape=("batch", LENGTH))
    g.add_edge("x", "n", slot="indices")
    g.add_edge("w", "n", slot="weights")
    model = nnc.compile(g, loss="mse", optimizer="sgd", dtype="float64", outputs=["n", "y"])
    x, w = words(3), RNG.normal(size=(3, LENGTH))
    table = model.parameters["n.weight"]
    expected = (table[x] * (w * (x != 3))[..., None]).sum(1)
    np.testing.assert_allclose(model.forward({"x": x, "w": w})["n"], expected, rtol=1e-12)


def test_positions_are_sines_and_cosines() -> None:
    table = sinusoids(9, 6)
    for time, feature in [(0, 0), (3, 1), (8, 4), (7, 5)]:
        angle = time / 10000 ** ((feature - feature % 2) / 6)
        expected = np.cos(angle) if feature % 2 else np.sin(angle)
        assert table[time, feature] == pytest.approx(expected, abs=1e-15)


def test_spatial_dropout_drops_whole_channels() -> None:
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 8, 3, 3))
    g.add_node("y", op="dropout", rate=0.5, spatial=True)
    g.add_edge("x", "y")
    y = nnc.compile(g).forward(np.ones((64, 8, 3, 3)), training=True)
    assert set(np.unique(y)) == {0.0, 2.0}
    assert (y == y[:, :, :1, :1]).all()
    assert 0.4 < (y > 0).mean() < 0.6


def test_a_word_out_of_range_is_refused_before_anything_changes() -> None:
    for op in ("embedding", "embedding_bag"):
        model = nnc.compile(network(op), loss="mse", optimizer=nnc.SGD(0.1))
        before = model.state.copy()
        for wrong in (-1, WORDS):
            x = words(3)
            x[2, 4] = wrong
            for call in (model.forward, lambda x, m=model: m.step(x, np.zeros((3, 2)))):
                with pytest.raises(ValueError, match=rf"'x'.* is {wrong}, outside .*0\.\.10"):
                    call(x)
        for name, array in before.items():
            np.testing.assert_array_equal(model.state[name], array)


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("embedding_bag", {"mode": "max"}, "'sum' or 'mean'"),
        ("embedding_bag", {"padding_index": WORDS}, "padding_index"),
        ("embedding", {"num_embeddings": 0}, "num_embeddings"),
    ],
)
def test_mistakes_name_the_layer(op: str, attributes: Any, message: str) -> None:
    g = network(op)
    g.nodes["n"].update(attributes)
    with pytest.raises(nnc.CompileError, match=message) as caught:
        nnc.compile(g)
    assert caught.value.node == "n"


def test_indices_of_the_models_dtype_are_explained() -> None:
    g = network("embedding")
    del g.nodes["x"]["dtype"]
    with pytest.raises(nnc.CompileError, match="dtype='int32'"):
        nnc.compile(g)


@pytest.mark.parametrize("width", [1, 7, 16, 33, 64])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_of_any_width(width: int, dtype: str) -> None:
    for op in ("embedding", "embedding_bag"):
        g = network(op)
        g.nodes["n"]["embedding_dim"] = width
        model = nnc.compile(g, loss="mse", optimizer=nnc.SGD(0.1), dtype=dtype)
        x, t = words(9), np.zeros((9, 2))
        bound = 1e-5 if dtype == "float32" else 1e-12
        assert model.compare(x, t).worst < bound


def test_lanes_are_neighbours_in_a_row_not_gathered_one_by_one() -> None:
    g = network("embedding_bag")
    g.nodes["n"]["embedding_dim"] = 64
    assert "llvm.masked.gather" not in nnc.compile(g, outputs="n").stages["llvm"]


def table_update(model: nnc.Model) -> Any:
    """What the training step's kernels do to the table."""
    kernels = model.program("step").lowered.kernels
    return [k.scatter for k in kernels if k.scatter is not None]


def test_a_plain_gradient_step_touches_only_the_rows_it_read() -> None:
    for op in ("embedding", "embedding_bag"):
        model = nnc.compile(network(op), loss="mse", optimizer=nnc.SGD(0.1), dtype="float64")
        (scatter,) = table_update(model)
        assert scatter.base == scatter.buffer == "n.weight"
        table = np.array(model.parameters["n.weight"])
        x = np.array([[2, 2, 5, 7, 7, 7]])
        model.step(x, np.ones((1, 2)))
        changed = (model.parameters["n.weight"] != table).any(1)
        np.testing.assert_array_equal(np.flatnonzero(changed), [2, 5, 7])


def test_updates_made_of_the_rows_themselves_are_made_before_they_are_added() -> None:
    """The gradient of the mean of squares is a multiple of the rows: 2 p[x] / size."""
    g = network("embedding")
    for dtype in ("float32", "float64"):
        optimizer = nnc.SGD(0.5)
        model = nnc.compile(g, outputs="n", loss="mse", optimizer=optimizer, dtype=dtype)
        check_model(model, words)


def test_a_table_that_is_also_a_weight_or_read_twice() -> None:
    g: Any = nx.DiGraph()
    for name in "ab":
        g.add_node(name, op="input", shape=("batch", LENGTH), dtype="int32")
        g.add_node(f"n{name}", op="embedding_bag", num_embeddings=5, embedding_dim=5, share="t")
        g.add_edge(name, f"n{name}")
    g.add_node("sum", op="add")
    g.add_edges_from([("na", "sum"), ("nb", "sum")])
    tied = g.copy()
    tied.add_node("y", op="dense", units=5, share="t")  # its weight is the table
    tied.add_edge("sum", "y")
    for graph in (g, tied):
        optimizer = nnc.SGD(0.1)
        model = nnc.compile(graph, loss="mse", optimizer=optimizer, dtype="float64")
        check_model(
            model,
            lambda rows: {
                "a": RNG.integers(0, 5, (rows, LENGTH)),
                "b": RNG.integers(0, 5, (rows, LENGTH)),
            },
        )
