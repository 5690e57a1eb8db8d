"""Scans: every stage computes what NumPy computes, derivatives are those of differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ir import ops
from ir.graph import Graph, Node, topological
from ir.interpret import run_graph
from ir.op import Lowering
from ir.text import parse_graph, print_graph
from ir.types import Extent, f64, i32
from ir.verify import verify_graph
from nncompiler.autodiff import differentiate
from nncompiler.pipeline import lower_graph
from nncompiler.simplify import simplify
from runtime.buffers import layout
from tests.stages import stages

Array = np.ndarray[Any, Any]
Inputs = dict[str, Node]
TIMES = 5


def leaves(batch: int | Extent, times: int = TIMES) -> Inputs:
    shapes = {"x": (batch, times, 3), "h": (batch, 4), "w": (3, 4), "u": (4, 4), "b": (4,)}
    return {name: ops.input(name, f64, shape) for name, shape in shapes.items()}


def plain(n: Inputs) -> Node:
    """A tanh network: the last state and all states."""

    def step(carried: Any, now: Any) -> Any:
        h = ops.tanh(now[0] @ n["w"] + carried[0] @ n["u"] + n["b"])
        return (h,), (h,)

    (last,), (every,) = ops.scan(step, [n["h"]], [n["x"]])
    return ops.sum(every * every) + ops.sum(last * n["b"])


def backwards(n: Inputs) -> Node:
    def step(carried: Any, now: Any) -> Any:
        return (ops.sin(carried[0] * 0.5 + now[0] @ n["w"]),), (carried[0] * n["b"],)

    (last,), (every,) = ops.scan(step, [n["h"]], [n["x"]], reverse=True)
    return ops.sum(every * n["b"]) + ops.sum(last)


def not_linear_in_weights(n: Inputs) -> Node:
    """The derivative by `b` is no contraction of the step's values: it is carried along."""

    def step(carried: Any, now: Any) -> Any:
        h = ops.tanh(now[0] @ (n["w"]) + carried[0] * 0.3)
        return (h * ops.exp(ops.tanh(carried[0] @ n["u"] * n["b"]))), ()

    def tupled(carried: Any, now: Any) -> Any:
        h, _ = step(carried, now)
        scale = ops.reshape(ops.outer(n["b"], n["b"]), (16,))
        return (h * ops.sum(scale),), ()

    (last,), _ = ops.scan(tupled, [n["h"]], [n["x"]])
    return ops.sum(last)


def several(n: Inputs) -> Node:
    """Two carried values that change places, a sequence of scalars, a result of the first state."""

    def step(carried: Any, now: Any) -> Any:
        a, b = carried
        z, scale = now
        return (b * scale, ops.tanh(a + z @ n["w"])), (a, ops.sum(b))

    line = ops.sum(n["x"], (0, 2))
    (a, b), (first, sums) = ops.scan(step, [n["h"], n["h"] * 2], [n["x"], line])
    return ops.sum(a * b) + ops.sum(first * first) + ops.sum(sums * sums * 0.1)


def nested(n: Inputs) -> Node:
    """A scan over the features inside a scan over time."""

    def inner(carried: Any, now: Any) -> Any:
        h = ops.tanh(carried[0] * ops.reshape(now[0], (now[0].shape[0], 1)) + n["b"])
        return (h,), (h @ n["u"],)

    def outer(carried: Any, now: Any) -> Any:
        (h,), (every,) = ops.scan(inner, carried, [now[0]])
        return (h,), (ops.sum(every, 1), every)

    (last,), (sums, deep) = ops.scan(outer, [n["h"]], [n["x"]])
    return ops.sum(last) + ops.sum(sums * sums) + ops.sum(deep * deep)


def stacked(n: Inputs) -> Node:
    """One scan over the results of another."""

    def step(carried: Any, now: Any) -> Any:
        h = ops.tanh(now[0] + carried[0] @ n["u"])
        return (h,), (h,)

    _, (first,) = ops.scan(step, [n["h"]], [n["x"] @ n["w"]])
    (last,), _ = ops.scan(step, [n["h"]], [first], reverse=True)
    return ops.sum(last * last)


def without_sequences(n: Inputs) -> Node:
    (last,), _ = ops.scan(lambda c, _: ((ops.tanh(c[0] @ n["u"]),), ()), [n["h"]], length=TIMES)
    return ops.sum(last) + 0 * ops.sum(n["x"])


def with_scatter(n: Inputs) -> Node:
    """A step that picks and adds rows; its table is one time of a sequence."""
    rows = ops.constant([2, 0, 1], i32)

    def step(carried: Any, now: Any) -> Any:
        picked = ops.gather(ops.transpose(now[0] @ n["w"]), rows)  # (3, batch)
        added = ops.scatter_add(picked, rows, 4)
        return (ops.tanh(carried[0] + ops.transpose(added)),), (added, picked)

    (last,), (added, picked) = ops.scan(step, [n["h"]], [n["x"]])
    return ops.sum(last * last) + ops.sum(added * added) + ops.sum(picked)


def with_base(n: Inputs) -> Node:
    """A step that adds rows to one time of a sequence, and to what it carries."""
    rows = ops.constant([2, 0, 2], i32)

    def step(carried: Any, now: Any) -> Any:
        added = now[0] @ n["w"]  # (batch, 4), a row for every one of the batch
        table = now[1] + ops.scatter_add(added, rows, 3)
        return (ops.tanh(carried[0] * 0.5 + ops.scatter_add(added, rows, 3)),), (table,)

    tables = n["x"] @ n["w"]
    (last,), (found,) = ops.scan(step, [n["h"]], [n["x"], tables])
    return ops.sum(last * last) + ops.sum(found * found)


CASES: list[Callable[[Inputs], Node]] = [
    plain,
    backwards,
    not_linear_in_weights,
    several,
    nested,
    stacked,
    without_sequences,
]
FIXED = [*CASES, with_scatter, with_base]


def build(case: Callable[[Inputs], Node], batch: int | Extent, times: int = TIMES) -> Graph:
    n = leaves(batch, times)
    loss = case(n)
    gradients = differentiate(loss, list(n.values()))
    outputs = {"loss": loss} | {f"d_{k}": g for k, g in zip(n, gradients, strict=True)}
    return Graph("scan", tuple(n.values()), outputs)


def data(batch: int, times: int = TIMES) -> dict[str, Array]:
    r = np.random.default_rng(batch)
    shapes = {"x": (batch, times, 3), "h": (batch, 4), "w": (3, 4), "u": (4, 4), "b": (4,)}
    return {name: r.normal(size=shape) * 0.6 for name, shape in shapes.items()}


def assert_stages_agree(graph: Graph, arrays: dict[str, Array]) -> None:
    expected = run_graph(graph, arrays)
    for stage, run in stages(graph).items():
        for name, value in run(arrays).items():
            np.testing.assert_allclose(
                value, expected[name], rtol=1e-10, atol=1e-11, err_msg=f"{stage}, {name}"
            )


@pytest.mark.parametrize("case", CASES)
def test_every_stage_computes_what_numpy_computes(case: Callable[[Inputs], Node]) -> None:
    graph = build(case, Extent(1, "batch"))
    verify_graph(graph)
    for batch in (1, 3):
        assert_stages_agree(graph, data(batch))


@pytest.mark.parametrize("case", FIXED)
def test_of_a_fixed_batch(case: Callable[[Inputs], Node]) -> None:
    assert_stages_agree(build(case, 3), data(3))


@pytest.mark.parametrize("times", [1, 2])
def test_of_few_steps(times: int) -> None:
    for case in (plain, several):
        assert_stages_agree(build(case, Extent(1, "batch"), times), data(2, times))


def differences(graph: Graph, output: str, name: str, arrays: dict[str, Array]) -> tuple[Any, Any]:
    """A direction, and the slope of the output's sum along it."""
    r = np.random.default_rng(7)
    direction = r.normal(size=arrays[name].shape)
    ends = [
        float(np.sum(run_graph(graph, {**arrays, name: arrays[name] + s * direction})[output]))
        for s in (1e-6, -1e-6)
    ]
    return direction, (ends[0] - ends[1]) / 2e-6


@pytest.mark.parametrize("case", FIXED)
def test_derivatives_are_those_of_differences(case: Callable[[Inputs], Node]) -> None:
    graph, arrays = build(case, 3), data(3)
    results = run_graph(graph, arrays)
    for name in arrays:
        direction, slope = differences(graph, "loss", name, arrays)
        found = float(np.sum(results[f"d_{name}"] * direction))
        assert found == pytest.approx(slope, rel=1e-6, abs=1e-7), name


@pytest.mark.parametrize("case", [plain, backwards, several, stacked])
def test_second_derivatives_are_those_of_differences(case: Callable[[Inputs], Node]) -> None:
    n = leaves(3)
    wrt = list(n.values())
    first = differentiate(case(n), wrt)
    total = ops.sum(first[3] * first[3]) + ops.sum(first[1]) + ops.sum(first[0] * first[0])
    second = differentiate(total, wrt)
    outputs = {"total": total} | {f"d_{k}": g for k, g in zip(n, second, strict=True)}
    graph, arrays = Graph("second", tuple(wrt), outputs), data(3)
    results = run_graph(graph, arrays)
    for name in arrays:
        direction, slope = differences(graph, "total", name, arrays)
        found = float(np.sum(results[f"d_{name}"] * direction))
        assert found == pytest.approx(slope, rel=1e-5, abs=1e-6), name
    assert_stages_agree(graph, arrays)


@pytest.mark.parametrize("case", FIXED)
def test_text_gives_the_same_nodes(case: Callable[[Inputs], Node]) -> None:
    graph = build(case, 3)
    again = parse_graph(print_graph(graph))
    assert all(again.outputs[name] is node for name, node in graph.outputs.items())


@pytest.mark.parametrize("case", FIXED)
def test_simplify_is_idempotent(case: Callable[[Inputs], Node]) -> None:
    once = simplify(build(case, 3))
    twice = simplify(once)
    assert all(twice.outputs[name] is node for name, node in once.outputs.items())


def test_equal_steps_are_one_scan() -> None:
    n = leaves(3)
    assert plain(n) is plain(n)


def scans(roots: list[Node]) -> list[Node]:
    return [n for n in topological(roots) if n.op.lowering is Lowering.SCAN]


def test_weight_gradients_are_contractions_after_the_loop() -> None:
    """Over batch and time at once: no step of the way back adds to a gradient of a weight."""
    n = leaves(Extent(1, "batch"))
    gradients = differentiate(plain(n), [n["w"], n["u"], n["b"]])
    assert [g.op.name for g in gradients[:2]] == ["contract", "contract"]
    back = scans(list(gradients))[-1]
    assert back.attrs["carries"] == 1
    assert all(o.shape != (4, 4) for o in back.attrs["body"].outputs)


def test_what_nobody_reads_is_not_stored() -> None:
    """Forward alone keeps no sequence: memory does not grow with time."""
    n = leaves(8, 100)
    (last,), _ = ops.scan(
        lambda c, now: ((ops.tanh(now[0] @ n["w"] + c[0] @ n["u"]),), (c[0],)), [n["h"]], [n["x"]]
    )
    plan = lower_graph(Graph("last", tuple(n.values()), {"y": last})).plan
    temporaries = [s for s in plan.buffers if s.role == "temporary"]
    sizes = [8 * int(np.prod(s.shape)) for s in temporaries]  # type: ignore[arg-type]
    _, total = layout(sizes, [(s.first, s.last) for s in temporaries])
    assert total < 8 * 100 * 4 * 8


def test_a_step_has_to_carry_what_it_was_given() -> None:
    n = leaves(3)
    with pytest.raises(ValueError, match="carries"):
        ops.scan(lambda c, now: ((now[0],), ()), [n["h"]], [n["x"]])
    with pytest.raises(ValueError, match="one length"):
        ops.scan(lambda c, now: (c, ()), [n["h"]])
    with pytest.raises(ValueError, match="carries 0 values"):
        ops.scan(lambda c, now: ((), ()), [n["h"]], [n["x"]])
