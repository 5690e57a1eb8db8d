"""Takes the nodes of a sweep that are no sums, gives their terms and the slopes of these.

A node whose z is the product, min, max, median or maxabs of its terms weight * state has another
slope by each of them. In the sweep along the reversed edges a term is therefore a node of its own:

    node  --1-->  term: slope * adjoint of the node  --weight-->  source
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ir.graph import Node
from ir.ops import formula
from ir.ops.core import Array
from ir.ops.elementwise import cast, eq, ge, le, where
from ir.ops.structure import Edges, Structure
from ir.ops.sweeps import beside, columns, ones, spread, sweep


@dataclass(frozen=True)
class Terms:
    """`edges` are the numbers (among those of the structure) of edges that are terms, those of one
    way to combine side by side; `ways` are (way, how many). In the reversed sweep terms are
    numbered behind the nodes."""

    structure: Structure
    edges: Array
    ways: tuple[tuple[str, int], ...]

    @staticmethod
    def of(s: Structure, formulas: Sequence[str]) -> Terms:
        ways = np.asarray([formula.COMBINES.index(formula.combine_of(t)) for t in formulas])
        of_edge = ways[s.formulas[s.targets]]
        order = np.argsort(of_edge, kind="stable")
        found = [(way, int((of_edge == n).sum())) for n, way in enumerate(formula.COMBINES)]
        (_, sums), *others = found
        return Terms(s, order[sums:], tuple((way, count) for way, count in others if count))

    @property
    def count(self) -> int:
        return len(self.edges)

    @property
    def ends(self) -> Array:
        """What every edge leads to: its own term where it has one, else a node."""
        ends = self.structure.targets.astype(np.int64)
        ends[self.edges] = len(self.structure.rows) + np.arange(self.count)
        return ends

    def back(self, one: int, sources: int, reached: Array) -> Edges:
        """The reversed edges between nodes and terms, and one from each of so many sources to the
        node that it reaches; `one` is the number of a weight of one."""
        s = self.structure
        slots, numbers = s.edges.T.astype(np.int64)
        inner = slots >= s.sources
        ends = self.ends
        nodes = [ends[inner], s.targets[self.edges].astype(np.int64)]
        return Edges(
            np.concatenate([np.arange(sources), *(sources + n for n in nodes)]),
            np.concatenate([reached, slots[inner] - s.sources, ends[self.edges]]),
            np.concatenate([np.full(sources, one), numbers[inner], np.full(self.count, one)]),
        )

    def slopes(self, weights: Node, states: Node, sums: Node) -> Node:
        """(batch, terms): the derivative of every node's z by each of its terms."""
        s = self.structure
        slots, numbers = s.edges[self.edges].T.astype(np.int64)
        edges = Edges(slots, np.arange(self.count), numbers)
        terms = sweep(weights, edges, (("", self.count),), x=states)
        targets = s.targets[self.edges].astype(np.int64)
        found, first = [], 0
        for way, count in self.ways:
            here, group = terms[:, first : first + count], targets[first : first + count]
            z = columns(sums, group)
            found.append(SLOPES[way](here, z, np.unique(group, return_inverse=True)[1]))
            first += count
        return beside(found)


def _of_extreme(terms: Node, z: Node, group: Array) -> Node:
    """Equal terms share it evenly."""
    hit = cast(eq(terms, z), terms.dtype)
    ties = spread(hit, np.arange(len(group)), group, int(group.max()) + 1)
    return hit / columns(ties, group)


def _of_median(terms: Node, z: Node, group: Array) -> Node:
    """Half of it belongs to the largest term that is not above the median, half to the smallest
    that is not below it: with an odd number of terms they are one."""

    def nearest(side: Node, nothing: float, combine: str) -> Node:
        every = where(side, terms, nothing)
        one = spread(every, np.arange(len(group)), group, int(group.max()) + 1, f"{combine}:")
        return columns(one, group)

    low = nearest(le(terms, z), -np.inf, formula.MAX)
    high = nearest(ge(terms, z), np.inf, formula.MIN)
    return 0.5 * (_of_extreme(terms, low, group) + _of_extreme(terms, high, group))


def _of_product(terms: Node, z: Node, group: Array) -> Node:
    """The product of the others: of those before and of those behind, none of which is divided."""
    count = len(group)
    place = np.arange(count)
    before = np.flatnonzero(group[1:] == group[:-1]) + 1  # terms that are not the first
    behind = before - 1
    left, right, both = count + place, 2 * count + place, 3 * count + place
    slots = [left[behind], behind, right[before], before, left, right]
    targets = [left[before], left[before], right[behind], right[behind], both, both]
    numbers = np.zeros(4 * len(before) + 2 * count)
    edges = Edges(np.concatenate(slots), np.concatenate(targets) - count, numbers)
    product = f"{formula.PRODUCT}:"
    kept = range(3 * count, 4 * count)
    return sweep(ones(terms.dtype), edges, ((product, 3 * count),), x=terms, kept=kept)


SLOPES: Mapping[str, Callable[[Node, Node, Array], Node]] = {
    formula.PRODUCT: _of_product,
    formula.MIN: _of_extreme,
    formula.MAX: _of_extreme,
    formula.MEDIAN: _of_median,
    formula.MAXABS: _of_extreme,
}
