"""Search over hyper-parameters: combinations, executors, the best model, failures."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest

import nncompiler as nnc
from tests.networks import classifier, compiled, data

X, T = data(120)
SPACE = {"units": [2, 8], "rate": [0.001, 0.1]}


def build(units: int = 8, rate: float = 0.1) -> nnc.Model:
    g = classifier()
    g.nodes["hidden"]["units"] = units
    return compiled(g, optimizer=nnc.SGD(rate, momentum=0.9))


def run(**options: Any) -> Any:
    return nnc.search(build, SPACE, X, T, **{"epochs": 8, "batch_size": 16, **options})


def test_grid_tries_everything_and_orders_by_score() -> None:
    result = run()
    assert {(t.parameters["units"], t.parameters["rate"]) for t in result} == {
        (u, r) for u in SPACE["units"] for r in SPACE["rate"]
    }
    scores = [t.score for t in result]
    assert scores == sorted(scores)
    assert result.best == result.trials[0].parameters
    assert result.best["rate"] == 0.1


def test_the_best_model_has_the_parameters_of_its_best_epoch() -> None:
    result = run()
    rows = int(len(X) * 0.8)
    assert result.model.evaluate(X[rows:], T[rows:])["loss"] == pytest.approx(result.best_score)


def test_executors_give_the_same_result() -> None:
    expected = [(t.parameters, t.score) for t in run()]
    with ThreadPoolExecutor(2) as threads:
        assert [(t.parameters, t.score) for t in run(executor=threads)] == expected
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        assert [(t.parameters, t.score) for t in run(executor=processes)] == expected


def test_random_search_draws_from_values_functions_and_distributions() -> None:
    stats = pytest.importorskip("scipy.stats")
    space = {
        "units": [2, 3, 4],
        "rate": lambda rng: 10.0 ** rng.uniform(-3, 0),
        "batch_size": stats.randint(8, 64),
    }
    result = nnc.search(build, space, X, T, method="random", trials=4, epochs=2, seed=1)
    assert len(result) == 4
    assert all(0.001 <= t.parameters["rate"] <= 1 for t in result)
    assert all(8 <= t.parameters["batch_size"] < 64 for t in result)
    again = nnc.search(build, space, X, T, method="random", trials=4, epochs=2, seed=1)
    assert [t.parameters for t in again] == [t.parameters for t in result]


def test_random_search_does_not_repeat() -> None:
    result = nnc.search(build, {"units": [2, 3]}, X, T, method="random", trials=9, epochs=1)
    assert sorted(t.parameters["units"] for t in result) == [2, 3]


@pytest.mark.parametrize("metric", ["accuracy", "f1", "top_2"])
def test_larger_scores_are_better(metric: str) -> None:
    def scored(units: int, rate: float) -> nnc.Model:
        g = classifier()
        g.nodes["hidden"]["units"] = units
        return compiled(g, optimizer=nnc.SGD(rate), metrics=(metric,))

    known = {"monitor": f"val_{metric}", "validation_data": (X, T)}
    found = nnc.search(scored, SPACE, X, T, epochs=4, batch_size=16, **known)
    scores = [t.score for t in found]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1]


def test_early_stopping_ends_trials() -> None:
    result = nnc.search(build, {"rate": [0.0]}, X, T, epochs=50, early_stopping=2)
    assert len(result.trials[0].history["loss"]) == 3


def test_failed_trials_come_last_and_are_told() -> None:
    result = nnc.search(build, {"units": [4, -1]}, X, T, epochs=1)
    assert [bool(t.error) for t in result] == [False, True]
    assert "failed" in str(result)
    assert "<table>" in result._repr_html_()
    with pytest.raises(ValueError, match="all 1 combinations fail"):
        nnc.search(build, {"units": [-1]}, X, T, epochs=1)


@pytest.mark.parametrize(
    ("space", "options", "text"),
    [
        ({}, {}, "empty"),
        ({"units": 3}, {}, "'units'"),
        ({"units": []}, {}, "'units'"),
        (SPACE, {"method": "bayes"}, "bayes"),
        (SPACE, {"method": "random", "trials": 0}, "trials"),
        ({"units": 3}, {"method": "random"}, "'units'"),
        (SPACE, {"monitor": "val_f1", "epochs": 1}, "val_f1"),
    ],
)
def test_wrong_searches_are_told(space: Any, options: dict[str, Any], text: str) -> None:
    with (
        pytest.warns() if "monitor" in options else _nothing(),
        pytest.raises(ValueError, match=text),
    ):
        nnc.search(build, space, X, T, **options)


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


@pytest.mark.parametrize("made", [None, "model"])
def test_build_has_to_return_a_model(made: Any) -> None:
    with pytest.raises(TypeError, match="build has to return a model.*not (None|a str)"):
        nnc.search(lambda units: made, {"units": [1, 2]}, *data())


def test_numpy_values_are_a_sequence() -> None:
    result = nnc.search(build, {"rate": np.array([0.01, 0.1])}, X, T, epochs=1)
    assert len(result) == 2
