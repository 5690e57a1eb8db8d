"""A snapshot gives what the model gave when it was taken, with less left to do per call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from ir import ops
from ir.graph import Graph, Node
from ir.interpret import run_graph
from ir.op import Lowering
from nncompiler.affine import absorb
from nncompiler.compilation import compile_graph
from nncompiler.separate import fixed_nodes, separate
from nncompiler.simplify import simplify
from nncompiler.snapshot import Snapshot
from runtime.session import Session
from tests.networks import neurons, two_inputs

Array = Any


def network() -> nx.DiGraph:
    """A wide and a strided convolution with their norms, a sum, and a dense layer."""
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 5, 9, 9))
    g.add_node("a", op="conv", filters=40, kernel_size=3, padding=1)
    g.add_node("a.norm", op="batch_norm", activation="relu")
    g.add_node("b", op="conv", filters=40, kernel_size=3, padding=1, use_bias=False)
    g.add_node("b.norm", op="batch_norm")
    g.add_node("sum", op="add")
    g.add_node("c", op="conv", filters=7, kernel_size=3, strides=2, weight_norm=True)
    g.add_node("flat", op="flatten")
    g.add_node("y", op="dense", units=3)
    nx.add_path(g, ["x", "a", "a.norm", "b", "b.norm", "sum", "c", "flat", "y"])
    g.add_edge("a.norm", "sum")
    return g


def trained(**options: Any) -> nnc.Model:
    """A model whose norms have seen data."""
    model = nnc.compile(
        network(), loss="cross_entropy", optimizer="sgd", options=nnc.Options(**options)
    )
    rng = np.random.default_rng(0)
    model.step(rows(12, 5), rng.integers(0, 3, 12))
    return model


def rows(number: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(number, 5, 9, 9)).astype(np.float32)


def close(a: Array, b: Array) -> bool:
    return bool(np.allclose(a, b, rtol=1e-4, atol=1e-5))


# --------------------------------------------------------------------------- what users see


def test_any_batch_size_by_call_and_bound() -> None:
    model = trained()
    frozen = model.freeze()
    for number in (1, 4, 3, 4, 4):  # some by the short way
        x = rows(number)
        wanted = model(x)
        assert close(frozen(x), wanted)
        bound = frozen.bind(x)
        assert np.array_equal(bound(), frozen(x))
        assert np.array_equal(bound.run(3), frozen(x))


def test_a_snapshot_changes_by_refresh_alone() -> None:
    model = trained()
    frozen, x = model.freeze(), rows(2)
    bound = frozen.bind(x)
    before = frozen(x).copy()
    model.step(rows(12), np.zeros(12, int))
    model.parameters["y.bias"] += 1.0
    assert not close(model(x), before)
    assert np.array_equal(frozen(x), before)
    assert np.array_equal(bound(), before)
    frozen.refresh()
    assert close(frozen(x), model(x))
    assert close(bound(), model(x))


def test_two_snapshots_of_one_model_are_independent() -> None:
    model, x = trained(), rows(2)
    old = model.freeze()
    before = old(x)
    model.parameters["a.weight"] *= -1.0
    new = model.freeze()
    assert np.array_equal(old(x), before)
    assert close(new(x), model(x))
    assert not close(new(x), before)


def test_the_same_bits_for_any_number_of_threads() -> None:
    x = rows(5)
    one = trained(threads=1)
    first = one.freeze()
    for threads in (2, 3):
        other = trained(threads=threads)
        other.state.restore(one.state.copy())
        frozen = other.freeze()
        assert np.array_equal(frozen(x), first(x))
        assert np.array_equal(frozen.bind(x)(), first(x))


def test_from_the_cache_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNC_CACHE_DIR", str(tmp_path))
    x = rows(3)
    cold, warm = (trained().freeze()(x) for _ in range(2))
    assert np.array_equal(cold, warm)


def test_every_pass_is_compared_in_debug_mode() -> None:
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 3, 5, 5))
    g.add_node("c", op="conv", filters=16, kernel_size=3, padding=1)
    g.add_node("n", op="batch_norm")
    nx.add_path(g, ["x", "c", "n"])
    model = nnc.compile(g, options=nnc.Options(debug=True, cache=False))
    x = np.ones((2, 3, 5, 5), np.float32)
    assert close(model.freeze()(x), model(x))


def test_several_inputs_and_outputs() -> None:
    model = nnc.compile(two_inputs())
    x = {"a": np.ones((3, 2)), "b": np.ones((3, 3))}
    found, wanted = model.freeze()(x), model(x)
    assert found.keys() == wanted.keys()
    assert all(close(found[name], wanted[name]) for name in wanted)


def test_graphs_of_neurons_in_space_and_time() -> None:
    model = nnc.compile(neurons())
    assert close(model.freeze()(np.ones((4, 2))), model(np.ones((4, 2))))
    over_time = nnc.compile(neurons(), recurrent=True)
    frozen = over_time.freeze()
    for times in (3, 5):
        x = np.ones((2, times, 2))
        assert close(frozen(x), over_time(x))


def test_mistakes_are_those_of_the_model() -> None:
    frozen = trained().freeze()
    with pytest.raises(ValueError, match="x"):
        frozen(np.ones((2, 4, 9, 9)))
    with pytest.raises(TypeError):
        frozen(np.ones((2, 5, 9, 9), complex))
    with pytest.raises(ValueError, match="empty"):
        frozen.bind(rows(0))


def test_stages_and_profile_show_what_is_left() -> None:
    frozen = trained().freeze()
    assert "rsqrt" in frozen.stages["gradient"]  # of what is computed once
    assert "rsqrt" not in frozen.stages["simplified"]
    assert "forward_once" in frozen.stages["llvm"]
    assert "a_norm" in str(frozen.profile(rows(2), repeats=2))


# --------------------------------------------------------------------------- what is done once


def kept(frozen: Snapshot) -> list[str]:
    plan = frozen._some_part().program.artifact.plan
    return [spec.name for spec in plan.buffers if spec.role == "kept"]


def test_copies_of_weights_are_kept_and_their_kernels_gone() -> None:
    model = trained()
    frozen = model.freeze()
    assert any("weights" in name for name in kept(frozen))  # Winograd's
    assert any("packed" in name for name in kept(frozen))
    plain = model.program("forward").artifact.plan
    assert not [spec for spec in plain.buffers if spec.role == "kept"]
    left = frozen._some_part().program.artifact.plan
    assert len(left.kernels) < len(plain.kernels)


def test_an_ordinary_program_has_no_entry_of_that_kind() -> None:
    model = trained()
    assert model.program("forward").session.program.once is None
    assert model.freeze()._some_part().session.program.once is not None


def test_numbers_as_names_are_not_taken_for_computed_values() -> None:
    x, w, v = (
        ops.input(name, "f64", shape) for name, shape in (("x", (2, 3)), ("0", (3,)), ("1", (3,)))
    )
    wide = [ops.broadcast_to(n, (2, 3)) for n in (ops.exp(w), w, ops.exp(v), v)]
    graph = Graph("f", (x, w, v), {str(i): ops.tanh(x * n) for i, n in enumerate(wide)})
    halves = separate(graph, {"0", "1"})
    ids = [n.attrs["id"] for n in halves.rest.inputs]
    assert len(ids) == len(set(ids)) == 5


def test_fixed_inputs_have_to_be_persistent() -> None:
    x, w = ops.input("x", "f32", ("batch", 3)), ops.input("w", "f32", (3, 3))
    rest = separate(Graph("f", (x, w), {"y": x @ w}), {"w"}).rest
    with pytest.raises(ValueError, match="fixed:w"):
        Session(compile_graph(rest))


# --------------------------------------------------------------------------- factors and shifts


def conv(x: Node, w: Node) -> Node:
    return ops.contract(ops.window(x, (2, 3), (3, 3)), w, "abcdef,gbef->agcd")


def channels(v: Node, x: Node) -> Node:
    return ops.broadcast_to(ops.reshape(v, (v.shape[0], 1, 1)), x.shape)


X = ops.input("x", "f64", ("batch", 2, 5, 5))
W = ops.input("w", "f64", (4, 2, 3, 3))
K, M, B = (ops.input(name, "f64", (4,)) for name in "kmb")


def absorbed(y: Node, **others: Node) -> Graph:
    """The graph with its chains joined, whose values are checked."""
    graph = simplify(Graph("f", (X, W, K, M, B), {"y": y, **others}))
    ids = {"w", "k", "m", "b"}
    better = absorb(graph, fixed_nodes(graph, ids))
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(2, 2, 5, 5)), "w": rng.normal(size=(4, 2, 3, 3))}
    arrays |= {name: rng.uniform(0.5, 2.0, 4) for name in "kmb"}
    before, after = run_graph(graph, arrays), run_graph(better, arrays)
    assert all(np.allclose(before[n], after[n], rtol=1e-12, atol=1e-12) for n in before)
    return better


def per_element(graph: Graph) -> int:
    """How many maps run over the batch."""
    return sum(n.op.lowering is Lowering.MAP and bool(n.type.symbols) for n in graph.nodes)


def test_a_norm_behind_a_convolution_is_a_bias() -> None:
    y = conv(X, W)
    assert per_element(absorbed((y - channels(M, y)) * channels(K, y) + channels(B, y))) == 1


def test_every_arithmetic_step_is_absorbed() -> None:
    y = conv(X, W)
    m, k, b = (channels(v, y) for v in (M, K, B))
    assert per_element(absorbed((b - (m + y) / k) * 2.0 - m)) == 1
    assert per_element(absorbed(k * y)) == 0
    assert per_element(absorbed(y / k)) == 0


def test_a_norm_behind_groups_of_channels_is_a_bias() -> None:
    windows = ops.reshape(ops.window(X, (2, 3), (3, 3)), ("batch", 2, 1, 3, 3, 3, 3))
    thin = ops.slice_(W, (0, 0, 0, 0), (4, 1, 3, 3), (1, 1, 1, 1))
    grouped = ops.contract(windows, ops.reshape(thin, (2, 2, 1, 3, 3)), "bgchwij,gfcij->bgfhw")
    y = ops.reshape(grouped, ("batch", 4, 3, 3))
    assert per_element(absorbed((y - channels(M, y)) * channels(K, y) + channels(B, y))) == 1
    part = ops.reshape(conv(X, W), ("batch", 2, 6, 3))  # not whole channels
    assert per_element(absorbed(part * channels(ops.slice_(K, (0,), (2,), (1,)), part))) == 1


def test_a_norm_of_what_is_no_product_is_a_factor_and_a_shift() -> None:
    y = ops.relu(conv(X, W))
    m, k, b = (channels(v, y) for v in (M, K, B))
    assert per_element(absorbed((y - m) * k + b)) == 3  # relu, mul, add
    assert per_element(absorbed(y * k + b)) == 3


def test_a_product_that_others_read_is_not_computed_twice() -> None:
    y = conv(X, W)
    graph = absorbed(ops.relu(y) + y * channels(K, y))
    assert sum(n.op.lowering is Lowering.CONTRACT for n in graph.nodes) == 1
    graph = absorbed(y * channels(K, y), z=y)
    assert sum(n.op.lowering is Lowering.CONTRACT for n in graph.nodes) == 1


def test_a_factor_along_an_axis_of_the_data_stays() -> None:
    y = conv(X, W)
    column = ops.broadcast_to(ops.slice_(K, (0,), (3,), (1,)), y.shape)
    assert per_element(absorbed(y * column)) == 1
