"""Where lanes are known to be is where they are."""

from __future__ import annotations

import numpy as np
import pytest

from ir import ops
from ir.graph import Graph
from ir.index import Index, Var
from ir.interpret import run_graph
from nncompiler.codegen.lanes import cover, lane_offsets, lane_values
from nncompiler.pipeline import lower_graph
from tests.stages import stages

Q, I = Index.of(Var("q", 96)), Index.of(Var("i", 7))
CASES = {
    "plain": Q + I * 5,
    "every second": Q * 2 + 1,
    "backwards": Q * -1 + 95,
    "doubled": Q // 2 + I,
    "shifted": (Q + 1) // 2,
    "blocks": (Q // 4) * 16 + (Q % 4) // 2 + (Q % 2) * 8,
    "other": (I * 4 + Q) // 4,
    "unknown": (I + Q) // 2,
    "three": Q // 3,
}


def test_short_axes_that_repeat_a_value_fill_the_lanes() -> None:
    x = ops.input("x", "f32", ("batch", 7))
    t = ops.input("t", "f32", (2, 2))
    wide = ops.broadcast_to(ops.reshape(x, ("batch", 7, 1, 1)), ("batch", 7, 2, 2))
    graph = Graph("g", (x, t), {"y": ops.tanh(wide) * t, "whole": wide + 1})
    for s in lower_graph(graph).scheduled:
        assert len(s.kernel.axes) == 1, "all axes are one"
    feed = {"x": np.arange(35, dtype="f4").reshape(5, 7), "t": np.ones((2, 2), "f4") * [1, 2]}
    feed["t"] = feed["t"].astype("f4")
    expected = run_graph(graph, feed)
    for stage, run in stages(graph).items():
        for name, value in run(feed).items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=stage)


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("name", CASES)
def test_offsets_hold_at_every_block(name: str, lanes: int) -> None:
    index = CASES[name]
    offsets = lane_offsets(index, {"q": lanes, "i": 1})
    assert (offsets is None) == (name in ("unknown", "three"))
    if offsets is None:
        return
    for i in range(7):
        for start in range(0, 96, lanes):
            at = [index.evaluate({"i": i, "q": start + lane}) for lane in range(lanes)]
            assert offsets == [a - at[0] for a in at]


@pytest.mark.parametrize("offsets", [[0, 2, 4, 6], [0, 0, 1, 1], [0, -1, -2, -3], [3, 1, 0, 2]])
def test_vectors_hold_the_lanes_and_nothing_outside(offsets: list[int]) -> None:
    parts = cover(offsets)
    assert parts is not None
    elements = [start + e for start in parts.starts for e in range(parts.width)]
    assert [elements[p] for p in parts.picks] == offsets
    assert min(elements) == min(offsets)
    assert max(elements) == max(offsets)


@pytest.mark.parametrize(
    "offsets", [[0, 50, 1, 51, 2, 52, 3, 53], [0, None, 1, None], [None, 9, 5, None, 6, 4, 10, 11]]
)
def test_two_stretches_and_lanes_that_read_nothing_are_covered(offsets: list[int | None]) -> None:
    parts = cover(offsets)
    assert parts is not None
    elements = [start + e for start in parts.starts for e in range(parts.width)]
    found = [None if p is None else elements[p] for p in parts.picks]
    assert found == offsets
    read = {e for e in elements if min(abs(e - o) for o in offsets if o is not None) > 2}
    assert not read


def test_lanes_are_known_where_they_depend_on_nothing_else() -> None:
    lanes = {"q": 8, "i": 1}
    assert lane_values(Q % 2, lanes) == [0, 1] * 4
    assert lane_values((Q + 1) % 4 + 3, lanes) == [4, 5, 6, 3] * 2
    assert lane_values(Q % 3, lanes) is None
    assert lane_values(Q, lanes) is None
    assert lane_values((Q + I) % 2, lanes) is None


@pytest.mark.parametrize("width", [3, 8, 13, 24])
@pytest.mark.parametrize("step", [2, 3, 4])
def test_zeros_between_elements_are_lanes_that_read_nothing(width: int, step: int) -> None:
    x = ops.input("x", "f32", ("batch", 5, width))
    spread = ops.pad(ops.dilate(x, (1, 2, step)), (0, 1, 0), (0, 0, step - 1), 7.0)
    apart = ops.pad(ops.reshape(x, ("batch", 5, 1, width, 1)), (0,) * 5, (0, 0, 1, 0, step - 1))
    merged = ops.reshape(apart, ("batch", 10, width * step))
    graph = Graph("g", (x,), {"spread": spread, "merged": merged})
    feed = {"x": np.random.default_rng(0).normal(size=(3, 5, width)).astype("f4")}
    expected = run_graph(graph, feed)
    for stage, run in stages(graph).items():
        for name, value in run(feed).items():
            np.testing.assert_array_equal(value, expected[name], err_msg=f"{stage} {name}")


def test_lanes_far_apart_are_not_covered() -> None:
    assert cover([0, 9, 18, 27]) is None
    assert cover([0, 0, 0, 0]) is None
    assert cover([0, 50, 1, 51, 2]) is None
    assert cover([None, None]) is None
