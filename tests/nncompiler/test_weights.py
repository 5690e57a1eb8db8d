"""Weights divided by a norm: weight norm and spectral norm with its power iteration as state."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from tests.layer_laws import Case, check_layer, check_model

RNG = np.random.default_rng(14)


def network(**attributes: Any) -> Any:
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 5))
    g.add_node("y", op="dense", units=4, **attributes)
    g.add_edge("x", "y")
    return g


def model_of(rate: float = 0.0, **attributes: Any) -> nnc.Model:
    return nnc.compile(network(**attributes), loss="mse", optimizer=nnc.SGD(rate), dtype="float64")


@pytest.mark.parametrize(
    "case",
    [
        Case("dense", (6,), {"units": 5, "weight_norm": True}),
        Case("dense", (3, 6), {"units": 2, "weight_norm": True, "activation": "tanh"}),
        Case("dense", (6,), {"units": 5, "spectral_norm": True}, differences=False),
        Case("conv", (2, 5, 4), {"filters": 3, "kernel_size": 2, "weight_norm": True}),
        Case("conv_transpose", (2, 4), {"filters": 3, "kernel_size": 2, "weight_norm": True}),
        Case(
            "conv",
            (2, 5, 4),
            {"filters": 3, "kernel_size": 2, "spectral_norm": True},
            differences=False,
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_is_the_reference(case: Case, dtype: str) -> None:
    check_layer(case, dtype)


def test_weight_norm_starts_as_drawn_and_sets_lengths() -> None:
    plain, model = model_of(), model_of(weight_norm=True)
    x = RNG.normal(size=(3, 5))
    np.testing.assert_allclose(model.forward(x), plain.forward(x), rtol=1e-12)
    assert model.parameters["y.weight_scale"].shape == (4,)
    model.parameters["y.weight_scale"] = [1.0, 2.0, 3.0, 4.0]
    drawn = np.array(model.parameters["y.weight"])
    used = drawn / np.linalg.norm(drawn, axis=0) * [1, 2, 3, 4]
    np.testing.assert_allclose(model.forward(x), x @ used, rtol=1e-12)
    model.reset(3)
    plain.reset(3)
    np.testing.assert_allclose(model.forward(x), plain.forward(x), rtol=1e-12)


def test_spectral_norm_finds_the_largest_singular_value() -> None:
    model = model_of(spectral_norm=True)
    x, weight = RNG.normal(size=(3, 5)), np.array(model.parameters["y.weight"])
    before = np.array(model.state["y.v"])
    model.forward(x, training=True)
    model.backward(x, x[:, :4])
    np.testing.assert_array_equal(model.state["y.v"], before)
    for _ in range(200):
        model.step(x, x[:, :4])
    largest = np.linalg.svd(weight)[1][0]
    for training in (False, True):
        np.testing.assert_allclose(model.forward(x, training=training), x @ weight / largest)
    # v has come to rest, so that its own derivative is zero
    assert model.check_gradients(x, x[:, :4]).worst < 1e-5


def test_one_training_step_is_one_step_of_the_power_iteration() -> None:
    model = model_of(spectral_norm=True)
    x, m = RNG.normal(size=(3, 5)), np.array(model.parameters["y.weight"])
    v = np.array(model.state["y.v"])
    u = v @ m / np.linalg.norm(v @ m)
    new = m @ u / np.linalg.norm(m @ u)
    np.testing.assert_allclose(model.forward(x, training=True), x @ m / (new @ m @ u), rtol=1e-12)
    model.step(x, x[:, :4])
    np.testing.assert_allclose(model.state["y.v"], new, rtol=1e-12)


def test_a_shared_weight_is_normalized_in_every_place() -> None:
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 4))
    for name in "ab":
        g.add_node(name, op="dense", units=4, spectral_norm=True, share="s")
    nx.add_path(g, ["x", "a", "b"])
    optimizer = nnc.SGD(0.1, momentum=0.9)
    model = nnc.compile(g, loss="mse", optimizer=optimizer, dtype="float64")
    check_model(model, lambda rows: RNG.normal(size=(rows, 4)), differences=False)
    assert list(model.parameters) == ["s.weight", "s.bias"]


def test_both_norms_exclude_each_other() -> None:
    with pytest.raises(nnc.CompileError, match="exclude each other"):
        nnc.compile(network(spectral_norm=True, weight_norm=True))
