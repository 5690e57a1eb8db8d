"""Every op record, compiled, gives what its reference gives: values and derivatives, odd shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ir import ops
from ir.graph import Graph, Node, make
from ir.interpret import run_graph
from ir.op import REGISTRY, Op, Sample
from ir.text_loops import print_kernel
from ir.types import DType, dtype_of, f32, f64
from nncompiler.autodiff import differentiate
from nncompiler.compilation import compile_graph
from nncompiler.options import Options
from nncompiler.pipeline import lower_graph
from runtime.session import Session
from tests.stages import stages

RECORDS = [op for op in REGISTRY.values() if op.name != "input"]
OPTIONS = Options(threads=1, cache=False)


def check(graph: Graph, feed: dict[str, Any], rounding: float) -> None:
    """Compare all outputs with the interpreter; errors are relative to the largest element."""
    expected = run_graph(graph, feed)
    found = Session(compile_graph(graph, options=OPTIONS))(feed)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert found[name].shape == value.shape, name
        if value.dtype.kind != "f":
            np.testing.assert_array_equal(found[name], value, err_msg=name)
            continue
        finite = np.abs(value[np.isfinite(value)])
        scale = float(finite.max()) if finite.size else 0.0
        np.testing.assert_allclose(
            found[name], value, rtol=rounding, atol=rounding * scale, err_msg=name
        )


def add_sample(
    op: Op, number: int, sample: Sample, dtype: DType
) -> tuple[list[Node], dict[str, Node], dict[str, Any]] | None:
    """The inputs, outputs (value and derivatives) and arrays of one sample of a record."""
    arrays = [a.astype(dtype.numpy) if a.dtype == np.float64 else a for a in sample.arrays]
    inputs = [ops.input(f"s{number}_{i}", dtype_of(a), a.shape) for i, a in enumerate(arrays)]
    feed = {n.attrs["id"]: a for n, a in zip(inputs, arrays, strict=True)}
    try:
        y = make(op, *inputs, **sample.attrs)
    except ValueError:
        assert op.name == "bitcast"
        return None
    outputs = {f"y{number}": y}
    wrt = [n for n in inputs if n.dtype.is_float]
    if op.vjp and sample.smooth and y.dtype.is_float and wrt:
        weights = np.random.default_rng(number).normal(size=y.shape)
        gradients = differentiate(y, wrt, ops.constant(weights, y.dtype))
        outputs |= {f"d{number}_{i}": g for i, g in enumerate(gradients)}
    return inputs, outputs, feed


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("op", RECORDS, ids=lambda op: op.name)
def test_compiled_equals_reference(op: Op, dtype: DType) -> None:
    inputs: list[Node] = []
    outputs: dict[str, Node] = {}
    feed: dict[str, Any] = {}
    for number, sample in enumerate(op.samples()):
        parts = add_sample(op, number, sample, dtype)
        if parts is not None:
            inputs += parts[0]
            outputs |= parts[1]
            feed |= parts[2]
    graph = Graph(op.name, tuple(inputs), outputs)
    check(graph, feed, 1e-5 if dtype is f32 else 1e-12)


def test_integer_laws_hold_in_native_code() -> None:
    a = ops.input("a", "i32", (4,))
    b = ops.input("b", "i32", (4,))
    graph = Graph("g", (a, b), {"div": a / b, "shl": a << b, "shr": a >> b, "mul": a * b})
    feed = {"a": np.asarray([7, -7, 5, -(2**31)], np.int32), "b": np.asarray([2, 2, 0, -1], "i4")}
    check(graph, feed, 0)


def test_random_bits_are_those_of_the_reference() -> None:
    counter = ops.input("counter", "u32", ())
    outputs = {
        "bits": ops.random_bits(7, counter, (33, 5)),
        "f32": ops.uniform(7, counter, (33, 5)),
        "f64": ops.uniform(7, counter, (33, 5), f64),
    }
    check(Graph("g", (counter,), outputs), {"counter": np.uint32(3)}, 0)


@pytest.mark.parametrize("batch", [1, 3, 32, 1000])
def test_composites_over_a_symbolic_batch(batch: int) -> None:
    x = ops.input("x", f32, ("batch", 10))
    t = ops.input("t", "i32", ("batch",))
    loss = ops.mean(ops.logsumexp(x, 1) - ops.sum(x * ops.one_hot(t, 10), 1))
    outputs = {
        "softmax": ops.softmax(x),
        "loss": loss,
        "gradient": differentiate(loss, [x])[0],
        "hits": ops.sum(ops.eq(ops.argmax(x, 1), t)),
        "variance": ops.var(x, 0),
        "merged": x.reshape(-1) * 2,
        "columns": x[:, ::-3],
    }
    random = np.random.default_rng(batch)
    feed = {
        "x": random.normal(size=(batch, 10)).astype(np.float32),
        "t": random.integers(0, 10, batch, np.int32),
    }
    check(Graph("g", (x, t), outputs), feed, 1e-5)


def test_random_values_agree_at_every_stage_and_print_briefly() -> None:
    """Threefry uses every value twice on 20 levels: nothing may visit its tree of 2**20 paths."""
    x = ops.input("x", f32, ("batch", 5))
    counter = ops.input("counter", "u32", ())
    y = ops.where(ops.lt(0.5, ops.uniform(7, counter, ("batch", 5))), x * 2, 0.0)
    graph = Graph("dropout", (x, counter), {"y": y})
    feed = {"x": np.ones((3, 5), np.float32), "counter": np.uint32(2)}
    expected = run_graph(graph, feed)["y"]
    for name, run in stages(graph).items():
        np.testing.assert_array_equal(run(feed)["y"], expected, err_msg=name)
    assert all(len(print_kernel(k)) < 5000 for k in lower_graph(graph).kernels)
