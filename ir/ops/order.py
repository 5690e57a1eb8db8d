"""Takes the edges of an acyclic graph, gives the order in which its nodes are computed.

One row alone is bound by latency: what is computed next has to wait for what was computed last. So
of a small graph that node comes first from which the longest way leads to an end, as soon as its
sources are there; a node of the same formula as the last one is preferred to one that is a little
more urgent. Where a graph is large its levels are wide, and it is computed level by level.
"""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np

from ir.ops.core import Array

SMALL = 4096  # nodes and edges
# In times between two nodes of which one needs the other:
NODE, EDGE = 0.2, 0.01  # until the next one may start
PATIENCE = 0  # how much longer the way of a node of another formula may be


def order_nodes(sources: Array, targets: Array, formulas: Array) -> Array:
    """The nodes in order, for edges between nodes; ValueError on a cycle."""
    count = len(formulas)
    level = levels(count, sources, targets)
    degree = np.bincount(targets, minlength=count)
    if count + len(sources) > SMALL:
        return np.lexsort((np.arange(count), degree, formulas, level))
    following: list[list[int]] = [[] for _ in range(count)]
    for source, target in zip(sources.tolist(), targets.tolist(), strict=True):
        following[source].append(target)
    height = levels(count, targets, sources).tolist()
    order = _urgent_first(following, degree.tolist(), height, formulas.tolist())
    return np.asarray(order, np.int64)


def _urgent_first(
    following: list[list[int]], waiting: list[int], height: list[int], formulas: list[int]
) -> list[int]:
    """A list schedule on one machine that starts a node after the other."""
    edges = list(waiting)
    ready: dict[int, list[tuple[int, int]]] = {formula: [] for formula in formulas}
    done = [0.0] * len(waiting)  # when the last of a node's sources is there
    coming: list[tuple[float, int]] = [(0.0, n) for n, w in enumerate(waiting) if not w]
    found: list[int] = []
    now, last = 0.0, -1
    while len(found) < len(waiting):
        while coming and coming[0][0] <= now:
            _, node = heappop(coming)
            heappush(ready[formulas[node]], (-height[node], node))
        some = [(queue[0], formula) for formula, queue in ready.items() if queue]
        if not some:
            now = coming[0][0]
            continue
        (most, _), best = min(some)
        queue = ready.get(last)
        if queue and queue[0][0] <= most + PATIENCE:
            best = last
        _, node = heappop(ready[best])
        found.append(node)
        last = best
        now += NODE + EDGE * edges[node]
        for target in following[node]:
            waiting[target] -= 1
            done[target] = max(done[target], now + 1)
            if not waiting[target]:
                heappush(coming, (done[target], target))
    return found


def levels(count: int, sources: Array, targets: Array) -> Array:
    """Length of the longest path to every node; ValueError on a cycle."""
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
