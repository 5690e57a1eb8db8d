"""Images whose channels stand last in memory: which they are, and that nobody sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import nncompiler as nnc
from ir import ops
from ir.graph import Graph, Node
from ir.interpret import run_graph
from ir.op import Lowering
from nncompiler import layout as layout_pass
from nncompiler.channels import turned_images
from nncompiler.codegen.llvm import host
from nncompiler.compilation import compile_graph
from nncompiler.frontend.convolution import convolve
from nncompiler.layout import layout
from nncompiler.options import Options
from nncompiler.pipeline import lower_graph
from nncompiler.simplify import simplify
from runtime.session import Session
from tests.random_graphs import data_for, graphs, tolerance
from tests.stages import stages
from tests.test_random_graphs import assert_close

LANES = 8


def image(channels: int, size: int = 6, name: str = "x") -> Node:
    return ops.input(name, "f32", ("batch", channels, size, size))


def conv(x: Node, filters: int, name: str, kernel: int = 1, stride: int = 1) -> Node:
    w = ops.input(name, "f32", (filters, x.shape[1], kernel, kernel))
    pads = ((kernel // 2, kernel // 2),) * 2
    return convolve(x, w, (stride,) * 2, pads, (1, 1), 1)


def families(*outputs: Node) -> list[tuple[Any, ...]]:
    """The shapes of what is turned in the graph of these outputs."""
    named = {f"y{n}": y for n, y in enumerate(outputs)}
    graph = simplify(Graph("g", (), named))
    leaves = tuple(n for n in graph.nodes if n.op.name == "input")
    graph = Graph("g", leaves, graph.outputs)
    return [n.shape[1:] for n in graph.nodes if n in turned_images(graph, LANES)]


# --------------------------------------------------------------------------- which images


def test_what_stands_between_convolutions_is_turned() -> None:
    h = ops.relu(conv(image(3), 16, "w"))
    assert families(ops.mean(conv(h, 8, "v"), (2, 3))) == [(16, 6, 6), (16, 6, 6)]


@pytest.mark.parametrize(("size", "stays"), [(6, False), (64, True)])
def test_what_two_passes_do_not_find_in_a_cache_stays(size: int, stays: bool) -> None:
    h = conv(image(3, size), 16, "w")
    h = h - ops.reshape(ops.mean(h, (0, 2, 3)), (16, 1, 1))
    turned = families(ops.mean(conv(h * h, 16, "v"), (2, 3)))
    assert ((16, size, size) not in turned) == stays


def test_results_for_the_user_stay() -> None:
    h = ops.relu(conv(image(3), 16, "w"))
    assert families(conv(h, 8, "v"), h) == []


def test_few_channels_stay() -> None:
    h = ops.relu(conv(image(3), 4, "w"))
    assert families(ops.mean(conv(h, 4, "v"), (2, 3))) == []


def test_what_few_channels_are_made_from_stays() -> None:
    """Their lanes run along the image."""
    h = ops.relu(conv(image(3), 16, "w"))
    assert (16, 6, 6) not in families(ops.mean(conv(h, 4, "v", kernel=5), (2, 3)))


@pytest.mark.parametrize(
    ("channels", "size", "stays"), [(8, 16, True), (16, 16, True), (24, 16, False), (8, 5, False)]
)
def test_tiles_of_few_channels_stay(channels: int, size: int, stays: bool) -> None:
    """Lanes run along the tiles, where they fill them."""
    h = ops.relu(conv(image(8, size), channels, "w", kernel=3))
    y = ops.mean(conv(h, 8, "v", kernel=3), (2, 3))
    assert (families(y) == []) == stays


def test_a_flattened_image_stays() -> None:
    h = ops.relu(conv(image(3), 16, "w"))
    w = ops.input("v", "f32", (16 * 36, 10))
    assert families(ops.reshape(h, ("batch", 16 * 36)) @ w) == []


def test_images_that_meet_the_users_array_stay() -> None:
    x = image(16)
    assert families(ops.mean(conv(conv(x, 16, "w") + x, 1, "v"), (2, 3))) == []


def test_a_convolution_that_mixes_no_channels_keeps_its_image() -> None:
    h = ops.relu(conv(image(3), 16, "w"))
    w = ops.input("v", "f32", (16, 1, 3, 3))
    each = convolve(h, w, (1, 1), ((1, 1),) * 2, (1, 1), 16)
    assert families(ops.mean(each, (2, 3))) == []


def test_attention_is_no_image() -> None:
    q, k = (ops.input(n, "f32", ("batch", 16, 4, 8)) for n in "qk")
    scores = ops.contract(q, k, "bhqd,bhkd->bhqk")
    assert families(ops.sum(ops.softmax(scores), (1, 2))) == []


# --------------------------------------------------------------------------- what they compute


def residual(channels: int = 16, size: int = 6) -> nx.DiGraph[Any]:
    g: nx.DiGraph[Any] = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 3, size, size))
    common = dict(op="conv", use_bias=False, padding=1, kernel_size=3)
    g.add_node("stem", **common, filters=channels)
    g.add_node("n0", op="batch_norm", activation="relu")
    g.add_node("a", **common, filters=channels, strides=2)
    g.add_node("n1", op="batch_norm")
    g.add_node("b", **{**common, "kernel_size": 1, "padding": 0}, filters=channels, strides=2)
    g.add_node("sum", op="add")
    g.add_node("pool", op="max_pool", pool_size=2, strides=1)
    g.add_node("c", **common, filters=channels)
    g.add_node("mean", op="global_avg_pool")
    g.add_node("y", op="dense", units=3)
    nx.add_path(g, ["x", "stem", "n0", "a", "n1", "sum", "pool", "c", "mean", "y"])
    nx.add_path(g, ["n0", "b", "sum"])
    return g


def batch(model: nnc.Model, rows: int, seed: int = 0) -> tuple[Any, Any]:
    r = np.random.default_rng(seed)
    size = model.blueprint.graph("forward", model.blueprint.kinds, False).inputs[0].shape[2]
    return r.normal(size=(rows, 3, size, size)), r.integers(0, 3, rows)


def training(**settings: Any) -> nnc.Model:
    given = {"loss": "cross_entropy", "optimizer": nnc.SGD(0.05, momentum=0.9), "seed": 1}
    return nnc.compile(residual(), **{**given, **settings})


def test_the_stage_shows_channels_last() -> None:
    stages = training().stages
    assert "f32[batch,16,6,6]" in stages["gradient"]
    assert "%stem =" in stages["simplified"] and "f32[batch,6,6,16]" in stages["simplified"]


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_it_trains_as_numpy_does(rows: int) -> None:
    model = training(dtype="float64", options=Options(debug=True))
    reference = model.reference
    for seed in range(3):
        x, t = batch(model, rows, seed)
        assert model.step(x, t) == pytest.approx(reference.step(x, t), rel=1e-9)
    for name, value in model.state.items():
        np.testing.assert_allclose(value, reference.state[name], rtol=1e-7, atol=1e-9)


def test_inference_equals_numpy() -> None:
    model = training(dtype="float64")
    x, _ = batch(model, 3)
    np.testing.assert_allclose(model(x), model.reference(x), rtol=1e-9, atol=1e-12)


def test_no_value_is_moved() -> None:
    """Nothing but views stands for what is read in another order."""
    kernels = training().stages["kernels"]
    assert "transpose" not in kernels


def test_the_bits_do_not_depend_on_the_threads() -> None:
    found = []
    for threads in (1, 2, 3):
        options = Options(threads=threads, cache=False)
        graph = residual(channels=32, size=16)
        model = nnc.compile(graph, loss="cross_entropy", optimizer="sgd", options=options, seed=1)
        x, t = batch(model, 16)
        losses = [model.step(x, t) for _ in range(2)]
        found.append((losses, {k: np.array(v) for k, v in model.state.items()}))
    for losses, state in found[1:]:
        assert losses == found[0][0]
        for name, value in state.items():
            np.testing.assert_array_equal(value, found[0][1][name])


def test_points_of_turned_images_are_turned_back_block_by_block() -> None:
    """A product whose image lies channels last and whose result channels first."""
    x, w = ops.input("x", "f32", ("batch", 16, 16, 64)), ops.input("w", "f32", (32, 64))
    graph = Graph("back", (x, w), {"y": ops.contract(x, w, "nhwc,fc->nfhw")})
    lowered = lower_graph(graph)
    (function,) = (s.function for s in lowered.scheduled)
    assert [b.name for b in function.scratch] == ["staged0"] and not function.workspace
    r = np.random.default_rng(0)
    arrays = {n: r.normal(size=s) for n, s in (("x", (3, 16, 16, 64)), ("w", (32, 64)))}
    arrays = {n: a.astype(np.float32) for n, a in arrays.items()}
    found = Session(compile_graph(graph, options=Options(threads=1, cache=False)))(arrays)
    np.testing.assert_allclose(found["y"], run_graph(graph, arrays)["y"], rtol=1e-4, atol=1e-4)


# --------------------------------------------------------------------------- any graph


def everything(graph: Graph, lanes: int) -> frozenset[Node]:
    """All that can be turned."""
    kinds = (Lowering.MAP, Lowering.REDUCE, Lowering.CONTRACT)
    return frozenset(n for n in graph.nodes if n.op.lowering in kinds and n.ndim >= 3)


@settings(suppress_health_check=list(HealthCheck))
@given(graphs(gradients=True))
def test_any_value_can_be_turned(graph: Graph) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout_pass, "turned_images", everything)
        simple = simplify(graph)
        if everything(simple, 0):
            assert layout(simple, host()) is not simple
        arrays = data_for(graph, 3, seed=3)
        reference = run_graph(graph, arrays)
        for stage, run in stages(graph).items():
            assert_close(run(arrays), reference, tolerance(graph), stage)


REDUCTIONS: dict[str, Callable[[Node], Node]] = {
    "over the images": lambda h: ops.sum(h, 0),
    "over the channels": lambda h: ops.max(h, 1),
    "over the points": lambda h: ops.sum(h, (2, 3)),
    "over rows": lambda h: ops.sum(h, 2),
    "per channel": lambda h: ops.sum(h * h, (0, 2, 3)),
    "largest of windows": lambda h: ops.first_max(ops.window(h, (2, 3), (2, 2)), (4, 5)),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_of_turned_images(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_pass, "turned_images", everything)
    x = image(4, 5)
    graph = Graph("g", (x,), {"y": REDUCTIONS[name](ops.tanh(x))})
    arrays = {"x": np.random.default_rng(0).normal(size=(3, 4, 5, 5)).astype(np.float32)}
    expected = run_graph(graph, arrays)["y"]
    for stage, run in stages(graph).items():
        np.testing.assert_allclose(run(arrays)["y"], expected, rtol=1e-5, atol=1e-5, err_msg=stage)
