"""Strided convolutions: lanes along the points of the result, from a copy where these stand
together, and gradients of weights that read what lies apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import pytest

from ir import ops
from ir.graph import Graph
from ir.index import Var
from ir.interpret import run_graph
from ir.loops import For, Function, Stmt, Store, Tile, Transpose, statements
from ir.scalar import Scalar
from ir.verify_loops import verify_function
from nncompiler.autodiff import differentiate
from nncompiler.codegen.target import preset
from nncompiler.frontend.convolution import convolve
from nncompiler.options import Options
from nncompiler.pipeline import build, lower_graph
from runtime.session import Session

LINE = 16  # floats
# channels, extents, filters, kernel, stride, pads, dilation, groups
CASES = {
    "3 x 3": (16, (32, 32), 32, (3, 3), (2, 2), (1, 1), (1, 1), 1),
    "1 x 1": (8, (32, 32), 16, (1, 1), (2, 2), (0, 0), (1, 1), 1),
    "7 x 7 in blocks": (3, (112, 224), 8, (7, 7), (2, 2), (3, 3), (1, 1), 1),
    "rows shorter than vectors": (5, (28, 28), 7, (3, 3), (2, 2), (1, 1), (1, 1), 1),
    "three rows a step": (4, (30, 32), 8, (5, 5), (3, 2), (2, 2), (1, 1), 1),
    "taps of two sizes": (4, (20, 64), 8, (3, 5), (2, 2), (0, 2), (1, 1), 1),
    "one row a step": (4, (9, 66), 8, (3, 3), (1, 2), (1, 1), (1, 1), 1),
    "dilated": (4, (24, 36), 8, (3, 3), (2, 2), (2, 2), (2, 3), 1),
    "groups": (8, (16, 32), 12, (3, 3), (2, 2), (1, 1), (1, 1), 4),
    "no rows": (8, (126,), 12, (5,), (2,), (2,), (1,), 1),
    "depth": (3, (8, 8, 16), 6, (3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1), 1),
}


def strided(name: str, part: str = "y") -> Graph:
    channels, extents, filters, kernel, stride, pads, dilation, groups = CASES[name]
    x = ops.input("x", "f32", ("batch", channels, *extents))
    w = ops.input("w", "f32", (filters, channels // groups, *kernel))
    y = convolve(x, w, stride, tuple((p, p) for p in pads), dilation, groups)
    if part == "y":
        return Graph("strided", (x, w), {"y": ops.relu(y) + 1})
    g = ops.input("g", "f32", y.shape)
    return Graph("strided", (x, g), {"dw": differentiate(y, [w], g)[0] * 2})


def loops(graph: Graph) -> Function:
    lowered = lower_graph(graph, target=preset("avx512"))
    (only,) = (s.function for s in lowered.scheduled if s.kernel.recipe == "contract")
    verify_function(only)
    return only


def data_of(graph: Graph, batch: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    shapes = {
        str(n.attrs["id"]): [d if isinstance(d, int) else batch for d in n.shape]
        for n in graph.inputs
    }
    return {name: random.integers(-4, 5, shape).astype("f4") for name, shape in shapes.items()}


def check(graph: Graph) -> None:
    artifact = build(graph, options=Options(cache=False))
    for batch, threads in product((1, 3), (1, 2)):
        data = data_of(graph, batch)
        found = Session(artifact, {}, threads)(data)
        for name, expected in run_graph(graph, data).items():
            np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize("name", CASES)
def test_result_is_its_definition(name: str) -> None:
    function = loops(strided(name))
    assert "unfolded" in {b.name for b in (*function.scratch, *function.workspace)}
    check(strided(name))


@pytest.mark.parametrize("name", CASES)
def test_gradient_of_weights_is_its_definition(name: str) -> None:
    loops(strided(name, "dw"))
    check(strided(name, "dw"))


def gradient(channels: int, filters: int, kernel: int) -> Function:
    x = ops.input("x", "f32", ("batch", channels, 32, 32))
    w = ops.input("w", "f32", (filters, channels, kernel, kernel))
    y = convolve(x, w, (2, 2), ((kernel // 2,) * 2,) * 2, (1, 1), 1)
    g = ops.input("g", "f32", y.shape)
    return loops(Graph("gradient", (x, g), {"dw": differentiate(y, [w], g)[0]}))


def test_gradient_of_one_tap_turns_the_smaller_operand_alone() -> None:
    function = gradient(32, 64, 1)
    turned = [s for s in statements(function.body) if isinstance(s, Transpose)]
    assert [s.value.name for s in turned] == ["x"]
    (tile,) = (s for s in statements(function.body) if isinstance(s, Tile))
    assert tile.lhs.name == "g"


def test_gradients_ask_for_the_next_image() -> None:
    """All lines of both operands, shared among the tiles of all taps."""
    function = gradient(16, 32, 3)
    axes, (tile,) = [], [s for s in statements(function.body) if isinstance(s, Tile)]
    for s in statements(function.body):
        axes += [s.var] if isinstance(s, For) and tile in statements(s.body) else []
    image, *taps = axes
    steps = [1] * len(taps) + [tile.rows[0], tile.columns]
    inner = [*taps, tile.m, tile.n]
    ranges = [range(0, int(str(v.extent)), n) for v, n in zip(inner, steps, strict=True)]
    for name, size in (("x", 16 * 32 * 32), ("g", 32 * 16 * 16)):
        asked = {
            p.index.evaluate(
                {image.name: 4, **dict(zip((v.name for v in inner), values, strict=True))}
            )
            // LINE
            for p in tile.ahead
            if p.buffer == name
            for values in product(*ranges)
        }
        assert asked == set(range(5 * size // LINE, 6 * size // LINE))


def test_nothing_is_transposed_and_sums_are_written_where_they_belong() -> None:
    inner = list(statements(loops(strided("3 x 3")).body))
    assert not any(isinstance(s, Transpose) for s in inner)
    (tile,) = (s for s in inner if isinstance(s, Tile))
    assert [s.buffer for s in tile.epilogue if isinstance(s, Store)] == ["out y"]
    assert tile.n.extent == 256  # points of the result, not the 16 of one of its rows


def test_rows_are_copied_once_for_all_taps() -> None:
    """Even rows of the padded image serve two of three taps."""
    inner = list(statements(loops(strided("3 x 3")).body))
    rows = [s.var.extent for s in inner if isinstance(s, For) and s.var.name == "unfolded_row"]
    assert rows == [17, 16]


def test_lanes_that_are_neighbours_or_far_apart_are_not_unfolded() -> None:
    x = ops.input("x", "f32", ("batch", 8, 32, 32))
    w = ops.input("w", "f32", (16, 8, 3, 3))
    for stride in ((1, 1), (2, 1), (4, 4)):  # or so far apart that they are gathered
        y = convolve(x, w, stride, ((1, 1), (1, 1)), (1, 1), 1)
        function = loops(Graph("plain", (x, w), {"y": y}))
        assert "unfolded" not in {b.name for b in (*function.scratch, *function.workspace)}


@pytest.mark.parametrize("name", ["3 x 3", "1 x 1", "7 x 7 in blocks"])
def test_what_the_next_block_reads_is_asked_for(name: str) -> None:
    """All of it but rows that it shares with the present one, and hardly anything else."""
    function = loops(strided(name))
    inner = list(statements(function.body))
    (tile,) = (s for s in inner if isinstance(s, Tile))
    around = [s.var.name for s in inner[:2] if isinstance(s, For)]
    image, *blocks = [v for v in around if not v.startswith("k")]
    present = {image: 1} | dict.fromkeys(blocks, 1)
    following = {**present, **(dict.fromkeys(blocks, 2) or {image: 2})}
    assert isinstance(tile.m.extent, int) and isinstance(tile.n.extent, int)
    asked = {
        p.index.evaluate({**present, tile.m.name: m, tile.n.name: n}) // LINE
        for p in tile.ahead
        for m in range(0, tile.m.extent, tile.rows[0])
        for n in range(0, tile.n.extent, tile.columns)
    }
    new = lines_read(function, following) - lines_read(function, present)
    assert len(new - asked) <= 0.05 * len(new)  # where a stretch ends within a line
    assert len(asked - new) <= 0.25 * len(new)


def lines_read(function: Function, fixed: dict[str, int]) -> set[int]:
    """The lines of x that are copied in one pass."""
    axes, copy = next(copies(function.body, ()))
    ranges = [range(v.extent) for v in axes if v.name not in fixed and isinstance(v.extent, int)]
    free = [v.name for v in axes if v.name not in fixed]
    found = set()
    for values in product(*ranges):
        point = {**fixed, **dict(zip(free, values, strict=True))}
        if all(g.low <= g.value.evaluate(point) < g.high for g in copy.guards):
            found.add(copy.index.evaluate(point) // LINE)
    return found


def copies(body: Sequence[Stmt], axes: tuple[Var, ...]) -> Iterator[tuple[tuple[Var, ...], Scalar]]:
    """Loads of x that are stored elsewhere, and the loops around them."""
    for s in body:
        match s:
            case For(var=var, body=inside):
                yield from copies(inside, (*axes, var))
            case Store(value=value) if value.kind == "load" and value.name == "x":
                yield axes, value
