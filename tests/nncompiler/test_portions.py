"""A network of a fixed number of rows works through data of a multiple of them."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc

RNG = np.random.default_rng(4)
X, T = RNG.normal(size=(12, 3)), RNG.normal(size=(12, 2))


def model_of(rows: Any, **settings: Any) -> nnc.Model:
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=(rows, 3))
    g.add_node("y", op="dense", units=2)
    g.add_edge("x", "y")
    settings = {"loss": "mse", "optimizer": nnc.Adam(0.1), "metrics": ("mae", "r2")} | settings
    return nnc.compile(g, dtype="float64", **settings)


@pytest.mark.parametrize("rows", [4, 6, 12])
def test_it_is_trained_as_one_of_any_number_of_rows_with_that_batch_size(rows: int) -> None:
    fixed, free = model_of(rows), model_of("batch")
    for machine in (fixed, fixed.reference, free):
        size = {"batch_size": rows} if machine is free else {}
        machine.fit(X, T, epochs=3, validation_data=(X, T), verbose=0, **size)
    for machine in (fixed, fixed.reference):
        for name, values in free.history.history.items():
            np.testing.assert_allclose(machine.history.history[name], values, rtol=1e-9)
        for name, array in free.parameters.items():
            np.testing.assert_allclose(machine.parameters[name], array, rtol=1e-9)
        np.testing.assert_allclose(machine.predict(X), free.predict(X), rtol=1e-9)
        np.testing.assert_allclose(machine.predict(X, batch_size=5), free.predict(X), rtol=1e-9)
        assert machine.evaluate(X, T) == pytest.approx(free.evaluate(X, T))


def test_a_rest_is_refused_before_anything_changes() -> None:
    model = model_of(4)
    before = model.state.copy()
    x, t = X[:10], T[:10]
    for call in (
        lambda: model.fit(x, t, verbose=0),
        lambda: model.fit(X, T, validation_split=0.5, verbose=0),
        lambda: model.fit(X, T, validation_data=(x, t), verbose=0),
        lambda: model.evaluate(x, t),
        lambda: model.predict(x),
    ):
        with pytest.raises(ValueError, match=r"takes 4 rows at a time, and \d+ rows leave a rest"):
            call()
    with pytest.raises(ValueError, match="empty data set"):
        model.fit(X[:0], T[:0], verbose=0)
    for name, array in before.items():
        np.testing.assert_array_equal(model.state[name], array)


def test_one_call_takes_exactly_these_rows() -> None:
    with pytest.raises(ValueError, match=r"expected shape \(4, 3\), got \(12, 3\)"):
        model_of(4).step(X, T)
