"""Normalization layers: their formulas, running statistics, and compiled = reference."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from tests.layer_laws import Case, assert_same_state, check_layer, check_model

RNG = np.random.default_rng(11)

CASES = [
    Case("batch_norm", (7,)),
    Case("batch_norm", (3, 5), {"momentum": 0.3, "epsilon": 1e-3, "activation": "relu"}),
    Case("batch_norm", (3, 4, 5), {"use_bias": False}),
    Case("layer_norm", (9,)),
    Case("layer_norm", (3, 17), {"activation": "gelu"}),
    Case("layer_norm", (5, 3), {"axes": (1, 2)}),
    Case("layer_norm", (5, 3), {"axes": 1, "use_bias": False}),
    Case("rms_norm", (9,)),
    Case("rms_norm", (4, 5), {"axes": [-2, -1]}),
    Case("group_norm", (6,), {"groups": 2}),
    Case("group_norm", (6, 5), {"groups": 3}),
    Case("group_norm", (4, 3, 3), {"groups": 1}),
    Case("instance_norm", (3, 7)),
    Case("instance_norm", (2, 3, 5), {"epsilon": 1e-2}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_is_the_reference_and_derivatives_are_differences(case: Case, dtype: str) -> None:
    check_layer(case, dtype)


def network(op: str, shape: tuple[int, ...], **attributes: Any) -> Any:
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", *shape))
    g.add_node("n", op=op, **attributes)
    g.add_edge("x", "n")
    return g


def model_of(op: str, shape: tuple[int, ...], **attributes: Any) -> nnc.Model:
    g = network(op, shape, **attributes)
    return nnc.compile(g, loss="mse", optimizer=nnc.SGD(0.0), dtype="float64")


def standard(x: Any, axes: Any, epsilon: float = 1e-5) -> Any:
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon)


def test_batch_norm_trains_on_the_batch_and_infers_from_running_statistics() -> None:
    model = model_of("batch_norm", (3, 4))
    x = 2.0 + 3.0 * RNG.normal(size=(5, 3, 4))
    np.testing.assert_allclose(model.forward(x, training=True), standard(x, (0, 2)), rtol=1e-12)
    np.testing.assert_allclose(model.forward(x), x / np.sqrt(1 + 1e-5), rtol=1e-12)
    mean, variance = np.zeros(3), np.ones(3)
    for _ in range(3):
        model.step(x, x)
        mean = 0.9 * mean + 0.1 * x.mean((0, 2))
        variance = 0.9 * variance + 0.1 * x.var((0, 2), ddof=1)
    np.testing.assert_allclose(model.state["n.mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(model.state["n.variance"], variance, rtol=1e-12)
    expected = (x - mean[:, None]) / np.sqrt(variance[:, None] + 1e-5)
    np.testing.assert_allclose(model.forward(x), expected, rtol=1e-12)


def test_only_step_and_fit_move_running_statistics() -> None:
    model = model_of("batch_norm", (3,))
    x = RNG.normal(size=(6, 3))
    model.forward(x, training=True)
    model.backward(x, x)
    model.evaluate(x, x)
    assert not model.state["n.mean"].any()
    model.fit(x, x, epochs=1, batch_size=4, shuffle=False, verbose=0)
    mean = 0.9 * 0.1 * x[:4].mean(0) + 0.1 * x[4:].mean(0)
    np.testing.assert_allclose(model.state["n.mean"], mean, rtol=1e-12)


def test_running_variance_of_a_single_number_is_zero_not_infinite() -> None:
    model = model_of("batch_norm", (3,))
    model.step(np.ones((1, 3)), np.ones((1, 3)))
    np.testing.assert_allclose(model.state["n.variance"], 0.9, rtol=1e-15)
    np.testing.assert_allclose(model.state["n.mean"], 0.1, rtol=1e-15)


def test_running_statistics_are_saved_with_the_model(tmp_path: Any) -> None:
    model = model_of("batch_norm", (3,))
    x = RNG.normal(size=(6, 3))
    model.step(x, x)
    model.save(tmp_path / "m.nnc")
    np.testing.assert_array_equal(nnc.load(tmp_path / "m.nnc").forward(x), model.forward(x))
    model.save_weights(tmp_path / "m.npz")
    other = model_of("batch_norm", (3,))
    other.load_weights(tmp_path / "m.npz")
    np.testing.assert_array_equal(other.forward(x), model.forward(x))
    model.reset()
    assert not model.state["n.mean"].any()


def test_a_shared_batch_norm_moves_once_for_every_use() -> None:
    g: Any = nx.DiGraph()
    for name in "ab":
        g.add_node(name, op="input", shape=("batch", 3))
        g.add_node(f"n{name}", op="batch_norm", share="n")
        g.add_edge(name, f"n{name}")
    g.add_node("y", op="add")
    g.add_edges_from([("na", "y"), ("nb", "y")])
    model = nnc.compile(g, loss="mse", optimizer=nnc.SGD(0.0), dtype="float64")
    a, b = RNG.normal(size=(2, 4, 3))
    model.step({"a": a, "b": b}, np.zeros((4, 3)))
    expected = 0.9 * 0.1 * a.mean(0) + 0.1 * b.mean(0)
    np.testing.assert_allclose(model.state["n.mean"], expected, rtol=1e-12)


def test_formulas() -> None:
    x = RNG.normal(size=(4, 6, 5))
    np.testing.assert_allclose(model_of("layer_norm", (6, 5)).forward(x), standard(x, 2))
    both = model_of("layer_norm", (6, 5), axes=(1, 2))
    np.testing.assert_allclose(both.forward(x), standard(x, (1, 2)))
    rms = x / np.sqrt((x * x).mean(2, keepdims=True) + 1e-5)
    np.testing.assert_allclose(model_of("rms_norm", (6, 5)).forward(x), rms)
    np.testing.assert_allclose(model_of("instance_norm", (6, 5)).forward(x), standard(x, 2))
    groups = standard(x.reshape(4, 3, 2, 5), (2, 3)).reshape(x.shape)
    np.testing.assert_allclose(model_of("group_norm", (6, 5), groups=3).forward(x), groups)


def test_scale_and_shift_have_the_shape_of_what_they_meet() -> None:
    shapes = {
        "batch_norm": (6,),
        "layer_norm": (5,),
        "rms_norm": (5,),
        "instance_norm": (6,),
    }
    for op, shape in shapes.items():
        model = model_of(op, (6, 5))
        assert {n: p.shape for n, p in model.parameters.items()} == {
            "n.scale": shape,
            "n.shift": shape,
        }


@pytest.mark.parametrize(
    ("op", "shape", "attributes", "message"),
    [
        ("batch_norm", (), {}, "channels"),
        ("batch_norm", (3,), {"momentum": 1.5}, "momentum"),
        ("batch_norm", (3,), {"epsilon": -1.0}, "epsilon"),
        ("layer_norm", (3,), {"axes": 0}, "axis 0"),
        ("layer_norm", (3,), {"axes": 2}, "axis 2"),
        ("layer_norm", (3, 4), {"axes": (1, -2)}, "each axis once"),
        ("group_norm", (5,), {"groups": 2}, "5 channels"),
        ("group_norm", (5,), {}, "needs the attribute 'groups'"),
        ("instance_norm", (5,), {}, "space"),
    ],
)
def test_mistakes_name_the_layer(op: str, shape: Any, attributes: Any, message: str) -> None:
    with pytest.raises(nnc.CompileError, match=message) as caught:
        nnc.compile(network(op, shape, **attributes))
    assert caught.value.node == "n"


def test_a_cotangent_that_was_added_up_is_read_again_not_added_up_again() -> None:
    """relu(norm(c) + x), read by two layers: later passes read what the first one wrote."""
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 3, 4, 4))
    g.add_node("c", op="conv", filters=3, kernel_size=3, padding=1)
    g.add_node("n", op="batch_norm")
    g.add_node("s", op="add")
    g.add_node("r", op="relu")
    g.add_node("a", op="conv", filters=2, kernel_size=3, strides=2, padding=1)
    g.add_node("b", op="conv", filters=2, kernel_size=1, strides=2)
    g.add_node("y", op="add")
    nx.add_path(g, ["x", "c", "n", "s", "r", "a", "y"])
    g.add_edges_from([("x", "s"), ("r", "b"), ("b", "y")])
    for dtype in ("float32", "float64"):
        model = nnc.compile(g, loss="mse", optimizer=nnc.SGD(0.1), dtype=dtype)
        check_model(model, lambda rows: RNG.normal(size=(rows, 3, 4, 4)))
    threads = nnc.Options(threads=2)
    twin = nnc.compile(g, loss="mse", optimizer=nnc.SGD(0.1), dtype="float64", options=threads)
    x, t = RNG.normal(size=(6, 3, 4, 4)), RNG.normal(size=(6, 2, 2, 2))
    one = nnc.compile(g, loss="mse", optimizer=nnc.SGD(0.1), dtype="float64")
    assert one.step(x, t) == twin.step(x, t)
    assert_same_state(one, twin, 0.0)


def test_random_masks_along_an_axis_of_length_one() -> None:
    """A row's sum has no loop along the only channel, and its mask counts places all the same."""
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 1, 13))
    g.add_node("norm", op="batch_norm")
    g.add_node("drop", op="dropout", rate=0.3)
    nx.add_path(g, ["x", "norm", "drop"])
    model = nnc.compile(g, loss="mse", optimizer=nnc.SGD(0.1), dtype="float64")
    check_model(model, lambda rows: RNG.normal(size=(rows, 1, 13)), differences=False)
