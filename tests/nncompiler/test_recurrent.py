"""Recurrent layers: against the formulas, derivatives, directions, masks, lengths."""

from __future__ import annotations

import time
from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from tests.layer_laws import Case, check_layer, check_model

RNG = np.random.default_rng(3)
TIMES, FEATURES, UNITS = 6, 3, 5

CASES = [
    Case("rnn", (7, 5), {"units": 6}),
    Case("rnn", (1, 2), {"units": 1, "activation": "relu", "return_sequences": True}),
    Case("lstm", (7, 5), {"units": 6}),
    Case("lstm", (4, 3), {"units": 17, "return_sequences": True, "bidirectional": True}),
    Case("lstm", (2, 3), {"units": 4, "use_bias": False}),
    Case("gru", (7, 5), {"units": 6, "bidirectional": True}),
    Case("gru", (3, 9), {"units": 8, "return_sequences": True}),
    Case("lstm", (5, 4), {"units": 3, "activation": "softsign"}),
    Case("gru", (5, 4), {"units": 3, "activation": "elu"}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_is_the_reference_and_derivatives_are_differences(case: Case, dtype: str) -> None:
    check_layer(case, dtype)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def expected(
    op: str, p: Any, x: Any, suffix: str = "", mask: Any = None, bend: Any = np.tanh
) -> Any:
    """The states of all times, one step after another as the formulas say."""
    w, u, b = (p[f"n.{n}{suffix}"] for n in ("weight_input", "weight_hidden", "bias"))
    h = c = np.zeros((len(x), UNITS))
    found = np.zeros((len(x), x.shape[1], UNITS))
    for t in range(x.shape[1])[:: -1 if suffix else 1]:
        old, z = (h, c), x[:, t] @ w + b
        if op == "rnn":
            h = bend(z + h @ u)
        elif op == "lstm":
            i, f, g, o = np.split(z + h @ u + p[f"n.bias_hidden{suffix}"], 4, 1)
            c = sigmoid(f) * c + sigmoid(i) * bend(g)
            h = sigmoid(o) * bend(c)
        else:
            (xr, xz, xn), (hr, hz, hn) = (
                np.split(v, 3, 1) for v in (z, h @ u + p[f"n.bias_hidden{suffix}"])
            )
            r, update = sigmoid(xr + hr), sigmoid(xz + hz)
            h = (1 - update) * bend(xn + r * hn) + update * h
        if mask is not None:
            h, c = (np.where(mask[:, t : t + 1], a, b) for a, b in zip((h, c), old, strict=True))
        found[:, t] = h
    return found


def model_of(op: str, *, masked: bool = False, **attributes: Any) -> nnc.Model:
    g: Any = nx.MultiDiGraph()
    g.add_node("x", op="input", shape=("batch", TIMES, FEATURES))
    g.add_node("n", op=op, units=UNITS, bias_initializer="normal", **attributes)
    g.add_edge("x", "n", slot=0)
    if masked:
        g.add_node("mask", op="input", shape=("batch", TIMES), dtype="bool")
        g.add_edge("mask", "n", slot=1)
    return nnc.compile(g, loss="mse", optimizer=nnc.SGD(0.1), dtype="float64")


@pytest.mark.parametrize("op", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("every", [False, True])
def test_formula(op: str, both: bool, every: bool) -> None:
    model = model_of(op, bidirectional=both, return_sequences=every)
    x = RNG.normal(size=(4, TIMES, FEATURES))
    states = [expected(op, model.parameters, x)]
    ends = [states[0][:, -1]]
    if both:
        states.append(expected(op, model.parameters, x, "_reverse"))
        ends.append(states[1][:, 0])
    wanted = np.concatenate(states if every else ends, -1)
    np.testing.assert_allclose(model(x), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", ["rnn", "lstm", "gru"])
def test_another_activation_stands_where_tanh_does(op: str) -> None:
    model = model_of(op, activation=lambda x: x / (1 + abs(x)))
    x = RNG.normal(size=(4, TIMES, FEATURES))
    wanted = expected(op, model.parameters, x, bend=lambda x: x / (1 + np.abs(x)))[:, -1]
    np.testing.assert_allclose(model(x), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("both", [False, True])
def test_a_masked_time_leaves_the_state_as_it_is(op: str, both: bool) -> None:
    model = model_of(op, masked=True, bidirectional=both)
    x = RNG.normal(size=(3, TIMES, FEATURES))
    mask = np.arange(TIMES) < np.asarray([[TIMES], [2], [4]])
    found = model({"x": x, "mask": mask})
    states = [expected(op, model.parameters, x, "", mask)[:, -1]]
    if both:
        states.append(expected(op, model.parameters, x, "_reverse", mask)[:, 0])
    np.testing.assert_allclose(found, np.concatenate(states, -1), rtol=1e-12, atol=1e-12)
    short = model({"x": x[1:2], "mask": mask[1:2]})
    x[1, 2:] = 100.0
    np.testing.assert_array_equal(model({"x": x[1:2], "mask": mask[1:2]}), short)
    check_model(model, lambda rows: {"x": RNG.normal(size=(rows, TIMES, FEATURES)),
                                     "mask": RNG.uniform(size=(rows, TIMES)) < 0.7})  # fmt: skip


def test_stacked_layers_in_both_directions() -> None:
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", TIMES, FEATURES))
    g.add_node("first", op="lstm", units=4, bidirectional=True, return_sequences=True)
    g.add_node("second", op="gru", units=3)
    g.add_node("y", op="dense", units=2, activation="softmax")
    nx.add_path(g, ["x", "first", "second", "y"])
    model = nnc.compile(g, loss="cross_entropy", optimizer=nnc.Adam(0.01), dtype="float64")
    assert model.parameters["first.weight_input_reverse"].shape == (FEATURES, 16)
    assert model.parameters["second.weight_input"].shape == (8, 9)
    check_model(model, lambda rows: RNG.normal(size=(rows, TIMES, FEATURES)))


def test_the_debugger_sees_nothing_wrong() -> None:
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", TIMES, FEATURES))
    g.add_node("n", op="lstm", units=UNITS)
    nx.add_path(g, ["x", "n"])
    options = nnc.Options(debug=True, cache=False)
    model = nnc.compile(g, loss="mse", optimizer=nnc.Adam(0.01), options=options)
    model.step(np.zeros((2, TIMES, FEATURES), np.float32), np.zeros((2, UNITS), np.float32))


def network(op: str, times: int, units: int = 16) -> Any:
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", times, FEATURES))
    g.add_node("n", op=op, units=units)
    g.add_node("y", op="dense", units=1)
    nx.add_path(g, ["x", "n", "y"])
    return g


def test_code_does_not_grow_with_time() -> None:
    """Nor does the time that compiling takes."""
    sizes, seconds = [], []
    for times in (16, 1024):
        options = nnc.Options(cache=False)
        model = nnc.compile(network("lstm", times), loss="mse", optimizer="adam", options=options)
        began = time.perf_counter()
        model.step(np.zeros((2, times, FEATURES), np.float32), np.zeros((2, 1), np.float32))
        seconds.append(time.perf_counter() - began)
        sizes.append(len(model.stages["llvm"]))
    assert sizes[1] < 1.2 * sizes[0]
    assert seconds[1] < 4 * seconds[0] + 0.5


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_give_the_same_bits(threads: int) -> None:
    x = RNG.normal(size=(64, 20, FEATURES)).astype(np.float32)
    t = RNG.normal(size=(64, 1)).astype(np.float32)
    found = []
    for count in (1, threads):
        model = nnc.compile(
            network("lstm", 20, 96),
            loss="mse",
            optimizer=nnc.SGD(0.1),
            options=nnc.Options(threads=count),
            seed=1,
        )
        for _ in range(5):
            model.step(x, t)
        found.append({k: v.copy() for k, v in model.parameters.items()})
    for name, value in found[0].items():
        np.testing.assert_array_equal(found[1][name], value, err_msg=name)


def test_a_saved_model_goes_on(tmp_path: Any) -> None:
    model = nnc.compile(network("gru", 8), loss="mse", optimizer="adam")
    x = RNG.normal(size=(8, 8, FEATURES)).astype(np.float32)
    model.step(x, np.ones((8, 1), np.float32))
    model.save(tmp_path / "model.nnc")
    np.testing.assert_array_equal(nnc.load(tmp_path / "model.nnc")(x), model(x))


@pytest.mark.parametrize(
    ("shape", "attributes", "message"),
    [
        (("batch", 4), {"units": 3}, "batch, time, features"),
        (("batch", 0, 4), {"units": 3}, "at least one time"),
        (("batch", 4, 4), {"units": 0}, "units"),
    ],
)
def test_mistakes_are_named(shape: Any, attributes: Any, message: str) -> None:
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=shape)
    g.add_node("cell", op="lstm", **attributes)
    nx.add_path(g, ["x", "cell"])
    with pytest.raises(nnc.CompileError, match=message):
        nnc.compile(g)


def test_a_cell_of_ones_own() -> None:
    """`nnc.scan` in a function, and its gradient."""

    def last(w: Any, x: Any) -> Any:
        start = nnc.sum(x, 1) * 0
        (h,), (every,) = nnc.scan(
            lambda h, now: ((nnc.tanh(now[0] + h[0] @ w),), (nnc.sum(h[0], -1),)), [start], [x]
        )
        return nnc.sum(h) + nnc.sum(every)

    w, x = RNG.normal(size=(3, 3)), RNG.normal(size=(2, 5, 3))

    def plain(w: Any) -> Any:
        h, total = np.zeros((2, 3)), 0.0
        for t in range(5):
            total += h.sum()
            h = np.tanh(x[:, t] + h @ w)
        return h.sum() + total

    assert nnc.jit(last)(w, x) == pytest.approx(plain(w), rel=1e-12)
    d = RNG.normal(size=w.shape)
    slope = (plain(w + 1e-6 * d) - plain(w - 1e-6 * d)) / 2e-6
    assert np.sum(nnc.grad(last)(w, x) * d) == pytest.approx(slope, rel=1e-7)
