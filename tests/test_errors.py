"""Wrong input of every kind: one clear error, of the right type, that names what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from tests.networks import CLASSES, classifier, compiled, data, two_inputs

X, T = data()


def edited(change: Callable[[nx.DiGraph], object]) -> nx.DiGraph:
    g = classifier()
    change(g)
    return g


def changed(node: str, **attributes: Any) -> nx.DiGraph:
    return edited(lambda g: g.nodes[node].update(attributes))


def added(name: Any, op: str, *sources: str, **attributes: Any) -> nx.DiGraph:
    g = classifier()
    g.add_node(name, op=op, **attributes)
    g.add_edges_from((s, name) for s in sources)
    return g


def without_parameters() -> nx.DiGraph:
    g = nx.DiGraph([("x", "y")])
    g.add_node("x", op="input", shape=("batch", CLASSES))
    g.add_node("y", op="relu")
    return g


# (graph, settings, the node named, part of the message)
WRONG_NETWORKS: dict[str, tuple[Callable[[], Any], dict[str, Any], str, str]] = {
    "cycle": (
        lambda: edited(lambda g: g.add_edge("scores", "hidden")),
        {},
        "hidden",
        "cycle: .*hidden.*scores|cycle: .*scores.*hidden",
    ),
    "unknown op": (lambda: changed("hidden", op="dence"), {}, "hidden", "dence.*dense"),
    "unknown attribute": (lambda: changed("hidden", unit=3), {}, "hidden", "unit"),
    "missing attribute": (lambda: added("more", "dense", "hidden"), {}, "more", "units"),
    "unknown activation": (lambda: changed("hidden", activation="rulu"), {}, "hidden", "relu"),
    "mismatched widths": (
        lambda: added("sum", "add", "hidden", "scores"),
        {},
        "sum",
        "8.*3",
    ),
    "symbol off the first axis": (
        lambda: changed("x", shape=(4, "batch")),
        {},
        "x",
        "only in the first entry",
    ),
    "missing predecessor": (
        lambda: edited(lambda g: g.remove_edge("x", "hidden")),
        {},
        "x",
        "not connected",
    ),
    "duplicate names": (
        lambda: nx.relabel_nodes(added("1", "relu", "x"), {"hidden": 1}),
        {},
        "1",
        "duplicate name '1'",
    ),
    "parameter named as an input": (
        lambda: added("hidden.weight", "input", shape=("batch", 2)),
        {"outputs": ["scores", "hidden.weight"]},
        "hidden",
        "duplicate name.*hidden.weight",
    ),
    "optimizer without parameters": (
        without_parameters,
        {"optimizer": "sgd", "loss": "mse"},
        "y",
        "'y' has no trainable parameters.*leave out the optimizer",
    ),
    "optimizer of frozen parameters": (
        lambda: edited(
            lambda g: [g.nodes[n].update(trainable=False) for n in ("hidden", "scores")]
        ),
        {"optimizer": "sgd", "loss": "mse"},
        "scores",
        "no trainable parameters.*'hidden.weight' is frozen",
    ),
    "unknown output": (classifier, {"outputs": ["score"]}, "", "score.*scores"),
    "unknown loss": (classifier, {"loss": "mes"}, "", "mes.*mse"),
    "unknown optimizer": (classifier, {"optimizer": "adm"}, "", "adm.*adam"),
    "unknown metric": (classifier, {"loss": "mse", "metrics": ["acuracy"]}, "", "accuracy"),
    "unknown initializer": (classifier, {"initializer": "glorot"}, "", "glorot_normal"),
    "dtype of the model": (classifier, {"dtype": "int32"}, "", "int32"),
    "seed": (classifier, {"seed": -1}, "", "seed"),
    "activation that fails": (
        lambda: changed("hidden", activation=lambda x: x.nothing),
        {},
        "hidden",
        "activation function raised AttributeError.*nothing",
    ),
    "activation of NumPy": (
        lambda: changed("hidden", activation=lambda x: np.exp(x)),
        {},
        "hidden",
        "nnc.exp",
    ),
    "loss that fails": (
        classifier,
        {"loss": lambda y, t: 1 / 0},
        "scores",
        "scores.*ZeroDivisionError",
    ),
    "initializer that fails": (
        lambda: changed("hidden", initializer=lambda shape, rng: rng.normal(size=shape)),
        {},
        "hidden",
        "initializer raised AttributeError",
    ),
    "array of another shape": (
        lambda: changed("hidden", initializer=np.ones((2, 2))),
        {},
        "hidden",
        r"hidden.weight.*\(2, 2\)",
    ),
    "no nodes": (nx.DiGraph, {}, "", "no nodes"),
    "undirected": (lambda: classifier().to_undirected(), {}, "", "DiGraph"),
}


@pytest.mark.parametrize("name", WRONG_NETWORKS)
def test_wrong_networks_give_one_error_naming_the_node(name: str) -> None:
    make, settings, node, text = WRONG_NETWORKS[name]
    with pytest.raises(nnc.CompileError, match=text) as caught:
        nnc.compile(make(), **settings)
    assert caught.value.node == node
    assert node in str(caught.value)
    assert caught.value.stage
    assert isinstance(caught.value, ValueError)


# --------------------------------------------------------------------------- at run time


def nan_in(array: np.ndarray) -> np.ndarray:
    wrong = array.copy()
    wrong[1] = np.nan
    return wrong


ONE_HOT = np.eye(CLASSES, dtype=np.float32)[T]
BAD_LABELS = np.where(np.arange(len(T)) == 5, CLASSES, T)

# what is called, the error's type, part of its message
WRONG_CALLS: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "missing input": (lambda m: m({}), ValueError, "'x' is missing"),
    "unknown input": (lambda m: m({"x": X, "z": X}), ValueError, "'z'"),
    "width": (lambda m: m(X[:, :3]), ValueError, r"'x'.*\(batch, 4\).*\(32, 3\)"),
    "rank": (lambda m: m(X[0]), ValueError, r"'x'.*\(batch, 4\)"),
    "complex input": (lambda m: m(X * 1j), TypeError, "'x'.*complex"),
    "text input": (lambda m: m(np.array([["a"] * 4])), TypeError, "'x'"),
    "object input": (lambda m: m(np.array([[None] * 4])), TypeError, "'x'"),
    "None input": (lambda m: m(None), TypeError, "'x'"),
    "ragged input": (lambda m: m([[1, 2], [3]]), ValueError, "'x'.*inhomogeneous"),
    "label too large": (lambda m: m.step(X, BAD_LABELS), ValueError, r"'target'.*5.*3.*0\.\.2"),
    "negative label": (lambda m: m.step(X, -1 - T), ValueError, "'target'.*0..2"),
    "label in fit": (lambda m: m.fit(X, BAD_LABELS, verbose=0), ValueError, r"'target'.*\[5\]"),
    "label in evaluate": (lambda m: m.evaluate(X, BAD_LABELS), ValueError, "'target'"),
    "real labels": (lambda m: m.step(X, T.astype(float)), TypeError, "'target'"),
    "NaN targets": (lambda m: m.step(X, nan_in(ONE_HOT)), ValueError, "'target'.*NaN"),
    "NaN targets in fit": (lambda m: m.fit(X, nan_in(ONE_HOT)), ValueError, "'target'.*NaN"),
    "width of targets": (lambda m: m.step(X, ONE_HOT[:, :2]), ValueError, "'target'"),
    "rows disagree": (lambda m: m.step(X, T[:5]), ValueError, "32.*5|5.*32"),
    "rows disagree in fit": (lambda m: m.fit(X, T[:5]), ValueError, "32.*5|5.*32"),
    "missing targets": (lambda m: m.step(X, None), TypeError, "target"),
    "empty step": (lambda m: m.step(X[:0], T[:0]), ValueError, "empty"),
    "empty data set": (lambda m: m.fit(X[:0], T[:0]), ValueError, "empty data set"),
    "empty evaluation": (lambda m: m.evaluate(X[:0], T[:0]), ValueError, "empty data set"),
    "no batches": (lambda m: m.fit(iter([])), ValueError, "empty data set"),
    "batch size 0": (lambda m: m.fit(X, T, batch_size=0), ValueError, "batch_size"),
    "predict batch size 0": (lambda m: m.predict(X, batch_size=0), ValueError, "batch_size"),
    "evaluate batch size 0": (lambda m: m.evaluate(X, T, batch_size=0), ValueError, "batch_size"),
    "negative epochs": (lambda m: m.fit(X, T, epochs=-1), ValueError, "epochs"),
    "split of everything": (lambda m: m.fit(X, T, validation_split=1.0), ValueError, "split"),
    "weights disagree": (lambda m: m.step(X, T, sample_weight=T[:3]), ValueError, "weight"),
    "unknown gradient": (lambda m: m.update({**m.parameters, "w": X}), ValueError, "'w'"),
    "missing gradient": (lambda m: m.update({}), ValueError, "hidden.weight"),
    "gradient of wrong shape": (
        lambda m: m.update({**m.parameters, "hidden.bias": X}),
        ValueError,
        "hidden.bias",
    ),
    "learning rate": (lambda m: setattr(m, "learning_rate", -1.0), ValueError, "learning_rate"),
    "unknown parameter": (lambda m: m.parameters["w"], KeyError, "hidden.weight"),
    "parameter of wrong shape": (
        lambda m: m.parameters.__setitem__("hidden.bias", [1, 2]),
        ValueError,
        "hidden.bias",
    ),
    "class weights": (
        lambda m: m.fit(X, T, class_weight="balanced", verbose=0),
        TypeError,
        "class_weight.*dict",
    ),
    "seed of a reset": (lambda m: m.reset(-1), ValueError, "seed"),
    "text as seed": (lambda m: m.reset("a"), ValueError, "seed"),
    "unknown stage": (lambda m: m.stages["ast"], KeyError, "graph"),
    "bound run": (lambda m: m.bind(X, T).run(-1), ValueError, "negative"),
    "half a run": (lambda m: m.bind(X, T).run(1.5), TypeError, "whole number"),
}


@pytest.fixture(scope="module")
def model() -> nnc.Model:
    return compiled()


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_wrong_calls_raise_and_leave_the_model_alone(name: str, model: nnc.Model) -> None:
    call, error, text = WRONG_CALLS[name]
    before = model.state.copy()
    with pytest.raises(error, match=text):
        call(model)
    assert all(np.array_equal(model.state[k], before[k]) for k in before)


@pytest.mark.parametrize(
    "name", [n for n in WRONG_CALLS if n not in ("unknown stage", "bound run", "half a run")]
)
def test_the_reference_raises_the_same(name: str, model: nnc.Model) -> None:
    call, error, _ = WRONG_CALLS[name]
    with pytest.raises(error):
        call(model.reference)


def test_several_inputs_are_named() -> None:
    model = nnc.compile(two_inputs())
    a, b = X[:, :2], X[:, 1:]
    with pytest.raises(ValueError, match="'b' is missing"):
        model({"a": a})
    with pytest.raises(ValueError, match="2 inputs"):
        model(a)
    with pytest.raises(ValueError, match="32.*5|5.*32"):
        model((a, b[:5]))


@pytest.mark.parametrize("method", ["backward", "step", "evaluate", "fit"])
def test_training_without_a_loss_is_told(method: str) -> None:
    with pytest.raises(ValueError, match="loss|optimizer"):
        getattr(nnc.compile(classifier()), method)(X, T)


@pytest.mark.parametrize("method", ["step", "fit"])
def test_training_without_an_optimizer_is_told(method: str) -> None:
    with pytest.raises(ValueError, match="optimizer"):
        getattr(nnc.compile(classifier(), loss="cross_entropy"), method)(X, T)


def test_wrong_options_are_told() -> None:
    with pytest.raises(TypeError, match="Options"):
        nnc.compile(classifier(), options={"threads": 1})
    with pytest.raises(TypeError, match="DiGraph"):
        nnc.compile([("x", "y")])


@pytest.mark.parametrize(
    ("threads", "error"), [(0, ValueError), (-3, ValueError), ("2", TypeError)]
)
def test_wrong_numbers_of_threads_are_told(threads: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="threads"):
        nnc.Options(threads=threads)


def test_seeds_of_numpy_are_seeds() -> None:
    a, b = compiled(seed=np.int64(3)), compiled(seed=3)
    np.testing.assert_array_equal(a(X), b(X))
