"""First values of parameters follow their published distributions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ir.types import f32, f64
from nncompiler.frontend.initializers import INITIALIZERS, make_initializer

SHAPE, FANS = (120, 80), (120, 80)


def draw(value: object, shape: tuple[int, ...] = SHAPE, dtype: Any = f64) -> Any:
    return make_initializer(value).draw(np.random.default_rng(0), shape, FANS, dtype)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_shape_and_dtype_are_those_asked_for(name: str) -> None:
    assert draw(name).shape == SHAPE
    assert draw(name, dtype=f32).dtype == np.float32


@pytest.mark.parametrize("name", INITIALIZERS)
def test_both_precisions_start_from_the_same_values(name: str) -> None:
    np.testing.assert_array_equal(draw(name).astype(np.float32), draw(name, dtype=f32))


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("glorot_uniform", math.sqrt(6 / 200)),
        ("he_uniform", math.sqrt(6 / 120)),
        (("uniform", {"low": -2.0, "high": 2.0}), 2.0),
    ],
)
def test_uniform_values_fill_their_interval(name: Any, bound: float) -> None:
    values = draw(name)
    assert np.abs(values).max() <= bound
    assert np.abs(values).max() > 0.99 * bound
    assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.03)


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("normal", 1.0),
        (("normal", {"std": 0.5}), 0.5),
        ("glorot_normal", math.sqrt(2 / 200)),
        ("he_normal", math.sqrt(2 / 120)),
    ],
)
def test_normal_values_have_their_deviation(name: Any, std: float) -> None:
    assert draw(name).std() == pytest.approx(std, rel=0.03)


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (20, 5, 6)])
def test_orthogonal_rows_or_columns_are_orthonormal(shape: tuple[int, ...]) -> None:
    q = draw("orthogonal", shape).reshape(shape[0], -1)
    gram = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-12)


def test_constant_array_number_and_function() -> None:
    assert (draw(("constant", {"value": 3.0})) == 3).all()
    assert (draw(0.25) == 0.25).all()
    given = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(draw(given, (2, 3)), given)
    np.testing.assert_array_equal(draw(given.tolist(), (2, 3)), given)
    assert (draw(lambda rng, shape: np.full(shape, 7)) == 7).all()


def test_given_array_is_copied() -> None:
    given = np.zeros((2, 3))
    draw(given, (2, 3))[...] = 1
    assert not given.any()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("glorot", "did you mean"),
        ("nothing at all", "known: zeros"),
        (("normal", {"sd": 1}), "no parameter 'sd'"),
        (("zeros", {"sd": 1}), "no parameter 'sd'"),
    ],
)
def test_unknown_names_are_told(value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make_initializer(value)


def test_array_of_another_shape_is_told() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(120, 80\)"):
        draw(np.zeros((2, 3)))
