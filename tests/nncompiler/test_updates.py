"""What all optimizers share: rates by parameter, gathered gradients, averages of parameters."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from tests.layer_laws import assert_same_state, check_model

RNG = np.random.default_rng(16)
X, T = RNG.normal(size=(12, 3)), RNG.normal(size=(12, 2))


def network() -> Any:
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 3))
    g.add_node("h", op="dense", units=4, activation="tanh")
    g.add_node("y", op="dense", units=2)
    nx.add_path(g, ["x", "h", "y"])
    return g


def model_of(optimizer: Any, **settings: Any) -> nnc.Model:
    return nnc.compile(network(), loss="mse", optimizer=optimizer, dtype="float64", **settings)


@pytest.mark.parametrize(
    "optimizer",
    [
        nnc.SGD(0.1, rates={"h.*": 0.5, "y.bias": 0.0}),
        nnc.SGD(0.1, momentum=0.9, accumulate=3, clip_norm=0.1),
        nnc.Adam(0.01, accumulate=2, average=0.9),
        nnc.AdamW(nnc.InverseTime(0.01, 0.1), average=0.5, rates={"y.weight": 2.0}),
        nnc.RMSProp(accumulate=2),
        nnc.Adagrad(average=0.9),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_is_the_reference(optimizer: Any, dtype: str) -> None:
    model = nnc.compile(network(), loss="mse", optimizer=optimizer, dtype=dtype)
    check_model(model, lambda rows: RNG.normal(size=(rows, 3)))


def test_rates_scale_the_updates_of_the_parameters_that_fit() -> None:
    plain = model_of(nnc.SGD(0.1))
    model = model_of(nnc.SGD(0.1, rates={"h.weight": 3.0, "h.*": 0.5, "y.bias": 0.0}))
    before = {n: np.array(p) for n, p in plain.parameters.items()}
    plain.step(X, T)
    model.step(X, T)
    factors = {"h.weight": 3.0, "h.bias": 0.5, "y.weight": 1.0, "y.bias": 0.0}
    for name, factor in factors.items():
        moved = before[name] + factor * (plain.parameters[name] - before[name])
        np.testing.assert_allclose(model.parameters[name], moved, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("make", [nnc.SGD, nnc.Adam])
def test_batches_gathered_are_one_large_batch(make: Any) -> None:
    whole, parts = model_of(make(0.01)), model_of(make(0.01, accumulate=3))
    for _ in range(2):
        whole.step(X, T)
        for i in (0, 4, 8):
            before = np.array(parts.parameters["h.weight"])
            parts.step(X[i : i + 4], T[i : i + 4])
            assert np.array_equal(before, parts.parameters["h.weight"]) == (i < 8)
    for name, array in whole.parameters.items():
        np.testing.assert_allclose(parts.parameters[name], array, rtol=1e-12)


def test_update_gathers_too() -> None:
    whole, parts = model_of(nnc.SGD(0.1)), model_of(nnc.SGD(0.1, accumulate=2))
    halves = [parts.backward(X[i : i + 6], T[i : i + 6])[1] for i in (0, 6)]
    for gradients in halves:
        parts.update(gradients)
    whole.step(X, T)
    for name, array in whole.parameters.items():
        np.testing.assert_allclose(parts.parameters[name], array, rtol=1e-12)


def test_averages_follow_the_parameters() -> None:
    model = model_of(nnc.SGD(0.1, average=0.8))
    with model.averaged():  # nothing is averaged yet
        np.testing.assert_array_equal(model.predict(X), model.predict(X))
    expected: Any = None
    for _ in range(4):
        model.step(X, T)
        new = np.array(model.parameters["h.weight"])
        expected = new if expected is None else 0.8 * expected + 0.2 * new
    np.testing.assert_allclose(model.averages["h.weight"], expected, rtol=1e-12)
    last = np.array(model.parameters["h.weight"])
    y = model.predict(X)
    with model.averaged():
        np.testing.assert_array_equal(model.parameters["h.weight"], model.averages["h.weight"])
        assert not np.array_equal(model.predict(X), y)
    np.testing.assert_array_equal(model.parameters["h.weight"], last)
    np.testing.assert_array_equal(model.predict(X), y)


def test_a_saved_model_goes_on_in_the_middle_of_an_update(tmp_path: Any) -> None:
    model = model_of(nnc.Adam(0.01, accumulate=3, average=0.9, rates={"h.*": 0.5}))
    for _ in range(4):
        model.step(X, T)
    model.save(tmp_path / "m.nnc")
    twin = nnc.load(tmp_path / "m.nnc")
    for machine in (model, twin):
        for _ in range(3):
            machine.step(X, T)
    assert_same_state(model, twin, 0.0)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="did you mean 'h.weight'"):
        model_of(nnc.SGD(0.1, rates={"h.weigth": 2.0}))
    for wrong in ({"rates": {"h.*": -1.0}}, {"average": 1.0}, {"accumulate": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            nnc.SGD(0.1, **wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="accumulate"):
        nnc.SGD(0.1, accumulate=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="average=0.999"):
        _ = model_of("sgd").averages
