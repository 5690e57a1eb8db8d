"""Takes models and functions, gives the laws of their quick calls: nothing else changes."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc


def net(*, outputs: int = 1, units: int = 3) -> nx.DiGraph:
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 4))
    g.add_node("hidden", op="dense", units=5, activation="tanh")
    nx.add_path(g, ["x", "hidden"])
    for i in range(outputs):
        g.add_node(f"y{i}", op="dense", units=units)
        g.add_edge("hidden", f"y{i}")
    return g


def data(rows: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows)
    return rng.normal(size=(rows, 4)).astype(np.float32), rng.integers(0, 3, rows)


def close(given: Any, wanted: Any) -> None:
    np.testing.assert_allclose(given, wanted, rtol=2e-4, atol=1e-6)


def test_steps_in_any_form_are_those_of_the_reference() -> None:
    model = nnc.compile(net(), loss="cross_entropy", optimizer=nnc.Adam(0.01))
    twin = model.reference
    x, t = data()
    weight = np.arange(6, dtype=np.float32)
    forms: list[tuple[Any, ...]] = [
        (x, t),
        (x, t),
        (x.astype(np.float64), t),
        (x, t.astype(np.uint8)),
        (x, np.eye(3, dtype=np.float32)[t]),
        (x, np.eye(3, dtype=np.float32)[t]),
        (x, t),
        (x, t, weight),
        (x.tolist(), t.tolist()),
        ({"x": x}, t),
        (x[:2], t[:2]),
        (x[:2].copy(), t[:2].copy()),
        (x, t),
    ]
    for form in forms * 2:
        close(model.step(*form), twin.step(*form))
    close(model.step(t=t, x=x), twin.step(x, t))
    for name, value in model.parameters.items():
        close(value, twin.parameters[name])


@pytest.mark.parametrize("outputs", [1, 2])
def test_predictions_in_any_form_are_those_of_the_reference(outputs: int) -> None:
    model = nnc.compile(net(outputs=outputs))
    twin = model.reference
    for rows in (1, 1, 6, 6, 6, 1, 700, 700, 700, 6):
        x = data(rows)[0]
        for given in (x, x, x.astype(np.float64), x[::-1], {"x": x}, x.tolist()):
            result, wanted = model(given), twin(given)
            for name in wanted if outputs == 2 else ():
                close(result[name], wanted[name])
            if outputs == 1:
                close(result, wanted)
                assert type(result) is np.ndarray
    first, second = model(x), model(x)
    assert first is not second


def test_an_identity_hands_out_a_copy() -> None:
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 2))
    g.add_node("y", op="reshape", shape=(2,))
    g.add_edge("x", "y")
    model = nnc.compile(g)
    for i in range(4):
        x = np.full((3, 2), i, np.float32)
        y = model(x)
        x[:] = -1
        np.testing.assert_array_equal(y, np.full((3, 2), i))


def test_another_schedule_is_followed_at_once() -> None:
    model = nnc.compile(net(), loss="cross_entropy", optimizer=nnc.SGD(0.1))
    twin = model.reference
    x, t = data()
    for rate in (0.1, nnc.InverseTime(0.5, 1.0), 0.0):
        model.learning_rate = twin.learning_rate = rate
        for _ in range(3):
            close(model.step(x, t), twin.step(x, t))


def test_errors_do_not_depend_on_what_was_called_before() -> None:
    fresh = nnc.compile(net(), loss="cross_entropy", optimizer="sgd")
    used = nnc.compile(net(), loss="cross_entropy", optimizer="sgd")
    x, t = data()
    for _ in range(3):
        used.step(x, t)
        used(x)
    wrong: list[tuple[Any, ...]] = [
        (x[:, :3], t),
        (x, t[:4]),
        (x, t + 3),
        (x * 1j, t),
        (x[:0], t[:0]),
        (x[0], t),
        (None, t),
        (x, None),
        (x * np.float32("nan"), t),
        ({"z": x}, t),
    ]
    for form in wrong:
        for method in ("step", "__call__"):
            texts = []
            for model in (fresh, used):
                try:
                    getattr(model, method)(*(form if method == "step" else form[:1]))
                    texts.append("")
                except (ValueError, TypeError) as error:
                    texts.append(f"{type(error).__name__}: {error}")
            assert texts[0] == texts[1], form


def test_model_without_optimizer_or_loss_says_so() -> None:
    with pytest.raises(ValueError, match="without a loss"):
        nnc.compile(net()).step(*data())


def test_bound_calls_by_kind_of_model() -> None:
    x, t = data()
    inference = nnc.compile(net())
    bound = inference.bind(x)
    close(bound(), inference(x))
    assert bound() is bound()
    bound.inputs["x"][...] = 2 * x
    close(bound(), inference(2 * x))
    training = nnc.compile(net(), loss="cross_entropy", optimizer=nnc.SGD(0.1))
    twin = training.reference
    step = training.bind(x, t)
    for _ in range(3):
        loss = step()
        assert type(loss) is float
        close(loss, twin.step(x, t))
    close(step.run(3), [twin.step(x, t) for _ in range(3)][-1])
    gradient = nnc.compile(net(), loss="cross_entropy")
    loss, gradients = gradient.bind(x, t)()
    wanted, others = gradient.backward(x, t)
    close(loss, wanted)
    for name, value in others.items():
        close(gradients[name], value)


def test_functions_of_several_shapes_and_kinds() -> None:
    f = nnc.jit(lambda a, b=1.0: (a + b).sum() if isinstance(b, float) else a * b)
    for _ in range(3):
        for rows in (2, 3, 2):
            a = np.arange(rows, dtype=np.float32)
            for given in (a, a.astype(np.float64), a[::-1], a.reshape(-1, 1)):
                close(f(given, given), given * given)
                close(f(given), given.sum() + given.size)
    assert f(np.float32(3), np.float32(2)).shape == ()


def test_functions_of_one_array_keep_its_callers_apart() -> None:
    double = nnc.jit(lambda a: a + a)
    gradient = nnc.grad(lambda a: (a * a * a).sum())
    a = np.arange(4, dtype=np.float32)
    for _ in range(4):
        close(double(a), 2 * a)
        close(gradient(a), 3 * a * a)
        close(nnc.jit(lambda a: double(a) * a)(a), 2 * a * a)
