"""Every way to loop over a contraction gives its sum: partial sums, blocks, turned results."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ir import ops
from ir.graph import Graph
from ir.interpret import run_graph
from ir.interpret_loops import run_function, run_kernel
from ir.loops import Dots, Outermost, Pack, Partial, Tile, TileBy, Transpose, statements
from ir.text_loops import print_function
from ir.types import bind_dim
from ir.verify_loops import verify_function
from nncompiler.autodiff import differentiate
from nncompiler.codegen.llvm import assemble, host
from nncompiler.codegen.target import preset
from nncompiler.frontend.convolution import convolve
from nncompiler.options import Options
from nncompiler.pipeline import lower_graph
from runtime.artifact import Artifact
from runtime.session import Session

DIRECT = Options(winograd=0)
SMALL = replace(host(), l2=1 << 12)  # everything is too large for its caches


def convolution(part: str, stride: int = 1, channels: int = 16) -> Graph:
    """Channels to 48, which is a whole number of tiles, of pictures 18 high and wide."""
    x = ops.input("x", "f32", ("batch", channels, 18, 18))
    w = ops.input("w", "f32", (48, channels, 3, 3))
    windows = ops.window(x, (2, 3), (3, 3), (stride, stride))
    y = ops.contract(windows, w, "nchwij,fcij->nfhw")
    if part == "y":
        return Graph("conv", (x, w), {"y": ops.relu(y)})
    g = ops.input("g", "f32", y.shape)
    _, dw = differentiate(y, [x, w], g)
    return Graph("conv", (x, g, w), {"dw": dw * 2 + w})


def few(width: int, filters: int, dtype: str = "f32") -> Graph:
    """The weight gradient of a convolution with so few filters that lanes run over the width."""
    x = ops.input("x", dtype, ("batch", 2, 9, width + 2))
    g = ops.input("g", dtype, ("batch", filters, 7, width))
    windows = ops.window(x, (2, 3), (3, 3))
    return Graph("few", (x, g), {"dw": ops.contract(windows, g, "nchwij,nfhw->fcij") * 2})


def strided_channels_last() -> Graph:
    """The weight gradient of a 1 x 1 convolution that reads every second point."""
    x = ops.input("x", "f32", ("batch", 32, 32, 16))
    g = ops.input("g", "f32", ("batch", 16, 16, 32))
    w = ops.input("w", "f32", (32, 16, 1, 1))
    y = convolve(ops.transpose(x, (0, 3, 1, 2)), w, (2, 2), ((0, 0),) * 2, (1, 1), 1)
    _, dw = differentiate(y, [x, w], ops.transpose(g, (0, 3, 1, 2)))
    return Graph("strided", (x, g), {"dw": dw})


def product() -> Graph:
    a, b = ops.input("a", "f32", (40, 5, 70)), ops.input("b", "f32", (192, 70))
    return Graph("product", (a, b), {"y": ops.contract(a, b, "pmk,nk->pmn")})


def padded_windows() -> Graph:
    """The weight gradient of a convolution whose result is averaged: the same for every filter."""
    x = ops.input("x", "f32", ("batch", 5, 14, 14))
    windows = ops.window(ops.pad(x, (0, 0, 1, 1), (0, 0, 1, 1)), (2, 3), (3, 3))
    return Graph("windows", (x,), {"dw": ops.sum(windows, axis=(2, 3))})


def staged_in_one_walk() -> Graph:
    """Taps of the height of the image: all of them are one stretch of its staged copy."""
    x, w = ops.input("x", "f32", ("batch", 64, 5, 20)), ops.input("w", "f32", (4, 64, 5, 5))
    return Graph("walk", (x, w), {"y": convolve(x, w, (3, 3), ((0, 0),) * 2, (1, 1), 1)})


def over_time() -> Graph:
    """A weight gradient over time and batch: the last slice of the sum is a short one."""
    x, g = ops.input("x", "f32", ("batch", 130, 40)), ops.input("g", "f32", ("batch", 130, 70))
    return Graph("time", (x, g), {"dw": ops.contract(x, g, "btm,btn->mn") * 2})


def few_rows(columns: int = 64) -> Graph:
    """The gradient of a dense layer's input, whose weights lie across."""
    g, w = ops.input("g", "f32", ("batch", 300)), ops.input("w", "f32", (columns, 300))
    y = ops.input("y", "f32", ("batch", columns))
    return Graph("dx", (g, w, y), {"dx": (g @ w.T) * (1 - y * y)})


CASES = {
    "dot products of few rows": (few_rows(), Dots),
    "partial sums": (convolution("dw", channels=7), Partial),
    "partial sums of one stretch": (staged_in_one_walk(), Partial),
    "sums over padded windows": (padded_windows(), TileBy),
    "slices of one long sum": (over_time(), Partial),
    "slices of many rows": (strided_channels_last(), Partial),
    "turned result": (convolution("y", 3), Pack),
    "blocks of columns": (product(), Outermost),
}


@pytest.mark.parametrize("name", CASES)
def test_every_blocking_gives_the_sum(name: str) -> None:
    graph, directive = CASES[name]
    lowered = lower_graph(graph, target=SMALL, options=DIRECT)
    schedules = [d for s in lowered.scheduled for d in s.kernel.schedule]
    assert any(isinstance(d, directive) for d in schedules), schedules
    random = np.random.default_rng(0)
    feed = {
        n.attrs["id"]: random.normal(size=[bind_dim(d, {"batch": 3}) for d in n.shape]).astype("f4")
        for n in graph.inputs
    }
    expected = run_graph(graph, feed)
    for s in lowered.scheduled:
        verify_function(s.function)
    found = Session(Artifact(lowered.plan, assemble(lowered.module, lowered.target)))(feed)
    for output, value in expected.items():
        np.testing.assert_allclose(found[output], value, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_the_loops_mean_what_the_kernel_means(name: str) -> None:
    graph, _ = CASES[name]
    random = np.random.default_rng(1)
    for s in lower_graph(graph, target=SMALL, options=DIRECT).scheduled:
        buffers: dict[str, Any] = {}
        for b in s.function.buffers:
            size = bind_dim(b.size, {"batch": 2})
            buffers[b.name] = random.normal(size=size).astype(b.dtype.numpy)
        plain = {k: v.copy() for k, v in buffers.items()}
        run_function(s.function, buffers, {"batch": 2})
        run_kernel(s.kernel, plain, {"batch": 2})
        for b in s.function.buffers:
            np.testing.assert_allclose(buffers[b.name], plain[b.name], rtol=1e-4, atol=1e-3)


def test_few_rows_and_many_give_the_same_sums_for_any_number_of_threads() -> None:
    graph = few_rows()
    lowered = lower_graph(graph)
    (scheduled,) = lowered.scheduled
    (limit,) = [d.most for d in scheduled.kernel.schedule if isinstance(d, Dots)]
    assert "// where 0 <= batch <=" in print_function(scheduled.function)
    artifact = Artifact(lowered.plan, assemble(lowered.module, lowered.target))
    one, three = Session(artifact, {}, 1), Session(artifact, {}, 3)
    random = np.random.default_rng(0)
    w = random.normal(size=(64, 300)).astype("f4")
    for rows in (1, 2, 3, 4, 7, limit, limit + 1, 64, 500):
        g, y = (random.normal(size=(rows, n)).astype("f4") for n in (300, 64))
        feed = {"g": g, "w": w, "y": y}
        found, again = one(feed)["dx"], three(feed)["dx"]
        np.testing.assert_allclose(found, run_graph(graph, feed)["dx"], rtol=1e-4, atol=1e-3)
        np.testing.assert_array_equal(found, again)


def test_what_lies_side_by_side_is_staged_together() -> None:
    """Taps of 7 x 1 leave the columns alone, which are no images of their own for that."""
    x, w = ops.input("x", "f32", ("batch", 16, 9, 20)), ops.input("w", "f32", (16, 16, 7, 1))
    y = convolve(x, w, (1, 1), ((3, 3), (0, 0)), (1, 1), 1)
    (scheduled,) = lower_graph(Graph("conv", (x, w), {"y": y}), options=DIRECT).scheduled
    copies = [s for s in statements(scheduled.function.body) if isinstance(s, Transpose)]
    (staged,) = [s for s in copies if s.buffer == "staged0"]
    assert (staged.row.extent, staged.column.extent) == (20, 16)


@pytest.mark.parametrize("columns", [61, 62, 63, 65])
def test_columns_that_fill_no_tile(columns: int) -> None:
    graph = few_rows(columns)
    lowered = lower_graph(graph, target=SMALL)
    (function,) = [s.function for s in lowered.scheduled]
    assert any(isinstance(s, Tile) and s.dot for s in statements(function.body))
    session = Session(Artifact(lowered.plan, assemble(lowered.module, lowered.target)))
    random = np.random.default_rng(0)
    for rows in (1, 5, 33):
        feed = {
            n.attrs["id"]: random.normal(
                size=[bind_dim(d, {"batch": rows}) for d in n.shape]
            ).astype("f4")
            for n in graph.inputs
        }
        np.testing.assert_allclose(
            session(feed)["dx"], run_graph(graph, feed)["dx"], rtol=1e-4, atol=1e-3
        )


@pytest.mark.parametrize(("rows", "stretch"), [(1024, 64), (1000, 40), (1003, 0)])
def test_a_transposed_operand_is_packed_in_whole_lines(rows: int, stretch: int) -> None:
    a, b = ops.input("a", "f32", (300, rows)), ops.input("b", "f32", (300, 260))
    lowered = lower_graph(Graph("product", (a, b), {"y": a.T @ b}), target=preset("avx512"))
    (scheduled,) = lowered.scheduled
    assert Pack("lhs") in scheduled.kernel.schedule
    text = print_function(scheduled.function)
    assert (f"_near < {stretch};" in text) if stretch else ("_near" not in text)
    random = np.random.default_rng(0)
    feed = {n.attrs["id"]: random.normal(size=n.shape).astype("f4") for n in (a, b)}
    buffers = {x.name: np.zeros(x.size, x.dtype.numpy) for x in scheduled.function.buffers}
    for name, value in feed.items():
        buffers[name][:] = value.ravel()
    run_function(scheduled.function, buffers, {})
    (written,) = [x.name for x in scheduled.function.buffers if x.written]
    expected = feed["a"].T @ feed["b"]
    np.testing.assert_allclose(buffers[written].reshape(rows, 260), expected, atol=1e-3)
    found = run_native(Graph("product", (a, b), {"y": a.T @ b}), feed)
    np.testing.assert_allclose(found["y"], expected, atol=1e-3)


def run_native(graph: Graph, feed: dict[str, Any]) -> dict[str, Any]:
    lowered = lower_graph(graph)
    return Session(Artifact(lowered.plan, assemble(lowered.module, lowered.target)))(feed)


@pytest.mark.parametrize("dtype", ["f32", "f64", "i32"])
@pytest.mark.parametrize(("width", "filters"), [(13, 5), (16, 2), (37, 7), (100, 4)])
def test_dot_products_along_a_summed_axis(width: int, filters: int, dtype: str) -> None:
    graph = few(width, filters, dtype)
    lowered = lower_graph(graph)
    (function,) = [s.function for s in lowered.scheduled]
    assert any(isinstance(s, Tile) and s.dot for s in statements(function.body))
    verify_function(function)
    random = np.random.default_rng(0)
    feed = {
        n.attrs["id"]: random.integers(-9, 9, [bind_dim(d, {"batch": 3}) for d in n.shape]).astype(
            n.dtype.numpy
        )
        for n in graph.inputs
    }
    expected = run_graph(graph, feed)["dw"]
    found = run_native(graph, feed)["dw"]
    np.testing.assert_array_equal(found, expected)
    buffers = {
        b.name: np.zeros(bind_dim(b.size, {"batch": 3}), b.dtype.numpy) for b in function.buffers
    }
    for name, value in feed.items():
        buffers[name][:] = value.ravel()
    run_function(function, buffers, {"batch": 3})
    (written,) = [b.name for b in function.buffers if b.written]
    np.testing.assert_array_equal(buffers[written].reshape(expected.shape), expected)


@pytest.mark.parametrize("channels", [64, 512])
def test_a_packed_block_that_stays_in_a_cache_is_read_by_all_rows(channels: int) -> None:
    """Else sums are partial: of 512 channels, a block of 4608 rows does not stay."""
    graph = padded_convolution(channels, 256)
    target = replace(preset("avx512"), l2=1 << 18)
    kernel = lower_graph(graph, target=target, options=DIRECT).kernels[0]
    kinds = {type(d) for d in kernel.schedule}
    assert (Outermost in kinds) == (channels == 64)
    assert (Partial in kinds) == (channels == 512)
    heights = [d.size for d in kernel.schedule if isinstance(d, TileBy)]
    assert heights == [64, 6] or channels == 512  # rows of 4: a narrower tile would be no taller


def padded_convolution(channels: int, filters: int) -> Graph:
    """Every second point of images of 8 x 8."""
    x = ops.input("x", "f32", ("batch", channels, 8, 8))
    w = ops.input("w", "f32", (filters, channels, 3, 3))
    return Graph("conv", (x, w), {"y": convolve(x, w, (2, 2), ((1, 1),) * 2, (1, 1), 1)})
