"""Laws of simplify: equal values, a normal form that is reached at once, each rule's picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ir import ops
from ir.graph import Graph, Node, make, topological
from ir.interpret import run_graph
from ir.types import Extent, f32, f64, i32, u32
from nncompiler.simplify import apply_rules, simplify

x = ops.input("x", f64, ("batch", 6))
s = ops.input("s", f64, ())
a = ops.input("a", f64, (4, 6))
b = ops.input("b", f64, (6, 5))
c = ops.input("c", f64, (4, 6))
v = ops.input("v", f64, (6,))
i = ops.input("i", i32, (4, 6))
p = ops.input("p", ops.eq(i, i).dtype, (4, 6))
f = ops.input("f", f32, (4, 6))
LEAVES = (x, s, a, b, c, v, i, p, f)


def normal(node: Node) -> Node:
    return simplify(Graph("g", LEAVES, {"y": node})).outputs["y"]


def inputs(seed: int = 0, batch: int = 3) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    values: dict[str, Any] = {}
    for leaf in LEAVES:
        shape = tuple(batch if isinstance(d, Extent) else d for d in leaf.shape)
        value = random.integers(-3, 4, shape)
        wide = random.normal(size=shape) if leaf.dtype.is_float else value
        values[leaf.attrs["id"]] = np.asarray(wide).astype(leaf.dtype.numpy)
    return values


def agree(before: Graph, after: Graph, values: dict[str, Any]) -> None:
    with np.errstate(all="ignore"):
        old, new = run_graph(before, values), run_graph(after, values)
    for name, array in old.items():
        assert new[name].dtype == array.dtype
        np.testing.assert_allclose(new[name], array, rtol=1e-9, atol=1e-9)


rows = ops.broadcast_to(v, (4, 6))


places, taken = i[:, 0], ops.cast(x[:, 0], i32)
added, added2 = ops.scatter_add(c, places, 4), ops.scatter_add(x, taken, 4)


def full(value: float, like: Node = a) -> Node:
    return ops.full_like(like, value)


def rows_of(like: Node) -> Node:
    return ops.broadcast_to(v, like.shape)


PICTURES: list[tuple[str, Node, Node]] = [
    ("double transpose", a.T.T, a),
    ("double negation", ops.neg(-a), a),
    ("add zero", a + 0.0, a),
    ("add zero left", 0.0 + a, a),
    ("sub zero", a - 0.0, a),
    ("zero minus", 0.0 - a, -a),
    ("times one", 1.0 * a, a),
    ("times minus one", a * -1.0, -a),
    ("div one", a / 1.0, a),
    ("div by four", a / 4.0, a * 0.25),
    ("int times zero", i * 0, full(0, i)),
    ("int minus itself", i - i, full(0, i)),
    ("powers of two merge", (a * 2.0) * 4.0, a * 8.0),
    ("ints merge", (i * 3) * 5, i * 15),
    ("ints add up", (i + 3) + 5, i + 8),
    ("constant stands right", 3.0 * a, make("mul", a, full(3.0))),
    ("signs of a product", (-a) * (-c), a * c),
    ("sign leaves a product", (-a) * c, -(a * c)),
    ("add of negative", a + (-c), a - c),
    ("sub of negative", a - (-c), a + c),
    ("negative difference", -(a - c), c - a),
    ("square", a**2, a * a),
    ("cube", a**3, a * a * a),
    ("inverse", ops.pow(a, -1.0), 1.0 / a),
    ("relu twice", ops.relu(ops.relu(a)), ops.relu(a)),
    ("abs of negative", abs(-a), abs(a)),
    ("max of one", ops.maximum(a, a), a),
    ("not not", ~~p, p),
    ("xor itself", p ^ p, ops.full_like(p, False)),
    ("and true", p & True, p),
    ("and false", p & False, ops.full_like(p, False)),
    ("or zero", i | 0, i),
    ("shift by zero", i << 0, i),
    ("where of one", ops.where(p, a, a), a),
    ("where true", ops.where(ops.full_like(p, True), a, c), a),
    ("where not", ops.where(~p, a, c), ops.where(p, c, a)),
    ("cast there and back", ops.cast(ops.cast(f, f64), f32), f),
    ("bitcast back", ops.bitcast(ops.bitcast(f, u32), f32), f),
    ("folding", ops.exp(ops.constant(0.0, f64)) * a, a),
    ("reshape twice", a.reshape(24).reshape(2, 12), a.reshape(2, 12)),
    ("reshape back", a.reshape(24).reshape(4, 6), a),
    ("symbolic reshape back", x.reshape(Extent(6, "batch")).reshape("batch", 6), x),
    ("slice of slice", a[1:4][1:3, ::2], ops.slice_(a, (2, 0), (4, 5), (1, 2))),
    ("slice of concatenate", ops.concatenate([a, c], 1)[:, 6:], c),
    ("pad twice", ops.pad(ops.pad(v, [1], [0]), [1], [2]), ops.pad(v, [2], [2])),
    ("flip twice", ops.flip(ops.flip(a, 0)), ops.flip(a, 1)),
    (
        "nested concatenate",
        ops.concatenate([a, ops.concatenate([c, a], 0)], 0),
        ops.concatenate([a, c, a], 0),
    ),
    ("stop gradient", ops.stop_gradient(a), a),
    ("sum of sum", a.sum(0).sum(0), a.sum()),
    ("sum within rows", a.reshape(2, 2, 6).sum(2).sum(1), a.reshape(2, 2, 6).sum((1, 2))),
    ("sum of transpose", a.T.sum(0), a.sum(1)),
    ("sum of reshape", a.reshape(24).sum(), a.sum()),
    ("sum of length one", a.reshape(4, 1, 6).sum(1), a),
    ("sum of negative", (-a).sum(0), -a.sum(0)),
    ("sum of multiple", (a * s).sum(0), a.sum(0) * s),
    ("sum of rows by one number each", (rows * a).sum(0), a.sum(0) * v),
    ("sum of divided rows", (a / rows).sum(0), a.sum(0) / v),
    ("sum of deviations", (a - ops.mean(a, 0)).sum(0), full(0.0, v)),
    ("sum of symbolic deviations", (x - ops.mean(x, 0)).sum(0), full(0.0, v)),
    (
        "sum of terms with deviations",
        (c - (a - ops.mean(a, 1, keepdims=True)) * full(3.0) + a).sum(1),
        (c + a).sum(1),
    ),
    ("deviations less a value", ((x - ops.mean(x, 0)) * rows_of(x) - x).sum(0), -x.sum(0)),
    ("sum of broadcast", ops.broadcast_to(v, (3, 6)).sum(0), v * 3.0),
    ("symbolic repeats", ops.broadcast_to(v, x.shape).sum(0), v * ops.extent("batch", f64)),
    ("max of broadcast", ops.max(ops.broadcast_to(v, (3, 6)), 0), v),
    ("scalars before broadcast", full(1.0) * s + s, ops.broadcast_to(s + s, (4, 6))),
    ("rows before broadcast", ops.exp(rows), ops.broadcast_to(ops.exp(v), (4, 6))),
    ("transposed operand", c @ a.T, ops.contract(c, a, "ab,cb->ac")),
    ("transposed result", (a @ b).T, ops.contract(a, b, "ab,bc->ca")),
    ("scaled operand", (a * s) @ b, (a @ b) * s),
    ("divided operand", a @ (b / s), (a @ b) / s),
    ("negative operand", (-a) @ b, -(a @ b)),
    ("repeated operand", rows @ b, ops.broadcast_to(v @ b, (4, 5))),
    (
        "outer product",
        ops.outer(v, v),
        make("broadcast", v, shape=(6, 6), axes=(0,)) * ops.broadcast_to(v, (6, 6)),
    ),
    ("known rows", ops.gather(a, np.array([1, 2], np.int32)), a[1:3]),
    ("rows added", a + added, ops.scatter_onto(a, c, places)),
    ("rows subtracted", a - added * s, ops.scatter_onto(a, -(c * s), places)),
    ("two tables", a + (added + added2), ops.scatter_onto(a + added, x, taken)),
]


# What a wrong rule would change: roundings, overflows, NaN.
STAYS = [
    a.sum(1).sum(0),
    a / 3.0,
    a * 0.0,
    a - a,
    added - a,
    (a + 1.0) + added,
    (a * 2.0) * 0.5,
    (a * 3.0) * 5.0,
    ops.cast(ops.cast(a, f32), f64),
    (a - rows).sum(0),
    (a * rows).sum(1),
    (a - ops.broadcast_to(c.sum(0) / 5.0, (4, 6))).sum(0),
    (a - ops.broadcast_to(a.sum(0) / 5.0, (4, 6))).sum(0),
    ops.cast(ops.cast(i, f64), u32),
]


@pytest.mark.parametrize(
    ("before", "after"), [q[1:] for q in PICTURES], ids=[q[0] for q in PICTURES]
)
def test_picture_of_a_rule(before: Node, after: Node) -> None:
    assert normal(before) is normal(after)
    assert apply_rules(normal(after)) is normal(after)
    g = Graph("g", LEAVES, {"y": before})
    agree(g, simplify(g), inputs())


@pytest.mark.parametrize("node", STAYS, ids=range(len(STAYS)))
def test_what_is_not_exact_stays(node: Node) -> None:
    assert normal(node) is node


def test_names_follow_their_node() -> None:
    twice = ops.neg(-(a @ b))
    g = Graph("g", LEAVES, {"y": twice}, {twice: "scores", a.T: "gone"})
    h = simplify(g)
    assert h.names == {a @ b: "scores"}
    assert h.inputs == LEAVES


def test_deep_graphs_need_no_recursion() -> None:
    node = a
    for _ in range(5000):
        node = ops.tanh(node + 0.0)
    assert len(topological([normal(node)])) == 5001


def test_nan_and_infinity_come_through() -> None:
    g = Graph("g", LEAVES, {"y": (0.0 + a * 0.0) * 2.0 * 4.0 - 0.0, "z": ops.maximum(a, a) / 4.0})
    values = inputs()
    values["a"][0, :4] = [np.nan, np.inf, -np.inf, 1e308]
    agree(g, simplify(g), values)


# --------------------------------------------------------------------------- random graphs

Draw = Callable[[Any], Any]


def _axis(draw: Draw, node: Node) -> int:
    return int(draw(st.integers(0, node.ndim - 1)))


def _grow(draw: Draw, pool: list[Node]) -> Node:
    """One more node over the ones that exist."""
    n = draw(st.sampled_from(pool))
    kind = draw(st.sampled_from(["map", "scale", "pair", "view", "reduce", "contract", "constant"]))
    match kind:
        case "map":
            f = draw(st.sampled_from([ops.neg, ops.relu, ops.tanh, ops.abs, _square, _zero]))
            return f(n)  # type: ignore[no-any-return]
        case "scale":
            t = draw(st.sampled_from([s, -s, 2.0, 0.0, 1.0, -1.0, 0.25, 3.0]))
            f = draw(st.sampled_from([ops.mul, ops.add, ops.sub, lambda p, q: ops.mul(q, p)]))
            return f(n, t)  # type: ignore[no-any-return]
        case "pair":
            m = draw(st.sampled_from([m for m in pool if m.shape == n.shape]))
            f = draw(st.sampled_from([ops.add, ops.sub, ops.mul, ops.maximum]))
            return f(n, m)  # type: ignore[no-any-return]
        case "constant":
            return ops.full_like(n, draw(st.sampled_from([0.0, 1.0, -1.0, 2.0, 0.5])))
        case "reduce" if n.ndim:
            f = draw(st.sampled_from([ops.sum, ops.max, ops.min]))
            return f(n, _axis(draw, n), keepdims=draw(st.booleans()))  # type: ignore[no-any-return]
        case "contract" if n.ndim:
            return _contract(draw, n, draw(st.sampled_from([m for m in pool if m.ndim])))
        case "view" if n.ndim:
            return _view(draw, n)
    return ops.broadcast_to(n, (2, *n.shape)) if n.ndim < 3 and not n.type.symbols else n


def _square(n: Node) -> Node:
    return ops.pow(n, 2.0)


def _zero(n: Node) -> Node:
    return n + ops.cast(ops.lt(n, n), n.dtype)


def _contract(draw: Draw, m: Node, n: Node) -> Node:
    left, right = "abcd"[: m.ndim], list("wxyz"[: n.ndim])
    for k, d in enumerate(n.shape):
        for letter, other in zip(left, m.shape, strict=True):
            if d == other and letter not in right and draw(st.booleans()):
                right[k] = letter
                break
    shared = [c for c in left if c in right]
    gone = {c for c in shared if draw(st.booleans())}
    if m.type.symbols and n.type.symbols:
        gone |= {left[0]} if left[0] == right[0] else set()
    out = [c for c in dict.fromkeys([*left, *right]) if c not in gone]
    try:
        return ops.contract(m, n, f"{left},{''.join(right)}->{''.join(out)}")
    except ValueError:
        return m


def _view(draw: Draw, n: Node) -> Node:
    axis = _axis(draw, n)
    dim = n.shape[axis]
    kinds = ["transpose", "reshape", "slice", "pad", "flip", "concatenate", "unit", "repeat"]
    kind = draw(st.sampled_from(kinds))
    if isinstance(dim, Extent):
        return n.reshape(*n.shape, 1)
    match kind:
        case "transpose" if not n.type.symbols:
            return ops.transpose(n, draw(st.permutations(range(n.ndim))))
        case "reshape" if not n.type.symbols:
            return ops.ravel(n)
        case "slice":
            start = draw(st.integers(0, dim))
            stop = draw(st.integers(start, dim))
            return ops.slice_axis(n, axis, start, stop, draw(st.integers(1, 2)))
        case "pad" if dim < 8:
            low = tuple(int(k == axis) for k in range(n.ndim))
            return ops.pad(n, low, low, draw(st.sampled_from([0.0, 2.0])))
        case "flip":
            return ops.flip(n, axis)
        case "concatenate" if dim < 8:
            return ops.concatenate([n, n], axis)
        case "repeat" if not n.type.symbols and n.ndim < 3:
            return ops.broadcast_to(n.reshape(1, *n.shape), (2, *n.shape))
    return n.reshape(*n.shape[:axis], 1, *n.shape[axis:]) if axis and n.ndim < 4 else n


@st.composite
def graphs(draw: Draw) -> Graph:
    pool: list[Node] = [x, s, a, b, c, v]
    for _ in range(draw(st.integers(1, 14))):
        node = _grow(draw, pool)
        if node.ndim <= 4:
            pool.append(node)
    outputs = {f"y{k}": n for k, n in enumerate(pool[-3:])}
    return Graph("random", LEAVES, outputs, {n: f"n{k}" for k, n in enumerate(pool)})


@given(graphs(), st.integers(0, 100))
def test_simplify_keeps_values_and_is_idempotent(g: Graph, seed: int) -> None:
    h = simplify(g)
    agree(g, h, inputs(seed))
    again = simplify(h)
    assert {k: id(n) for k, n in again.outputs.items()} == {k: id(n) for k, n in h.outputs.items()}
    for node in h.nodes:
        assert apply_rules(node) is node
