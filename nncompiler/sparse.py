"""Takes a node that sums along edges, gives its statement on columns and the tables that it reads.

sweep(w, x, extras; tables)   ->   Sweep i:batch n:nodes   z = sum of w[..] * state[..]
pair_sums(a, b; columns)      ->   PairSums                y[e] = sum of a[i, l] * b[i, r]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ir.graph import Literal, Node, make
from ir.index import Var
from ir.ops import formula
from ir.ops.core import Array
from ir.scalar import Scalar
from ir.sparse_loops import PairSums, Sweep
from ir.types import i32

PAIRS = ("left", "right")
LONGEST = 16  # edges of a node whose sum of one row is written out
MANY = LONGEST + 1  # stands for a longer sum, and the numbers behind it for what is no sum
WAYS = 32


@dataclass(frozen=True)
class Operand:
    """Where a sparse node's values are: how an operand is read over axes, buffers of the tables and
    of the result."""

    read: Callable[[Node, tuple[Var, ...]], Scalar]
    tables: tuple[str, ...]
    outputs: tuple[str, ...]


def tables_of(node: Node) -> tuple[Node, ...]:
    """The constants that hold the structure of a sparse node; for a sweep runs, rows, the slots of
    edges, kept, ways, and numbers of weights unless these are used in order."""
    if node.op.name == "pair_sums":
        return tuple(make("constant", value=node.attrs[name]) for name in PAIRS)
    edges = node.attrs["edges"].array
    slots, numbers = (Literal.of(edges[:, k], i32) for k in range(2))
    ways = Literal.of(_ways(node), i32)
    found = [node.attrs["runs"], node.attrs["rows"], slots, node.attrs["kept"], ways]
    if not np.array_equal(numbers.array, np.arange(len(edges))):
        found.append(numbers)
    return tuple(make("constant", value=value) for value in found)


def _ways(node: Node) -> Array:
    """For every row the number of its formula, times WAYS, plus how its terms are combined: the
    number of edges of a short sum, MANY for a longer one, MANY + n for the n-th other way."""
    edges = np.minimum(node.attrs["rows"].array[:, 1], MANY)
    combines = [formula.COMBINES.index(formula.combine_of(t)) for t in node.attrs["formulas"]]
    kinds, counts = node.attrs["runs"].array.T
    other = np.repeat(np.asarray(combines)[kinds], counts)
    return np.repeat(kinds, counts) * WAYS + np.where(other > 0, MANY + other, edges)


def lower_sparse(node: Node, where: Operand) -> Sweep | PairSums:
    """The statement that computes the node, not yet scheduled."""
    return _sweep(node, where) if node.op.name == "sweep" else _pairs(node, where)


def _sweep(node: Node, where: Operand) -> Sweep:
    weights, *rest = node.inputs
    sources = node.attrs["sources"]
    row, column = Var("i", node.shape[0]), Var("n", node.attrs["rows"].shape[0])
    source, edge = Var("m", sources), Var("e", weights.shape[0])
    extras = rest[1:] if sources else rest
    return Sweep(
        row,
        column,
        source,
        edge,
        where.read(rest[0], (row, source)) if sources else None,
        tuple(where.read(extra, (row, column)) for extra in extras),
        where.read(weights, (edge,)),
        where.tables,
        node.attrs["runs"].shape[0],
        node.attrs["formulas"],
        where.outputs,
        node.attrs["kept"].shape[0],
        int((node.attrs["rows"].array[:, 2] >= 0).sum()),
        int(node.attrs["rows"].array[:, 1].max(initial=0)),
    )


def _pairs(node: Node, where: Operand) -> PairSums:
    a, b = node.inputs
    row, pair = Var("i", a.shape[0]), Var("e", node.shape[0])
    left, right = Var("l", a.shape[1]), Var("r", b.shape[1])
    lefts, rights = where.tables
    return PairSums(
        row,
        left,
        right,
        pair,
        where.read(a, (row, left)),
        where.read(b, (row, right)),
        lefts,
        rights,
        where.outputs,
    )
