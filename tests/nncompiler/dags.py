"""Random neuron graphs, and their values and gradients by the definition, neuron by neuron."""

from __future__ import annotations

import statistics
from typing import Any

import networkx as nx
import numpy as np

F: dict[str, Any] = {
    "linear": (lambda z: z, lambda z: np.ones_like(z)),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "sigmoid": (
        lambda z: 1 / (1 + np.exp(-z)),
        lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2,
    ),
    "gaussian": (lambda z: np.exp(-z * z), lambda z: -2 * z * np.exp(-z * z)),
    "sine": (np.sin, np.cos),
    "softplus": (lambda z: np.logaddexp(0, z), lambda z: 1 / (1 + np.exp(-z))),
}


AGGREGATIONS = ("sum", "product", "min", "max", "mean", "median", "maxabs")
BOUNDED = ("tanh", "sigmoid", "gaussian")


def random_dag(
    seed: int,
    neurons: int,
    *,
    density: float = 0.15,
    aggregations: tuple[str, ...] = ("sum",),
    isolated: int = 0,
    activations: tuple[str, ...] = tuple(F),
) -> Any:
    """A graph of so many neurons: skips, several components, mixed functions, in random order."""
    rng = np.random.default_rng(seed)
    names = [f"n{i}" for i in range(neurons)]
    edges = [
        (names[i], names[j]) for j in range(neurons) for i in range(j) if rng.random() < density
    ]
    g: Any = nx.DiGraph()
    g.add_nodes_from(rng.permutation([*names, *(f"lonely{i}" for i in range(isolated))]).tolist())
    if not edges:
        edges = [(names[0], names[1])]
    for k in rng.permutation(len(edges)):
        g.add_edge(*edges[k])
        if rng.random() < 0.8:
            g.edges[edges[k]]["weight"] = float(rng.normal())
    for node in g:
        if g.in_degree(node):
            g.nodes[node]["activation"] = str(rng.choice(activations))
            if rng.random() < 0.7:
                g.nodes[node]["bias"] = float(rng.normal())
            g.nodes[node]["aggregation"] = str(rng.choice(aggregations))
    return g


def mixed_dag(seed: int, neurons: int, **options: Any) -> Any:
    """A random graph of all aggregations, whose values stay near one whatever its depth."""
    g = random_dag(seed, neurons, aggregations=AGGREGATIONS, **options)
    for node, data in g.nodes(data=True):
        if data.get("aggregation") == "product" and data["activation"] not in BOUNDED:
            data["activation"] = BOUNDED[seed % len(BOUNDED)]
        for _, _, edge in g.in_edges(node, data=True):
            if "weight" in edge and data["aggregation"] == "sum":
                edge["weight"] /= np.sqrt(g.in_degree(node))
    return g


def weight_name(g: Any, u: Any, v: Any) -> str:
    return str(g.edges[u, v].get("weight_name", f"{u}->{v}"))


def aggregate(kind: str, p: Any) -> tuple[Any, Any]:
    """Value and derivative by every term of one example's terms."""
    if kind == "sum":
        return p.sum(), np.ones_like(p)
    if kind == "mean":
        return p.mean(), np.full_like(p, 1 / len(p))
    if kind == "product":
        return p.prod(), np.array([np.delete(p, i).prod() for i in range(len(p))])
    if kind == "median":
        ordered = sorted(p.tolist())
        low, high = (p == ordered[i] for i in ((len(p) - 1) // 2, len(p) // 2))
        return statistics.median(ordered), 0.5 * (low / low.sum() + high / high.sum())
    if kind == "maxabs":
        kind = "max" if p.max() >= -p.min() else "min"
    value = p.max() if kind == "max" else p.min()
    hit = p == value
    return value, hit / hit.sum()


def evaluate(g: Any, x: Any, w: Any, inputs: Any, outputs: Any) -> tuple[Any, Any, Any]:
    """(values by neuron, what its activation saw, derivative of its sum by every term)."""
    value = {n: x[:, i] for i, n in enumerate(inputs)}
    seen, slopes = {}, {}
    for v in nx.topological_sort(g):
        if v in value:
            continue
        before = list(g.predecessors(v))
        terms = np.stack([w[weight_name(g, u, v)] * value[u] for u in before], 1)
        kind = g.nodes[v].get("aggregation", "sum")
        pairs = [aggregate(kind, p) for p in terms]
        seen[v] = w[f"{v}.bias"] + np.array([a for a, _ in pairs])
        slopes[v] = np.stack([s for _, s in pairs])
        value[v] = F[g.nodes[v].get("activation", "linear")][0](seen[v])
    return np.stack([value[n] for n in outputs], 1), (value, seen, slopes), w


def gradients(g: Any, x: Any, t: Any, w: Any, inputs: Any, outputs: Any) -> dict[str, Any]:
    """Of 1/2 sum of squares per example, mean over the batch: delta by delta, backwards."""
    y, (value, seen, slopes), _ = evaluate(g, x, w, inputs, outputs)
    into = {n: np.zeros(len(x)) for n in g}
    for i, n in enumerate(outputs):
        into[n] = into[n] + (y - t)[:, i] / len(x)
    found = {name: np.zeros(()) for name in w}
    for v in reversed(list(nx.topological_sort(g))):
        if v not in seen:
            continue
        delta = into[v] * F[g.nodes[v].get("activation", "linear")][1](seen[v])
        found[f"{v}.bias"] = found[f"{v}.bias"] + delta.sum()
        for k, u in enumerate(g.predecessors(v)):
            name = weight_name(g, u, v)
            by_term = delta * slopes[v][:, k]
            found[name] = found[name] + (by_term * value[u]).sum()
            into[u] = into[u] + by_term * w[name]
    return found


def ends(g: Any) -> tuple[list[Any], list[Any]]:
    return [n for n in g if not g.in_degree(n)], [n for n in g if not g.out_degree(n)]
