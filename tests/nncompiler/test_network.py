"""Layer graphs from networkx: what they compute, and one clear error for everything wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pytest

from ir.graph import Graph
from ir.interpret import run_graph
from nncompiler.errors import CompileError
from nncompiler.frontend.catalogue import find_kind, kind_names
from nncompiler.frontend.kinds import KINDS
from nncompiler.frontend.network import read_network
from nncompiler.frontend.site import Network

RNG = np.random.default_rng(5)


def chain(*nodes: tuple[str, dict[str, Any]]) -> Any:
    g: Any = nx.DiGraph()
    g.add_nodes_from(nodes)
    nx.add_path(g, [name for name, _ in nodes])
    return g


def source(width: int = 3, name: str = "x") -> tuple[str, dict[str, Any]]:
    return name, {"op": "input", "shape": ("batch", width)}


def dense(units: int, name: str = "h", **attributes: Any) -> tuple[str, dict[str, Any]]:
    return name, {"op": "dense", "units": units, **attributes}


def run(network: Network, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
    built = network.build(training)
    states = [s.node for s in network.states.values()]
    parameters = [p.node for p in network.parameters.values()]
    graph = Graph("f", (*network.inputs.values(), *parameters, *states), built.outputs)
    return run_graph(graph, {**network.draw(0), **network.draw_states(0), **data})


def compute(graph: Any, *, dtype: str = "float64", **data: Any) -> Any:
    return run(read_network(graph, dtype=dtype), data)


# --------------------------------------------------------------------------- what is computed


def test_dense_is_the_activation_of_a_weighted_sum() -> None:
    network = read_network(chain(source(), dense(4, activation="tanh")), dtype="float64")
    w, x = network.draw(0), RNG.normal(size=(5, 3))
    expected = np.tanh(x @ w["h.weight"] + w["h.bias"])
    np.testing.assert_allclose(run(network, {"x": x})["h"], expected, rtol=1e-14)
    assert w["h.weight"].shape == (3, 4)
    assert not w["h.bias"].any()


def test_values_carry_the_names_of_nodes() -> None:
    network = read_network(chain(source(), dense(4, activation="tanh"), dense(2, "y")))
    names = set(network.build(False).names.values())
    assert names == {"x", "h.z", "h", "y"}
    assert list(network.parameters) == ["h.weight", "h.bias", "y.weight", "y.bias"]
    assert [p.is_weight for p in network.parameters.values()] == [True, False, True, False]


def test_activation_as_name_pair_and_function() -> None:
    x = RNG.normal(size=(4, 3))
    for activation, expected in [
        ("relu", np.maximum(x, 0)),
        (("leaky_relu", {"slope": 0.5}), np.where(x > 0, x, 0.5 * x)),
        (["leaky_relu", {"slope": 0.5}], np.where(x > 0, x, 0.5 * x)),
        (lambda v: v / (1 + abs(v)), x / (1 + np.abs(x))),
    ]:
        g = chain(source(), ("y", {"op": "activation", "function": activation}))
        np.testing.assert_allclose(compute(g, x=x)["y"], expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"op": "flatten"}, lambda x: x.reshape(5, 12)),
        ({"op": "reshape", "shape": (4, 3)}, lambda x: x.reshape(5, 4, 3)),
        ({"op": "reshape", "shape": [-1, 2]}, lambda x: x.reshape(5, 6, 2)),
        ({"op": "transpose", "perm": (0, 2, 1)}, lambda x: x.transpose(0, 2, 1)),
        ({"op": "slice", "start": 1}, lambda x: x[:, 1:]),
        ({"op": "slice", "axis": -1, "start": -2, "stop": None}, lambda x: x[..., -2:]),
        ({"op": "slice", "axis": 2, "step": 2}, lambda x: x[:, :, ::2]),
        ({"op": "slice", "index": (slice(None), 1)}, lambda x: x[:, 1]),
        (
            {"op": "pad", "pad_width": ((0, 0), (1, 0), (0, 2)), "constant_values": 7.0},
            lambda x: np.pad(x, ((0, 0), (1, 0), (0, 2)), constant_values=7.0),
        ),
        ({"op": "sum"}, lambda x: x.sum(-1)),
        ({"op": "mean", "axis": [1, 2]}, lambda x: x.mean((1, 2))),
        ({"op": "max", "axis": 1, "keepdims": True}, lambda x: x.max(1, keepdims=True)),
        ({"op": "min"}, lambda x: x.min(-1)),
        ({"op": "argmax"}, lambda x: x.argmax(-1)),
        ({"op": "exp"}, np.exp),
        ({"op": "cast", "dtype": "int32"}, lambda x: x.astype(np.int32)),
        ({"op": "flip", "axes": (1,)}, lambda x: x[:, ::-1]),
        ({"op": "gelu", "approximate": "tanh"}, None),
        ({"op": "linear", "a": 2.0, "b": 1.0}, lambda x: 2 * x + 1),
    ],
    ids=lambda v: v["op"] if isinstance(v, dict) else "",
)
def test_kinds_of_one_operand_follow_numpy(attributes: Any, expected: Any) -> None:
    x = RNG.normal(size=(5, 3, 4))
    g = chain(("x", {"op": "input", "shape": ("batch", 3, 4)}), ("y", attributes))
    result = compute(g, x=x)["y"]
    if expected is not None:
        np.testing.assert_allclose(result, expected(x), rtol=1e-14)


def two(op: str, slots: tuple[Any, Any] = (None, None), **attributes: Any) -> Any:
    g: Any = nx.DiGraph()
    g.add_nodes_from([source(3, "a"), source(3, "b")])
    g.add_node("y", op=op, **attributes)
    for name, slot in zip("ab", slots, strict=True):
        g.add_edge(name, "y", **({} if slot is None else {"slot": slot}))
    return g


@pytest.mark.parametrize(
    ("op", "function"),
    [
        ("add", np.add),
        ("sub", np.subtract),
        ("mul", np.multiply),
        ("div", np.divide),
        ("maximum", np.maximum),
        ("minimum", np.minimum),
        ("concat", lambda a, b: np.concatenate([a, b], 1)),
        ("pow", np.power),
        ("lt", np.less),
    ],
)
def test_kinds_of_two_operands_follow_numpy(op: str, function: Any) -> None:
    a, b = RNG.uniform(1, 2, (4, 3)), RNG.uniform(1, 2, (4, 3))
    np.testing.assert_allclose(compute(two(op), a=a, b=b)["y"], function(a, b), rtol=1e-14)


@pytest.mark.parametrize("slots", [(1, 0), ("b", "a")])
def test_slots_order_the_operands(slots: tuple[Any, Any]) -> None:
    a, b = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))
    np.testing.assert_allclose(compute(two("sub", slots), a=a, b=b)["y"], b - a)


def test_multigraph_feeds_one_node_to_two_operands() -> None:
    g: Any = nx.MultiDiGraph()
    g.add_nodes_from([source(), ("y", {"op": "mul"})])
    g.add_edge("x", "y", slot=0)
    g.add_edge("x", "y", slot=1)
    x = RNG.normal(size=(4, 3))
    np.testing.assert_allclose(compute(g, x=x)["y"], x * x)


def test_shared_nodes_have_one_set_of_parameters() -> None:
    g = chain(source(), dense(3, "a", share="tied"), dense(3, "b", share="tied"))
    network = read_network(g, dtype="float64")
    assert list(network.parameters) == ["tied.weight", "tied.bias"]
    x, w = RNG.normal(size=(4, 3)), network.draw(0)["tied.weight"]
    np.testing.assert_allclose(run(network, {"x": x})["b"], x @ w @ w, rtol=1e-13)


def test_constant_and_parameter_nodes() -> None:
    g: Any = nx.DiGraph()
    g.add_nodes_from([source(), ("two", {"op": "constant", "value": 2})])
    g.add_node("scale", op="parameter", shape=(3,), initializer=[1.0, 2.0, 3.0], trainable=False)
    g.add_node("y", op="mul")
    g.add_edges_from([("x", "y"), ("two", "y"), ("scale", "y")])
    x = RNG.normal(size=(4, 3))
    np.testing.assert_allclose(compute(g, x=x)["y"], x * 2 * [1, 2, 3])
    assert not read_network(g).parameters["scale"].trainable


def test_dropout_keeps_the_mean_in_training_and_everything_at_inference() -> None:
    network = read_network(chain(source(1000), ("y", {"op": "dropout", "rate": 0.25})))
    x = np.ones((50, 1000), np.float32)
    np.testing.assert_array_equal(run(network, {"x": x})["y"], x)
    y = run(network, {"x": x}, training=True)["y"]
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert y.mean() == pytest.approx(1, abs=0.01)
    other = run(network, {"x": x, "random.counter": np.uint32(1)}, training=True)["y"]
    assert (other != y).any()


def test_two_dropout_nodes_have_masks_of_their_own() -> None:
    g: Any = nx.DiGraph()
    g.add_nodes_from([source(100), *((n, {"op": "dropout", "rate": 0.5}) for n in "ab")])
    g.add_edges_from([("x", "a"), ("x", "b")])
    result = run(read_network(g), {"x": np.ones((4, 100), np.float32)}, training=True)
    assert (result["a"] != result["b"]).any()


def test_outputs_are_the_sinks_or_those_chosen() -> None:
    g = chain(source(), dense(4), dense(2, "y"))
    assert list(read_network(g).build(False).outputs) == ["y"]
    chosen = read_network(g, outputs=["y", "h"])
    assert list(chosen.build(False).outputs) == ["y", "h"]
    assert list(read_network(g, outputs=["h"]).parameters) == ["h.weight", "h.bias"]


@pytest.mark.parametrize(
    ("last", "end"),
    [
        ({"op": "softmax"}, "softmax"),
        ({"op": "dense", "units": 2, "activation": "sigmoid"}, "sigmoid"),
    ],
)
def test_last_activation_is_known_to_losses(last: Any, end: str) -> None:
    built = read_network(chain(source(), dense(4), ("y", last))).build(False)
    assert built.ends["y"][0] == end
    assert built.names[built.ends["y"][1]] == ("h" if end == "softmax" else "y.z")


def test_a_new_layer_leaves_other_first_values_alone() -> None:
    short, long = chain(source(), dense(4)), chain(source(), dense(4), dense(2, "y"))
    a, b = read_network(short).draw(7), read_network(long).draw(7)
    np.testing.assert_array_equal(a["h.weight"], b["h.weight"])
    assert (read_network(short).draw(8)["h.weight"] != a["h.weight"]).any()


def test_every_kind_has_a_record() -> None:
    assert {"input", "dense", "relu", "gelu", "contract", "where"} <= set(kind_names())
    for name in kind_names():
        kind = find_kind(name)
        assert kind is not None
        assert kind.name == name
    assert "site" not in KINDS["dense"].attributes


# --------------------------------------------------------------------------- errors


def cycle() -> Any:
    g = chain(source(), dense(3, "a"), dense(3, "b"))
    g.add_edge("b", "a")
    return g


def mixed() -> Any:
    g = chain(source(), dense(3))
    g.add_edge("h", "neuron")
    return g


def symbol_inside() -> Any:
    return chain(("x", {"op": "input", "shape": ("batch", "time")}), dense(3))


def mismatch() -> Any:
    g: Any = nx.DiGraph()
    g.add_nodes_from([source(3, "a"), source(4, "b"), ("y", {"op": "add"})])
    g.add_edges_from([("a", "y"), ("b", "y")])
    return g


def shared_mismatch() -> Any:
    return chain(source(), dense(4, "a", share="tied"), dense(4, "b", share="tied"))


def duplicate() -> Any:
    return chain(source(), dense(3, 1), dense(3, "1"))  # type: ignore[arg-type]


def same_parameter() -> Any:
    return chain(source(), dense(3, "a", share="b"), dense(3, "b"))


def lonely() -> Any:
    g = chain(source(), dense(3))
    g.add_node("forgotten", op="input", shape=("batch", 2))
    return g


ERRORS: list[tuple[Callable[[], Any], str, str]] = [
    (cycle, "a -> b -> a|b -> a -> b", "a"),
    (mixed, "node 'neuron' has no op", "neuron"),
    (duplicate, "duplicate name '1'", "1"),
    (same_parameter, "duplicate name: 'a' also has a parameter 'b.weight'", "b"),
    (lonely, "'forgotten' is not connected", "forgotten"),
    (symbol_inside, "symbolic extent 'time' on axis 1", "x"),
    (mismatch, r"add 'y': .*'a' gives f32\[batch,3\], 'b' gives f32\[batch,4\]", "y"),
    (shared_mismatch, r"shared parameter 'tied.weight' has shape \(3, 4\).*\(4, 4\)", "b"),
    (lambda: chain(source(), ("h", {"op": "dens"})), "unknown op 'dens'.*'dense'", "h"),
    (lambda: chain(source(), ("h", {"op": None})), "unknown op None", "h"),
    (lambda: chain(source(), dense(3, unit=1)), "no attribute 'unit'.*'units'", "h"),
    (lambda: chain(source(), ("h", {"op": "dense"})), "needs the attribute 'units'", "h"),
    (lambda: chain(source(), dense(0)), "units has to be at least 1", "h"),
    (lambda: chain(source(), dense(2.5)), "units has to be a whole number", "h"),  # type: ignore[arg-type]
    (lambda: chain(source(), dense(3, activation="rellu")), "did you mean 'relu'", "h"),
    (lambda: chain(source(), dense(3, initializer="glorott_normal")), "glorot_normal", "h"),
    (lambda: chain(source(), dense(3, regularizer="l3")), "unknown regularizer 'l3'", "h"),
    (lambda: chain(dense(3)), "takes 1 input.* but has none", "h"),
    (lambda: chain(source(3, "a"), ("y", {"op": "sub"})), "takes 2 input.* but has 1", "y"),
    (lambda: chain(source(), source(3, "z")), "takes 0 input.* but has 1", "z"),
    (lambda: two("sub", (0, 0)), "'a' and 'b' both feed slot 0", "y"),
    (lambda: two("sub", (0, 2)), "no slot 2", "y"),
    (lambda: two("sub", (0, None)), "edge from 'b' has no slot", "y"),
    (lambda: two("sub", ("a", "left")), "no slot 'left'", "y"),
    (lambda: chain(source(), ("y", {"op": "dropout", "rate": 1.0})), "rate has to be in", "y"),
    (
        lambda: chain(source(), ("y", {"op": "dropout", "rate": None})),
        "rate has to be a number",
        "y",
    ),
    (lambda: chain(source(), ("y", {"op": "reshape", "shape": (2,)})), "cannot reshape", "y"),
    (lambda: chain(source(3, "target"), dense(3)), "'target' is reserved", "target"),
    (lambda: chain(source(3, "fixed:x"), dense(3)), "'fixed:x' is reserved", "fixed:x"),
    (lambda: chain(("x", {"op": "input", "shape": 3}), dense(3)), "shape has to be a tuple", "x"),
    (lambda: chain(("x", {"op": "input", "shape": ()}), dense(3)), "last axis", "h"),
    (lambda: nx.DiGraph(), "no nodes", ""),
    (lambda: nx.Graph([(1, 2)]), "undirected", ""),
]


@pytest.mark.parametrize(("build", "text", "node"), ERRORS, ids=[e[1][:30] for e in ERRORS])
def test_wrong_graphs_give_one_error_that_names_the_node(
    build: Callable[[], Any], text: str, node: str
) -> None:
    with pytest.raises(CompileError, match=text) as caught:
        read_network(build())
    assert caught.value.node in (node, "b" if build is cycle else node)
    assert caught.value.stage == "network"


def test_wrong_outputs_and_settings_are_told() -> None:
    g = chain(source(), dense(3))
    with pytest.raises(CompileError, match="'hh' is not a node"):
        read_network(g, outputs=["hh"])
    with pytest.raises(CompileError, match="different nodes"):
        read_network(g, outputs=["h", "h"])
    with pytest.raises(CompileError, match="float32 or float64"):
        read_network(g, dtype="int32")
    with pytest.raises(CompileError, match="unknown initializer"):
        read_network(g, initializer="good")
    with pytest.raises(TypeError, match=r"networkx\.DiGraph"):
        read_network({"x": []})  # type: ignore[arg-type]


def test_given_weights_of_another_shape_name_the_parameter() -> None:
    network = read_network(chain(source(), dense(4, initializer=np.zeros((4, 3)))))
    with pytest.raises(ValueError, match=r"'h.weight'.*\(4, 3\).*\(3, 4\)"):
        network.draw(0)


def test_edges_carry_only_slots() -> None:
    g = chain(source(), dense(3))
    g.edges["x", "h"]["weight"] = 0.5
    with pytest.raises(CompileError, match="'x' -> 'h' has the attribute 'weight'"):
        read_network(g)


def test_dense_acts_on_the_last_axis_of_any_value() -> None:
    g = chain(("x", {"op": "input", "shape": ("batch", 2, 3)}), dense(4))
    network = read_network(g, dtype="float64")
    x, w = RNG.normal(size=(5, 2, 3)), network.draw(0)
    np.testing.assert_allclose(run(network, {"x": x})["h"], x @ w["h.weight"], rtol=1e-13)


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("slice", {"axis": [1], "stop": 2}, "axis has to be a whole number"),
        ("slice", {"start": (0, 1)}, "start has to be a whole number"),
        ("pad", {"pad_width": 1}, "a pair of numbers from 0 for each of 2 axes, the batch's first"),
        ("pad", {"pad_width": ((0, 0), (1, -1))}, "a pair of numbers from 0"),
    ],
)
def test_mistakes_in_views_are_named(op: str, attributes: Any, message: str) -> None:
    with pytest.raises(CompileError, match=message) as caught:
        read_network(chain(source(), ("h", {"op": op, **attributes})))
    assert caught.value.node == "h"


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("dense", {"units": 2, "use_bias": "no"}, "use_bias is True or False, not 'no'"),
        ("dense", {"units": 2, "trainable": 1}, "trainable is True or False, not 1"),
        ("dense", {"units": 2, "weight_norm": None}, "weight_norm is True or False"),
        ("mean", {"keepdims": "yes"}, "keepdims is True or False"),
    ],
)
def test_flags_are_true_or_false(op: str, attributes: Any, message: str) -> None:
    with pytest.raises(CompileError, match=message) as caught:
        read_network(chain(source(), ("h", {"op": op, **attributes})))
    assert caught.value.node == "h"
    read_network(chain(source(), dense(3, trainable=np.True_)))
