"""The graphs of training: worked examples of the source texts, and the laws between the graphs."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

from ir.interpret import run_graph
from ir.text import print_graph
from nncompiler.errors import CompileError
from nncompiler.frontend.goals import make_objective
from nncompiler.frontend.network import read_network
from nncompiler.frontend.objective import GRAPHS, Objective, kinds_of
from nncompiler.frontend.optimizers import SGD, Adam
from nncompiler.frontend.regularizers import L1, L2

RNG = np.random.default_rng(11)


def layers(*sizes: int, hidden: Any = "sigmoid", last: Any = None, **attributes: Any) -> Any:
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", sizes[0]))
    for i, units in enumerate(sizes[1:-1], 1):
        g.add_node(f"h{i}", op="dense", units=units, activation=hidden, **attributes)
    g.add_node("y", op="dense", units=sizes[-1], activation=last)
    nx.add_path(g, ["x", *(f"h{i}" for i in range(1, len(sizes) - 1)), "y"])
    return g


def objective(graph: Any, *, dtype: str = "float64", **settings: Any) -> Objective:
    return make_objective(read_network(graph, dtype=dtype), **settings)


class Model:
    """An objective run by the interpreter."""

    def __init__(self, objective: Objective, seed: int = 0) -> None:
        self.objective = objective
        self.values = {**objective.network.draw(seed), **objective.draw_states(seed)}

    def run(self, name: str, **data: Any) -> dict[str, Any]:
        named = {k.replace("__", ":"): v for k, v in data.items()}
        return run_graph(self.objective.graph(name), {**self.values, **named})

    def step(self, **data: Any) -> dict[str, Any]:
        result = self.run("step", **data)
        self.values |= {k[7:]: v for k, v in result.items() if k.startswith("update:")}
        return result


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


# --------------------------------------------------------------------------- worked examples


def test_worked_example_of_the_lecture_on_neural_networks() -> None:
    """Worked by hand: 2 inputs, 3 hidden, 1 output, all sigmoid, MSE, one step of SGD."""
    rate = 0.5
    model = Model(objective(layers(2, 3, 1, last="sigmoid"), loss="mse", optimizer=SGD(rate)))
    model.values["h1.bias"] = RNG.normal(size=3)
    w, b = model.values["h1.weight"].copy(), model.values["h1.bias"].copy()
    v, c = model.values["y.weight"].copy(), model.values["y.bias"].copy()
    (x1, x2), t = RNG.normal(size=2), 0.7
    model.step(x=[[x1, x2]], target=[[t]])

    # all values come from the forward run
    s = [sigmoid(w[0, k] * x1 + w[1, k] * x2 + b[k]) for k in range(3)]
    f = sigmoid(v[0, 0] * s[0] + v[1, 0] * s[1] + v[2, 0] * s[2] + c[0])
    # term by term, with sigmoid' = s (1 - s)
    outer = -2 * (t - f) * f * (1 - f)
    for k in range(3):
        inner = outer * v[k, 0] * s[k] * (1 - s[k])
        new = model.values
        assert new["y.weight"][k, 0] == pytest.approx(v[k, 0] - rate * outer * s[k], abs=1e-12)
        assert new["h1.weight"][0, k] == pytest.approx(w[0, k] - rate * inner * x1, abs=1e-12)
        assert new["h1.weight"][1, k] == pytest.approx(w[1, k] - rate * inner * x2, abs=1e-12)
        assert new["h1.bias"][k] == pytest.approx(b[k] - rate * inner, abs=1e-12)
    assert model.values["y.bias"][0] == pytest.approx(c[0] - rate * outer, abs=1e-12)


def test_worked_example_of_the_laboratory() -> None:
    """Worked by hand: inputs 1, 2; hidden 3, 4, 5 (sigmoid); output 6 (tanh); 1/2 sum (y - z)^2."""
    g: Any = nx.DiGraph()
    g.add_nodes_from([1, 2])
    for v in (3, 4, 5):
        g.add_node(v, activation="sigmoid", bias=float(RNG.normal()))
        g.add_edges_from((u, v, {"weight": float(RNG.normal())}) for u in (1, 2))
    g.add_node(6, activation="tanh", bias=float(RNG.normal()))
    g.add_edges_from((u, 6, {"weight": float(RNG.normal())}) for u in (3, 4, 5))
    model = Model(objective(g, loss="sse"))
    data, truth = RNG.normal(size=(4, 2)), RNG.normal(size=(4, 1))
    found = model.run("backward", inputs=data, target=truth)

    def weight(u: int, v: int) -> float:
        return float(g.edges[u, v]["weight"])

    expected: dict[str, float] = {}
    loss = 0.0
    for (z1, z2), (y,) in zip(data, truth, strict=True):
        z = {1: z1, 2: z2}
        for k in (3, 4, 5):
            z[k] = sigmoid(g.nodes[k]["bias"] + weight(1, k) * z1 + weight(2, k) * z2)
        z[6] = np.tanh(g.nodes[6]["bias"] + sum(weight(k, 6) * z[k] for k in (3, 4, 5)))
        loss += 0.5 * (y - z[6]) ** 2 / 4
        d6 = -(y - z[6]) * (1 - z[6] ** 2) / 4
        terms = {"6.bias": d6}
        for k in (3, 4, 5):
            dk = d6 * weight(k, 6) * z[k] * (1 - z[k])
            terms |= {f"{k}->6": d6 * z[k], f"{k}.bias": dk, f"1->{k}": dk * z1, f"2->{k}": dk * z2}
        for name, term in terms.items():
            expected[name] = expected.get(name, 0.0) + term
    assert found["loss"] == pytest.approx(loss, abs=1e-12)
    assert set(expected) == set(model.objective.network.views)
    for name, view in model.objective.network.views.items():
        gradient = found[f"grad:{view.array}"][view.index]
        assert gradient == pytest.approx(expected[name], abs=1e-12), name


def test_the_gradient_reads_by_the_names_of_the_user() -> None:
    text = print_graph(objective(layers(2, 3, 1), loss="mse").graph("backward"))
    for name in ("h1.z", "h1", "d_y", "d_h1", "d_h1.z", "d_h1.weight", "d_y.bias", "loss"):
        assert f"%{name} = " in text


# --------------------------------------------------------------------------- laws


def classifier(**settings: Any) -> Model:
    g = layers(6, 8, 4)
    return Model(objective(g, loss="cross_entropy", kinds="labels", **settings))


DATA = {"x": RNG.normal(size=(10, 6)), "target": RNG.integers(0, 4, 10)}


def test_step_is_update_after_backward() -> None:
    model = classifier(optimizer=Adam(0.1, clip_norm=0.1), regularizer=L2(0.01))
    backward = model.run("backward", **DATA)
    gradients = {k: v for k, v in backward.items() if k.startswith("grad:")}
    update = run_graph(model.objective.graph("update"), {**model.values, **gradients})
    step = model.run("step", **DATA)
    assert step["loss"] == backward["loss"]
    assert {k for k in step if k.startswith("update:")} == set(update)
    for name, value in update.items():
        np.testing.assert_array_equal(step[name], value)


@pytest.mark.parametrize("regularizer", [None, L1(0.1), L2(0.1), [L1(0.1), L2(0.2)]])
def test_gradients_are_central_differences_of_the_loss(regularizer: Any) -> None:
    model = classifier(regularizer=regularizer)
    found = model.run("backward", **DATA)
    h = 1e-6
    for name in model.objective.trainable:
        value = model.values[name]
        at = tuple(RNG.integers(0, s) for s in value.shape)
        kept, losses = value[at], []
        for moved in (kept + h, kept - h):
            value[at] = moved
            losses.append(model.run("backward", **DATA)["loss"])
        value[at] = kept
        slope = (losses[0] - losses[1]) / (2 * h)
        assert found[f"grad:{name}"][at] == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_regularizer_adds_to_the_loss_of_weights_only() -> None:
    plain, penalized = classifier(), classifier(regularizer=L2(0.5))
    for model in (plain, penalized):
        model.values["h1.bias"] += 1.0
    w = [plain.values[k] for k in ("h1.weight", "y.weight")]
    extra = 0.5 * sum((v**2).sum() for v in w)
    for name in ("backward", "score"):
        difference = penalized.run(name, **DATA)["loss"] - plain.run(name, **DATA)["loss"]
        assert difference == pytest.approx(extra, rel=1e-12)
    a, b = plain.run("backward", **DATA), penalized.run("backward", **DATA)
    np.testing.assert_allclose(b["grad:h1.weight"] - a["grad:h1.weight"], w[0], atol=1e-12)
    np.testing.assert_array_equal(b["grad:h1.bias"], a["grad:h1.bias"])


def test_regularizer_of_a_layer_stands_instead_of_the_models() -> None:
    g = layers(6, 8, 4, regularizer=L1(0.25))
    model = Model(objective(g, loss="mse", regularizer=L2(0.5)))
    plain = Model(objective(layers(6, 8, 4), loss="mse"))
    data = {"x": DATA["x"], "target": RNG.normal(size=(10, 4))}
    extra = 0.25 * np.abs(plain.values["h1.weight"]).sum()
    extra += 0.5 * (plain.values["y.weight"] ** 2).sum()
    difference = model.run("score", **data)["loss"] - plain.run("score", **data)["loss"]
    assert difference == pytest.approx(extra, rel=1e-12)


def test_frozen_parameters_have_no_gradient_and_no_update() -> None:
    g = layers(6, 8, 4, trainable=False)
    o = objective(g, loss="mse", optimizer=SGD(0.1, momentum=0.9))
    assert [k for k in o.graph("backward").outputs if k != "loss"] == [
        "grad:y.weight",
        "grad:y.bias",
    ]
    assert "update:h1.weight" not in o.graph("step").outputs
    assert "optimizer.velocity.h1.weight" not in o.states


def test_a_last_softmax_is_undone_by_cross_entropy() -> None:
    plain, ended = layers(6, 8, 4), layers(6, 8, 4, last="softmax")
    a = Model(objective(plain, loss="cross_entropy", kinds="labels"))
    b = Model(objective(ended, loss="cross_entropy", kinds="labels"))
    assert (
        a.objective.graph("backward").outputs["loss"]
        is b.objective.graph("backward").outputs["loss"]
    )
    np.testing.assert_allclose(b.run("forward", **DATA)["y"].sum(1), 1)


def test_a_last_sigmoid_is_undone_by_binary_cross_entropy() -> None:
    a = objective(layers(6, 8, 1), loss="binary_cross_entropy")
    b = objective(layers(6, 8, 1, last="sigmoid"), loss="binary_cross_entropy")
    assert a.graph("score").outputs["loss"] is b.graph("score").outputs["loss"]


def test_metrics_stand_in_score_and_step() -> None:
    model = classifier(optimizer="sgd", metrics=("accuracy",))
    scores = model.run("forward", **DATA)["y"]
    right = (scores.argmax(1) == DATA["target"]).mean()
    for name in ("score", "step"):
        assert model.run(name, **DATA)["metric:accuracy"] == pytest.approx(right)
    assert "metric:accuracy" not in model.objective.graph("backward").outputs


def test_sample_weight_is_an_input_where_asked_for() -> None:
    weights = np.zeros(10)
    weights[3] = 10.0
    model, single = classifier(weighted=True), classifier()
    one = {"x": DATA["x"][3:4], "target": DATA["target"][3:4]}
    expected = single.run("backward", **one)
    found = model.run("backward", **DATA, sample_weight=weights)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-13)


def dropout_model() -> Model:
    g = layers(6, 50, 1)
    g.remove_edge("h1", "y")
    g.add_node("drop", op="dropout", rate=0.5)
    nx.add_path(g, ["h1", "drop", "y"])
    return Model(objective(g, loss="mse", optimizer=SGD(0.0)), seed=5)


def test_only_step_advances_the_dropout_counter() -> None:
    model = dropout_model()
    data = {"x": DATA["x"], "target": np.zeros((10, 1))}
    assert model.values["random.seed"] == 5
    first = model.run("backward", **data)["loss"]
    assert model.run("backward", **data)["loss"] == first
    assert model.step(**data)["loss"] == first
    assert model.values["random.counter"] == 1
    assert model.step(**data)["loss"] != first
    assert "random.counter" not in {i.attrs["id"] for i in model.objective.graph("forward").inputs}


def test_the_seed_changes_dropout_without_another_graph() -> None:
    model = dropout_model()
    data = {"x": DATA["x"], "target": np.zeros((10, 1))}
    first = model.run("backward", **data)["loss"]
    model.values["random.seed"] = np.uint32(6)
    assert model.run("backward", **data)["loss"] != first


def test_several_outputs_have_targets_and_losses_of_their_own() -> None:
    g = layers(6, 8, 4)
    g.add_node("z", op="dense", units=1)
    g.add_edge("h1", "z")
    o = objective(
        g,
        loss={"y": "cross_entropy", "z": "mse"},
        kinds={"y": "labels"},
        metrics=["accuracy"],
    )
    assert {t.id: t.kind for t in o.targets.values()} == {"target:y": "labels", "target:z": "dense"}
    assert o.checks == {"target:y": (0, 4), "target:z": None}
    model = Model(o)
    data = {"x": DATA["x"], "target__y": DATA["target"], "target__z": np.zeros((10, 1))}
    found = model.run("score", **data)
    assert set(found) == {"loss", "metric:y_accuracy", "metric:z_accuracy"}


def test_checks_hold_the_range_of_labels() -> None:
    assert classifier().objective.checks == {"target": (0, 4)}
    assert objective(layers(2, 1), loss="mse").checks == {"target": None}


def test_kinds_of_targets_come_from_the_data() -> None:
    o = objective(layers(6, 8, 4), loss="cross_entropy")
    assert kinds_of(o, {"y": (True, 1)}) == {"y": "labels"}
    assert kinds_of(o, {"y": (True, 2)}) == {"y": "dense"}


def test_data_inputs_come_first_and_every_leaf_is_an_input() -> None:
    model = classifier(optimizer=Adam(), metrics=["accuracy"])
    for name in GRAPHS:
        graph = model.objective.graph(name)
        leaves = {n for n in graph.nodes if n.op.name == "input"}
        assert set(graph.inputs) == leaves
        assert graph.inputs[0].attrs["id"] == ("grad:h1.weight" if name == "update" else "x")
        assert all(n in graph.names for n in graph.inputs)


def test_a_graph_is_built_once() -> None:
    o = classifier(optimizer="adam").objective
    assert o.graph("step") is o.graph("step")


# --------------------------------------------------------------------------- errors


ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"loss": "mes"}, "unknown loss 'mes'.*'mse'"),
    ({"loss": {"z": "mse"}}, "'z', which is not an output"),
    ({"loss": "mse", "optimizer": "sdg"}, "unknown optimizer 'sdg'.*'sgd'"),
    ({"loss": "mse", "optimizer": 3}, "an optimizer is a name"),
    ({"loss": "mse", "metrics": ["acuracy"]}, "unknown metric 'acuracy'"),
    ({"loss": "mse", "regularizer": "l3"}, "unknown regularizer 'l3'"),
]


@pytest.mark.parametrize(("settings", "text"), ERRORS, ids=[e[1][:30] for e in ERRORS])
def test_wrong_settings_are_told(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(CompileError, match=text) as caught:
        objective(layers(2, 3, 1), **settings)
    assert caught.value.stage == "objective"


def test_optimizer_of_a_network_without_parameters_is_told() -> None:
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 2))
    g.add_node("y", op="relu")
    g.add_edge("x", "y")
    with pytest.raises(CompileError, match="no trainable parameters"):
        objective(g, loss="mse", optimizer="sgd")
    frozen: Any = nx.DiGraph()
    frozen.add_node("x", op="input", shape=("batch", 2))
    frozen.add_node("y", op="dense", units=1, trainable=False)
    frozen.add_edge("x", "y")
    with pytest.raises(CompileError, match="no trainable parameters"):
        objective(frozen, loss="mse", optimizer="sgd")


def test_missing_loss_or_optimizer_is_told() -> None:
    with pytest.raises(CompileError, match="'backward' needs a loss"):
        objective(layers(2, 1)).graph("backward")
    with pytest.raises(CompileError, match="'step' needs an optimizer"):
        objective(layers(2, 1), loss="mse").graph("step")
    assert "update:y.weight" in objective(layers(2, 1), optimizer="sgd").graph("update").outputs


def test_loss_of_the_users_that_fails_names_the_output() -> None:
    o = objective(layers(2, 1), loss=lambda y, t: y @ t)
    with pytest.raises(CompileError, match="the loss '<lambda>' of 'y'") as caught:
        o.graph("backward")
    assert caught.value.node == "y"
