"""Metrics: those inside the graphs, and those of whole data sets, against scikit-learn."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from nncompiler.frontend.rankings import RANKINGS, Outcome
from nncompiler.machine import Machine

RNG = np.random.default_rng(15)
NAMES = ("precision", "recall", "f1", "auc", "r2")


def network(units: int, activation: Any = None) -> Any:
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 3))
    g.add_node("y", op="dense", units=units, activation=activation)
    g.add_edge("x", "y")
    return g


def of(prediction: Any, target: Any, border: float = 0.5) -> dict[str, float]:
    outcome = Outcome(np.asarray(prediction), np.asarray(target), border)
    return {name: RANKINGS[name](outcome) for name in NAMES if name != "r2"}


def test_two_classes_as_scikit_learn_has_them() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    t = RNG.integers(0, 2, 80)
    y = np.round(RNG.random(80) * 0.7 + 0.3 * t, 1)  # with ties
    found = of(y, t)
    assert found["auc"] == pytest.approx(sk.roc_auc_score(t, y))
    assert found["precision"] == pytest.approx(sk.precision_score(t, y > 0.5))
    assert found["recall"] == pytest.approx(sk.recall_score(t, y > 0.5))
    assert found["f1"] == pytest.approx(sk.f1_score(t, y > 0.5))
    assert of(np.stack([1 - y, y], 1), t) == pytest.approx({**found, **of(y, t)})
    assert of(2 * y[:, None] - 1, 2 * t[:, None] - 1, border=0.0) == pytest.approx(found)


def test_more_classes_are_averaged() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    t = RNG.integers(0, 4, 90)
    y = RNG.random((90, 4)) + np.eye(4)[t] * 0.4
    y /= y.sum(1, keepdims=True)
    for target in (t, np.eye(4)[t]):
        found = of(y, target)
        assert found["auc"] == pytest.approx(sk.roc_auc_score(t, y, multi_class="ovr"))
        for name, function in [
            ("precision", sk.precision_score),
            ("recall", sk.recall_score),
            ("f1", sk.f1_score),
        ]:
            assert found[name] == pytest.approx(function(t, y.argmax(1), average="macro"))


def test_r2_is_averaged_over_columns() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    t = 1e4 + RNG.normal(size=(50, 3)).astype(np.float32)
    y = t + 0.5 * RNG.normal(size=(50, 3)).astype(np.float32)
    assert RANKINGS["r2"](Outcome(y, t, 0.5)) == pytest.approx(sk.r2_score(t, y), rel=1e-6)
    constant = np.ones((4, 1))
    assert RANKINGS["r2"](Outcome(constant, constant, 0.5)) == 1.0
    assert RANKINGS["r2"](Outcome(constant + 1, constant, 0.5)) == 0.0


def test_what_does_not_exist_counts_zero_and_no_area_is_nan() -> None:
    found = of(np.zeros(5), np.zeros(5, int))
    assert (found["precision"], found["recall"], found["f1"]) == (0.0, 0.0, 0.0)
    assert np.isnan(found["auc"])


def test_fit_and_evaluate_give_the_metrics_of_the_whole_set_for_any_batch_size() -> None:
    x = RNG.normal(size=(50, 3))
    t = (x[:, :1] + 0.5 * RNG.normal(size=(50, 1)) > 0).astype(float)
    for activation in (None, "sigmoid"):
        model = nnc.compile(
            network(1, activation),
            loss="binary_cross_entropy",
            optimizer=nnc.SGD(0.5),
            metrics=("accuracy", *NAMES[:4]),
        )
        history = model.fit(x, t, epochs=2, batch_size=16, validation_data=(x, t), verbose=0)
        y = model.predict(x)
        expected = of(y, t, 0.0 if activation is None else 0.5)
        for scores in (
            {n: history.history[f"val_{n}"][-1] for n in expected},
            {n: history.history[n][-1] for n in expected},
            model.evaluate(x, t),
            model.evaluate(x, t, batch_size=7),
            model.reference.evaluate(x, t),
        ):
            assert {n: scores[n] for n in expected} == pytest.approx(expected)
        assert model.evaluate(x, t)["auc"] > 0.6


def test_several_outputs_have_metrics_of_their_own() -> None:
    g = network(1)
    g.add_node("z", op="dense", units=2)
    g.add_edge("x", "z")
    model = nnc.compile(g, loss="mse", metrics=("r2", "mae"), outputs=["y", "z"])
    x = RNG.normal(size=(9, 3))
    t = {"y": RNG.normal(size=(9, 1)), "z": RNG.normal(size=(9, 2))}
    scores = model.evaluate(x, t)
    for name, y in model.predict(x).items():
        assert scores[f"{name}_r2"] == pytest.approx(RANKINGS["r2"](Outcome(y, t[name], 0.5)))
        assert scores[f"{name}_mae"] == pytest.approx(np.abs(y - t[name]).mean(), rel=1e-5)


def test_top_k_is_the_share_of_rows_whose_class_is_among_the_largest() -> None:
    model = nnc.compile(
        network(6), loss="cross_entropy", metrics=("top_1", "top_3", "top_6", "accuracy")
    )
    x, t = RNG.normal(size=(40, 3)), RNG.integers(0, 6, 40)
    order = np.argsort(-model.predict(x), axis=1, kind="stable")
    for targets in (t, np.eye(6)[t]):
        scores = model.evaluate(x, targets)
        for k in (1, 3, 6):
            expected = (order[:, :k] == t[:, None]).any(1).mean()
            assert scores[f"top_{k}"] == pytest.approx(expected)
        assert scores["top_1"] == pytest.approx(scores["accuracy"])
    model.parameters["y.weight"] = np.zeros((3, 6))  # all tied: the first classes win
    assert model.evaluate(x, t)["top_3"] == pytest.approx((t < 3).mean())


def test_mistakes() -> None:
    with pytest.raises(nnc.CompileError, match="did you mean 'precision'"):
        nnc.compile(network(1), loss="mse", metrics="precison")
    with pytest.raises(nnc.CompileError, match="top_3 needs a score for every class"):
        nnc.compile(network(1), loss="mse", metrics="top_3").evaluate(np.ones((1, 3)), [[1.0]])
    with pytest.raises(nnc.CompileError, match="unknown metric 'top_0'"):
        nnc.compile(network(3), loss="cross_entropy", metrics="top_0")


def test_early_stopping_knows_which_are_better_when_larger() -> None:
    for name in ("val_auc", "f1", "val_top_5", "r2", "val_y_precision"):
        assert nnc.EarlyStopping(name)._sign == -1.0
    for name in ("val_loss", "mae", "val_mse"):
        assert nnc.EarlyStopping(name)._sign == 1.0


def two_outputs() -> Any:
    g = network(3)
    g.add_node("z", op="dense", units=2)
    g.add_edge("x", "z")
    return g


def test_metrics_can_be_chosen_by_output() -> None:
    settings: Any = {
        "loss": {"y": "cross_entropy", "z": "mse"},
        "metrics": {"y": ("accuracy", "f1"), "z": "mae"},
        "outputs": ["y", "z"],
    }
    model = nnc.compile(two_outputs(), optimizer="sgd", **settings)
    x, t = RNG.normal(size=(9, 3)), {"y": RNG.integers(0, 3, 9), "z": RNG.normal(size=(9, 2))}
    assert sorted(model.evaluate(x, t)) == ["loss", "y_accuracy", "y_f1", "z_mae"]
    found = model.predict(x)
    scores = model.evaluate(x, t)
    assert scores["y_accuracy"] == pytest.approx((found["y"].argmax(1) == t["y"]).mean())
    assert scores["z_mae"] == pytest.approx(np.abs(found["z"] - t["z"]).mean(), rel=1e-5)
    history = model.fit(x, t, validation_data=(x, t), verbose=0).history
    assert {"y_f1", "val_z_mae"} <= set(history)
    assert "z_accuracy" not in history


def test_metrics_by_output_are_saved(tmp_path: Any) -> None:
    model = nnc.compile(network(1), loss="mse", metrics={"y": ["mae", "r2"]})
    model.save(tmp_path / "m.nnc")
    again = nnc.load(tmp_path / "m.nnc")
    assert sorted(again.evaluate(np.ones((4, 3)), np.ones((4, 1)))) == ["loss", "mae", "r2"]


@pytest.mark.parametrize("name", ["mae", "mse", "r2"])
def test_a_metric_of_values_does_not_fit_class_numbers(name: str) -> None:
    model = nnc.compile(network(3), loss="cross_entropy", metrics=("accuracy", name))
    with pytest.raises(nnc.CompileError, match=rf"metric '{name}' of 'y'.*by output") as caught:
        model.evaluate(np.ones((4, 3)), np.zeros(4, int))
    assert caught.value.node == "y"


def test_metrics_of_an_output_without_a_loss_are_a_mistake() -> None:
    g = two_outputs()
    with pytest.raises(nnc.CompileError, match="metrics of 'z', an output without a loss"):
        nnc.compile(g, loss={"y": "mse"}, metrics={"z": "mae"}, outputs=["y", "z"])
    with pytest.raises(nnc.CompileError, match="metrics are names or functions, not 3"):
        nnc.compile(g, loss="mse", metrics=3)


def test_accuracy_mae_and_top_k_are_those_of_scikit_learn() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    x, t = RNG.normal(size=(40, 3)), RNG.integers(0, 5, 40)
    model = nnc.compile(network(5), loss="cross_entropy", metrics=("accuracy", "top_2"))
    y, scores = model.predict(x), model.evaluate(x, t)
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(t, y.argmax(1)))
    assert scores["top_2"] == pytest.approx(sk.top_k_accuracy_score(t, y, k=2))
    values = RNG.normal(size=(40, 5))
    model = nnc.compile(network(5), loss="mse", metrics=("mae", "mse", "rmse"))
    y, scores = model.predict(x), model.evaluate(x, values)
    assert scores["mae"] == pytest.approx(sk.mean_absolute_error(values, y), rel=1e-5)
    assert scores["mse"] == pytest.approx(sk.mean_squared_error(values, y), rel=1e-5)
    assert scores["rmse"] == pytest.approx(sk.mean_squared_error(values, y) ** 0.5, rel=1e-5)


def test_fit_predicts_for_metrics_of_the_whole_data_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more pass over the data would cost half of a small network's epoch."""
    x, t = np.zeros((8, 3)), np.arange(8) % 2
    predictions = []
    predict = Machine.predict

    def counted(self: Machine, *args: Any, **options: Any) -> Any:
        predictions.append(1)
        return predict(self, *args, **options)

    monkeypatch.setattr(Machine, "predict", counted)
    for metrics, expected in (((), 0), (("accuracy",), 0), (("f1",), 1)):
        predictions.clear()
        model = nnc.compile(network(2), loss="cross_entropy", optimizer="sgd", metrics=metrics)
        model.fit(x, t, epochs=1, verbose=0)
        assert len(predictions) == expected, metrics


def test_nodes_may_be_numbers() -> None:
    g: Any = nx.DiGraph()
    g.add_node(1, op="input", shape=("batch", 3))
    for node in (2, 3):
        g.add_node(node, op="dense", units=2)
        g.add_edge(1, node)
    model = nnc.compile(
        g, loss={2: "mse", 3: "mae"}, loss_weights={2: 0.5}, optimizer="sgd", metrics={2: "mae"}
    )
    x, t = np.ones((4, 3)), {2: np.ones((4, 2)), 3: np.ones((4, 2))}
    assert sorted(model.fit(x, t, verbose=0).history) == ["2_mae", "loss"]


def test_a_function_that_gives_booleans_is_the_share_that_is_true() -> None:
    def near(y: Any, t: Any) -> Any:
        return nnc.abs(y - t) < 0.5

    x, t = RNG.normal(size=(9, 3)), RNG.normal(size=(9, 2))
    model = nnc.compile(network(2), loss="mse", metrics=near)
    expected = (np.abs(model.predict(x) - t) < 0.5).mean()
    assert model.evaluate(x, t)["near"] == pytest.approx(expected)
    assert sorted(nnc.compile(network(2), loss="mse", metrics=None).evaluate(x, t)) == ["loss"]
