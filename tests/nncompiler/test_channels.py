"""Sums per channel of images whose channels lie last: image by image, stretches of channels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ir import ops
from ir.graph import Graph, Node
from ir.interpret import run_graph
from nncompiler.codegen.llvm import host
from nncompiler.compilation import compile_graph
from nncompiler.options import Options
from nncompiler.pipeline import lower_graph
from runtime.session import Session
from tests.stages import stages

POINTS = 64


def normalized(x: Node) -> dict[str, Node]:
    """Sums of two depths, a value per point, and one per channel."""
    mean = ops.mean(x, (0, 1))
    centred = x - mean
    variance = ops.mean(centred * centred, (0, 1))
    return {"y": centred * ops.rsqrt(variance + 0.1), "variance": variance * 2}


def stored(x: Node) -> dict[str, Node]:
    """What the first pass writes is read again."""
    z = ops.relu(x) * ops.flip(x, 1)
    return {"z": z, "y": z - ops.max(z, (0, 1)), "least": ops.min(z, (0, 1))}


FUNCTIONS: dict[str, Callable[[Node], dict[str, Node]]] = {
    "normalized": normalized,
    "stored": stored,
    "one sum": lambda x: {"y": ops.sum(ops.tanh(x), (0, 1))},
}


def graph_of(name: str, channels: int) -> Graph:
    x = ops.input("x", "f32", ("batch", POINTS, channels))
    return Graph(name, (x,), FUNCTIONS[name](x))


def draw(channels: int, batch: int) -> dict[str, np.ndarray]:
    r = np.random.default_rng(channels)
    return {"x": r.normal(size=(batch, POINTS, channels)).astype(np.float32)}


def is_by_image(graph: Graph) -> bool:
    functions = [s.function for s in lower_graph(graph).scheduled]
    return any(b.name.startswith("sums ") for f in functions for b in f.workspace)


@pytest.mark.parametrize("channels", [16, 24, 40, 48, 128, 272])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_stage_gives_the_same(name: str, channels: int) -> None:
    graph = graph_of(name, channels)
    assert is_by_image(graph)
    arrays = draw(channels, 3)
    expected = run_graph(graph, arrays)
    for stage, run in stages(graph).items():
        found = run(arrays)
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-4, err_msg=stage)


def test_lanes_along_the_images_have_other_loops() -> None:
    x = ops.input("x", "f32", ("batch", 48, POINTS))
    graph = Graph("rows", (x,), {"y": ops.sum(ops.tanh(x), (0, 2))})
    assert not is_by_image(graph)


def test_several_vectors_are_summed_at_once() -> None:
    lanes = host().lanes(ops.input("x", "f32", ()).dtype)
    graph = graph_of("one sum", 4 * lanes)
    (kernel,) = (s for s in lower_graph(graph).scheduled)
    text = str(kernel.function.body)
    assert f"sum0_{3 * lanes}" in text and f"sum0_{4 * lanes}" not in text


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_bits_do_not_depend_on_the_threads(name: str) -> None:
    graph, arrays = graph_of(name, 96), draw(96, 64)
    runs = [
        Session(compile_graph(graph, options=Options(threads=n, cache=False)), {}, n)(arrays)
        for n in (1, 2, 3)
    ]
    for other in runs[1:]:
        for key, value in runs[0].items():
            np.testing.assert_array_equal(other[key], value)
