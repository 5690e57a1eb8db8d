"""Takes hypothesis choices, gives random graphs with data: maps, views, reductions, products...

Values are chosen so that every stage must agree: inputs are small multiples of 1/4, and what has
kinks or jumps (relu, floor, comparison, argmax) is applied to values that are exact in any order of
evaluation only. Each value carries the bound that this needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ir import ops
from ir.graph import Graph, Node
from ir.types import DType, Extent, Shape, bind_dim, f32, f64, i32
from nncompiler.autodiff import differentiate

Array = np.ndarray[Any, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]

BATCHES = (1, 3, 17)
EXTENTS = (1, 2, 3, 4, 5, 7, 8, 16, 17, 33)
LARGEST = 40.0  # larger values are squashed, so that errors stay comparable


@dataclass(frozen=True)
class Value:
    """A node, a bound on its absolute value, and the grid its values lie on (0: not exact)."""

    node: Node
    bound: float
    grid: float

    @property
    def exact(self) -> bool:
        return self.grid > 0 and self.bound / self.grid < 2**20


@dataclass
class Builder:
    """Grows a graph by one random operation at a time."""

    draw: Draw
    dtype: DType
    batch: Extent | int
    smooth: bool
    inputs: list[Node] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    nested: bool = False  # grows the step of a scan

    def input(self, shape: Shape, dtype: DType | None = None) -> Value:
        node = ops.input(f"in{len(self.inputs)}", dtype or self.dtype, shape)
        self.inputs.append(node)
        return Value(node, 2.0, 0.25)

    def pick(self, accept: Callable[[Value], bool] = lambda v: True) -> Value:
        """One of the values so far, later ones first; a fresh input where none will do."""
        fitting = [v for v in reversed(self.values) if accept(v)]
        if not fitting:
            shape = (self.batch, *self.draw(st.lists(st.sampled_from(EXTENTS[:7]), max_size=2)))
            value = self.input(shape)
            return value if accept(value) else self.input((*shape, 3))
        return fitting[min(self.draw(st.integers(0, len(fitting) - 1)), len(fitting) - 1)]

    def grow(self) -> None:
        kinds = [unary, unary, binary, binary, view, view, reduction, contraction, gather, scatter]
        if not self.nested:
            kinds += [recurrence]
        if not self.smooth:
            kinds += [kinked, kinked, compared, composite]
        value = self.draw(st.sampled_from(kinds))(self)
        if value.bound > LARGEST and not value.exact:
            value = Value(ops.tanh(value.node), 1.0, 0.0)
        self.values.append(value)


# --------------------------------------------------------------------------- maps

UNARY: Mapping[str, Callable[[Node], Node]] = {
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "sin": ops.sin,
    "cos": ops.cos,
    "erf": ops.erf,
    "exp": lambda x: ops.exp(ops.tanh(x)),
    "log": lambda x: ops.log(x * x + 1),
    "log1p": lambda x: ops.log1p(x * x),
    "sqrt": lambda x: ops.sqrt(x * x + 1),
    "rsqrt": lambda x: ops.rsqrt(x * x + 1),
    "expm1": lambda x: ops.expm1(ops.sin(x)),
    "reciprocal": lambda x: 1 / (x * x + 2),
    "pow": lambda x: ops.pow(x * x + 1, 0.3),
}


def unary(b: Builder) -> Value:
    name = b.draw(st.sampled_from([*UNARY, "neg"]))
    x = b.pick()
    if name == "neg":
        return Value(-x.node, x.bound, x.grid)
    bound = {"sqrt": x.bound + 1, "pow": x.bound + 1, "log": 10.0, "log1p": 10.0}.get(name, 3.0)
    return Value(UNARY[name](x.node), bound, 0.0)


def kinked(b: Builder) -> Value:
    name = b.draw(st.sampled_from(["abs", "relu", "floor", "ceil", "round", "sign"]))
    x = b.pick(lambda v: v.exact)
    whole = name in ("floor", "ceil", "round", "sign")
    return Value(getattr(ops, name)(x.node), x.bound + 1, 1.0 if whole else x.grid)


def binary(b: Builder) -> Value:
    x = b.pick()
    y = b.draw(st.sampled_from(["number", "value", "value"]))
    other = _number(b) if y == "number" else b.pick(lambda v: _fits(x.node.shape, v.node.shape))
    name = b.draw(st.sampled_from(["add", "sub", "mul", "maximum", "minimum"]))
    if b.smooth and name in ("maximum", "minimum"):
        name = "mul"
    node = getattr(ops, name)(x.node, other.node)
    grid = min(x.grid, other.grid)
    if name == "mul":
        return Value(node, x.bound * other.bound, x.grid * other.grid)
    if name in ("maximum", "minimum"):
        return Value(node, max(x.bound, other.bound), grid)
    return Value(node, x.bound + other.bound, grid)


def _number(b: Builder) -> Value:
    number = b.draw(st.integers(-6, 6)) / 2
    return Value(ops.constant(number, b.dtype), abs(number), 0.5)


def _fits(a: Shape, b: Shape) -> bool:
    """Do the shapes broadcast with each other, by NumPy's rules, to not much more than either?"""
    pairs = zip(reversed(a), reversed(b), strict=False)
    if not all(x == y or x == 1 or y == 1 for x, y in pairs):
        return False
    longer = a if len(a) >= len(b) else b
    shorter = b if len(a) >= len(b) else a
    if len(longer) > len(shorter) and shorter and isinstance(shorter[0], Extent):
        return False
    return not (len(a) == len(b) and _symbolic(a) != _symbolic(b) and 1 not in (a[0], b[0]))


def _symbolic(shape: Shape) -> bool:
    return bool(shape) and isinstance(shape[0], Extent)


def compared(b: Builder) -> Value:
    x = b.pick(lambda v: v.exact)
    y = b.pick(lambda v: v.exact and v.node.shape == x.node.shape)
    if y.node.shape != x.node.shape:
        y = Value(ops.full_like(x.node, 0.5), 1.0, 0.5)
    name = b.draw(st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"]))
    condition = getattr(ops, name)(x.node, y.node)
    if b.draw(st.booleans()):
        return Value(ops.cast(condition, b.dtype), 1.0, 1.0)
    z = b.pick(lambda v: v.node.shape == x.node.shape)
    other = z if z.node.shape == x.node.shape else y
    node = ops.where(condition, x.node, other.node)
    return Value(node, max(x.bound, other.bound), min(x.grid, other.grid))


# --------------------------------------------------------------------------- views


def view(b: Builder) -> Value:
    x = b.pick(lambda v: len(v.node.shape) >= 1)
    names = ["new axis", "reshape", "transpose", "slice", "pad", "flip", "concatenate"]
    node = VIEWS[b.draw(st.sampled_from(names))](b, x.node)
    return Value(node, x.bound, min(x.grid, 0.25))


def _static_axis(b: Builder, x: Node) -> int | None:
    axes = [i for i, d in enumerate(x.shape) if isinstance(d, int) and d > 0]
    return b.draw(st.sampled_from(axes)) if axes else None


def _reshape(b: Builder, x: Node) -> Node:
    if x.ndim >= 2 and b.draw(st.booleans()):  # merge two neighbours
        axis = b.draw(st.integers(0, x.ndim - 2))
        merged = x.shape[axis] * x.shape[axis + 1]  # type: ignore[operator]
        return ops.reshape(x, (*x.shape[:axis], merged, *x.shape[axis + 2 :]))
    axis = _static_axis(b, x)
    if axis is None:
        return x
    extent = x.shape[axis]
    assert isinstance(extent, int)
    first = b.draw(st.sampled_from([k for k in range(1, extent + 1) if extent % k == 0]))
    return ops.reshape(x, (*x.shape[:axis], first, extent // first, *x.shape[axis + 1 :]))


def _transpose(b: Builder, x: Node) -> Node:
    fixed = [0] if _symbolic(x.shape) else []
    rest = b.draw(st.permutations(range(len(fixed), x.ndim)))
    return ops.transpose(x, (*fixed, *rest))


def _slice(b: Builder, x: Node) -> Node:
    axis = _static_axis(b, x)
    if axis is None:
        return x
    extent = x.shape[axis]
    assert isinstance(extent, int)
    start = b.draw(st.integers(0, extent - 1))
    stop = b.draw(st.integers(start + 1, extent))
    step = b.draw(st.integers(1, 3))
    key = [slice(None)] * x.ndim
    key[axis] = slice(start, stop, step)
    return x[tuple(key)]


def _pad(b: Builder, x: Node) -> Node:
    axis = _static_axis(b, x)
    if axis is None:
        return x
    low, high = [0] * x.ndim, [0] * x.ndim
    low[axis], high[axis] = b.draw(st.integers(0, 2)), b.draw(st.integers(0, 3))
    return ops.pad(x, tuple(low), tuple(high), b.draw(st.sampled_from([0.0, -1.5])))


def _flip(b: Builder, x: Node) -> Node:
    axis = _static_axis(b, x)
    return x if axis is None else ops.flip(x, (axis,))


def _concatenate(b: Builder, x: Node) -> Node:
    axis = _static_axis(b, x)
    if axis is None:
        return x
    other = b.pick(
        lambda v: (
            v.node.ndim == x.ndim
            and all(i == axis or d == x.shape[i] for i, d in enumerate(v.node.shape))
        )
    )
    parts = [x, other.node if _joins(x, other.node, axis) else x * 2]
    return ops.concatenate(parts, axis)


def _joins(x: Node, y: Node, axis: int) -> bool:
    """May the values stand one behind the other along a static axis?"""
    return y.ndim == x.ndim and all(
        isinstance(d, int) if i == axis else d == x.shape[i] for i, d in enumerate(y.shape)
    )


def _new_axis(b: Builder, x: Node) -> Node:
    x = ops.reshape(x, (*x.shape, 1))
    return ops.broadcast_to(x, (*x.shape[:-1], b.draw(st.sampled_from((1, 2, 5)))))


VIEWS: Mapping[str, Callable[[Builder, Node], Node]] = {
    "new axis": _new_axis,
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "pad": _pad,
    "flip": _flip,
    "concatenate": _concatenate,
}

# --------------------------------------------------------------------------- the rest


def reduction(b: Builder) -> Value:
    x = b.pick(lambda v: len(v.node.shape) >= 1)
    names = ["sum", "sum", "mean", "softmax", "logsumexp"]
    name = b.draw(st.sampled_from(names if b.smooth else [*names, "max", "min"]))
    axis = b.draw(st.integers(0, x.node.ndim - 1))
    keepdims = b.draw(st.booleans())
    if name in ("softmax", "logsumexp"):
        axis = x.node.ndim - 1
    if name == "softmax":
        return Value(ops.softmax(x.node, axis), 1.0, 0.0)
    node = getattr(ops, name)(x.node, axis, keepdims)
    if name in ("max", "min"):
        return Value(node, x.bound, x.grid)
    if name == "sum":
        extent = x.node.shape[axis]
        count = max(BATCHES) * extent.coefficient if isinstance(extent, Extent) else extent
        return Value(node, x.bound * max(1, count), x.grid)
    return Value(node, x.bound + 5, 0.0)


def composite(b: Builder) -> Value:
    x = b.pick(lambda v: v.exact and len(v.node.shape) >= 1)
    name = b.draw(st.sampled_from(["argmax", "argmin"]))
    axis = x.node.ndim - 1
    if x.node.shape[axis] == 0:
        return x
    return Value(ops.cast(getattr(ops, name)(x.node, axis), b.dtype), 40.0, 1.0)


def contraction(b: Builder) -> Value:
    x = b.pick(lambda v: len(v.node.shape) >= 2)
    n = b.draw(st.sampled_from(EXTENTS))
    k = x.node.shape[-1]
    if x.node.ndim == 2 and b.draw(st.booleans()):  # the weight gradient: sum over the rows
        y = b.input((x.node.shape[0], n))
        return _contracted(x, y, ops.einsum("rk,rn->kn", x.node, y.node), x.node.shape[0])
    if x.node.ndim == 2 and b.draw(st.booleans()):
        w = b.input((n, k))
        return _contracted(x, w, ops.einsum("rk,nk->rn", x.node, w.node), k)
    w = b.input((k, n))
    return _contracted(x, w, ops.matmul(x.node, w.node), k)


def _contracted(x: Value, y: Value, node: Node, extent: Any) -> Value:
    count = max(BATCHES) * extent.coefficient if isinstance(extent, Extent) else extent
    return Value(node, x.bound * y.bound * max(1, count), x.grid * y.grid)


def gather(b: Builder) -> Value:
    x = b.pick(lambda v: bool(v.node.shape) and isinstance(v.node.shape[0], int))
    if not (x.node.shape and isinstance(x.node.shape[0], int)) or not x.node.shape[0]:
        x = b.input((5, 3))
    indices = b.input((b.batch,), i32)
    return Value(ops.gather(x.node, indices.node), x.bound, x.grid)


def scatter(b: Builder) -> Value:
    x = b.pick(lambda v: len(v.node.shape) >= 1)
    indices = b.input((x.node.shape[0],), i32)
    extent = x.node.shape[0]
    count = max(BATCHES) * extent.coefficient if isinstance(extent, Extent) else extent
    form = b.draw(st.sampled_from(["add", "onto", "set", "latest"]))
    if form == "latest":
        return Value(ops.latest(x.node, indices.node, 4), x.bound, x.grid)
    if form == "set":
        base = b.input((4, *(int(d) for d in x.node.shape[1:])))
        return Value(ops.scatter_set(base.node, x.node, indices.node), base.bound + x.bound, 0.0)
    total = ops.scatter_add(x.node, indices.node, 4)
    if form == "onto":
        base = b.input(tuple(int(d) for d in total.shape))
        total = base.node + 0.5 * total  # becomes a scatter_onto
        return Value(total, base.bound + x.bound * max(1, count), 0.0)
    return Value(total, x.bound * max(1, count), x.grid)


def recurrence(b: Builder) -> Value:
    """A scan with a random step, which may read what the graph around it reads."""
    shape = (b.batch, b.draw(st.sampled_from(EXTENTS[:7])))
    start = b.pick(lambda v: v.node.shape == shape)
    if start.node.shape != shape:
        start = b.input(shape)
    sequence = b.pick(lambda v: v.node.ndim >= 2 and v.node.shape[0] == b.batch)
    if not (sequence.node.ndim >= 2 and sequence.node.shape[1] != 0):
        sequence = b.input((b.batch, 3, 2))
    count = b.draw(st.integers(1, 4))
    every = b.draw(st.booleans())

    def step(carried: tuple[Node, ...], now: tuple[Node, ...]) -> Any:
        inner = Builder(b.draw, b.dtype, b.batch, True, b.inputs, nested=True)
        inner.values = [Value(now[0], sequence.bound, 0.0), Value(carried[0], 2.0, 0.0)]
        for _ in range(count):
            inner.grow()
        last = inner.values[-1].node
        new = next((v.node for v in reversed(inner.values) if v.node.shape == shape), None)
        assert new is not None
        return (ops.tanh(new + carried[0] * 0.5 + 0.1),), (ops.tanh(last),)

    reverse = b.draw(st.booleans())
    (last,), (results,) = ops.scan(step, [start.node], [sequence.node], reverse=reverse)
    return Value(results if every else last, 2.0, 0.0)


# --------------------------------------------------------------------------- whole graphs


@st.composite
def graphs(draw: Draw, *, gradients: bool = False) -> Graph:
    """A graph of up to ten operations, its last values as outputs, with gradients if asked for."""
    dtype = draw(st.sampled_from([f64, f32]))
    batch = draw(st.sampled_from([Extent(1, "batch"), Extent(1, "batch"), 1, 6]))
    b = Builder(draw, dtype, batch, gradients)
    tail = draw(st.lists(st.sampled_from(EXTENTS), max_size=2))
    b.values.append(b.input((batch, *tail)))
    b.values.append(b.input(tuple(tail)))
    for _ in range(draw(st.integers(3, 10))):
        b.grow()
    outputs = {f"out{i}": v.node for i, v in enumerate(b.values[-3:])}
    if gradients:
        total = ops.sum(ops.tanh(b.values[-1].node))
        wrt = [n for n in b.inputs if n.dtype.is_float]
        outputs |= {"loss": total}
        for node, gradient in zip(wrt, differentiate(total, wrt), strict=True):
            outputs[f"grad:{node.attrs['id']}"] = gradient
    names = {v.node: f"v{i}" for i, v in enumerate(b.values)}
    return Graph("random", tuple(b.inputs), outputs, names)


def data_for(graph: Graph, batch: int, seed: int = 0) -> dict[str, Array]:
    """Arrays for the inputs: multiples of 1/4 in -2 .. 2, indices -1 .. 5 (some out of range)."""
    r = np.random.default_rng(seed)
    arrays = {}
    for node in graph.inputs:
        shape = tuple(bind_dim(d, {"batch": batch}) for d in node.shape)
        whole = r.integers(-8, 9, shape) / 4 if node.dtype.is_float else r.integers(-1, 6, shape)
        arrays[str(node.attrs["id"])] = np.asarray(whole, node.dtype.numpy)
    return arrays


def tolerance(graph: Graph) -> float:
    """How far results may differ, relative to the largest value of the output."""
    return 1e-9 if all(n.dtype is not f32 for n in graph.inputs) else 2e-3
