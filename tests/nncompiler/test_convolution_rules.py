"""Folds become contractions over windows: what the rules give, and that every stage agrees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ir import ops
from ir.graph import Graph, Node, topological
from ir.interpret import run_graph
from nncompiler.autodiff import differentiate
from nncompiler.simplify import simplify
from tests.stages import stages


def convolve(x: Node, w: Node, strides: Any, dilations: Any, padding: int) -> Node:
    rank = x.ndim - 2
    axes = range(2, x.ndim)
    padded = ops.pad(x, (0, 0, *[padding] * rank), (0, 0, *[padding] * rank))
    windows = ops.window(padded, axes, w.shape[2:], strides, dilations)
    spatial, kernel = "hwd"[:rank], "ijk"[:rank]
    return ops.contract(windows, w, f"nc{spatial}{kernel},fc{kernel}->nf{spatial}")


def case(
    shape: tuple[Any, ...],
    kernel: tuple[int, ...],
    *,
    stride: int = 1,
    dilation: int = 1,
    pad: int = 0,
) -> Graph:
    rank = len(kernel)
    x = ops.input("x", "f32", shape)
    w = ops.input("w", "f32", (3, shape[1], *kernel))
    y = convolve(x, w, (stride,) * rank, (dilation,) * rank, pad)
    g = ops.input("g", "f32", y.shape)
    dx, dw = differentiate(y, [x, w], g)
    return Graph("conv", (x, w, g), {"y": y, "dx": dx, "dw": dw})


CASES = {
    "1d": case((2, 3, 9), (3,)),
    "same": case((2, 3, 7, 5), (3, 3), pad=1),
    "strided": case((2, 2, 8, 7), (3, 2), stride=2, pad=1),
    "dilated": case((1, 2, 9, 9), (3, 3), dilation=2),
    "one": case((2, 4, 5, 5), (1, 1)),
    "one strided": case((2, 4, 5, 6), (1, 1), stride=2),
    "whole": case((2, 2, 4, 4), (4, 4)),
    "3d": case((1, 2, 4, 5, 3), (2, 3, 1), pad=1),
    "batch": case(("batch", 2, 6, 6), (3, 3), pad=1),
    "wide": case((2, 2, 5, 37), (3, 3), pad=1),
    "one channel": case((3, 1, 6, 6), (3, 3)),
}


def feed_of(graph: Graph, batch: int = 3) -> dict[str, Any]:
    random = np.random.default_rng(1)
    shapes = {
        n.attrs["id"]: [d if isinstance(d, int) else batch for d in n.shape] for n in graph.inputs
    }
    return {k: random.normal(size=s).astype(np.float32) for k, s in shapes.items()}


@pytest.mark.parametrize("name", CASES)
def test_convolution_and_gradients_agree_at_every_stage(name: str) -> None:
    graph = CASES[name]
    feed = feed_of(graph)
    expected = run_graph(graph, feed)
    for stage, run in stages(graph).items():
        found = run(feed)
        for output, value in expected.items():
            np.testing.assert_allclose(
                found[output], value, rtol=1e-4, atol=1e-4, err_msg=f"{stage} {output}"
            )


@pytest.mark.parametrize("name", CASES)
def test_the_input_gradient_is_a_contraction_and_simplify_is_idempotent(name: str) -> None:
    simple = simplify(CASES[name])
    assert simplify(simple).nodes == simple.nodes
    names = {n.op.name for n in topological([simple.outputs["dx"]])}
    assert "fold" not in names
    assert "contract" in names
    assert "sum" not in names


def test_padding_is_cut_before_the_input_gradient_is_computed() -> None:
    simple = simplify(CASES["same"])
    gradient = simple.outputs["dx"]
    assert gradient.op.name == "contract"


def test_depthwise_gradient_is_a_contraction() -> None:
    x = ops.input("x", "f32", ("batch", 4, 6, 6))
    w = ops.input("w", "f32", (4, 3, 3))
    windows = ops.window(x, (2, 3), (3, 3))
    y = ops.contract(windows, w, "nchwij,cij->nchw")
    g = ops.input("g", "f32", y.shape)
    dx, dw = differentiate(y, [x, w], g)
    graph = Graph("depthwise", (x, w, g), {"y": y, "dx": dx, "dw": dw})
    assert simplify(graph).outputs["dx"].op.name == "contract"
    feed = feed_of(graph, 2)
    expected = run_graph(graph, feed)
    for stage, run in stages(graph).items():
        found = run(feed)
        for output, value in expected.items():
            np.testing.assert_allclose(found[output], value, rtol=1e-4, atol=1e-4, err_msg=stage)


def test_disjoint_windows_fold_without_sums() -> None:
    x = ops.input("x", "f32", ("batch", 2, 5, 6))
    y = ops.first_max(ops.window(x, (2, 3), (2, 2), (2, 2)), (4, 5))
    (dx,) = differentiate(y, [x], ops.input("g", "f32", y.shape))
    names = [n.op.name for n in topological([simplify(Graph("g", (x,), {"dx": dx})).outputs["dx"]])]
    assert "sum" not in names
    assert "fold" not in names
