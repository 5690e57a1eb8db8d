"""Windows over zeros between elements: their phases, their copies, and that every stage agrees."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from ir import ops
from ir.dilated import Way, dilated
from ir.graph import Graph, Node
from ir.index import Guard, Index, Var
from ir.interpret import run_graph
from ir.loops import For, Stmt, Tile
from ir.scalar import load
from ir.types import f32
from nncompiler.autodiff import differentiate
from nncompiler.codegen.costs import flops
from nncompiler.frontend.convolution import convolve, spread_kernels
from nncompiler.pipeline import lower_graph
from nncompiler.schedule import phased
from nncompiler.schedule.phases import Axis
from tests.stages import stages

H, I, W, J, N = Var("h", 9), Var("i", 3), Var("w", 8), Var("j", 4), Var("n", 5)


def spread_load(*, shift: int = 1, first: int = 0, unit: int = 6) -> Any:
    """x[n, (h + i - shift) / 2, w + j], h + i - shift below 11."""
    place = Index.of(H) + Index.of(I) - shift
    index = Index.of(N) * 66 + (place // 2) * unit + Index.of(W) + Index.of(J)
    guards = (Guard(place, first, 11), Guard(place % 2, 0, 1))
    return load("x", index, f32, guards=guards)


def test_ways_are_found_with_their_limits() -> None:
    found = dilated(spread_load(unit=11), [I, J])
    assert found is not None
    assert found.ways[0].spot == H
    assert found.ways[0].tap == I
    assert (found.ways[0].stride, found.ways[0].unit, found.ways[1].stride) == (2, 11, 1)
    assert [p.terms[0][0] for p in found.alone] == [N]
    # element q of the way is element q + lowest of the operand: 0 <= 2 * element < 11
    way = found.ways[0]
    elements = [
        (h + i - 1) // 2
        for h in range(9)
        for i in range(3)
        if (h + i - 1) % 2 == 0 and 0 <= h + i - 1 < 11
    ]
    assert way.high - way.low == len(set(elements))


def test_other_loads_have_no_ways() -> None:
    assert dilated(spread_load(unit=11), [J]) is None, "the taps are not summed"
    assert dilated(spread_load(unit=11), [I, J, H]) is None, "the spots are"
    plain = load("x", Index.of(H) * 2 + Index.of(I), f32)
    assert dilated(plain, [I]) is None, "nothing lies between elements"
    torn = load("x", (Index.of(H) + Index.of(I)) // 2, f32)
    assert dilated(torn, [I]) is None, "elements are repeated, there are no zeros"


@pytest.mark.parametrize(
    ("stride", "size"), [(1, 1), (1, 3), (2, 2), (2, 3), (2, 4), (2, 7), (3, 4), (3, 11), (5, 7)]
)
@pytest.mark.parametrize("shift", [0, 1, -1, -4, 5])
def test_phases_meet_every_element_once(stride: int, size: int, shift: int) -> None:
    axis = Axis(Way(Var("h", 12), Var("i", size), 1, stride, shift, 1, 0, 99), "way0")
    found = []
    for phase in axis.phases:
        for number in range(phase.count):
            for step in range(phase.taps):
                values = {axis.number(phase).name: number, axis.step(phase).name: step}
                tap = axis.changes(phase)[axis.way.tap].evaluate(values)
                place = axis.place(phase).evaluate(values)
                assert 0 <= place <= axis.reach
                found.append((phase.first + number, tap, place + axis.lowest))
    expected = [
        (q, i, (q + i + shift) // stride)
        for q in range(stride)
        for i in range(size)
        if (q + i + shift) % stride == 0
    ]
    assert sorted(found) == sorted(expected)
    assert len(axis.phases) <= 4, "code does not grow with the stride"


def gradient(
    shape: tuple[Any, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    filters: int = 3,
    pad: int = 0,
    groups: int = 1,
    bias: bool = False,
    last: str = "",
) -> Graph:
    """The input gradient of a convolution, with a bias and relu behind it or not; `last` tells
    which of g and dx have their channels last in memory."""
    rank = len(kernel)
    x = ops.input("x", "f32", shape)
    w = ops.input("w", "f32", (filters, shape[1] // groups, *kernel))
    y = convolve(x, w, strides, ((pad, pad),) * rank, (1,) * rank, groups)
    order = (0, *range(2, x.ndim), 1)
    g = ops.input("g", "f32", [y.shape[a] for a in order] if "g" in last else y.shape)
    seen = ops.transpose(g, (0, x.ndim - 1, *range(1, x.ndim - 1))) if "g" in last else g
    dx = differentiate(y, [x], seen)[0]
    if "x" in last:
        dx = ops.transpose(dx, order)
    if not bias:
        return Graph("gradient", (w, g), {"dx": dx})
    b = ops.input("b", "f32", (shape[1], *(() if "x" in last else (1,) * rank)))
    return Graph("gradient", (w, g, b), {"dx": ops.relu(dx + b)})


def transposed(shape: tuple[Any, ...], kernel: tuple[int, ...], strides: tuple[int, ...]) -> Graph:
    x = ops.input("x", "f32", shape)
    w = ops.input("w", "f32", (shape[1], 4, *kernel))
    extents = [(e - 1) * s + k for e, s, k in zip(shape[2:], strides, kernel, strict=True)]
    y: Node = spread_kernels(x, w, strides, (1,) * len(kernel), 1, tuple(extents))
    return Graph("transposed", (x, w), {"y": y})


CASES = {
    "3x3": gradient(("batch", 2, 12, 10), (3, 3), (2, 2), pad=1),
    "odd": gradient((2, 2, 11, 13), (3, 3), (2, 2), pad=1),
    "left over": gradient((2, 2, 12, 12), (3, 3), (2, 2)),
    "4x4": gradient(("batch", 3, 8, 8), (4, 4), (2, 2), pad=1, bias=True),
    "5 by 3": gradient((2, 2, 16, 17), (5, 4), (3, 3), pad=2),
    "large pad": gradient((2, 2, 9, 9), (3, 3), (2, 2), pad=3),
    "one way": gradient((2, 2, 9, 8), (3, 3), (2, 1), pad=1),
    "other way": gradient((2, 2, 8, 9), (3, 3), (1, 2), pad=1),
    "thin": gradient((2, 2, 8, 9), (1, 3), (2, 2)),
    "not overlapping": gradient((2, 2, 9, 9), (3, 2), (2, 2)),
    "1d": gradient(("batch", 3, 33), (5,), (2,), pad=2),
    "3d": gradient((1, 2, 5, 6, 7), (3, 3, 3), (2, 2, 2), pad=1),
    "groups": gradient(("batch", 4, 8, 8), (3, 3), (2, 2), filters=6, pad=1, groups=2),
    "depthwise": gradient(("batch", 4, 10, 10), (3, 3), (2, 2), filters=4, pad=1, groups=4),
    "multiplied": gradient((2, 3, 10, 10), (3, 3), (2, 2), filters=6, pad=1, groups=3),
    "wide": gradient((1, 1, 6, 150), (3, 3), (2, 2), pad=1),
    "many channels": gradient((1, 20, 8, 8), (3, 3), (2, 2), filters=18, pad=1),
    "few spots": gradient(("batch", 33, 7, 9), (3, 3), (2, 2), pad=1, bias=True),
    "transposed": transposed(("batch", 3, 5, 4), (4, 4), (2, 2)),
    "transposed by 3": transposed((2, 3, 4, 3), (5, 5), (3, 3)),
    "channels last": gradient(("batch", 16, 9, 10), (3, 3), (2, 2), pad=1, bias=True, last="gx"),
    "even last": gradient(("batch", 16, 8, 10), (3, 3), (2, 2), pad=1, last="gx"),
    "many last": gradient((2, 70, 8, 8), (4, 4), (2, 2), filters=17, pad=1, last="gx"),
    "groups last": gradient((2, 32, 9, 8), (3, 3), (2, 2), filters=4, groups=2, last="gx"),
    "1d last": gradient((2, 16, 33), (5,), (3,), pad=1, last="gx"),
    "3d last": gradient((1, 16, 5, 4, 7), (3, 3, 3), (2, 2, 2), pad=1, last="gx"),
    "result last": gradient((2, 18, 9, 9), (3, 3), (2, 2), pad=1, last="x"),
    "few last": gradient((2, 3, 9, 9), (3, 3), (2, 2), filters=17, pad=1, last="gx"),
    "gradient last": gradient((2, 20, 9, 9), (3, 3), (2, 2), filters=17, pad=1, last="g"),
    "column": gradient((2, 2, 12, 2), (3, 1), (2, 1), pad=1),
}


@pytest.mark.parametrize("room", [phased.SCRATCH, 1 << 9], ids=["whole", "blocks"])
@pytest.mark.parametrize("name", CASES)
def test_every_stage_agrees(name: str, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phased, "SCRATCH", room)
    graph = CASES[name]
    random = np.random.default_rng(1)
    feed = {}
    for n in graph.inputs:
        shape = [d if isinstance(d, int) else 3 for d in n.shape]
        feed[n.attrs["id"]] = random.normal(size=shape).astype(np.float32)
    (expected,) = run_graph(graph, feed).values()
    for stage, run in stages(graph).items():
        (found,) = run(feed).values()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=stage)


def products(body: Iterable[Stmt]) -> int:
    """How often the tiles of an image multiply."""
    total = 0
    for stmt in body:
        match stmt:
            case For(var=v, body=inner):
                total += (v.extent if isinstance(v.extent, int) else 1) * products(inner)
            case Tile(m=m, n=n, k=k):
                total += math.prod(v.extent for v in (m, n, *k) if isinstance(v.extent, int))
    return total


@pytest.mark.parametrize("name", ["3x3", "depthwise", "even last"])
def test_no_zeros_are_multiplied(name: str) -> None:
    """As many products as weights for every element of g, and that is what is told."""
    graph = CASES[name]
    (scheduled,) = lower_graph(graph).scheduled
    done = products(scheduled.function.body)
    w, g = (n.shape for n in graph.inputs)
    points = g[1:-1] if "last" in name else g[2:]
    assert done == math.prod(int(d) for d in (*w, *points))  # type: ignore[arg-type]
    assert flops(scheduled.kernel) == [0, {"batch": 2 * done}]


def test_a_weight_that_is_padded_itself_gets_zeros_in_memory() -> None:
    """Only one operand of a contraction is copied without its zeros."""
    x = ops.input("x", "f32", (2, 3, 5))
    w = ops.input("w", "f32", (3, 4, 2))
    padded = ops.pad(w, (0, 0, 1), (0, 0, 0))
    windows = ops.window(ops.pad(ops.dilate(x, (1, 1, 2)), (0, 0, 2), (0, 0, 2)), (2,), (3,))
    graph = Graph("g", (x, w), {"y": ops.contract(windows, padded, "nchi,cfi->nfh")})
    random = np.random.default_rng(2)
    feed = {
        "x": random.normal(size=(2, 3, 5)).astype("f4"),
        "w": random.normal(size=(3, 4, 2)).astype("f4"),
    }
    expected = run_graph(graph, feed)["y"]
    for stage, run in stages(graph).items():
        np.testing.assert_allclose(run(feed)["y"], expected, rtol=1e-5, atol=1e-5, err_msg=stage)
