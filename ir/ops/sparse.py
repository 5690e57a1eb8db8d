"""Takes values on the nodes and weights on the edges of any acyclic graph: sweep, pair_sums.

sweep      z[b, n] = sum over the edges m -> n of weight * state[b, m], node after node, where the
           state of a source is x[b, m], that of a node f(z[b, m], extras[b, m]) with its formula f
pair_sums  y[e] = sum over b of a[b, left[e]] * b[b, right[e]]

They are closed under differentiation: the adjoint of a sweep is the sweep along the reversed edges
(backpropagation), and the gradient by the weights is pair_sums of states and adjoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.graph import Literal, Node, make
from ir.op import REGISTRY, Lowering, Op, Sample, register
from ir.ops import formula
from ir.ops.core import Array, full_like, random_for
from ir.ops.indexing import scatter_add
from ir.ops.leaves import constant
from ir.ops.pieces import concatenate
from ir.types import DType, TensorType, i32

ADJOINT = "mul x1 z; add x0 %0"  # cotangent + slope * (sum over the edges that leave)


@dataclass(frozen=True)
class Structure:
    """The nodes of a sweep in the order in which they are computed, as three i32 tables.

    runs   (number, 2)  formula, how many rows follow that have it
    rows   (nodes, 3)   column of the node, how many edges end there, place in the result or -1
    edges  (edges, 2)   slot of the source (first the columns of x, then those of nodes), weight
    """

    runs: Array
    rows: Array
    edges: Array
    sources: int

    @property
    def targets(self) -> Array:
        """The column at which every edge ends."""
        return np.repeat(self.rows[:, 0], self.rows[:, 1])

    @property
    def formulas(self) -> Array:
        """The formula of every column."""
        result = np.zeros(len(self.rows), np.int64)
        result[self.rows[:, 0]] = np.repeat(self.runs[:, 0], self.runs[:, 1])
        return result

    @property
    def places(self) -> Array:
        """The place of every column in the result, or -1."""
        result = np.full(len(self.rows), -1)
        result[self.rows[:, 0]] = self.rows[:, 2]
        return result

    @staticmethod
    def of(
        sources: Array, targets: Array, weights: Array, formulas: Array, kept: Array, width: int
    ) -> Structure:
        """Sorted by level, formula, number of edges and column; ValueError on a cycle."""
        count = len(formulas)
        inner = sources >= width
        level = _levels(count, sources[inner] - width, targets[inner])
        degree = np.bincount(targets, minlength=count)
        order = np.lexsort((np.arange(count), degree, formulas, level))
        rank = np.empty(count, np.int64)
        rank[order] = np.arange(count)
        place = np.full(count, -1)
        place[kept] = np.arange(len(kept))
        by_row = np.lexsort((weights, sources, rank[targets]))
        starts = np.flatnonzero(np.diff(formulas[order], prepend=-1))
        lengths = np.diff(starts, append=count)
        return Structure(
            np.stack([formulas[order][starts], lengths], 1).astype(np.int32),
            np.stack([order, degree[order], place[order]], 1).astype(np.int32),
            np.stack([sources[by_row], weights[by_row]], 1).astype(np.int32),
            width,
        )


def _levels(count: int, sources: Array, targets: Array) -> Array:
    """Length of the longest path to every node."""
    waiting = np.bincount(targets, minlength=count)
    order = np.argsort(sources, kind="stable")
    following = targets[order]
    starts = np.searchsorted(sources[order], np.arange(count + 1))
    level = np.zeros(count, np.int64)
    ready = np.flatnonzero(waiting == 0)
    depth, done = 0, 0
    while ready.size:
        level[ready] = depth
        depth, done = depth + 1, done + ready.size
        lengths = starts[ready + 1] - starts[ready]
        first = np.repeat(starts[ready] - np.cumsum(lengths) + lengths, lengths)
        reached = following[first + np.arange(lengths.sum())]
        np.subtract.at(waiting, reached, 1)
        ready = np.unique(reached[waiting[reached] == 0])
    if done < count:
        raise ValueError("the edges of a sweep have a cycle")
    return level


# --------------------------------------------------------------------------- sweep


def _structure(attrs: dict[str, Any]) -> Structure:
    runs, rows, edges = (attrs[k].array for k in ("runs", "rows", "edges"))
    return Structure(runs, rows, edges, attrs["sources"])


def _sweep_type(weights: TensorType, *rest: TensorType, **attrs: Any) -> TensorType:
    s, formulas, kept = _structure(attrs), attrs["formulas"], attrs["kept"]
    extras = rest[1:] if s.sources else rest
    if weights.rank != 1 or not weights.dtype.is_float or not rest:
        raise ValueError(f"sweep of weights {weights}: it takes a vector, and values per row")
    if any(t.rank != 2 or t.shape[0] != rest[0].shape[0] for t in rest):
        raise ValueError(f"sweep of {', '.join(map(str, rest))}: all have to have the same rows")
    if any(t.dtype != weights.dtype for t in rest):
        raise ValueError(f"sweep of {weights} and {', '.join(map(str, rest))}")
    if s.sources and rest[0].shape[1] != s.sources:
        raise ValueError(f"sweep of {rest[0]}: its structure has {s.sources} sources")
    _check(s, weights.shape[0], len(formulas), kept)
    if any(t.shape[1] != len(s.rows) for t in extras):
        raise ValueError(f"sweep of {len(s.rows)} nodes with {', '.join(map(str, extras))}")
    for text in formulas:
        if formula.arity(text) > len(extras):
            raise ValueError(f"sweep: the formula '{text}' has {len(extras)} arguments")
    return weights.with_shape((rest[0].shape[0], kept))


def _width(type: TensorType) -> int:
    assert isinstance(type.shape[1], int)
    return type.shape[1]


def _check(s: Structure, weights: Any, formulas: int, kept: int) -> None:
    """ValueError unless every number in the tables is in range and every source comes first."""
    count = len(s.rows)
    position = np.full(s.sources + count, -1)
    sound = bool(np.array_equal(np.sort(s.rows[:, 0]), np.arange(count)))
    sound = sound and int(s.rows[:, 1].sum()) == len(s.edges) and int(s.runs[:, 1].sum()) == count
    sound = sound and _inside(s.runs[:, 0], formulas) and _inside(s.edges[:, 1], weights)
    sound = sound and _inside(s.edges[:, 0], s.sources + count)
    places = s.rows[:, 2][s.rows[:, 2] >= 0]
    if sound and np.array_equal(np.sort(places), np.arange(kept)):
        position[s.sources + s.rows[:, 0]] = np.arange(count)
        at = np.repeat(np.arange(count), s.rows[:, 1])
        if np.all(position[s.edges[:, 0]] < at):
            return
    raise ValueError("sweep: the tables of its structure do not fit together")


def _inside(numbers: Array, size: int) -> bool:
    return bool(np.all((numbers >= 0) & (numbers < size)))


def _sweep_evaluate(weights: Array, *rest: Array, **attrs: Any) -> Array:
    s, formulas = _structure(attrs), attrs["formulas"]
    extras = rest[1:] if s.sources else rest
    state = np.zeros((s.sources + len(s.rows), rest[0].shape[0]), weights.dtype)
    if s.sources:
        state[: s.sources] = rest[0].T
    result = np.zeros((rest[0].shape[0], attrs["kept"]), weights.dtype)
    kinds, edge = s.formulas, 0
    for column, count, place in s.rows.tolist():
        slots, numbers = s.edges[edge : edge + count].T
        edge += count
        z = (weights[numbers, None] * state[slots]).sum(0, dtype=weights.dtype)
        if place >= 0:
            result[:, place] = z
        text = formulas[kinds[column]]
        here = [e[:, column] for e in extras[: formula.arity(text)]]
        state[s.sources + column] = evaluate_formula(text, z, here)
    return result


def evaluate_formula(text: str, z: Array, extras: Sequence[Array]) -> Array:
    """The formula by NumPy."""

    def operation(op: str, args: list[Array], _: DType) -> Array:
        return REGISTRY[op].evaluate(*args)

    dtype = z.dtype
    return formula.apply(
        text, z, extras, number=lambda v: np.asarray(v, dtype), operation=operation, dtype=i32
    )


def _sweep_vjp(g: Node, y: Node, weights: Node, *rest: Node, **attrs: Any) -> tuple[Any, ...]:
    s = _structure(attrs)
    x, extras = (rest[0], rest[1:]) if s.sources else (None, rest)
    count, targets = len(s.rows), s.targets
    slots, numbers = s.edges.T.astype(np.int64)
    z = y
    if not np.array_equal(s.places, np.arange(count)):
        z = _again(weights, rest, s, attrs)
        g = _spread(g, s.places)
    states, slopes, by_extras = _pointwise(z, extras, s, attrs["formulas"])
    inner = slots >= s.sources
    back = sweep(
        weights,
        Edges(targets[inner], slots[inner] - s.sources, numbers[inner]),
        ((ADJOINT, count),),
        extras=(g, slopes),
    )
    total = g + slopes * back
    values = states if x is None else concatenate([x, states], 1)
    products = pair_sums(values, total, slots, targets)
    d_weights = products
    if not np.array_equal(numbers, np.arange(weights.shape[0])):  # type: ignore[arg-type]
        d_weights = scatter_add(products, constant(numbers.astype(np.int32)), weights.shape[0])
    result: list[Node | None] = [d_weights]
    if x is not None:
        outer = Edges(targets[~inner], slots[~inner], numbers[~inner])
        result.append(sweep(weights, outer, (("", s.sources),), x=total))
    return (*result, *(slope * back for slope in by_extras))


def _again(weights: Node, rest: Sequence[Node], s: Structure, attrs: dict[str, Any]) -> Node:
    """The same sweep with the result of every node."""
    rows = s.rows.copy()
    rows[:, 2] = rows[:, 0]
    full = {**attrs, "rows": Literal.of(rows, i32), "kept": len(rows)}
    return make("sweep", weights, *rest, **full)


def _spread(g: Node, places: Array) -> Node:
    """The cotangent of every column, from that of the columns in the result; zeros elsewhere."""
    parts: list[Node] = []
    for a, b in _stretches(np.where(places < 0, -(1 << 40), places - np.arange(len(places)))):
        if places[a] < 0:
            parts.append(full_like(g[:, :1], 0.0) if b - a == 1 else _zeros(g, b - a))
        else:
            parts.append(g[:, int(places[a]) : int(places[a]) + b - a])
    return _joined(parts)


def _zeros(like: Node, width: int) -> Node:
    zero = constant(0.0, like.dtype)
    return make("broadcast", zero, shape=(like.shape[0], width), axes=())


def _stretches(values: Array) -> list[tuple[int, int]]:
    """(first, end) of every stretch of equal values."""
    starts = np.flatnonzero(np.diff(values, prepend=values[:1] - 1)).tolist()
    return list(zip(starts, [*starts[1:], len(values)], strict=True))


def _joined(parts: Sequence[Node]) -> Node:
    return parts[0] if len(parts) == 1 else concatenate(parts, 1)


def _pointwise(
    z: Node, extras: Sequence[Node], s: Structure, formulas: Sequence[str]
) -> tuple[Node, Node, list[Node]]:
    """State of every node, its derivative by z, and those by the extras."""
    states: list[Node] = []
    slopes: list[Node] = []
    others: list[list[Node]] = [[] for _ in extras]
    kinds = s.formulas
    for a, b in _stretches(kinds):
        text = formulas[kinds[a]]
        here = [e[:, a:b] for e in extras[: formula.arity(text)]]
        state, slope, by = formula.derivative(text, z[:, a:b], here)
        states.append(state)
        slopes.append(slope)
        for number, found in enumerate(others):
            found.append(by[number] if number < len(by) else _zeros(z, b - a))
    return _joined(states), _joined(slopes), [_joined(o) for o in others]


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
        columns = random.permutation(count)[:kept] if kept < count else np.arange(count)
        attrs = _attributes(found, formulas, width, columns.tolist())
        arrays = [random.normal(size=len(found.weights))]
        arrays += [random.normal(size=(batch, width))] if width else []
        arrays += [random.normal(size=(batch, count))]
        samples.append(Sample(tuple(arrays), attrs))
    return samples


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


@dataclass(frozen=True)
class Edges:
    """Edges of a sweep: slots of their sources, nodes at which they end, numbers of weights."""

    slots: Array
    targets: Array
    weights: Array


Formulas = Sequence[tuple[str, int]]


def _attributes(
    edges: Edges, formulas: Formulas, width: int, kept: Sequence[int]
) -> dict[str, Any]:
    texts = tuple(dict.fromkeys(text for text, _ in formulas))
    kinds = np.repeat([texts.index(text) for text, _ in formulas], [n for _, n in formulas])
    columns = np.asarray(kept, np.int64)
    s = Structure.of(edges.slots, edges.targets, edges.weights, kinds, columns, width)
    return {
        "runs": Literal.of(s.runs, i32),
        "rows": Literal.of(s.rows, i32),
        "edges": Literal.of(s.edges, i32),
        "formulas": texts,
        "sources": width,
        "kept": len(columns),
    }


def sweep(
    weights: Node,
    edges: Edges,
    formulas: Formulas,
    *,
    x: Node | None = None,
    extras: Sequence[Node] = (),
    kept: Sequence[int] | None = None,
) -> Node:
    """(batch, kept) sums z of nodes; `formulas` lists (text, number of nodes) in their order.

    `x` is (batch, sources), each of `extras` (batch, nodes): the arguments x0, x1 ... of formulas.
    """
    count = sum(n for _, n in formulas)
    columns = range(count) if kept is None else kept
    width = 0 if x is None else _width(x.type)
    attrs = _attributes(edges, formulas, width, list(columns))
    return make("sweep", weights, *(() if x is None else (x,)), *extras, **attrs)


# --------------------------------------------------------------------------- pair_sums


def _pairs_type(a: TensorType, b: TensorType, *, left: Literal, right: Literal) -> TensorType:
    if a.rank != 2 or b.rank != 2 or a.dtype != b.dtype or a.shape[0] != b.shape[0]:
        raise ValueError(f"pair_sums of {a} and {b}: two matrices of the same rows")
    if left.shape != right.shape or len(left.shape) != 1:
        raise ValueError(f"pair_sums of columns {left.shape} and {right.shape}")
    if not (_inside(left.array, _width(a)) and _inside(right.array, _width(b))):
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
    by_a = sweep(g, forth, (("", _width(a.type)),), x=b)
    return by_a, sweep(g, back, (("", _width(b.type)),), x=a)


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
