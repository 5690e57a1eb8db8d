"""Large buffers are asked for ahead and written past the caches: only where whole lines are, and
without changing a bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import nncompiler as nnc
from ir import ops
from ir.graph import Graph
from ir.types import as_dim
from nncompiler import pipeline
from nncompiler.codegen.llvm import assemble, assembly, host
from nncompiler.codegen.target import Target, preset
from nncompiler.pipeline import lower_graph
from runtime.artifact import Artifact
from runtime.session import Session

PAST, AHEAD = "!nontemporal", "call void @llvm.prefetch"


def small(target: Target) -> Target:
    """The same machine with caches that nothing fits."""
    return replace(target, l2=16, l3=16)


def large(target: Target) -> Target:
    return replace(target, l2=1 << 40, l3=1 << 40)


def norm(rows: int | str, columns: int, dtype: str = "f32") -> Graph:
    x, b = ops.input("x", dtype, (as_dim(rows), columns)), ops.input("b", dtype, (columns,))
    y = ops.tanh(x * b) + x
    y = y - ops.mean(y, axis=1, keepdims=True)
    return Graph("norm", (x, b), {"y": y, "mask": y > 0})


def run(graph: Graph, target: Target, threads: int = 1) -> dict[str, np.ndarray]:
    lowered = lower_graph(graph, target=target)
    session = Session(Artifact(lowered.plan, assemble(lowered.module, target)), {}, threads)
    random = np.random.default_rng(0)
    data = {}
    for n in graph.inputs:
        values = random.normal(size=1 + np.prod(n.shape)).astype(n.dtype.numpy)
        data[n.attrs["id"]] = values[1:].reshape(n.shape)  # as users have them: not aligned
    return session(data)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("columns", [16, 1000, 4099])
@pytest.mark.parametrize("threads", [1, 3])
def test_streams_change_no_bit(dtype: str, columns: int, threads: int) -> None:
    graph = norm(33, columns, dtype)
    found, expected = (run(graph, t(host()), threads) for t in (small, large))
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_whole_lines_alone_are_written_past_the_caches() -> None:
    target = small(preset("avx512"))
    assert PAST in lower_graph(norm(64, 256), target=target).module
    assert "vmovntps" in assembly(lower_graph(norm(64, 256), target=target).module, target)
    odd = lower_graph(norm(64, 250), target=target).module  # rows begin anywhere
    unknown = lower_graph(norm("batch", 256), target=target).module  # may fit the cache
    cached = lower_graph(norm(64, 256), target=large(target)).module
    for module in (odd, unknown, cached):
        assert PAST not in module


def test_what_is_read_again_is_not_written_past_the_caches() -> None:
    x = ops.input("x", "f32", (64, 256))
    total = ops.sum(x, axis=0)
    module = lower_graph(Graph("sums", (x,), {"y": total * 2}), target=small(host())).module
    assert PAST not in module


def test_a_loop_with_much_arithmetic_reads_ahead() -> None:
    target = preset("avx512")
    assert AHEAD in lower_graph(norm(64, 256), target=small(target)).module
    assert AHEAD in lower_graph(norm("batch", 8192), target=target).module
    assert AHEAD not in lower_graph(norm(64, 256), target=target).module
    x = ops.input("x", "f32", (64, 256))
    light = Graph("light", (x,), {"y": x + 1})
    assert AHEAD not in lower_graph(light, target=small(target)).module


@pytest.mark.parametrize("name", ["avx512", "avx2", "sse", "neon"])
def test_every_target_has_code_for_streams(name: str) -> None:
    target = small(preset(name))
    assert assembly(lower_graph(norm(64, 256), target=target).module, target)


@pytest.mark.parametrize("columns", [7, 16, 21])
def test_steps_of_a_loop_over_time_may_begin_anywhere(columns, monkeypatch) -> None:
    """A slice of a sequence is a buffer of its own to the kernels inside."""
    target = small(host())
    monkeypatch.setattr(pipeline, "host", lambda: target)

    def steps(xs):
        def step(carried, x):
            return (carried[0] + x[0],), (nnc.tanh(carried[0] * x[0]),)

        return nnc.scan(step, [xs[:, 0]], [xs])[1][0]

    xs = np.random.default_rng(0).normal(size=(3, 5, columns)).astype(np.float32)
    h, expected = xs[:, 0], []
    for x in xs.swapaxes(0, 1):
        expected.append(np.tanh(h * x))
        h = h + x
    found = nnc.jit(steps, options=nnc.Options(cache=False))(xs)
    np.testing.assert_allclose(found, np.stack(expected, 1), rtol=1e-5, atol=1e-6)


def convolution(size: int) -> Graph:
    x, w = ops.input("x", "f32", ("batch", 64, size, size)), ops.input("w", "f32", (64, 64, 3, 3))
    padded = ops.pad(x, (0, 0, 1, 1), (0, 0, 1, 1))
    y = ops.contract(ops.window(padded, (2, 3), (3, 3)), w, "abcdef,gbef->agcd")
    return Graph("convolution", (x, w), {"y": y})


def test_weights_that_few_tiles_read_are_asked_for_ahead() -> None:
    """Of images of 8 x 8, not of 16 x 16, where products take longer than the weights' way."""
    few, many = (lower_graph(convolution(n), target=small(preset("avx512"))) for n in (8, 16))
    assert AHEAD in few.module
    assert AHEAD not in many.module
    assert AHEAD not in lower_graph(convolution(8), target=large(preset("avx512"))).module
