"""Takes many graphs of neurons in flat columns, gives the tables that one native evaluator runs.

Neurons of a graph are computed level by level; those of one level with the same formula and
aggregation are a run: first all their sums, then the formula over all of them at once. The values
of a graph lie in slots: its inputs, its neurons in the order of their runs, and scratch space for
medians. codegen/evaluator.py reads the tables:

    genomes   one row per graph, see Column
    runs      formula, aggregation, how many neurons
    nodes     how many edges lead to a neuron; biases
    edges     the slot that an edge comes from; weights
    outputs   slots
    networks  for n edges the first of the pairs that sort n values (those of n + 1 follow)
    pairs     slots of the scratch space to be put in order

Every number in them is derived here from checked graphs, so native code stays inside of its memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np

from nncompiler.frontend.genomes import Array, Genes, starts
from nncompiler.frontend.wiring import AGGREGATIONS
from runtime.buffers import aligned_copy

TABLES = ("genomes", "runs", "nodes", "edges", "outputs", "networks", "pairs")  # of int32
NUMBERS = ("biases", "weights")
MEDIAN = AGGREGATIONS.index("median")
MOST_VECTORS = 8  # of rows that are computed side by side
STATE = 1 << 15  # bytes of values that lie on the stack
LARGE_VECTORS = 2  # for graphs whose values do not fit there


class Column(IntEnum):
    """What stands where in a row of the table `genomes`."""

    RUN = 0  # first of its runs
    END_RUN = 1
    NODE = 2  # first of its neurons
    EDGE = 3
    OUTPUT = 4
    END_OUTPUT = 5
    INPUTS = 6  # how many
    SCRATCH = 7  # the slot behind its neurons
    VECTORS = 8  # how many vectors of rows at a time
    PLACE = 9  # of its values in memory of their own, in vectors; -1: they lie on the stack
    X = 10  # inputs of the graphs before it
    SIZE = 11


@dataclass(frozen=True, eq=False)
class Programs:
    """The tables, and which nodes the neurons, edges and outputs are."""

    genomes: Array
    runs: Array
    nodes: Array
    biases: Array
    edges: Array
    weights: Array
    outputs: Array
    networks: Array
    pairs: Array
    spill: int  # elements of memory for graphs that do not fit on the stack
    node_ids: Array
    source_ids: Array

    @property
    def width(self) -> int:
        """How many inputs every graph has."""
        return int(self.genomes[0, Column.INPUTS])

    @property
    def heights(self) -> Array:
        """How many outputs each graph has."""
        return self.genomes[:, Column.END_OUTPUT] - self.genomes[:, Column.OUTPUT]

    def nodes_of(self, i: int) -> slice:
        """Where the neurons of graph i stand."""
        return self._part(i, Column.NODE, len(self.nodes))

    def edges_of(self, i: int) -> slice:
        return self._part(i, Column.EDGE, len(self.edges))

    def _part(self, i: int, column: Column, last: int) -> slice:
        end = self.genomes[i + 1, column] if i + 1 < len(self.genomes) else last
        return slice(int(self.genomes[i, column]), int(end))

    def alone(self, i: int) -> Programs:
        """Graph i by itself, in the same memory."""
        row = self.genomes[i].copy()
        outputs = self.outputs[row[Column.OUTPUT] : row[Column.END_OUTPUT]]
        row[Column.END_OUTPUT] -= row[Column.OUTPUT]
        row[[Column.OUTPUT, Column.X]] = 0
        return replace(self, genomes=aligned_copy(row[None]), outputs=aligned_copy(outputs))


class CycleError(ValueError):
    """The graph of this number has a cycle."""

    def __init__(self, graph: int) -> None:
        super().__init__(f"graph {graph} has a cycle")
        self.graph = graph


def build_programs(genes: Genes, dtype: np.dtype[Any], lanes: int) -> Programs:
    """The tables of all graphs, for vectors of so many lanes; CycleError where one has a cycle."""
    sizes = genes.sizes
    genome = np.repeat(np.arange(len(sizes)), sizes)
    level = _levels(genes, genome)
    needed = _needed(genes, len(genome))
    kept = needed[genes.targets]
    sources, targets, weights = genes.sources[kept], genes.targets[kept], genes.weights[kept]
    counts = np.bincount(targets, minlength=len(genome))
    neurons = np.flatnonzero(needed & (genes.formulas >= 0))
    aggregations = np.where(counts > 0, genes.aggregations, 0)
    keys = (counts, aggregations, genes.formulas, level, genome)
    neurons = neurons[np.lexsort([key[neurons] for key in keys])]
    runs, end_run = _runs(neurons, [key[neurons] for key in keys[1:]], genome, len(sizes))
    per_genome = np.bincount(genome[neurons], minlength=len(sizes))
    first_node = starts(per_genome)
    width = genes.inputs.shape[1]
    slots = np.zeros(len(genome), np.int64)
    slots[genes.inputs] = np.arange(width)
    slots[neurons] = width + np.arange(len(neurons)) - first_node[genome[neurons]]
    position = np.zeros(len(genome), np.int64)
    position[neurons] = np.arange(len(neurons))
    order = np.lexsort((sources, position[targets]))
    edges_of = np.bincount(genome[targets], minlength=len(sizes))
    sorts = counts[neurons][aggregations[neurons] == MEDIAN]
    scratch = np.zeros(len(sizes), np.int64)
    np.maximum.at(scratch, genome[neurons][aggregations[neurons] == MEDIAN], sorts)
    networks, pairs = _networks(sorts)
    vectors, place, spill = _places(width + per_genome + scratch, dtype.itemsize, lanes)
    end_output = np.cumsum(genes.output_counts)
    columns = {
        Column.X: width * np.arange(len(sizes)),
        Column.RUN: np.concatenate([[0], end_run[:-1]]),
        Column.END_RUN: end_run,
        Column.NODE: first_node,
        Column.EDGE: starts(edges_of),
        Column.OUTPUT: end_output - genes.output_counts,
        Column.END_OUTPUT: end_output,
        Column.INPUTS: np.full(len(sizes), width),
        Column.SCRATCH: width + per_genome,
        Column.VECTORS: vectors,
        Column.PLACE: place,
    }
    return Programs(
        genomes=_table(np.stack([columns[Column(i)] for i in range(Column.SIZE)], 1)),
        runs=_table(runs),
        nodes=_table(counts[neurons]),
        biases=aligned_copy(genes.biases[neurons], dtype),
        edges=_table(slots[sources[order]]),
        weights=aligned_copy(weights[order], dtype),
        outputs=_table(slots[genes.outputs]),
        networks=networks,
        pairs=pairs,
        spill=spill,
        node_ids=neurons,
        source_ids=sources[order],
    )


def _table(values: Array) -> Array:
    if values.size and int(values.max()) > np.iinfo(np.int32).max:
        raise ValueError("the population is too large: its tables hold 32-bit numbers")
    return aligned_copy(values, np.int32)


def _reached(nodes: Array, first: Array, counts: Array) -> Array:
    """The positions of all edges of these nodes, where each node's edges lie side by side."""
    many = counts[nodes]
    return np.repeat(first[nodes] - starts(many), many) + np.arange(int(many.sum()))


def _levels(genes: Genes, genome: Array) -> Array:
    """The length of the longest path to every node."""
    count = len(genome)
    leaving = np.bincount(genes.sources, minlength=count)
    targets = genes.targets[np.argsort(genes.sources, kind="stable")]
    first = starts(leaving)
    waiting = np.bincount(genes.targets, minlength=count)
    level = np.full(count, -1)
    front, number = np.flatnonzero(waiting == 0), 0
    while len(front):
        level[front] = number
        number += 1
        after, times = np.unique(targets[_reached(front, first, leaving)], return_counts=True)
        waiting[after] -= times
        front = after[waiting[after] == 0]
    if (level < 0).any():
        raise CycleError(int(genome[np.argmax(level < 0)]))
    return level


def _needed(genes: Genes, count: int) -> Array:
    """Whether an output depends on a node."""
    coming = np.bincount(genes.targets, minlength=count)
    sources = genes.sources[np.argsort(genes.targets, kind="stable")]
    first = starts(coming)
    needed = np.zeros(count, bool)
    front = np.unique(genes.outputs)
    while len(front):
        needed[front] = True
        before = np.unique(sources[_reached(front, first, coming)])
        front = before[~needed[before]]
    return needed


def _runs(neurons: Array, keys: Sequence[Array], genome: Array, count: int) -> tuple[Array, Array]:
    """(formula, aggregation, length) of every run, and where the runs of a graph end."""
    aggregations, formulas, _, owners = keys
    if not len(neurons):
        return np.zeros((0, 3), np.int64), np.zeros(count, np.int64)
    change = np.zeros(len(neurons), bool)
    change[0] = True
    for key in keys:
        change[1:] |= key[1:] != key[:-1]
    first = np.flatnonzero(change)
    lengths = np.diff(np.append(first, len(neurons)))
    runs = np.stack([formulas[first], aggregations[first], lengths], 1)
    return runs, np.cumsum(np.bincount(owners[first], minlength=count))


def _networks(counts: Array) -> tuple[Array, Array]:
    """For every number of values up to the largest: where its pairs start; and all pairs."""
    found: dict[int, list[tuple[int, int]]] = {n: comparators(n) for n in set(counts.tolist())}
    most = max(found, default=0)
    lengths = [len(found.get(n, ())) for n in range(most + 1)]
    pairs = [pair for n in range(most + 1) for pair in found.get(n, ())]
    networks = np.cumsum([0, *lengths])
    return _table(networks), _table(np.array(pairs, np.int64).reshape(-1, 2))


def _places(slots: Array, itemsize: int, lanes: int) -> tuple[Array, Array, int]:
    """Vectors at a time and place of every graph's values; elements of those off the stack."""
    vectors = np.minimum(STATE // (itemsize * lanes) // slots, MOST_VECTORS)
    large = vectors == 0
    vectors[large] = LARGE_VECTORS
    sizes = np.where(large, slots * LARGE_VECTORS + 1, 0)
    return vectors, np.where(large, starts(sizes), -1), int(sizes.sum()) * lanes


def comparators(count: int) -> list[tuple[int, int]]:
    """Pairs to put in order, one after the other, so that `count` values are sorted (odd-even merge
    sort; Knuth, volume 3, algorithm 5.2.2 M)."""
    found = []
    p = 1
    while p < count:
        k = p
        while k >= 1:
            for j in range(k % p, count - k, 2 * k):
                for i in range(min(k, count - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        found.append((i + j, i + j + k))
            k //= 2
        p *= 2
    return found
