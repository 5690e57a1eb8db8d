"""Convolutions by Winograd's transforms: right, as accurate as promised, only where asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ir import ops
from ir.function import stages as parts_of
from ir.graph import Graph
from ir.interpret import run_graph
from ir.loops import Store, Transpose, statements
from nncompiler.autodiff import differentiate
from nncompiler.codegen.llvm import host
from nncompiler.codegen.target import preset
from nncompiler.compilation import compile_graph
from nncompiler.frontend.convolution import convolve
from nncompiler.options import Options
from nncompiler.pipeline import lower_graph
from nncompiler.schedule import winograd_planes
from nncompiler.schedule.transforms import BY_RESULTS, TAPS
from runtime.session import Session
from tests.nncompiler.test_convolution_shapes import feed_of
from tests.stages import stages


def network(
    batch: Any,
    channels: int,
    size: tuple[int, int],
    filters: int,
    pad: int,
    dtype: str = "f32",
    groups: int = 1,
) -> Graph:
    x = ops.input("x", dtype, (batch, channels, *size))
    w = ops.input("w", dtype, (filters, channels // groups, 3, 3))
    y = convolve(x, w, (1, 1), ((pad, pad),) * 2, (1, 1), groups)
    g = ops.input("g", dtype, y.shape)
    dx, dw = differentiate(y, [x, w], g)
    return Graph("conv", (x, w, g), {"y": ops.relu(y), "dx": dx, "dw": w - dw * 0.5})


def channels_last() -> Graph:
    """Weights whose filters lie side by side, as do the channels of the image."""
    x = ops.input("x", "f32", ("batch", 8, 10, 16))
    w = ops.input("w", "f32", (3, 3, 16, 32))
    y = convolve(
        ops.transpose(x, (0, 3, 1, 2)),
        ops.transpose(w, (3, 2, 0, 1)),
        (1, 1),
        ((1, 1),) * 2,
        (1, 1),
        1,
    )
    y = ops.transpose(y, (0, 2, 3, 1))
    g = ops.input("g", "f32", y.shape)
    dx, dw = differentiate(y, [x, w], g)
    return Graph("conv", (x, w, g), {"y": ops.relu(y), "dx": dx, "dw": w - dw * 0.5})


CASES = {
    "even": network("batch", 16, (8, 8), 16, 1),
    "odd rows": network("batch", 16, (9, 8), 24, 1),
    "odd columns": network(2, 16, (8, 7), 32, 1),
    "valid": network("batch", 20, (11, 10), 16, 0),
    "wide padding": network("batch", 16, (8, 8), 17, 2),
    "one image": network(1, 32, (12, 16), 80, 1),
    "blocks of filters": network(3, 16, (8, 6), 128, 1),
    "many channels": network("batch", 64, (4, 4), 64, 1),
    "channels last": channels_last(),
    "blocks of rows": network("batch", 48, (32, 12), 48, 1),
    "two rows in a vector": network("batch", 8, (16, 16), 16, 1),
    "tiles out of the image": network(2, 8, (15, 15), 10, 1),
    "tiles without padding": network(2, 8, (10, 33), 17, 0),
    "one image of blocks": network(1, 16, (8, 8), 128, 1),
    "one image of parts": network(1, 8, (16, 16), 24, 1),
}


def uses_winograd(graph: Graph, results: int) -> bool:
    """Do the result and both gradients go through transforms?"""
    return transformed(graph, results) == 3


def test_threads_share_nothing_that_their_chunks_do_not_divide() -> None:
    for graph in CASES.values():
        for s in lower_graph(graph).scheduled:
            shared = {b.name for b in (*s.function.workspace, *s.function.buffers)}
            for body, split, _ in parts_of(s.function):
                dealt = {v for v, _ in split.axes} if split else set()
                for stmt in statements(body):
                    if isinstance(stmt, (Store, Transpose)) and stmt.buffer in shared:
                        assert not dealt or dealt & set(stmt.index.variables), stmt.buffer


def transformed(graph: Graph, results: int) -> int:
    """How many kernels go through transforms."""
    found = lower_graph(graph, options=Options(winograd=results)).scheduled
    buffers = [b for s in found for b in (*s.function.scratch, *s.function.workspace)]
    return sum(b.name == "elements" for b in buffers)


@pytest.mark.parametrize("name", CASES)
def test_every_stage_agrees(name: str) -> None:
    graph = CASES[name]
    assert uses_winograd(graph, 2)
    feed = feed_of(graph, 3)
    expected = run_graph(graph, feed)
    for stage, run in stages(graph).items():
        for output, value in run(feed).items():
            np.testing.assert_allclose(
                value, expected[output], rtol=1e-4, atol=2e-3, err_msg=f"{stage} {output}"
            )


def test_blocks_of_rows_of_tiles_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd_planes, "BLOCK", 1 << 15)
    test_every_stage_agrees("two rows in a vector")


@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("size", [(32, 32), (31, 33), (33, 31)])
def test_gradients_of_few_channels_are_dot_products(pad: int, size: tuple[int, int]) -> None:
    graph = network("batch", 8, (size[0] + 2 - 2 * pad, size[1] + 2 - 2 * pad), 12, pad)
    lowered = lower_graph(graph, target=preset("avx512"))
    names = {b.name for s in lowered.scheduled for b in s.function.scratch}
    assert {"elements_planes", "gradients_planes"} <= names
    feed = feed_of(graph, 3)
    expected = run_graph(graph, feed)
    found = Session(compile_graph(graph, options=Options(cache=False)))(feed)
    for output, value in found.items():
        np.testing.assert_allclose(value, expected[output], rtol=1e-4, atol=2e-3, err_msg=output)


@pytest.mark.parametrize("name", CASES)
def test_threads_do_not_change_a_bit(name: str) -> None:
    graph = CASES[name]
    random = np.random.default_rng(0)
    feed = {k: random.normal(size=v.shape).astype("f4") for k, v in feed_of(graph, 5).items()}
    artifact = compile_graph(graph, options=Options(cache=False))
    one, three = (Session(artifact, {}, threads)(feed) for threads in (1, 3))
    for output, value in one.items():
        np.testing.assert_array_equal(value, three[output])


@pytest.mark.parametrize(("results", "bound"), [(0, 1.5e-6), (2, 1.5e-6), (4, 3e-5)])
def test_errors_relative_to_the_largest_value(results: int, bound: float) -> None:
    graph = network("batch", 64, (16, 16), 64, 1)
    assert uses_winograd(graph, results) == (results > 0)
    random = np.random.default_rng(0)
    wide = {k: random.normal(size=v.shape) for k, v in feed_of(graph, 2).items()}
    artifact = compile_graph(graph, options=Options(cache=False, winograd=results))
    found = Session(artifact)({k: v.astype("f4") for k, v in wide.items()})
    exact = run_graph(network("batch", 64, (16, 16), 64, 1, "f64"), wide)
    for output, value in exact.items():
        assert np.abs(found[output] - value).max() <= bound * np.abs(value).max()


def test_an_infinity_stays_where_a_direct_sum_has_it() -> None:
    graph = network("batch", 16, (12, 12), 16, 1)
    feed = {k: v + 0.5 for k, v in feed_of(graph, 1).items()}  # none is zero times infinity
    feed["g"][0, 3, 5, 6] = np.inf
    direct, fast = (
        Session(compile_graph(graph, options=Options(cache=False, winograd=w)))(feed)["dx"]
        for w in (0, 2)
    )
    assert np.isinf(direct).sum() == 16 * 9
    np.testing.assert_array_equal(np.isfinite(fast), np.isfinite(direct))


@pytest.mark.parametrize("results", BY_RESULTS)
def test_the_transforms_give_the_sums_of_products(results: int) -> None:
    f = BY_RESULTS[results]
    elements, weights, sums = (np.array(m) for m in (f.elements, f.weights, f.sums))
    random = np.random.default_rng(0)
    x, w = random.normal(size=f.size), random.normal(size=TAPS)
    np.testing.assert_allclose(
        sums @ ((weights @ w) * (elements @ x)), np.correlate(x, w), atol=1e-12
    )


def test_weights_that_would_not_stay_in_the_caches_take_the_smaller_transform() -> None:
    graph = network("batch", 512, (8, 8), 512, 1)
    target = replace(host(), l3=20 << 20)
    large, small = (lower_graph(graph, options=Options(winograd=n), target=target) for n in (4, 2))
    sizes = [
        {b.size for s in x.scheduled for b in s.function.workspace if b.name == "weights"}
        for x in (large, small)
    ]
    assert sizes[0] == sizes[1] != set()


def test_few_channels_are_summed_directly() -> None:
    assert not uses_winograd(network("batch", 3, (32, 32), 16, 1), 2)


@pytest.mark.parametrize("groups", [2, 32])
def test_groups_are_summed_directly(groups: int) -> None:
    graph = network("batch", 32, (14, 14), 32, 1, groups=groups)
    assert transformed(graph, 2) == 0
    feed = feed_of(graph, 3)
    found = Session(compile_graph(graph, options=Options(cache=False)))(feed)
    for output, value in run_graph(graph, feed).items():
        np.testing.assert_allclose(found[output], value, rtol=1e-4, atol=2e-3, err_msg=output)


@pytest.mark.parametrize("wrong", [1, 3, -2, True, None])
def test_other_options_are_told(wrong: Any) -> None:
    with pytest.raises(ValueError, match="winograd"):
        Options(winograd=wrong)
