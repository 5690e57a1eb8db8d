"""Stateful recurrent layers: a long sequence in pieces, without a gradient from piece to piece."""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc

RNG = np.random.default_rng(0)
ROWS, PIECES, TIMES, FEATURES, UNITS = 4, 3, 5, 3, 6
OPS = ["rnn", "lstm", "gru"]


def network(op: str, times: int = TIMES, rows: Any = "batch", **attributes: Any) -> Any:
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=(rows, times, FEATURES))
    g.add_node("n", op=op, units=UNITS, bias_initializer="normal", **attributes)
    g.add_node("y", op="dense", units=2)
    nx.add_path(g, ["x", "n", "y"])
    return g


def compiled(g: Any, rate: float = 0.05, **settings: Any) -> nnc.Model:
    optimizer = nnc.SGD(rate)
    return nnc.compile(g, loss="mse", optimizer=optimizer, dtype="float64", seed=3, **settings)


def stream(rows: int = ROWS) -> tuple[Any, Any]:
    """Pieces of long sequences and their targets."""
    x = RNG.normal(size=(PIECES, rows, TIMES, FEATURES))
    return x, RNG.normal(size=(PIECES, rows, 2))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("rows", ["batch", ROWS])
def test_pieces_are_one_long_sequence(op: str, rows: Any) -> None:
    """Without learning, step after step comes to the state that one long sequence comes to."""
    model = compiled(network(op, rows=rows, stateful=ROWS), rate=0.0)
    whole = compiled(network(op, TIMES * PIECES))
    x, t = stream()
    for piece, target in zip(x[:-1], t, strict=False):
        model.step(piece, target)
    long = np.concatenate(list(x), 1)
    np.testing.assert_allclose(model(x[-1]), whole(long), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(model(x[-1]), whole(long), rtol=1e-12, atol=1e-12)  # is not moved
    model.reset_states()
    fresh = compiled(network(op))
    np.testing.assert_allclose(model(x[0]), fresh(x[0]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", OPS)
def test_training_is_that_of_the_reference(op: str) -> None:
    model = compiled(network(op, stateful=ROWS))
    twin = model.reference
    x, t = stream()
    for piece, target in zip(x, t, strict=True):
        assert model.step(piece, target) == pytest.approx(twin.step(piece, target), rel=1e-12)
    for name, value in model.parameters.items():
        np.testing.assert_allclose(value, twin.parameters[name], rtol=1e-10, atol=1e-12)


def test_no_gradient_goes_into_what_was_before() -> None:
    """Differences of the second piece's loss, the state held fixed, are its gradients."""
    model = compiled(network("lstm", stateful=ROWS))
    x, t = stream()
    model.step(x[0], t[0])
    assert np.abs(model.state["n.cell"]).max() > 0.01
    assert max(model.check_gradients(x[1], t[1]).values()) < 1e-6


def test_fit_goes_on_from_batch_to_batch() -> None:
    model, twin = (compiled(network("gru", stateful=ROWS)) for _ in range(2))
    x, t = stream()
    flat = x.reshape(-1, TIMES, FEATURES), t.reshape(-1, 2)
    model.fit(*flat, batch_size=ROWS, shuffle=False, verbose=0)
    losses = [twin.step(piece, target) for piece, target in zip(x, t, strict=True)]
    assert model.history.history["loss"][-1] == pytest.approx(np.mean(losses), rel=1e-12)
    for name, value in model.parameters.items():
        np.testing.assert_array_equal(value, twin.parameters[name])
    assert any(a != b for a, b in pairwise(losses))


def test_fit_warns_where_it_shuffles_the_pieces_of_sequences() -> None:
    x, t = stream()
    flat = x.reshape(-1, TIMES, FEATURES), t.reshape(-1, 2)
    model = compiled(network("gru", stateful=ROWS))
    for machine in (model, model.reference):
        with pytest.warns(RuntimeWarning, match=r"shuffle=False") as found:
            machine.fit(*flat, batch_size=ROWS, verbose=0)
        assert found[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(*flat, batch_size=ROWS, shuffle=False, verbose=0)
        model.fit(list(zip(x, t, strict=True)), verbose=0)  # batches have an order of their own
        compiled(network("gru")).fit(*flat, batch_size=ROWS, verbose=0)


def test_a_short_batch_leaves_the_other_rows_as_they_are() -> None:
    model = compiled(network("lstm", stateful=ROWS))
    x, t = stream()
    model.step(x[0], t[0])
    before = model.state["n.hidden"].copy()
    model.step(x[1][:2], t[1][:2])
    after = model.state["n.hidden"]
    np.testing.assert_array_equal(after[2:], before[2:])
    assert np.abs(after[:2] - before[:2]).max() > 1e-3


def test_masked_rows_carry_their_state_on() -> None:
    g: Any = nx.MultiDiGraph()
    g.add_node("x", op="input", shape=("batch", TIMES, FEATURES))
    g.add_node("mask", op="input", shape=("batch", TIMES), dtype="bool")
    g.add_node("n", op="gru", units=UNITS, stateful=2)
    g.add_edge("x", "n", slot=0)
    g.add_edge("mask", "n", slot=1)
    model = compiled(g)
    x, t = RNG.normal(size=(2, TIMES, FEATURES)), RNG.normal(size=(2, UNITS))
    model.step({"x": x, "mask": np.ones((2, TIMES), bool)}, t)
    before = model.state["n.hidden"].copy()
    model.step({"x": x, "mask": np.zeros((2, TIMES), bool)}, t)
    np.testing.assert_array_equal(model.state["n.hidden"], before)


def test_more_rows_than_states_are_refused_everywhere() -> None:
    model = compiled(network("lstm", stateful=ROWS))
    x, t = RNG.normal(size=(9, TIMES, FEATURES)), RNG.normal(size=(9, 2))
    message = "'batch' is 9, but states are carried for 4 rows"
    kept = model.state.copy()
    calls: list[Any] = [
        lambda m: m(x),
        lambda m: m.step(x, t),
        lambda m: m.backward(x, t),
        lambda m: m.fit(x, t, batch_size=9, shuffle=False, verbose=0),
    ]
    for call in (*calls, lambda m: m.bind(x, t)):
        with pytest.raises(ValueError, match=message):
            call(model)
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call(model.reference)
    for name, value in kept.items():
        np.testing.assert_array_equal(model.state[name], value)
    model(x[:4]), model(x[:4])  # the short way is open now
    with pytest.raises(ValueError, match=message):
        model(x)
    model.fit(x, t, batch_size=ROWS, shuffle=False, verbose=0)
    assert model.predict(x, batch_size=ROWS).shape == (9, 2)


def test_errors_say_what_to_write() -> None:
    wrong = [
        (network("lstm", stateful=True), r"n.*needs a fixed batch, not 'batch'.*stateful=32"),
        (network("lstm", rows=3, stateful=4), "kept for 4 rows, the batch has 3"),
        (network("gru", stateful=4, bidirectional=True), "no bidirectional="),
        (network("gru", stateful=4, share="s"), "no share="),
        (network("rnn", stateful=0), "stateful has to be at least 1"),
    ]
    for g, message in wrong:
        with pytest.raises(nnc.CompileError, match=message):
            compiled(g)
    with pytest.raises(ValueError, match="no layer of the model is stateful"):
        compiled(network("lstm")).reset_states()


def test_the_state_is_saved_with_the_model_but_not_with_the_weights(tmp_path: Path) -> None:
    model = compiled(network("lstm", stateful=ROWS))
    x, t = stream()
    model.step(x[0], t[0])
    model.save(tmp_path / "m.nnc")
    np.testing.assert_array_equal(nnc.load(tmp_path / "m.nnc")(x[1]), model(x[1]))
    model.save_weights(tmp_path / "w.npz")
    other = compiled(network("lstm", stateful=2 * ROWS))
    other.load_weights(tmp_path / "w.npz")
    model.reset_states()
    np.testing.assert_allclose(other(x[1]), model(x[1]), rtol=1e-13)
