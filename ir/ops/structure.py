"""Takes edges of an acyclic graph, gives the tables by which a sweep runs over its nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ir.ops.core import Array
from ir.ops.order import order_nodes


@dataclass(frozen=True)
class Structure:
    """The nodes of a sweep in the order in which they are computed, as four i32 tables.

    runs   (number, 2)  formula, how many rows follow that have it
    rows   (nodes, 3)   column of the node, how many edges end there, place among kept sums or -1
    edges  (edges, 2)   slot of the source (first the columns of x, then those of nodes), weight
    kept   (width)      slot of every column of the result; behind the states are the kept sums
    """

    runs: Array
    rows: Array
    edges: Array
    kept: Array
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
    def codes(self) -> Array:
        """The slot of every column of the result, counting all sums: that of node n is the number
        of states + n."""
        states = self.sources + len(self.rows)
        placed = self.rows[self.rows[:, 2] >= 0]
        node = np.zeros(len(placed), np.int64)
        node[placed[:, 2]] = placed[:, 0]
        codes = self.kept.astype(np.int64)
        codes[codes >= states] = states + node[codes[codes >= states] - states]
        return codes

    @staticmethod
    def of(
        sources: Array, targets: Array, weights: Array, formulas: Array, kept: Array, width: int
    ) -> Structure:
        """ValueError on a cycle."""
        count = len(formulas)
        inner = sources >= width
        degree = np.bincount(targets, minlength=count)
        order = order_nodes(sources[inner] - width, targets[inner], formulas)
        rank = np.empty(count, np.int64)
        rank[order] = np.arange(count)
        states = width + count
        summed = np.unique(kept[kept >= states]) - states
        place = np.full(count, -1)
        place[summed] = np.arange(len(summed))
        slots = kept.copy()
        slots[kept >= states] = states + place[kept[kept >= states] - states]
        # what is computed last is added last: nothing waits for it before
        ready = np.concatenate([np.arange(width), width + rank])[sources]
        by_row = np.lexsort((weights, ready, rank[targets]))
        starts = np.flatnonzero(np.diff(formulas[order], prepend=-1))
        lengths = np.diff(starts, append=count)
        return Structure(
            np.stack([formulas[order][starts], lengths], 1).astype(np.int32),
            np.stack([order, degree[order], place[order]], 1).astype(np.int32),
            np.stack([sources[by_row], weights[by_row]], 1).astype(np.int32),
            slots.astype(np.int32),
            width,
        )


def check_structure(s: Structure, weights: Any, formulas: int) -> None:
    """ValueError unless every number in the tables is in range and every source comes first."""
    count = len(s.rows)
    position = np.full(s.sources + count, -1)
    sound = bool(np.array_equal(np.sort(s.rows[:, 0]), np.arange(count)))
    sound = sound and int(s.rows[:, 1].sum()) == len(s.edges) and int(s.runs[:, 1].sum()) == count
    sound = sound and inside(s.runs[:, 0], formulas) and inside(s.edges[:, 1], weights)
    sound = sound and inside(s.edges[:, 0], s.sources + count)
    places = s.rows[:, 2][s.rows[:, 2] >= 0]
    sound = sound and inside(s.kept, s.sources + count + len(places))
    if sound and np.array_equal(np.sort(places), np.arange(len(places))):
        position[s.sources + s.rows[:, 0]] = np.arange(count)
        at = np.repeat(np.arange(count), s.rows[:, 1])
        if np.all(position[s.edges[:, 0]] < at):
            return
    raise ValueError("sweep: the tables of its structure do not fit together")


def inside(numbers: Array, size: int) -> bool:
    return bool(np.all((numbers >= 0) & (numbers < size)))


def stretches(values: Array) -> list[tuple[int, int]]:
    """(first, end) of every stretch of equal values."""
    starts = np.flatnonzero(np.diff(values, prepend=values[:1] - 1)).tolist()
    return list(zip(starts, [*starts[1:], len(values)], strict=True))


@dataclass(frozen=True)
class Edges:
    """Edges of a sweep: slots of their sources, nodes at which they end, numbers of weights."""

    slots: Array
    targets: Array
    weights: Array
