"""What is cheaper to compute again than to store is in no buffer, and what is written where it is
read last needs no copy."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np

import nncompiler as nnc
from ir import ops
from ir.graph import Graph
from ir.interpret import run_graph
from ir.loops import For
from ir.types import Extent, f32
from nncompiler.compilation import compile_graph
from nncompiler.fuse import fuse
from nncompiler.options import Options
from nncompiler.pipeline import Lowered, lower_graph
from nncompiler.simplify import simplify
from runtime.session import Session


def residual_step() -> Lowered:
    """A training step of two convolutions with batch norms, and a residual connection."""
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 4, 32, 32))
    for name, source in (("one", "x"), ("two", "one.norm")):
        g.add_node(name, op="conv", filters=4, kernel_size=3, padding=1, use_bias=False)
        activation = "relu" if name == "one" else None
        g.add_node(f"{name}.norm", op="batch_norm", activation=activation)
        nx.add_path(g, [source, name, f"{name}.norm"])
    g.add_node("sum", op="add")
    g.add_node("mean", op="global_avg_pool")
    g.add_edges_from([("two.norm", "sum"), ("x", "sum"), ("sum", "mean")])
    step = nnc.compile(g, loss="mse", optimizer=nnc.SGD(0.1)).program("step")
    return lower_graph(step.graph, checks=step.checks)


def test_normalized_values_are_computed_from_the_operand() -> None:
    lowered = residual_step()
    images = {
        b.name
        for k in lowered.kernels
        for b in k.buffers
        if b.written and isinstance(b.size, Extent) and b.size.coefficient == 4 * 32 * 32
    }
    assert {"one", "two"} <= images  # what the convolutions give
    names = {n: lowered.simplified.names.get(n, "") for n in lowered.fusion.inline}
    assert {"one.norm", "two.norm"} & set(names.values())
    # nothing but what the second convolution reads
    assert {n for n in images if "norm" in n and not n.startswith("d_")} == {"one.norm"}


def test_parameters_that_a_pass_reads_are_updated_without_a_copy() -> None:
    labels = [k.label for k in residual_step().kernels]
    assert not [label for label in labels if label.startswith("copy_")]


def test_the_way_back_through_a_normalization_is_two_passes() -> None:
    """The sums of a channel's cotangent, then the results: sums of deviations are zero."""
    functions = [s.function for s in residual_step().scheduled]
    for name in ("d_one", "d_two"):
        (found,) = [f for f in functions if any(b.name == name and b.written for b in f.buffers)]
        (channel,) = found.body
        assert isinstance(channel, For)
        assert sum(isinstance(stmt, For) for stmt in channel.body) == 2


def centred(terms: int) -> Graph:
    """The sum of some values, positive where the first one is, less its mean over a batch."""
    shape = ("batch", 3, 5, 7)
    inputs = tuple(ops.input(f"x{i}", f32, shape) for i in range(terms))
    total = inputs[0]
    for x in inputs[1:]:
        total = total + x
    g = ops.where(ops.lt(0.0, inputs[0]), total, 0.0)
    square = ops.mean(g * g, (0, 2, 3), keepdims=True)
    return Graph("g", inputs, {"y": g * ops.rsqrt(square + 1.0)})


def test_what_takes_many_operands_is_stored_for_the_next_pass() -> None:
    assert not fuse(simplify(centred(2))).again
    (stored,) = fuse(simplify(centred(3))).again
    assert stored.op.name == "where"
    lowered = lower_graph(centred(3))
    (kernel,) = lowered.kernels
    assert len([b for b in kernel.buffers if b.written]) == 2
    random = np.random.default_rng(0)
    feed = {f"x{i}": random.normal(size=(4, 3, 5, 7)).astype(np.float32) for i in range(3)}
    for threads in (1, 2):
        options = Options(threads=threads, cache=False)
        found = Session(compile_graph(centred(3), options=options))(feed)
        expected = run_graph(centred(3), feed)
        np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-5, atol=1e-6)


def test_what_is_small_but_not_kept_with_something_large_is_stored() -> None:
    """A product and its bias: the product has no other reader, so only the sum is stored."""
    x, w = ops.input("x", f32, ("batch", 8, 64)), ops.input("w", f32, (64, 64))
    b = ops.input("b", f32, (64,))
    z = ops.matmul(x, w) + b
    graph = simplify(Graph("g", (x, w, b), {"y": ops.tanh(z) * z}))
    assert not [n for n in fuse(graph).inline if n.op.name == "add"]


def test_padding_of_what_rows_share() -> None:
    """Under a pad, what does not move with the guarded axes is read without its guards."""
    x, s = ops.input("x", f32, ("batch", 3, 7, 19)), ops.input("s", f32, (3,))
    scaled = ops.relu(x * ops.reshape(s, (3, 1, 1)) + 1.0)
    padded = ops.pad(scaled, (0, 0, 1, 2), (0, 0, 3, 1))
    graph = Graph("g", (x, s), {"y": padded, "z": ops.sum(scaled, (0, 2, 3))})
    found = Session(compile_graph(graph, options=Options(threads=1, cache=False)))
    shape = (2, 3, 7, 19)
    values = np.linspace(-3, 3, math.prod(shape), dtype=np.float32).reshape(shape)
    feed = {"x": values, "s": np.array([1.0, -2.0, 0.5], np.float32)}
    for name, expected in run_graph(graph, feed).items():
        np.testing.assert_allclose(found(feed)[name], expected, rtol=1e-5, err_msg=name)


def test_a_pass_may_keep_a_value_and_what_it_was_computed_from() -> None:
    """What was normalized is read again by itself and within the deviation from its mean: neither
    is read before it is there."""
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 8, 7, 6))
    g.add_node("one", op="batch_norm", activation="relu")
    g.add_node("two", op="group_norm", groups=8)
    g.add_node("y", op="mul")
    nx.add_path(g, ["x", "one", "two", "y"])
    g.add_edge("one", "y")
    model = nnc.compile(g, dtype="float64", options=Options(cache=False))
    functions = [s.function for s in lower_graph(model.program("forward").graph).scheduled]
    assert max(sum(b.name.startswith("row") for b in f.scratch) for f in functions) == 2
    x = np.random.default_rng(0).normal(size=(3, 8, 7, 6))
    assert model.compare(x).worst < 1e-12
