"""Each optimizer's graph is its published update, written again here in plain NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ir import ops
from ir.graph import Graph
from ir.interpret import run_graph
from ir.types import f32, f64
from nncompiler.frontend.optimizers import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Optimizer,
    RMSProp,
    make_optimizer,
)
from nncompiler.frontend.schedules import InverseTime

Array = np.ndarray[Any, Any]
Published = Callable[[Array, Iterator[Array]], Iterator[Array]]


def sgd(lr: float, momentum: float = 0, nesterov: bool = False, decay: float = 0) -> Published:
    def run(p: Array, gradients: Iterator[Array]) -> Iterator[Array]:
        v = None
        for g in gradients:
            g = g + decay * p
            v = g if v is None else momentum * v + g
            p = p - lr * (g + momentum * v if nesterov else v)
            yield p

    return run


def adam(lr: float, b1: float, b2: float, eps: float, decay: float = 0) -> Published:
    def run(p: Array, gradients: Iterator[Array]) -> Iterator[Array]:
        m = v = np.zeros_like(p)
        for t, g in enumerate(gradients, 1):
            p = p * (1 - lr * decay)
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g * g
            m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
            p = p - lr * m_hat / (np.sqrt(v_hat) + eps)
            yield p

    return run


def rmsprop(lr: float, rho: float, eps: float) -> Published:
    def run(p: Array, gradients: Iterator[Array]) -> Iterator[Array]:
        v = np.zeros_like(p)
        for g in gradients:
            v = rho * v + (1 - rho) * g * g
            p = p - lr * g / (np.sqrt(v) + eps)
            yield p

    return run


def adagrad(lr: float, eps: float) -> Published:
    def run(p: Array, gradients: Iterator[Array]) -> Iterator[Array]:
        total = np.zeros_like(p)
        for g in gradients:
            total = total + g * g
            p = p - lr * g / (np.sqrt(total) + eps)
            yield p

    return run


CASES: list[tuple[Optimizer, Published]] = [
    (SGD(0.1), sgd(0.1)),
    (SGD(0.1, momentum=0.9), sgd(0.1, 0.9)),
    (SGD(0.1, 0.9, True), sgd(0.1, 0.9, True)),
    (SGD(0.1, weight_decay=0.05), sgd(0.1, decay=0.05)),
    (SGD(0.1, 0.9, True, 0.05), sgd(0.1, 0.9, True, 0.05)),
    (Adam(), adam(0.001, 0.9, 0.999, 1e-8)),
    (Adam(0.02, beta1=0.0, beta2=0.5, epsilon=1e-3), adam(0.02, 0.0, 0.5, 1e-3)),
    (AdamW(0.02), adam(0.02, 0.9, 0.999, 1e-8, 0.01)),
    (RMSProp(0.02), rmsprop(0.02, 0.9, 1e-8)),
    (Adagrad(0.02), adagrad(0.02, 1e-10)),
]


class Run:
    """An optimizer on two parameters, run by the interpreter."""

    def __init__(self, optimizer: Optimizer, dtype: Any = f64) -> None:
        shapes = {"w": (3, 2), "b": (2,)}
        p = {k: ops.input(k, dtype, s) for k, s in shapes.items()}
        g = {k: ops.input(f"grad:{k}", dtype, s) for k, s in shapes.items()}
        update = optimizer.build(p, g, dtype)
        states = [s.node for s in update.states.values()]
        self.graph = Graph("update", (*g.values(), *p.values(), *states), dict(update.values))
        self.values = {k: s.initial for k, s in update.states.items()}
        rng = np.random.default_rng(1)
        self.values |= {k: rng.normal(size=s).astype(dtype.numpy) for k, s in shapes.items()}

    def step(self, gradients: dict[str, Array]) -> None:
        inputs = self.values | {f"grad:{k}": v for k, v in gradients.items()}
        self.values |= run_graph(self.graph, inputs)


def gradients(steps: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(2)
    return [{"w": rng.normal(size=(3, 2)), "b": rng.normal(size=2)} for _ in range(steps)]


@pytest.mark.parametrize(("optimizer", "published"), CASES, ids=lambda c: str(c)[:60])
def test_five_steps_are_the_published_update(optimizer: Optimizer, published: Published) -> None:
    run, given = Run(optimizer), gradients(5)
    expected = {k: published(run.values[k], iter([g[k] for g in given])) for k in ("w", "b")}
    for g in given:
        run.step(g)
        for k in ("w", "b"):
            np.testing.assert_allclose(run.values[k], next(expected[k]), rtol=1e-12, atol=1e-14)


def test_first_steps_of_adam_keep_their_digits_in_single_precision() -> None:
    run = Run(Adam(0.1), f32)
    before = run.values["w"].copy()
    (g,) = gradients(1)
    run.step({k: v.astype(np.float32) for k, v in g.items()})
    np.testing.assert_allclose(run.values["w"] - before, -0.1 * np.sign(g["w"]), rtol=2e-6)


def test_step_count_and_schedule_advance() -> None:
    run, given = Run(SGD(InverseTime(0.5, 1.0))), gradients(4)
    p = run.values["w"].copy()
    for t, g in enumerate(given):
        p = p - 0.5 / (1 + t) * g["w"]
        run.step(g)
    np.testing.assert_allclose(run.values["w"], p, rtol=1e-12)
    assert run.values["optimizer.t"] == 4


def test_plain_sgd_keeps_no_state_but_the_rate() -> None:
    assert set(Run(SGD(0.1)).values) == {"w", "b", "learning_rate"}


def test_learning_rate_is_a_live_value() -> None:
    run, (g,) = Run(SGD(0.1)), gradients(1)
    before = run.values["w"].copy()
    run.values["learning_rate"] = np.asarray(2.0)
    run.step(g)
    np.testing.assert_allclose(run.values["w"], before - 2.0 * g["w"], rtol=1e-12)


def test_clip_value_bounds_every_entry() -> None:
    run, (g,) = Run(SGD(1.0, clip_value=0.3)), gradients(1)
    before = run.values["w"].copy()
    run.step(g)
    np.testing.assert_allclose(run.values["w"], before - np.clip(g["w"], -0.3, 0.3), rtol=1e-12)


@pytest.mark.parametrize("limit", [0.5, 1000.0])
def test_clip_norm_bounds_all_gradients_together(limit: float) -> None:
    run, (g,) = Run(SGD(1.0, clip_norm=limit)), gradients(1)
    before = run.values["w"].copy()
    norm = np.sqrt(sum((v**2).sum() for v in g.values()))
    run.step(g)
    expected = before - g["w"] * min(1.0, limit / norm)
    np.testing.assert_allclose(run.values["w"], expected, rtol=1e-12)


def test_clip_norm_comes_before_weight_decay() -> None:
    run, (g,) = Run(SGD(1.0, weight_decay=0.1, clip_norm=0.5)), gradients(1)
    before = run.values["w"].copy()
    norm = np.sqrt(sum((v**2).sum() for v in g.values()))
    run.step(g)
    expected = before - (g["w"] * 0.5 / norm + 0.1 * before)
    np.testing.assert_allclose(run.values["w"], expected, rtol=1e-12)


def test_zero_gradients_stay_zero_under_clip_norm() -> None:
    run = Run(SGD(1.0, clip_norm=0.5))
    before = run.values["w"].copy()
    run.step({"w": np.zeros((3, 2)), "b": np.zeros(2)})
    np.testing.assert_array_equal(run.values["w"], before)


def test_names_and_pairs() -> None:
    assert make_optimizer("adam") == Adam()
    assert make_optimizer(("sgd", {"learning_rate": 0.5, "momentum": 0.9})) == SGD(0.5, 0.9)
    assert make_optimizer(None) is None
    with pytest.raises(ValueError, match="did you mean 'rmsprop'"):
        make_optimizer("rmspropp")
    with pytest.raises(ValueError, match="no parameter 'rate'"):
        make_optimizer(("sgd", {"rate": 1}))
    with pytest.raises(TypeError, match="optimizer"):
        make_optimizer(3)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: SGD(-1.0),
        lambda: SGD(0.1, momentum=-0.5),
        lambda: SGD(0.1, nesterov=True),
        lambda: Adam(beta1=1.0),
        lambda: Adam(epsilon=-1.0),
        lambda: AdamW(weight_decay=-1.0),
        lambda: SGD(clip_norm=-1.0),
        lambda: RMSProp(rho=2.0),
    ],
)
def test_settings_out_of_range_are_told(wrong: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"has to be in|needs a momentum"):
        wrong()
