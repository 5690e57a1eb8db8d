"""Laws of differentiation: cotangents, sums over paths, closure under itself, names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ir import ops
from ir.graph import Node
from ir.interpret import evaluate, run_nodes
from ir.types import f32, f64, i32
from nncompiler.autodiff import differentiate

X = ops.input("x", f64, (3,))
AT = {"x": np.asarray([0.3, -1.2, 2.0])}


def gradient(y: Node, x: Node = X) -> Any:
    return evaluate(differentiate(y, [x])[0], AT)


def test_paths_are_summed() -> None:
    y = ops.sum(X * X + 3 * X)
    np.testing.assert_allclose(gradient(y), 2 * AT["x"] + 3)


def test_an_independent_value_has_zeros() -> None:
    other = ops.input("other", f64, (2, 2))
    (d,) = differentiate(ops.sum(X), [other])
    np.testing.assert_array_equal(evaluate(d), np.zeros((2, 2)))


def test_the_derivative_by_itself_is_the_cotangent() -> None:
    g = ops.input("g", f64, (3,))
    assert differentiate(X, [X], g) == (g,)


def test_a_value_on_the_way_can_be_differentiated_by() -> None:
    hidden = ops.sin(X)
    (d,) = differentiate(ops.sum(hidden * hidden), [hidden])
    np.testing.assert_allclose(evaluate(d, AT), 2 * np.sin(AT["x"]))


def test_a_value_and_what_it_depends_on_together() -> None:
    hidden = ops.sin(X)
    dh, dx = differentiate(ops.sum(hidden * hidden), [hidden, X])
    np.testing.assert_allclose(evaluate(dh, AT) * np.cos(AT["x"]), evaluate(dx, AT))


def test_cotangent_weighs_the_elements() -> None:
    g = ops.constant(np.asarray([1.0, 0.0, -2.0]))
    (d,) = differentiate(ops.exp(X), [X], g)
    np.testing.assert_allclose(evaluate(d, AT), [np.exp(0.3), 0, -2 * np.exp(2.0)])


def test_third_derivative() -> None:
    y = ops.sum(X**4)
    for _ in range(3):
        y = ops.sum(differentiate(y, [X])[0])
    np.testing.assert_allclose(evaluate(y, AT), 24 * AT["x"].sum())


def test_hessian_of_a_network_is_symmetric_and_right() -> None:
    w = ops.input("w", f64, (2,))
    x = ops.constant(np.asarray([[0.5, -1.0], [2.0, 0.1], [0.3, 0.7]]))
    loss = ops.mean(ops.sigmoid(x @ w) ** 2)
    (first,) = differentiate(loss, [w])
    rows = [differentiate(first[i], [w])[0] for i in range(2)]
    at = np.asarray([0.2, -0.4])
    hessian = np.stack([evaluate(r, {"w": at}) for r in rows])
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-12)
    step = 1e-6
    for i, shift in enumerate(np.eye(2) * step):
        ends = [evaluate(first, {"w": at + s * shift}) for s in (1, -1)]
        np.testing.assert_allclose(hessian[i], (ends[0] - ends[1]) / (2 * step), rtol=1e-6)


def test_forward_mode_is_the_derivative_of_a_derivative() -> None:
    """jvp(t) is the derivative by g of vjp(g), taken along t."""
    y = ops.tanh(X) * X
    g, t = ops.input("g", f64, (3,)), np.asarray([1.0, -2.0, 0.5])
    (pulled,) = differentiate(y, [X], g)
    (pushed,) = differentiate(pulled, [g], ops.constant(t))
    slope = np.tanh(AT["x"]) + AT["x"] * (1 - np.tanh(AT["x"]) ** 2)
    np.testing.assert_allclose(evaluate(pushed, AT), slope * t)


def test_stop_gradient_is_a_constant() -> None:
    y = ops.sum(ops.stop_gradient(X) * X)
    np.testing.assert_allclose(gradient(y), AT["x"])


def test_cross_entropy_has_softmax_minus_one_hot() -> None:
    z = ops.input("z", f64, ("batch", 4))
    labels = np.asarray([2, 0, 3], np.int32)
    t = ops.input("t", i32, ("batch",))
    loss = ops.sum(ops.logsumexp(z, 1) - ops.sum(z * ops.one_hot(t, 4, f64), 1))
    (d,) = differentiate(loss, [z])
    data = np.random.default_rng(0).normal(size=(3, 4)) * 30
    soft = np.exp(data - data.max(1, keepdims=True))
    expected = soft / soft.sum(1, keepdims=True) - np.eye(4)[labels]
    np.testing.assert_allclose(evaluate(d, {"z": data, "t": labels}), expected, atol=1e-14)


def test_integers_carry_no_derivative() -> None:
    steps = ops.cast(ops.cast(X, i32), f64)
    np.testing.assert_array_equal(gradient(ops.sum(steps * 2)), np.zeros(3))


def test_cast_between_real_dtypes_carries_one() -> None:
    x = ops.input("x", f32, (3,))
    (d,) = differentiate(ops.sum(ops.cast(x, f64) * 2), [x])
    assert d.dtype == f32
    np.testing.assert_array_equal(evaluate(d, AT), np.full(3, 2, np.float32))


def test_cotangents_are_named_after_their_values() -> None:
    hidden = ops.sin(X)
    loss = ops.sum(hidden * hidden)
    names = {hidden: "hidden", X: "x", loss: "loss"}
    (d,) = differentiate(loss, [X], names=names)
    assert names[d] == "d_x"
    assert sorted(names.values()) == ["d_hidden", "d_x", "hidden", "loss", "x"]


@pytest.mark.parametrize(
    ("output", "wrt", "cotangent"),
    [
        (X, X, None),
        (ops.cast(ops.sum(X), i32), X, None),
        (ops.sum(X), ops.input("n", i32, ()), None),
        (X, X, ops.constant(1.0, f64)),
        (X, X, ops.input("g", f32, (3,))),
    ],
)
def test_what_cannot_be_differentiated_raises(output: Node, wrt: Node, cotangent: Any) -> None:
    with pytest.raises(ValueError):
        differentiate(output, [wrt], cotangent)


def test_a_deep_chain_does_not_recurse() -> None:
    y = X
    for _ in range(3000):
        y = ops.sin(y)
    (d,) = differentiate(ops.sum(y), [X])
    assert np.isfinite(run_nodes([d], AT)[d]).all()
