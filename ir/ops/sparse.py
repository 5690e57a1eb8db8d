"""Takes values on the nodes and weights on the edges of any acyclic graph: sweep, pair_sums.

sweep      z[b, n] = sum over the edges m -> n of weight * state[b, m], node after node, where the
           state of a source is x[b, m], that of a node f(z[b, m], extras[b, m]) with its formula f;
           a formula may have the product, min, max, median or maxabs (what is farthest from zero;
           the positive one of two) of these terms for z.
           The result has the states, and the sums, that were asked for: slots 0 .. are states (the
           columns of x first), those behind them are sums
pair_sums  y[e] = sum over b of a[b, left[e]] * b[b, right[e]]

They are closed under differentiation: the adjoint of a sweep is the sweep along the reversed edges
(backpropagation), and the gradient by the weights is pair_sums of states and adjoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from ir.graph import Literal, Node, make
from ir.op import REGISTRY, Lowering, Op, Sample, register
from ir.ops import formula
from ir.ops.core import Array, random_for
from ir.ops.cotangents import Columns, columns_between, parts_of
from ir.ops.indexing import scatter_add
from ir.ops.leaves import constant, input
from ir.ops.pieces import concatenate, pad
from ir.ops.structure import Edges, Structure, check_structure, inside, stretches
from ir.ops.sweeps import attributes, beside, ones, plan, spread, sweep, width_of
from ir.ops.terms import Terms
from ir.types import DType, TensorType, i32

# --------------------------------------------------------------------------- sweep


def _structure(attrs: dict[str, Any]) -> Structure:
    runs, rows, edges, kept = (attrs[k].array for k in ("runs", "rows", "edges", "kept"))
    return Structure(runs, rows, edges, kept, attrs["sources"])


def _sweep_type(weights: TensorType, *rest: TensorType, **attrs: Any) -> TensorType:
    s, formulas = _structure(attrs), attrs["formulas"]
    extras = rest[1:] if s.sources else rest
    if weights.rank != 1 or not weights.dtype.is_float or not rest:
        raise ValueError(f"sweep of weights {weights}: it takes a vector, and values per row")
    if any(t.rank != 2 or t.shape[0] != rest[0].shape[0] for t in rest):
        raise ValueError(f"sweep of {', '.join(map(str, rest))}: all have to have the same rows")
    if any(t.dtype != weights.dtype for t in rest):
        raise ValueError(f"sweep of {weights} and {', '.join(map(str, rest))}")
    if s.sources and rest[0].shape[1] != s.sources:
        raise ValueError(f"sweep of {rest[0]}: its structure has {s.sources} sources")
    check_structure(s, weights.shape[0], len(formulas))
    if any(t.shape[1] != len(s.rows) for t in extras):
        raise ValueError(f"sweep of {len(s.rows)} nodes with {', '.join(map(str, extras))}")
    for text in formulas:
        if formula.arity(text) > len(extras):
            raise ValueError(f"sweep: the formula '{text}' has {len(extras)} arguments")
    lonely = s.formulas[s.rows[s.rows[:, 1] == 0, 0]].tolist()
    if any(formula.combine_of(formulas[kind]) == formula.MEDIAN for kind in lonely):
        raise ValueError("sweep: a node without edges has no median")
    return weights.with_shape((rest[0].shape[0], len(s.kept)))


def _farthest(high: Array, low: Array) -> Array:
    return np.where(high >= -low, high, low)


COMBINE: Mapping[str, Callable[[Array], Array]] = {
    formula.SUM: lambda terms: terms.sum(0, dtype=terms.dtype),
    formula.PRODUCT: lambda terms: terms.prod(0, dtype=terms.dtype),
    formula.MIN: lambda terms: terms.min(0, initial=np.inf),
    formula.MAX: lambda terms: terms.max(0, initial=-np.inf),
    formula.MEDIAN: lambda terms: np.median(terms, 0),
    formula.MAXABS: lambda terms: _farthest(terms.max(0, initial=0.0), terms.min(0, initial=0.0)),
}


def _sweep_evaluate(weights: Array, *rest: Array, **attrs: Any) -> Array:
    s, formulas = _structure(attrs), attrs["formulas"]
    extras = rest[1:] if s.sources else rest
    states = s.sources + len(s.rows)
    size = states + int((s.rows[:, 2] >= 0).sum())
    state = np.zeros((size, rest[0].shape[0]), weights.dtype)
    if s.sources:
        state[: s.sources] = rest[0].T
    kinds, edge = s.formulas, 0
    for column, count, place in s.rows.tolist():
        slots, numbers = s.edges[edge : edge + count].T
        edge += count
        text = formulas[kinds[column]]
        z = COMBINE[formula.combine_of(text)](weights[numbers, None] * state[slots])
        if place >= 0:
            state[states + place] = z
        here = [e[:, column] for e in extras[: formula.arity(text)]]
        state[s.sources + column] = evaluate_formula(text, z, here)
    return np.ascontiguousarray(state[s.kept].T)


def evaluate_formula(text: str, z: Array, extras: Sequence[Array]) -> Array:
    """The formula by NumPy."""

    def operation(op: str, args: list[Array], _: DType) -> Array:
        return REGISTRY[op].evaluate(*args)

    dtype = z.dtype
    return formula.apply(
        text, z, extras, number=lambda v: np.asarray(v, dtype), operation=operation, dtype=i32
    )


def _sweep_vjp(g: Node, y: Node, weights: Node, *rest: Node, **attrs: Any) -> tuple[Any, ...]:
    """The adjoint of a node's sum is cotangent + slope * (cotangent of the state + sum of weight *
    adjoint over the edges that leave): a sweep along the reversed edges. A cotangent of a state is
    a source of it, a term of what is no sum a node between two others, with a slope of its own."""
    s = _structure(attrs)
    x, extras = (rest[0], rest[1:]) if s.sources else (None, rest)
    count, width = len(s.rows), s.sources
    states = width + count
    slots, numbers = s.edges.T.astype(np.int64)
    every, codes = np.arange(states + count), s.codes
    whole = y if np.array_equal(codes, every) else _again(weights, rest, s, attrs["formulas"])
    z = whole[:, states:]
    parts = parts_of(g, codes)
    of_x, of_states = columns_between(parts, 0, width), columns_between(parts, width, states)
    of_sums = _as_matrix(columns_between(parts, states, states + count), states, count)
    given = [z, *extras] if of_sums is None else [z, *extras, of_sums]
    texts = [
        _adjoint(text, len(extras), of_sums is not None, weights.dtype)
        for text in attrs["formulas"]
    ]
    kinds = s.formulas
    pieces = [(texts[kinds[a]], b - a) for a, b in stretches(kinds)]
    terms = Terms.of(s, attrs["formulas"])
    if terms.count:
        slopes = terms.slopes(weights, whole[:, :states], z)
        given = [beside([z, slopes]), *(_widened(v, terms.count) for v in given[1:])]
        pieces.append(("mul z x0", terms.count))
    # a cotangent of a state is a source, whose edges leave it as it is
    start, reached = of_states or (None, np.zeros(0, np.int64))
    sources = len(reached)
    assert isinstance(weights.shape[0], int)
    back = terms.back(weights.shape[0], sources, reached - width)
    lengths = weights
    if terms.count or sources:
        lengths = concatenate([weights, ones(weights.dtype)], 0)
    kept = range(sources, sources + count + terms.count)
    total = sweep(lengths, back, pieces, x=start, extras=given, kept=kept)
    ends = terms.ends
    d_weights = pair_sums(whole[:, :states], total, slots, ends)
    if not np.array_equal(numbers, np.arange(weights.shape[0])):
        d_weights = scatter_add(d_weights, constant(numbers.astype(np.int32)), weights.shape[0])
    result: list[Node | None] = [d_weights]
    if x is not None:
        outer = slots < width
        forth = Edges(ends[outer], slots[outer], numbers[outer])
        by_x = sweep(weights, forth, (("", width),), x=total)
        own_x = _as_matrix(of_x, 0, width)
        result.append(by_x if own_x is None else by_x + own_x)
    own = total[:, :count] if terms.count else total
    if all(_is_offset(text, len(extras), weights.dtype) for text in attrs["formulas"]):
        by_offset = own if of_sums is None else own - of_sums
        return (*result, *(by_offset for _ in extras))
    sums = sweep(lengths, back, pieces, x=start, extras=given)[:, :count]
    return (*result, *(slope * sums for slope in _slopes(z, extras, s, attrs["formulas"])))


def _as_matrix(columns: Columns | None, first: int, count: int) -> Node | None:
    """(batch, count): columns at their codes, of which the first is `first`; None for zeros."""
    if columns is None:
        return None
    x, codes = columns
    if np.array_equal(codes, np.arange(first, first + count)):
        return x
    return spread(x, np.arange(len(codes)), codes - first, count)


def _widened(x: Node, columns: int) -> Node:
    return pad(x, (0, 0), (0, columns))


@cache
def _adjoint(text: str, arity: int, of_sum: bool, dtype: DType) -> str:
    """The formula of the adjoint of a node with that formula; its arguments are the node's sum,
    the node's own arguments, and the cotangent of its sum where there is one."""

    def adjoint(reached: Node, z: Node, *rest: Node) -> Node:
        _, slope, _ = formula.derivative(text, z, rest[:arity])
        reached = reached * slope
        return reached + rest[arity] if of_sum else reached

    return formula.trace(adjoint, extras=1 + arity + of_sum, dtype=dtype)


@cache
def _is_offset(text: str, arity: int, dtype: DType) -> bool:
    """Are the arguments added to the sum, so that they have its derivative?"""
    z, *rest = (input(f"x{i}", dtype, ()) for i in range(1 + arity))
    _, slope, others = formula.derivative(text, z, rest)
    return all(o is slope for o in others)


def _again(weights: Node, rest: Sequence[Node], s: Structure, formulas: tuple[str, ...]) -> Node:
    """The same sweep with all states and all sums."""
    rows = s.rows.copy()
    rows[:, 2] = rows[:, 0]
    every = np.arange(s.sources + 2 * len(rows))
    full = replace(s, rows=rows, kept=every.astype(np.int32))
    return make("sweep", weights, *rest, **attributes(full, formulas))


def _slopes(z: Node, extras: Sequence[Node], s: Structure, formulas: Sequence[str]) -> list[Node]:
    """The derivative of every node's state by each of the extras."""
    found: list[list[Node]] = [[] for _ in extras]
    kinds = s.formulas
    for a, b in stretches(kinds):
        text = formulas[kinds[a]]
        here = [e[:, a:b] for e in extras]
        _, _, by = formula.derivative(text, z[:, a:b], here)
        for slopes, slope in zip(found, by, strict=True):
            slopes.append(slope)
    return [beside(f) for f in found]


def _graph(random: np.random.Generator, width: int, count: int, edges: int) -> Edges:
    """Random edges from lower to higher slots."""
    targets = random.integers(0, count, edges)
    slots = (random.random(edges) * (width + targets)).astype(np.int64)
    keep = slots < width + targets
    return Edges(slots[keep], targets[keep], np.arange(int(keep.sum())))


def _sweep_samples() -> list[Sample]:
    random = random_for("sweep")
    samples = []
    for batch, width, count, edges, kept in (
        (5, 3, 6, 14, 6),
        (17, 2, 9, 30, 3),
        (40, 0, 9, 30, 9),
    ):
        found = _graph(random, width, count, edges)
        formulas = (("tanh z", count // 2), ("add z x0; sigmoid %0", count - count // 2))
        every = width + 2 * count
        codes = random.permutation(every)[:kept] if kept < every else np.arange(every)
        attrs = plan(found, formulas, width, codes)
        arrays = [random.normal(size=len(found.weights))]
        arrays += [random.normal(size=(batch, width))] if width else []
        arrays += [random.normal(size=(batch, count))]
        samples.append(Sample(tuple(arrays), attrs))
    return [*samples, _combined_sample(random)]


def _combined_sample(random: np.random.Generator) -> Sample:
    """Nodes of all ways to combine, each with terms."""
    width, count = 5, 2 * len(formula.COMBINES)
    found = _graph(random, width, count, 50)
    place = np.arange(count)
    slots, targets = np.append(place % width, found.slots), np.append(place, found.targets)
    found = Edges(slots, targets, np.arange(len(slots)))
    texts = [formula.combined(c, t) for c in formula.COMBINES for t in ("", "tanh z")]
    attrs = plan(found, [(t, 1) for t in texts], width, np.arange(width, width + count))
    shapes = ((len(slots),), (18, width), (18, count))
    return Sample(tuple(random.normal(size=shape) for shape in shapes), attrs)


register(
    Op(
        "sweep",
        Lowering.SPARSE,
        _sweep_type,
        _sweep_evaluate,
        _sweep_vjp,
        _sweep_samples,
        doc="weighted sums along the edges of an acyclic graph, node after node",
    )
)


# --------------------------------------------------------------------------- pair_sums


def _pairs_type(a: TensorType, b: TensorType, *, left: Literal, right: Literal) -> TensorType:
    if a.rank != 2 or b.rank != 2 or a.dtype != b.dtype or a.shape[0] != b.shape[0]:
        raise ValueError(f"pair_sums of {a} and {b}: two matrices of the same rows")
    if left.shape != right.shape or len(left.shape) != 1:
        raise ValueError(f"pair_sums of columns {left.shape} and {right.shape}")
    if not (inside(left.array, width_of(a)) and inside(right.array, width_of(b))):
        raise ValueError(f"pair_sums of {a} and {b}: a column does not exist")
    return a.with_shape(left.shape)


def _pairs_evaluate(a: Array, b: Array, *, left: Literal, right: Literal) -> Array:
    return np.asarray((a[:, left.array] * b[:, right.array]).sum(0, dtype=a.dtype))


def _pairs_vjp(
    g: Node, y: Node, a: Node, b: Node, *, left: Literal, right: Literal
) -> tuple[Node, Node]:
    numbers = np.arange(left.shape[0])
    forth = Edges(right.array.astype(np.int64), left.array.astype(np.int64), numbers)
    back = Edges(forth.targets, forth.slots, numbers)
    by_a = sweep(g, forth, (("", width_of(a.type)),), x=b)
    return by_a, sweep(g, back, (("", width_of(b.type)),), x=a)


def _pairs_samples() -> list[Sample]:
    random = random_for("pair_sums")
    return [
        Sample(
            (random.normal(size=(batch, m)), random.normal(size=(batch, n))),
            {
                "left": Literal.of(random.integers(0, m, count), i32),
                "right": Literal.of(random.integers(0, n, count), i32),
            },
        )
        for batch, m, n, count in ((5, 3, 4, 7), (33, 2, 2, 1), (1, 5, 3, 20), (300, 6, 4, 18))
    ]


register(
    Op(
        "pair_sums",
        Lowering.SPARSE,
        _pairs_type,
        _pairs_evaluate,
        _pairs_vjp,
        _pairs_samples,
        doc="sums over the rows of products of two columns, for a list of pairs of columns",
    )
)


def pair_sums(a: Node, b: Node, left: Array, right: Array) -> Node:
    """y[e] = sum over the rows of a[:, left[e]] * b[:, right[e]]."""
    return make("pair_sums", a, b, left=Literal.of(left, i32), right=Literal.of(right, i32))


__all__ = ["Edges", "Structure", "evaluate_formula", "pair_sums", "sweep"]
