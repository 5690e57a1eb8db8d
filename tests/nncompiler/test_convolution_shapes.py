"""Random convolutions and their gradients: every way to loop gives what NumPy gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ir import ops
from ir.graph import Graph
from ir.interpret import run_graph
from ir.interpret_loops import run_function, run_kernel
from ir.types import bind_dim
from ir.verify_loops import verify_function, verify_kernel
from nncompiler.autodiff import differentiate
from nncompiler.codegen.llvm import assemble, assembly, host
from nncompiler.codegen.target import preset
from nncompiler.frontend.convolution import convolve
from nncompiler.options import Options
from nncompiler.pipeline import Lowered, lower_graph
from runtime.artifact import Artifact
from runtime.session import Session

SMALL = replace(host(), l1=1 << 10, l2=1 << 12)  # everything is too large for its caches
NARROW = replace(host(), vector_bits=128, registers=16)
CHANNELS = (1, 2, 3, 5, 8, 16, 17, 20)


@st.composite
def convolutions(draw: Any) -> tuple[Graph, int]:
    """(y, dx and dw of a convolution, how large the batch is)"""
    groups = draw(st.sampled_from((1, 1, 1, 2, 3)))
    channels = draw(st.sampled_from(CHANNELS))
    filters = channels if draw(st.booleans()) else draw(st.sampled_from(CHANNELS))
    if draw(st.integers(0, 4)) == 0:
        groups, channels, filters = channels, 1, 1  # depthwise
    rank = draw(st.sampled_from((2, 2, 2, 1)))
    each: list[tuple[int, ...]] = []
    for _ in range(rank):
        kernel = draw(st.sampled_from((3, 3, 3, 1, 2, 5)))
        stride = draw(st.sampled_from((1, 1, 2, 3)))
        dilation = draw(st.sampled_from((1, 1, 1, 2)))
        low, high = draw(st.sampled_from(((0, 0), (1, 1), (0, 1), (2, 3))))
        least = max((kernel - 1) * dilation + 1 - low - high, 1)
        extent = least + draw(st.integers(0, 12))
        each.append((kernel, stride, dilation, low, high, extent))
    kernels, strides, dilations, lows, highs, extents = zip(*each, strict=True)
    batch = draw(st.sampled_from((1, 3)))
    named: Any = "batch" if draw(st.booleans()) else batch
    x = ops.input("x", "f32", (named, groups * channels, *extents))
    w = ops.input("w", "f32", (groups * filters, channels, *kernels))
    pads = tuple(zip(lows, highs, strict=True))
    y = convolve(x, w, strides, pads, dilations, groups)
    g = ops.input("g", "f32", y.shape)
    dx, dw = differentiate(y, [x, w], g)
    return Graph("conv", (x, w, g), {"y": ops.relu(y) + 1, "dx": dx * 2, "dw": w - dw}), batch


def depthwise(channels: int, rows: int, columns: int, kernel: int, stride: int) -> Graph:
    x = ops.input("x", "f32", ("batch", channels, rows, columns))
    w = ops.input("w", "f32", (channels, 1, kernel, kernel))
    pads = ((kernel // 2,) * 2,) * 2
    y = convolve(x, w, (stride, stride), pads, (1, 1), channels)
    g = ops.input("g", "f32", y.shape)
    dx, dw = differentiate(y, [x, w], g)
    return Graph("depthwise", (x, w, g), {"y": ops.relu(y) + 1, "dx": dx * 2, "dw": w - dw})


def feed_of(graph: Graph, batch: int) -> dict[str, Any]:
    random = np.random.default_rng(1)
    return {
        n.attrs["id"]: random.integers(-4, 5, [bind_dim(d, {"batch": batch}) for d in n.shape])
        .astype(np.float32)
        for n in graph.inputs
    }  # fmt: skip


def check(lowered: Lowered, graph: Graph, feed: dict[str, Any]) -> None:
    expected = run_graph(graph, feed)
    for scheduled in lowered.scheduled:
        verify_function(scheduled.function)
        verify_kernel(scheduled.kernel)
    found = Session(Artifact(lowered.plan, assemble(lowered.module, lowered.target)))(feed)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=2e-3, err_msg=name)


@settings(max_examples=40)
@given(convolutions(), st.sampled_from((host(), host(), SMALL)), st.sampled_from((2, 0, 4)))
def test_random_convolutions(drawn: tuple[Graph, int], target: Any, winograd: int) -> None:
    graph, batch = drawn
    lowered = lower_graph(graph, target=target, options=Options(winograd=winograd))
    check(lowered, graph, feed_of(graph, batch))


@settings(max_examples=10)
@given(convolutions())
def test_the_loops_mean_what_the_kernels_mean(drawn: tuple[Graph, int]) -> None:
    graph, batch = drawn
    random = np.random.default_rng(1)
    for s in lower_graph(graph).scheduled:
        buffers: dict[str, Any] = {}
        for b in s.function.buffers:
            size = bind_dim(b.size, {"batch": batch})
            buffers[b.name] = random.integers(-4, 5, size).astype(b.dtype.numpy)
        plain = {k: v.copy() for k, v in buffers.items()}
        run_function(s.function, buffers, {"batch": batch})
        run_kernel(s.kernel, plain, {"batch": batch})
        for b in s.function.buffers:
            np.testing.assert_allclose(buffers[b.name], plain[b.name], rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("batch", [1, "batch"])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (5, 1, 1), (3, 1, 2)])
def test_gradients_of_weights_image_by_image(
    batch: Any, kernel: int, stride: int, dilation: int
) -> None:
    x = ops.input("x", "f32", (batch, 24, 17, 19))
    w = ops.input("w", "f32", (40, 24, kernel, kernel))
    y = convolve(x, w, (stride,) * 2, ((2, 1),) * 2, (dilation,) * 2, 1)
    g = ops.input("g", "f32", y.shape)
    _, dw = differentiate(y, [x, w], g)
    graph = Graph("gradient", (x, w, g), {"dw": w - 0.5 * dw})
    lowered = lower_graph(graph)
    (function,) = [s.function for s in lowered.scheduled]
    assert "sums" in {b.name for b in function.workspace}
    check(lowered, graph, feed_of(graph, 3))


@pytest.mark.parametrize(
    "shape", [(16, 8, 20, 3, 1), (17, 5, 33, 3, 1), (3, 8, 8, 5, 1), (16, 7, 140, 3, 2)]
)
def test_depthwise(shape: tuple[int, int, int, int, int]) -> None:
    graph = depthwise(*shape)
    check(lower_graph(graph), graph, feed_of(graph, 3))


@pytest.mark.parametrize(
    ("columns", "target"),
    [*((n, host()) for n in (2, 7, 16, 17, 32, 50, 97)), (17, NARROW), (34, NARROW)],
)
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "pads"),
    [(3, 1, 1, (1, 1)), (3, 2, 1, (0, 1)), (5, 2, 1, (2, 2)), (3, 1, 6, (9, 3)), (2, 1, 1, (0, 0))],
)
def test_rows_of_whole_vectors(
    columns: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int], target: Any
) -> None:
    """First, last and only vectors; taps that reach over one or two of them; no padding at all."""
    reach = (kernel - 1) * dilation
    width = max((columns - 1) * stride + reach + 1 - sum(pads), 1)
    x = ops.input("x", "f32", ("batch", 2, 4 + reach, width))
    w = ops.input("w", "f32", (2, 1, kernel, kernel))
    y = convolve(x, w, (1, stride), ((1, 0), pads), (dilation,) * 2, 2)
    g = ops.input("g", "f32", y.shape)
    _, dw = differentiate(y, [x, w], g)
    graph = Graph("rows", (x, w, g), {"y": ops.relu(y), "dw": dw})
    check(lower_graph(graph, target=target), graph, feed_of(graph, 2))


@pytest.mark.parametrize(("stride", "most"), [(1, 2 * 6 * 2), (2, 9 * 2)])
def test_taps_share_the_vectors_of_a_row(stride: int, most: int) -> None:
    """Two vectors of a row are read for each vector of results, for four rows of them at once."""
    x = ops.input("x", "f32", ("batch", 4, 32, 32))
    w = ops.input("w", "f32", (4, 1, 3, 3))
    y = convolve(x, w, (stride, stride), ((1, 1), (1, 1)), (1, 1), 4)
    target = preset("avx512")
    lowered = lower_graph(Graph("depthwise", (x, w), {"y": y}), target=target)
    assert "vexpand" not in assembly(lowered.module, target)  # eight cycles each
    (kernel,) = [f for f in lowered.module.split("define ") if "@k00" in f.splitlines()[0]]
    vectors = [line for line in kernel.splitlines() if "<16 x float>" in line and "load" in line]
    assert 0 < len(vectors) <= most


@pytest.mark.parametrize("columns", [20, 40])
def test_what_is_added_to_depthwise_results_may_have_two_borders(columns: int) -> None:
    """Only a row with a single guard can be shifted: padding and a part of a row are two."""
    x, w = ops.input("x", "f32", (2, 4, 8, columns)), ops.input("w", "f32", (4, 1, 3, 3))
    parts = [ops.input(name, "f32", (2, 4, 8, n)) for name, n in (("a", 10), ("b", columns - 14))]
    padded = ops.pad(ops.concatenate(parts, 3), (0, 0, 0, 2), (0, 0, 0, 2))
    y = convolve(x, w, (1, 1), ((1, 1), (1, 1)), (1, 1), 4)
    graph = Graph("borders", (x, w, *parts), {"y": ops.relu(y) + padded})
    check(lower_graph(graph), graph, feed_of(graph, 2))


def test_an_image_too_large_to_stage_whose_rows_are_a_prime_number() -> None:
    """Blocks of a single row, and a single filter: no lanes run along the row of such a block."""
    x, w = ops.input("x", "f64", ("batch", 48, 22, 24)), ops.input("w", "f64", (1, 48, 3, 1))
    y = convolve(x, w, (2, 3), ((4, 4), (1, 1)), (2, 2), 1)
    graph = Graph("rows", (x, w), {"y": y + 1})
    check(lower_graph(graph), graph, feed_of(graph, 2))


def test_the_gradient_of_one_tap_of_a_prime_number_of_channels() -> None:
    """Blocks of a single channel with a single tap: there is nothing to turn."""
    x, w = ops.input("x", "f32", ("batch", 17, 16, 16)), ops.input("w", "f32", (16, 17, 1, 1))
    y = convolve(x, w, (2, 2), ((0, 0),) * 2, (1, 1), 1)
    g = ops.input("g", "f32", y.shape)
    graph = Graph("tap", (x, g, w), {"dw": w - differentiate(y, [x, w], g)[1]})
    check(lower_graph(graph), graph, feed_of(graph, 3))


def test_taps_that_share_the_rows_of_a_strided_image() -> None:
    """Strides of 3 and dilation of 2: the steps along the taps are not even."""
    x, w = ops.input("x", "f32", (2, 3, 94, 29)), ops.input("w", "f32", (30, 1, 7, 1))
    y = convolve(x, w, (3, 2), ((0, 0),) * 2, (2, 1), 3)
    graph = Graph("taps", (x, w), {"y": y + 1})
    check(lower_graph(graph), graph, feed_of(graph, 2))


def test_sums_that_are_begun_inside_of_the_loops_over_images() -> None:
    """A weight's gradient of groups and taps that each have a staged copy: nothing else is left."""
    x = ops.input("x", "f64", (33, 15, 7, 8, 6))
    w = ops.input("w", "f64", (15, 1, 1, 5, 1))
    pads = ((1, 4), (1, 3), (3, 2))
    y = convolve(x, w, (2, 3, 5), pads, (2, 1, 2), 15)
    g = ops.input("g", "f64", y.shape)
    graph = Graph("sums", (x, g, w), {"dw": w - differentiate(y, [x, w], g)[1]})
    check(lower_graph(graph), graph, feed_of(graph, 33))
