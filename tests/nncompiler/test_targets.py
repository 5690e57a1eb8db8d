"""Code for narrower vectors than this machine's computes the same: it is run where it can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ir import ops
from ir.graph import Graph
from ir.interpret import run_graph
from ir.types import as_dim, f32, i64
from nncompiler.autodiff import differentiate
from nncompiler.codegen.llvm import assemble, host
from nncompiler.codegen.target import Target, preset
from nncompiler.frontend.convolution import convolve
from nncompiler.pipeline import lower_graph
from runtime.artifact import Artifact
from runtime.buffers import aligned_copy
from runtime.session import Session

NARROW = ("sse", "avx2", "avx512")


def training_step() -> Graph:
    """A step of gradient descent of a network with a softmax, 33 -> 20 -> 7."""
    x = ops.input("x", f32, (as_dim("batch"), 33))
    labels = ops.input("t", i64, (as_dim("batch"),))
    shapes = {"w0": (33, 20), "b0": (20,), "w1": (20, 7), "b1": (7,)}
    p = {name: ops.input(name, f32, shape) for name, shape in shapes.items()}
    hidden = ops.tanh(x @ p["w0"] + p["b0"])
    scores = ops.log_softmax(hidden @ p["w1"] + p["b1"])
    hit = ops.eq(ops.iota(scores.shape, 1, i64), ops.reshape(labels, (*labels.shape, 1)))
    loss = -ops.sum(ops.where(hit, scores, 0.0)) / ops.extent(as_dim("batch"), f32)
    gradients = differentiate(loss, tuple(p.values()))
    updates = {f"update:{k}": v - 0.1 * g for (k, v), g in zip(p.items(), gradients, strict=True)}
    return Graph("step", (x, labels, *p.values()), {"loss": loss, **updates})


def runnable(name: str) -> Target | None:
    """The preset with this machine's triple, or None where the machine lacks its vectors."""
    here, target = host(), preset(name)
    if not here.is_x86 or here.vector_bits < target.vector_bits:
        return None
    return replace(target, triple=here.triple)


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("batch", [1, 3, 32])
def test_a_training_step_is_the_same_on_every_target(name: str, batch: int) -> None:
    target = runnable(name)
    if target is None:
        pytest.skip(f"this machine does not run {name}")
    graph = training_step()
    lowered = lower_graph(graph, target=target, checks={"t": (0, 7)})
    artifact = Artifact(lowered.plan, assemble(lowered.module, target))
    rng = np.random.default_rng(batch)
    data = {"x": rng.standard_normal((batch, 33), "f4"), "t": rng.integers(0, 7, batch)}
    state = {
        str(n.attrs["id"]): rng.standard_normal([int(str(d)) for d in n.shape], "f4") * 0.3
        for n in graph.inputs[2:]
    }
    expected = run_graph(graph, {**data, **state})
    state = {id: aligned_copy(value) for id, value in state.items()}
    found = Session(artifact, state)(data)
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-5)
    for id, value in state.items():
        np.testing.assert_allclose(value, expected[f"update:{id}"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize(("channels", "extent"), [(3, 21), (17, 6), (20, 34)])
def test_a_strided_gradient_is_the_same_on_every_target(
    name: str, channels: int, extent: int
) -> None:
    """Spots or channels over the lanes, masked and torn ones among them."""
    target = runnable(name)
    if target is None:
        pytest.skip(f"this machine does not run {name}")
    x = ops.input("x", f32, (as_dim("batch"), channels, extent, extent))
    w = ops.input("w", f32, (5, channels, 3, 3))
    y = convolve(x, w, (2, 2), ((1, 1), (1, 1)), (1, 1), 1)
    g = ops.input("g", f32, y.shape)
    dx = differentiate(y, [x], g)[0]
    graph = Graph("dx", (w, g), {"dx": dx, "last": ops.transpose(dx * 2, (0, 2, 3, 1))})
    lowered = lower_graph(graph, target=target)
    artifact = Artifact(lowered.plan, assemble(lowered.module, target))
    rng = np.random.default_rng(1)
    data = {"w": rng.standard_normal((5, channels, 3, 3), "f4")}
    data["g"] = rng.standard_normal((2, *(int(str(d)) for d in y.shape[1:])), "f4")
    expected = run_graph(graph, data)
    for output, value in Session(artifact, {})(data).items():
        np.testing.assert_allclose(value, expected[output], rtol=1e-4, atol=1e-4)
