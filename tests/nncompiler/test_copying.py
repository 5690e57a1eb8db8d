"""The tiles of the first rows make the copy that the others read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ir import ops
from ir.graph import Graph
from ir.interpret import run_graph
from ir.interpret_loops import run_function, run_kernel
from ir.loops import Store, Tile, statements
from ir.text_loops import print_function
from ir.types import bind_dim
from ir.verify_loops import verify_function
from nncompiler.autodiff import differentiate
from nncompiler.codegen.llvm import assemble, host
from nncompiler.codegen.target import Target
from nncompiler.frontend.convolution import convolve
from nncompiler.pipeline import Lowered, lower_graph
from runtime.artifact import Artifact
from runtime.session import Session

NARROW = replace(host(), vector_bits=128, registers=16)


def pointwise(channels: int, filters: int, side: int, groups: int = 1) -> Graph:
    x = ops.input("x", "f32", ("batch", channels, side, side))
    w = ops.input("w", "f32", (filters, channels // groups, 1, 1))
    y = convolve(x, w, (1, 1), ((0, 0), (0, 0)), (1, 1), groups)
    g = ops.input("g", "f32", y.shape)
    dx, _ = differentiate(y, [x, w], g)
    return Graph("pointwise", (x, w, g), {"y": ops.relu(y) + 1, "dx": dx})


def data_of(graph: Graph, batch: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {n.attrs["id"]: [bind_dim(d, {"batch": batch}) for d in n.shape] for n in graph.inputs}
    return {name: random.standard_normal(s).astype("f4") for name, s in shapes.items()}


def tiles(lowered: Lowered) -> list[Tile]:
    found = [s for k in lowered.scheduled for s in statements(k.function.body)]
    return [s for s in found if isinstance(s, Tile)]


@pytest.mark.parametrize("target", [host(), NARROW])
@pytest.mark.parametrize(
    ("channels", "filters", "groups"), [(16, 16, 1), (48, 20, 1), (24, 70, 1), (64, 64, 2)]
)
@pytest.mark.parametrize("threads", [1, 2])
def test_products_that_copy(
    channels: int, filters: int, groups: int, threads: int, target: Target
) -> None:
    graph = pointwise(channels, filters, 32, groups)
    lowered = lower_graph(graph, target=target)
    assert len(tiles(lowered)) == 2
    assert all(t.source is not None for t in tiles(lowered))
    for s in lowered.scheduled:
        verify_function(s.function)
    session = Session(Artifact(lowered.plan, assemble(lowered.module, target)), {}, threads)
    for batch in (1, 3):
        data = data_of(graph, batch)
        found, expected = session(data), run_graph(graph, data)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=2e-4, atol=2e-4)


def test_the_loops_say_what_the_tile_does() -> None:
    lowered = lower_graph(pointwise(24, 16, 32))
    for s in lowered.scheduled:
        assert "by the first rows' tiles" in print_function(s.function)
        stores = [x for x in statements(s.function.body) if isinstance(x, Store)]
        assert stores and not any("staged" in x.buffer for x in stores)
        random = np.random.default_rng(1)
        memory = {
            b.name: random.integers(-4, 5, bind_dim(b.size, {"batch": 2})).astype(b.dtype.numpy)
            for b in s.function.buffers
        }
        plain = {name: array.copy() for name, array in memory.items()}
        run_function(s.function, memory, {"batch": 2})
        run_kernel(s.kernel, plain, {"batch": 2})
        for name, array in plain.items():
            np.testing.assert_allclose(memory[name], array, rtol=1e-4, atol=1e-3)
