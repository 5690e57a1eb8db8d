"""Losses, their weighting by example, their gradients, and metrics, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logsumexp, softmax

from ir import ops
from ir.graph import Node, topological
from ir.interpret import evaluate
from nncompiler.autodiff import differentiate
from nncompiler.frontend.losses import DENSE, LABELS, make_loss, mean_loss, target_kind
from nncompiler.frontend.metrics import Result, make_metric

RNG = np.random.default_rng(3)
Y = RNG.normal(size=(5, 4)) * 2
T = RNG.normal(size=(5, 4))
PROBABILITIES = softmax(RNG.normal(size=(5, 4)), axis=-1)
LABEL = np.array([0, 3, 1, 3, 2])
ONE_HOT = np.eye(4)[LABEL]
WEIGHT = np.array([1.0, 0.0, 2.5, 0.5, 1.0])


def huber(delta: float) -> Any:
    def formula(y: Any, t: Any) -> Any:
        e = np.abs(y - t)
        return np.where(e <= delta, 0.5 * e**2, delta * (e - 0.5 * delta)).mean(1)

    return formula


CROSS_ENTROPY = lambda y, t: -(t * (y - logsumexp(y, axis=-1, keepdims=True))).sum(-1)  # noqa: E731
BINARY = (T > 0).astype(float)
SIGN = np.where(T > 0, 1.0, -1.0)
# name, target, the loss of every example
CASES: list[tuple[Any, Any, Any]] = [
    ("mse", T, lambda y, t: ((y - t) ** 2).mean(1)),
    ("sse", T, lambda y, t: 0.5 * ((y - t) ** 2).sum(1)),
    ("mae", T, lambda y, t: np.abs(y - t).mean(1)),
    ("huber", T, huber(1.0)),
    (("huber", {"delta": 0.3}), T, huber(0.3)),
    ("cross_entropy", PROBABILITIES, CROSS_ENTROPY),
    ("cross_entropy", ONE_HOT, CROSS_ENTROPY),
    ("cross_entropy", LABEL, lambda y, t: CROSS_ENTROPY(y, ONE_HOT)),
    (
        "binary_cross_entropy",
        BINARY,
        lambda y, t: -(t * np.log(expit(y)) + (1 - t) * np.log(expit(-y))).mean(1),
    ),
    ("hinge", SIGN, lambda y, t: np.maximum(0, 1 - t * y).mean(1)),
    (lambda y, t: (y - t) ** 4, T, lambda y, t: ((y - t) ** 4).mean(1)),
]


def build(name: Any, target: Any, weighted: bool = False) -> tuple[Node, Node]:
    """(loss, its gradient by the prediction) with a symbolic batch."""
    y = ops.input("y", "f64", ("batch", 4))
    t = ops.input("t", "i64" if target.dtype.kind == "i" else "f64", ("batch", *target.shape[1:]))
    weight = ops.input("w", "f64", ("batch",)) if weighted else None
    loss = mean_loss(make_loss(name), y, t, weight)
    return loss, differentiate(loss, [y])[0]


@pytest.mark.parametrize(("name", "target", "formula"), CASES, ids=lambda c: str(c)[:20])
def test_loss_is_the_mean_of_its_formula_over_examples(
    name: Any, target: Any, formula: Any
) -> None:
    loss, _ = build(name, target)
    value = evaluate(loss, {"y": Y, "t": target})
    assert value == pytest.approx(formula(Y, target).mean(), rel=1e-12)


@pytest.mark.parametrize(("name", "target", "formula"), CASES, ids=lambda c: str(c)[:20])
def test_sample_weight_scales_each_example(name: Any, target: Any, formula: Any) -> None:
    loss, _ = build(name, target, weighted=True)
    value = evaluate(loss, {"y": Y, "t": target, "w": WEIGHT})
    assert value == pytest.approx((formula(Y, target) * WEIGHT).mean(), rel=1e-12)


@pytest.mark.parametrize(("name", "target", "formula"), CASES, ids=lambda c: str(c)[:20])
def test_gradient_is_the_central_difference(name: Any, target: Any, formula: Any) -> None:
    _, gradient = build(name, target)
    found = evaluate(gradient, {"y": Y, "t": target})
    h = 1e-6
    for at in np.ndindex(Y.shape):
        step = np.zeros_like(Y)
        step[at] = h
        slope = (formula(Y + step, target).mean() - formula(Y - step, target).mean()) / (2 * h)
        assert found[at] == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("target", [LABEL, ONE_HOT, PROBABILITIES])
def test_gradient_of_cross_entropy_is_softmax_minus_target(target: Any) -> None:
    _, gradient = build("cross_entropy", target)
    rows = ONE_HOT if target.ndim == 1 else target
    expected = (softmax(Y, axis=-1) - rows) / 5
    np.testing.assert_allclose(evaluate(gradient, {"y": Y, "t": target}), expected, atol=1e-15)


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_cross_entropy_of_large_scores_is_finite_and_exact(scale: float) -> None:
    y = np.array([[scale, 0.0, -scale, 1.0], [0.0, 0.0, scale, scale]])
    t = np.array([1, 2])
    loss, gradient = build("cross_entropy", t)
    assert evaluate(loss, {"y": y, "t": t}) == pytest.approx((scale + np.log(2)) / 2, rel=1e-12)
    expected = (softmax(y, axis=-1) - np.eye(4)[t]) / 2
    np.testing.assert_allclose(evaluate(gradient, {"y": y, "t": t}), expected, atol=1e-15)


def test_cross_entropy_of_impossible_classes_with_no_probability_is_finite() -> None:
    y = np.array([[0.0, -np.inf, 1.0, 0.0]])
    t = np.array([[0.5, 0.0, 0.5, 0.0]])
    loss, gradient = build("cross_entropy", t)
    assert np.isfinite(evaluate(loss, {"y": y, "t": t}))
    assert np.isfinite(evaluate(gradient, {"y": y, "t": t})).all()


def test_binary_cross_entropy_of_large_scores_and_at_zero() -> None:
    y = np.array([[1e4, -1e4, 0.0, 0.0]])
    t = np.array([[0.0, 1.0, 0.0, 1.0]])
    loss, gradient = build("binary_cross_entropy", t)
    assert evaluate(loss, {"y": y, "t": t}) == pytest.approx((2e4 + 2 * np.log(2)) / 4)
    expected = [[0.25, -0.25, 0.125, -0.125]]
    np.testing.assert_allclose(evaluate(gradient, {"y": y, "t": t}), expected, rtol=1e-12)


def test_labels_may_have_several_axes() -> None:
    y = RNG.normal(size=(2, 3, 4))
    t = np.array([[0, 1, 3], [2, 2, 0]])
    loss = mean_loss(
        make_loss("cross_entropy"),
        ops.input("y", "f64", ("batch", 3, 4)),
        ops.input("t", "i64", ("batch", 3)),
    )
    log_p = y - logsumexp(y, axis=-1, keepdims=True)
    expected = -np.take_along_axis(log_p, t[..., None], -1).mean()
    assert evaluate(loss, {"y": y, "t": t}) == pytest.approx(expected, rel=1e-12)


def test_labels_need_no_gather() -> None:
    loss, gradient = build("cross_entropy", LABEL)
    assert not {"gather", "scatter_add"} & {n.op.name for n in topological([loss, gradient])}


def test_scalar_loss_functions_are_taken_as_they_are_but_not_weighted() -> None:
    half = lambda y, t: ops.sum(y * t)  # noqa: E731
    loss, _ = build(half, T)
    assert evaluate(loss, {"y": Y, "t": T}) == pytest.approx((Y * T).sum())
    with pytest.raises(ValueError, match="sample_weight"):
        build(half, T, weighted=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("cross_entropi", "did you mean 'cross_entropy'"),
        (("huber", {"d": 1}), "no parameter 'd'"),
        (3, "a loss is"),
    ],
)
def test_wrong_losses_are_told(value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make_loss(value)


def test_kind_of_target_follows_from_dtype_and_rank() -> None:
    wide, column = ops.input("y", "f32", ("batch", 4)), ops.input("y", "f32", ("batch", 1))
    entropy, square = make_loss("cross_entropy"), make_loss("mse")
    assert target_kind(entropy, wide, integer=True, rank=1) == LABELS
    assert target_kind(entropy, wide, integer=True, rank=2) == DENSE
    assert target_kind(entropy, wide, integer=False, rank=1) == DENSE
    assert target_kind(square, wide, integer=True, rank=1) == DENSE
    assert target_kind(make_loss(lambda y, t: y - t), column, integer=True, rank=1) == DENSE


def measure(name: Any, y: Any, t: Any, loss: str) -> Any:
    prediction = ops.input("y", "f64", y.shape)
    target = ops.input("t", "i64" if t.dtype.kind == "i" else "f64", t.shape)
    kind = LABELS if t.dtype.kind == "i" else DENSE
    result = Result(prediction, prediction, target, kind, make_loss(loss))
    return evaluate(make_metric(name)[1](result), {"y": y, "t": t})


def test_accuracy() -> None:
    right = (Y.argmax(1) == LABEL).mean()
    assert measure("accuracy", Y, LABEL, "cross_entropy") == pytest.approx(right)
    assert measure("accuracy", Y, ONE_HOT, "cross_entropy") == pytest.approx(right)
    assert measure("accuracy", Y, ONE_HOT, "mse") == pytest.approx(right)
    column, truth = Y[:, :1], BINARY[:, :1]
    scores, halves = ((column > c) == (truth > 0.5) for c in (0.0, 0.5))
    assert measure("accuracy", column, truth, "binary_cross_entropy") == pytest.approx(
        scores.mean()
    )
    assert measure("accuracy", column, truth, "mse") == pytest.approx(halves.mean())
    signs = ((column > 0) == (SIGN[:, :1] > 0)).mean()
    assert measure("accuracy", column, SIGN[:, :1], "hinge") == pytest.approx(signs)


def test_other_metrics() -> None:
    assert measure("mse", Y, T, "mae") == pytest.approx(((Y - T) ** 2).mean())
    assert measure("rmse", Y, T, "mae") == pytest.approx(np.sqrt(((Y - T) ** 2).mean()))
    assert measure("mae", Y, T, "mse") == pytest.approx(np.abs(Y - T).mean())
    assert measure(lambda y, t: abs(y - t), Y, T, "mse") == pytest.approx(np.abs(Y - T).mean())
    with pytest.raises(ValueError, match="did you mean 'accuracy'"):
        make_metric("acuracy")
    with pytest.raises(ValueError, match="class numbers"):
        measure("mse", Y, LABEL, "cross_entropy")
