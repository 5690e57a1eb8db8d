"""Tests generated from the op records: type, value, first and second derivative, text, sources."""

from __future__ import annotations

import functools
import itertools
import math
import operator
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ir import ops
from ir.graph import Graph, Node, make
from ir.index import Index
from ir.interpret import evaluate, run_nodes
from ir.op import REGISTRY, Lowering, Op, Sample
from ir.ops import formula
from ir.text import parse_graph, print_graph
from ir.types import DType, dtype_of, f32, f64, i32, integer_range
from ir.verify import verify_graph
from nncompiler.autodiff import differentiate

LOOPS = (Lowering.SCAN, Lowering.ITEM)  # have a body instead of samples: see test_scan.py
RECORDS = [op for op in REGISTRY.values() if op.name != "input" and op.lowering not in LOOPS]
CASES = [
    pytest.param(op, sample, id=f"{op.name}-{number}")
    for op in RECORDS
    for number, sample in enumerate(op.samples())
]
SMOOTH = [case for case in CASES if case.values[0].vjp and case.values[1].smooth]


def leaves(sample: Sample, dtype: DType) -> tuple[list[Node], dict[str, Any]]:
    """Input nodes for the sample's arrays, and the arrays; real ones in the given dtype."""
    arrays = [a.astype(dtype.numpy) if a.dtype == np.float64 else a for a in sample.arrays]
    nodes = [ops.input(f"a{i}", dtype_of(a), a.shape) for i, a in enumerate(arrays)]
    return nodes, {f"a{i}": a for i, a in enumerate(arrays)}


def build(op: Op, sample: Sample, dtype: DType) -> tuple[Node, list[Node], dict[str, Any]]:
    nodes, feed = leaves(sample, dtype)
    try:
        return make(op, *nodes, **sample.attrs), nodes, feed
    except ValueError as reason:
        if op.name == "bitcast":
            pytest.skip(str(reason))
        raise


# --------------------------------------------------------------------------- values


def saturate(x: float, low: int, high: int) -> int:
    return 0 if math.isnan(x) else low if x <= low else high if x >= high else int(x)


def python_cast(x: Any, dtype: DType) -> Any:
    if dtype.kind == "bool":
        return bool(x)
    if dtype.is_float:
        with np.errstate(over="ignore"):
            return dtype.numpy.type(x)
    low, high = integer_range(dtype)
    if isinstance(x, float):
        return saturate(x, low, high)
    return (int(x) - low) % 2**dtype.bits + low


SCALAR: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "pow": operator.pow,
    "maximum": max,
    "minimum": min,
    "neg": operator.neg,
    "abs": abs,
    "sign": lambda x: (x > 0) - (x < 0),
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
    "exp": math.exp,
    "log": math.log,
    "log1p": math.log1p,
    "expm1": math.expm1,
    "sqrt": math.sqrt,
    "rsqrt": lambda x: 1 / math.sqrt(x),
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "erf": math.erf,
    "sin": math.sin,
    "cos": math.cos,
    "relu": lambda x: max(x, 0.0),
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "not": lambda x: (not x) if isinstance(x, bool) else ~x,
    "shl": lambda a, b: python_cast(a << b, i32) if b < 32 else 0,
    "shr": lambda a, b: a >> b if b < 32 else 0,
    "where": lambda c, a, b: a if c else b,
    "cast": python_cast,
}
COMBINE: dict[str, tuple[Callable[..., Any], float]] = {
    "sum": (operator.add, 0.0),
    "prod": (operator.mul, 1.0),
    "max": (max, -math.inf),
    "min": (min, math.inf),
    "maxabs": (lambda a, b: max(a, b, key=lambda v: (abs(v), v)), 0.0),
}


def swept(arrays: list[np.ndarray], attrs: Any, result: np.ndarray) -> np.ndarray:
    """The sums of a sweep by recursion over the edges that end at a node."""
    weights, *rest = arrays
    width, edges = attrs["sources"], iter(attrs["edges"].array.tolist())
    rows = attrs["rows"].array.tolist()
    ending = {column: [next(edges) for _ in range(count)] for column, count, _ in rows}
    kinds = np.repeat(*attrs["runs"].array.T)
    kind = {row[0]: attrs["formulas"][k] for row, k in zip(rows, kinds, strict=True)}

    def total(b: int, column: int) -> Any:
        terms = [weights[number] * state(b, slot) for slot, number in ending[column]]
        way = formula.combine_of(kind[column])
        if way == formula.MEDIAN:
            return statistics.median(terms)
        combine, start = COMBINE[way]
        return functools.reduce(combine, terms, start)

    def state(b: int, slot: int) -> Any:
        if slot < width:
            return rest[0][b, slot]
        z, column = total(b, slot - width), slot - width
        body = kind[column].rpartition(":")[2].strip()
        if body in ("", "tanh z"):
            return np.tanh(z) if body else z
        return 1 / (1 + np.exp(-(z + rest[-1][b, column])))

    states = width + len(rows)
    summed = {states + place: column for column, _, place in rows}
    for k, slot in enumerate(attrs["kept"].array.tolist()):
        for b in range(len(result)):
            result[b, k] = state(b, slot) if slot < states else total(b, summed[slot])
    return result


def points(shape: tuple[int, ...]) -> Any:
    return itertools.product(*map(range, shape))


def plain(op: Op, y: Node, arrays: list[np.ndarray], attrs: Any) -> np.ndarray:
    """The value element by element, written without the record's reference."""
    shape = tuple(int(d) for d in y.shape)
    result = np.zeros(shape, y.dtype.numpy)
    match op.lowering, op.name:
        case Lowering.MAP, "bitcast":
            return np.frombuffer(arrays[0].tobytes(), y.dtype.numpy).reshape(shape)
        case Lowering.MAP, name:
            for p in points(shape):
                result[p] = SCALAR[name](*(a[p].item() for a in arrays), **attrs)
        case Lowering.VIEW, _:
            return moved(op, y, arrays, attrs)
        case Lowering.REDUCE, _:
            combine, start = COMBINE[op.combine or ""]
            x = np.moveaxis(arrays[0], attrs["axes"], range(len(attrs["axes"])))
            x = x.reshape(-1, *shape) if x.size else np.zeros((0, *shape))
            for p in points(shape):
                result[p] = functools.reduce(
                    combine, (v.item() for v in x[(slice(None), *p)]), start
                )
        case Lowering.CONTRACT, _:
            left, right, out = ops.parse_spec(attrs["spec"])
            size = dict(zip(left + right, arrays[0].shape + arrays[1].shape, strict=True))
            inner = [c for c in size if c not in out]
            for p in points(tuple(size[c] for c in [*out, *inner])):
                at = dict(zip([*out, *inner], p, strict=True))
                a, b = (
                    arr[tuple(at[c] for c in s)]
                    for arr, s in zip(arrays, (left, right), strict=True)
                )
                result[p[: len(out)]] += a * b
        case Lowering.GATHER, _:
            x, indices = arrays
            for p in points(indices.shape):
                result[p] = x[min(max(indices[p], 0), len(x) - 1)]
        case Lowering.SCATTER, "latest":
            values, indices = arrays
            result += values
            known: dict[int, Any] = {}
            for p in points(indices.shape):
                known[indices[p]] = values[p]
            for p in points(indices.shape):
                if 0 <= indices[p] < attrs["size"]:
                    result[p] = known[indices[p]]
        case Lowering.SCATTER, _:
            *base, updates, indices = arrays
            result += base[0] if base else 0
            for p in points(indices.shape):
                if 0 <= indices[p] < len(result):
                    result[indices[p]] = updates[p] + result[indices[p]] * (op.combine == "sum")
        case Lowering.FOLD, _:
            window, sizes = REGISTRY["window"], arrays[0].shape[len(shape) :]
            given = {k: v for k, v in attrs.items() if k != "extents"} | {"sizes": sizes}
            for p in points(arrays[0].shape):
                (source,) = window.sources(tuple(Index.of(i) for i in p), [y.type], **given)
                result[tuple(i.evaluate({}) for i in source.indices)] += arrays[0][p]
        case Lowering.SPARSE, "sweep":
            return swept(arrays, attrs, result)
        case Lowering.SPARSE, "pair_sums":
            for e, (m, n) in enumerate(zip(attrs["left"].array, attrs["right"].array, strict=True)):
                result[e] = sum(a[m] * b[n] for a, b in zip(*arrays, strict=True))
        case Lowering.LEAF, "constant":
            return np.frombuffer(attrs["value"].data, y.dtype.numpy).reshape(shape)
        case Lowering.LEAF, "iota":
            for p in points(shape):
                result[p] = p[attrs["axis"]]
        case Lowering.LEAF, "extent":
            result[()] = attrs["dim"]
        case _:
            raise AssertionError(f"{op} has no plain value: add one here")
    return result


def moved(op: Op, y: Node, arrays: list[np.ndarray], attrs: Any) -> np.ndarray:
    """A view's value through its index algebra."""
    assert op.sources is not None
    shape = tuple(int(d) for d in y.shape)
    result = np.full(shape, attrs.get("value", 0), y.dtype.numpy)
    types = [n.type for n in y.inputs]
    for p in points(shape):
        for source in op.sources(tuple(Index.of(i) for i in p), types, **attrs):
            if all(g.low <= g.value.evaluate({}) < g.high for g in source.guards):
                result[p] = arrays[source.operand][tuple(i.evaluate({}) for i in source.indices)]
                break
    return result


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize(("op", "sample"), CASES)
def test_value_equals_plain_arithmetic(op: Op, sample: Sample, dtype: DType) -> None:
    y, _, feed = build(op, sample, dtype)
    value = evaluate(y, feed)
    expected = plain(op, y, list(feed.values()), sample.attrs)
    assert value.dtype == y.dtype.numpy
    assert value.shape == tuple(y.shape)
    rounding = 0 if not y.dtype.is_float else 4e-6 if f32 in (dtype, y.dtype) else 1e-12
    np.testing.assert_allclose(value, expected, rtol=rounding, atol=rounding * 30)


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_text_round_trip_gives_the_same_nodes(op: Op, sample: Sample) -> None:
    y, inputs, _ = build(op, sample, f64)
    graph = Graph("g", tuple(inputs), {"y": y}, {y: "result"})
    verify_graph(graph)
    again = parse_graph(print_graph(graph))
    assert again.outputs["y"] is y
    assert again.inputs == graph.inputs
    assert again.names == graph.names


# --------------------------------------------------------------------------- derivatives


def check_derivative(y: Node, wrt: list[Node], feed: dict[str, Any]) -> tuple[Node, ...]:
    """Compare along one random direction with a central difference; gives the derivatives."""
    random = np.random.default_rng(7)
    gradients = differentiate(y, wrt)
    values = run_nodes(gradients, feed)
    for node, gradient in zip(wrt, gradients, strict=True):
        name = node.attrs["id"]
        direction = random.normal(size=feed[name].shape)
        step = 1e-5
        ends = [evaluate(y, {**feed, name: feed[name] + s * direction}) for s in (step, -step)]
        slope = (ends[0] - ends[1]) / (2 * step)
        scale = 1 + np.abs(values[gradient] * direction).sum()
        assert abs(slope - np.sum(values[gradient] * direction)) < 1e-6 * scale
    return gradients


def project(nodes: Any, seed: int) -> Node:
    """A random weighted sum of all elements."""
    random = np.random.default_rng(seed)
    terms = [ops.sum(n * random.normal(size=tuple(n.shape))) for n in nodes]
    return functools.reduce(operator.add, terms)


@pytest.mark.parametrize(("op", "sample"), SMOOTH)
def test_first_and_second_derivative_against_differences(op: Op, sample: Sample) -> None:
    y, inputs, feed = build(op, sample, f64)
    wrt = [n for n in inputs if n.dtype == f64]
    first = check_derivative(project([y], 1), wrt, feed)
    check_derivative(project(first, 2), wrt, feed)


@pytest.mark.parametrize("op", RECORDS, ids=lambda op: op.name)
def test_every_record_has_samples_and_a_description(op: Op) -> None:
    assert op.samples()
    assert op.doc
    assert (op.sources is not None) == (op.lowering is Lowering.VIEW)
    assert (op.combine is not None) == (op.lowering in (Lowering.REDUCE, Lowering.SCATTER))
