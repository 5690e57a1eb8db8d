"""Activations have their published values and slopes, also far from zero."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.special import erf, expit

from ir import ops
from ir.interpret import evaluate
from nncompiler.autodiff import differentiate
from nncompiler.frontend.activations import ACTIVATIONS, ROW_WISE, make_activation

POINTS = np.concatenate([np.linspace(-4, 4, 33), [-0.0, 1e-8, -1e-8, 3.1, -2.9]])
FAR = np.array([-1e4, -800.0, -100.0, 100.0, 800.0, 1e4])


def softplus(x: Any) -> Any:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def tanh_gelu(x: Any) -> Any:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


S, A = 1.0507009873554805, 1.6732632423543772
FORMULAS: dict[Any, Any] = {
    "linear": lambda x: x,
    ("linear", (("a", 2.0), ("b", -1.0))): lambda x: 2 * x - 1,
    "sigmoid": expit,
    "tanh": np.tanh,
    "heaviside": lambda x: np.heaviside(x, 0.5),
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    ("leaky_relu", (("slope", 0.2),)): lambda x: np.where(x > 0, x, 0.2 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    ("elu", (("alpha", 0.5),)): lambda x: np.where(x > 0, x, 0.5 * np.expm1(np.minimum(x, 0))),
    "selu": lambda x: S * np.where(x > 0, x, A * np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    ("gelu", (("approximate", "tanh"),)): tanh_gelu,
    "silu": lambda x: x * expit(x),
    "softplus": softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "mish": lambda x: x * np.tanh(softplus(x)),
    "gaussian": lambda x: np.exp(-(x**2)),
    "sine": np.sin,
}


def apply(value: Any, x: Any) -> tuple[Any, Any]:
    """Values and slopes of an activation at points."""
    node = ops.input("x", "f64", np.shape(x))
    given = (value[0], dict(value[1])) if isinstance(value, tuple) else value
    y = make_activation(given)[1](node)
    (slope,) = differentiate(y, [node], ops.full_like(y, 1.0))
    return evaluate(y, {"x": x}), evaluate(slope, {"x": x})


@pytest.mark.parametrize("name", FORMULAS, ids=str)
def test_values_are_the_formula(name: Any) -> None:
    for points in (POINTS, FAR):
        with np.errstate(over="ignore"):
            expected = FORMULAS[name](points)
            values, _ = apply(name, points)
        np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("name", FORMULAS, ids=str)
def test_slopes_are_central_differences(name: Any) -> None:
    smooth = POINTS[(np.abs(POINTS) > 1e-3) & (np.abs(np.abs(POINTS) - 1) > 1e-3)]
    smooth = smooth[np.abs(np.abs(smooth) - 3) > 1e-3]
    f, h = FORMULAS[name], 1e-5
    _, slopes = apply(name, smooth)
    expected = (f(smooth + h) - f(smooth - h)) / (2 * h)
    np.testing.assert_allclose(slopes, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", FORMULAS, ids=str)
def test_slopes_are_finite_far_from_zero(name: Any) -> None:
    with np.errstate(over="ignore"):
        assert np.isfinite(apply(name, FAR)[1]).all()


@pytest.mark.parametrize(
    ("name", "slope"),
    [("relu", 0.0), ("heaviside", 0.0), ("softplus", 0.5), ("elu", 1.0), ("leaky_relu", 0.01)],
)
def test_slopes_at_zero(name: str, slope: float) -> None:
    assert apply(name, np.zeros(1))[1] == slope


def test_heaviside_at_zero_is_a_half() -> None:
    np.testing.assert_array_equal(apply("heaviside", np.array([-1.0, 0.0, 1.0]))[0], [0, 0.5, 1])


def test_python_functions_are_activations() -> None:
    name, function = make_activation(lambda x: x / (1 + abs(x)))
    x = ops.input("x", "f64", (3,))
    assert function(x) is make_activation("softsign")[1](x)
    assert name == "<lambda>"


def test_every_activation_keeps_shape_and_dtype() -> None:
    for name in ACTIVATIONS:
        for dtype in ("f32", "f64"):
            x = ops.input("x", dtype, ("batch", 3))
            assert make_activation(name)[1](x).type == x.type
    assert set(ACTIVATIONS) >= ROW_WISE


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("rellu", "did you mean 'relu'"),
        (("elu", {"beta": 1}), "no parameter 'beta'"),
        (("relu", {"slope": 1}), "no parameter 'slope'"),
        (3, "an activation is"),
    ],
)
def test_wrong_activations_are_told(value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make_activation(value)


def test_function_that_gives_no_value_is_told() -> None:
    with pytest.raises(ValueError, match="not a symbolic value"):
        make_activation(lambda x: 3)[1](ops.input("x", "f64", (3,)))
