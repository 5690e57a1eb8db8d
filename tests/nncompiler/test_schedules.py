"""Learning rates follow their formulas of the number of finished updates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from ir import ops
from ir.interpret import evaluate
from nncompiler.frontend.schedules import (
    Constant,
    ConstantThenDecay,
    Cosine,
    InverseTime,
    Power,
    make_schedule,
)

CASES: list[tuple[Any, Callable[[int], float]]] = [
    (Constant(0.1), lambda t: 0.1),
    (0.1, lambda t: 0.1),
    (InverseTime(0.1, 0.5), lambda t: 0.1 / (1 + 0.5 * t)),
    (Power(0.1, 0.75), lambda t: 0.1 / (t + 1) ** 0.75),
    (Power(0.1), lambda t: 0.1 / (t + 1)),
    (ConstantThenDecay(0.1, 3, 0.5), lambda t: 0.1 / (1 + 0.5 * max(0, t - 3))),
    (
        Cosine(0.1, 4, minimum=0.01),
        lambda t: 0.01 + 0.09 * 0.5 * (1 + math.cos(math.pi * min(t, 4) / 4)),
    ),
    (lambda t: 0.3 * ops.exp(-0.1 * t), lambda t: 0.3 * math.exp(-0.1 * t)),
    (lambda t: 0.3, lambda t: 0.3),
]


@pytest.mark.parametrize(("schedule", "formula"), CASES)
def test_rate_is_the_formula(schedule: Any, formula: Callable[[int], float]) -> None:
    made = make_schedule(schedule)
    t, base = ops.input("t", "f64", ()), ops.input("base", "f64", ())
    rate = made.rate(t, base)
    for step in range(7):
        value = evaluate(rate, {"t": float(step), "base": made.base})
        assert value == pytest.approx(formula(step), rel=1e-12)


def test_live_base_scales_the_schedule() -> None:
    made = make_schedule(InverseTime(0.1, 0.5))
    t, base = ops.input("t", "f64", ()), ops.input("base", "f64", ())
    assert evaluate(made.rate(t, base), {"t": 2.0, "base": 0.4}) == pytest.approx(0.2)


def test_only_a_constant_rate_needs_no_step_count() -> None:
    assert not make_schedule(0.1).uses_step
    assert all(make_schedule(s).uses_step for s, _ in CASES[2:])


@pytest.mark.parametrize("wrong", [-0.1, float("nan"), float("inf")])
def test_rates_that_are_no_rates_are_told(wrong: float) -> None:
    with pytest.raises(ValueError, match="learning_rate"):
        make_schedule(wrong)


def test_rate_of_another_type_is_told() -> None:
    with pytest.raises(TypeError, match="learning_rate"):
        make_schedule("fast")


def test_schedule_that_gives_an_array_is_told() -> None:
    t, base = ops.input("t", "f64", ()), ops.input("base", "f64", ())
    with pytest.raises(ValueError, match="scalar"):
        make_schedule(lambda t: ops.full((3,), 0.1, "f64")).rate(t, base)
