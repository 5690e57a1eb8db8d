"""While a block of columns is multiplied, the rows of the next one are asked for: all of them, and
nothing that is not read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import pytest

from ir import ops
from ir.graph import Graph
from ir.index import Var
from ir.interpret import run_graph
from ir.loops import For, Function, Prefetch, Stmt, Tile, statements
from ir.text_loops import print_function
from ir.verify_loops import verify_function
from nncompiler.codegen.llvm import assembly
from nncompiler.codegen.target import preset
from nncompiler.frontend.convolution import convolve
from nncompiler.options import Options
from nncompiler.pipeline import build, lower_graph
from runtime.session import Session

LINE = 16  # floats


def pointwise(channels: int, filters: int, side: int) -> Graph:
    x = ops.input("x", "f32", ("batch", channels, side, side))
    w = ops.input("w", "f32", (filters, channels, 1, 1))
    return Graph("pointwise", (x, w), {"y": convolve(x, w, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)})


def loops(channels: int, filters: int, side: int) -> Function:
    lowered = lower_graph(pointwise(channels, filters, side), target=preset("avx512"))
    (only,) = lowered.scheduled
    return only.function


def points(function: Function, stmt: Stmt, **fixed: int) -> Iterator[dict[str, int]]:
    """The values of all variables around a statement of the function, but those that are fixed."""
    axes = [v for v in _around(function.body, stmt) if v.name not in fixed]
    first = _first_of_tiles(function, stmt)
    ranges = [range(0, v.extent, first.get(v.name, 1)) for v in axes if isinstance(v.extent, int)]
    assert len(ranges) == len(axes)
    for point in product(*ranges):
        yield {**fixed, **dict(zip((v.name for v in axes), point, strict=True))}


def _around(body: Sequence[Stmt], stmt: Stmt) -> list[Var]:
    for s in body:
        if s is stmt:
            return []
        match s:
            case For(var=var, body=inside) if stmt in list(statements(inside)):
                return [var, *_around(inside, stmt)]
            case Tile(m=m, n=n, ahead=inside) if stmt in inside:
                return [m, n]
    raise AssertionError("the statement is not there")


def _first_of_tiles(function: Function, stmt: Stmt) -> dict[str, int]:
    """How far register tiles that ask for something are apart."""
    tiles = [s for s in statements(function.body) if isinstance(s, Tile) and stmt in s.ahead]
    return {v.name: step for t in tiles for v, step in ((t.m, t.rows[0]), (t.n, t.columns))}


def _copied(tile: Tile, at: dict[str, int]) -> Iterator[dict[str, int]]:
    axes = (*tile.k, tile.n)
    for point in product(*(range(v.extent) for v in axes if isinstance(v.extent, int))):
        yield {**at, **dict(zip((v.name for v in axes), point, strict=True))}


@pytest.mark.parametrize("channels", [16, 32, 64, 96])
@pytest.mark.parametrize("side", [16, 32])
def test_the_next_block_is_asked_for(channels: int, side: int) -> None:
    function = loops(channels, 32, side)
    verify_function(function)
    assert "prefetch x[" in print_function(function)
    inner = list(statements(function.body))
    (tile,) = (s for s in inner if isinstance(s, Tile))
    assert tile.source is not None
    asking = [s for s in inner if isinstance(s, Prefetch)]
    image, block = (s.var.name for s in inner[:2] if isinstance(s, For))
    blocks = next(s.var.extent for s in inner if isinstance(s, For) and s.var.name == block)
    assert isinstance(blocks, int) and blocks > 1

    def read(i: int, b: int) -> set[int]:
        around = points(function, tile, **{image: i, block: b})
        return {tile.source.index.evaluate(p) // LINE for q in around for p in _copied(tile, q)}

    def asked(i: int, b: int) -> set[int]:
        return {
            s.index.evaluate(p) // LINE
            for s in asking
            for p in points(function, s, **{image: i, block: b})
        }

    assert asked(1, 0) == read(1, 1)
    assert asked(1, blocks - 1) == read(2, 0)


def test_asking_changes_no_value() -> None:
    """Also where the next block lies beyond the end of the operand."""
    graph = pointwise(64, 32, 32)
    (x, w) = graph.inputs
    random = np.random.default_rng(0)
    data = {"x": random.standard_normal((3, *x.shape[1:])).astype("f4")}
    data["w"] = random.standard_normal(w.shape).astype("f4")
    artifact = build(graph, options=Options(cache=False))
    expected = run_graph(graph, data)["y"]
    for threads in (1, 2):
        np.testing.assert_allclose(
            Session(artifact, {}, threads)(data)["y"], expected, rtol=2e-5, atol=2e-5
        )


def test_lines_are_asked_for_by_one_instruction() -> None:
    target = preset("avx512")
    lowered = lower_graph(pointwise(64, 64, 32), target=target)
    assert "prefetcht0" in assembly(lowered.module, target)
