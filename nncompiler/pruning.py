"""Takes a trained model of neurons, gives its graph without the least of its edges or neurons."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar

from nncompiler.frontend.delays import DELAY, Delays, find_delays
from nncompiler.frontend.wiring import read_ends
from nncompiler.model import Model

if TYPE_CHECKING:
    import networkx as nx

Ranked = TypeVar("Ranked", bound=tuple[Any, ...])


def prune(
    model: Model,
    share: float | None = None,
    *,
    threshold: float | None = None,
    neurons: bool = False,
) -> nx.DiGraph[Any]:
    """The model's graph, with its present weights, without some of its edges or neurons.

    share      this part of all edges goes, those of the smallest |weight| first
    threshold  edges of |weight| below it go
    neurons    the same of hidden neurons: layers get narrower and stay dense. What counts is the
               product of the norms of the weights that lead to a neuron and of those that leave
               it, relative to the mean of all neurons as far from the inputs (of which it is 1)

    So do neurons that no output depends on any more. One that lost all its predecessors stays as a
    constant. Inputs and outputs keep their order. ValueError for a model of layers.
    """
    if (share is None) == (threshold is None):
        what = "neurons" if neurons else "edges"
        raise ValueError(f"prune takes either the share of {what} to remove or a threshold")
    if share is not None and not (_is_number(share) and 0.0 <= share <= 1.0):
        raise ValueError(f"share has to be in [0, 1], not {share!r}")
    if threshold is not None and not _is_number(threshold):
        raise ValueError(f"threshold has to be a number, not {threshold!r}")
    g = model.to_networkx()
    delays = find_delays(g) if model.settings.recurrent else {}
    for edge, delay in delays.items():  # whatever cycles are left
        g.edges[edge][DELAY] = delay
    inputs, outputs = read_ends(g, model.settings.outputs, delays)
    g.graph["inputs"], g.graph["outputs"] = inputs, outputs
    if neurons:
        ends = {*inputs, *outputs}
        scores = _scores(g, [n for n in g if n not in ends], delays)
        ranked = sorted(((score, str(n), n) for n, score in scores.items()), key=lambda r: r[:2])
        g.remove_nodes_from([n for *_, n in _smallest(ranked, share, threshold)])
    else:
        every = ((abs(w), str(u), str(v), u, v) for u, v, w in _weights(g))
        edges = sorted(every, key=lambda e: e[:3])
        g.remove_edges_from([(u, v) for *_, u, v in _smallest(edges, share, threshold)])
    _remove_unneeded(g)
    return g


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _weights(g: nx.DiGraph[Any]) -> Iterator[tuple[Hashable, Hashable, float]]:
    return ((u, v, float(weight)) for u, v, weight in g.edges(data="weight", default=0.0))


def _smallest(ranked: list[Ranked], share: float | None, threshold: float | None) -> list[Ranked]:
    if share is not None:
        return ranked[: round(share * len(ranked))]
    return [item for item in ranked if threshold is not None and item[0] < threshold]


def _scores(g: nx.DiGraph[Any], hidden: list[Hashable], delays: Delays) -> dict[Hashable, float]:
    into, out = dict.fromkeys(g, 0.0), dict.fromkeys(g, 0.0)
    for u, v, weight in _weights(g):
        into[v] += weight * weight
        out[u] += weight * weight
    norms = {n: math.sqrt(into[n] * out[n]) for n in hidden}
    depth = _depths(g, delays)
    levels: dict[int, list[float]] = {}
    for n, norm in norms.items():
        levels.setdefault(depth[n], []).append(norm)
    means = {level: sum(found) / len(found) for level, found in levels.items()}
    return {n: norm / (means[depth[n]] or 1.0) for n, norm in norms.items()}


def _depths(g: nx.DiGraph[Any], delays: Delays) -> dict[Hashable, int]:
    """The length of the longest path to every neuron within one time."""
    waiting = {n: sum((u, n) not in delays for u in g.predecessors(n)) for n in g}
    depth = dict.fromkeys(g, 0)
    ready = [n for n, count in waiting.items() if not count]
    while ready:
        node = ready.pop()
        for after in g.successors(node):
            if (node, after) in delays:
                continue
            depth[after] = max(depth[after], depth[node] + 1)
            waiting[after] -= 1
            if not waiting[after]:
                ready.append(after)
    return depth


def _remove_unneeded(g: nx.DiGraph[Any]) -> None:
    """Neurons that no output depends on; those without predecessors become constants."""
    inputs, outputs = g.graph["inputs"], g.graph["outputs"]
    kept = {*inputs, *outputs}
    waiting = list(outputs)
    while waiting:
        for node in g.predecessors(waiting.pop()):
            if node not in kept:
                kept.add(node)
                waiting.append(node)
    g.remove_nodes_from([n for n in g if n not in kept])
    given = set(inputs)
    for node in g:
        if not g.in_degree(node) and node not in given:
            g.nodes[node].setdefault("bias", 0.0)
