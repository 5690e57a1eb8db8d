"""Takes nothing, gives a table: a population of graphs read and evaluated, ours and others' way.

    python -m tests.bench.population                 1,000 graphs of 20 to 60 neurons, 100 rows
    python -m tests.bench.population --rows 1        one row each, as in a control loop

The others, where they are installed: neat-python's own network, of which SAMPLE are timed and the
sum is estimated, and a loop over the same graphs as arrays, written by hand for numba (one thread).
"""

from __future__ import annotations

import argparse
import math
import os
from typing import Any

import networkx as nx
import numpy as np

import nncompiler as nnc
from tests.bench.timing import interleave, readable

SAMPLE = 10
INPUTS, OUTPUTS = 8, 2
FUNCTIONS: dict[str, Any] = {
    "tanh": math.tanh,
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)),
    "relu": lambda z: max(z, 0.0),
    "gaussian": lambda z: math.exp(-z * z),
    "sine": math.sin,
    "abs": abs,
    "linear": lambda z: z,
}


def draw(seed: int) -> Any:
    """A graph of 20 to 60 nodes that all lead to an output, with about three edges to each."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(20, 61))
    last = count - OUTPUTS
    g = nx.DiGraph(inputs=list(range(INPUTS)), outputs=list(range(last, count)))
    g.add_nodes_from(range(INPUTS))
    for v in range(INPUTS, count):
        g.add_node(v, activation=str(rng.choice(list(FUNCTIONS))), bias=float(rng.normal()))
        for u in rng.choice(min(v, last), size=min(v, int(rng.integers(1, 6))), replace=False):
            g.add_edge(int(u), v, weight=float(rng.normal()))
    for u in range(INPUTS, last):
        if not g.out_degree(u):
            g.add_edge(u, int(rng.integers(u + 1, count)), weight=float(rng.normal()))
    return g


def neat_networks(graphs: list[Any]) -> list[Any]:
    """neat-python's networks of the graphs; none where it is not installed."""
    try:
        from neat.nn import FeedForwardNetwork
    except ImportError:
        return []
    networks = []
    for g in graphs:
        steps = [
            (
                v,
                FUNCTIONS[g.nodes[v]["activation"]],
                sum,
                g.nodes[v]["bias"],
                1.0,
                [(u, g.edges[u, v]["weight"]) for u in g.predecessors(v)],
            )
            for v in nx.topological_sort(g)
            if v >= INPUTS
        ]
        networks.append(FeedForwardNetwork(g.graph["inputs"], g.graph["outputs"], steps))
    return networks


def by_numba(graphs: list[Any], x: Any) -> Any:
    """A function without arguments that evaluates all graphs; None without numba."""
    try:
        import numba
    except ImportError:
        return None
    order = [[v for v in nx.topological_sort(g) if v >= INPUTS] for g in graphs]
    steps = [(g, v) for g, vs in zip(graphs, order, strict=True) for v in vs]
    kinds = {name: number for number, name in enumerate(FUNCTIONS)}
    ends = np.cumsum([len(vs) for vs in order])
    nodes = np.array([v for _, v in steps])
    codes = np.array([kinds[g.nodes[v]["activation"]] for g, v in steps])
    biases = np.array([g.nodes[v]["bias"] for g, v in steps], np.float32)
    stops = np.cumsum([g.in_degree(v) for g, v in steps])
    sources = np.array([u for g, v in steps for u in g.predecessors(v)])
    weights = np.array(
        [g.edges[u, v]["weight"] for g, v in steps for u in g.predecessors(v)], np.float32
    )
    heads = np.array([g.graph["outputs"] for g in graphs])

    @numba.njit(fastmath=True)  # type: ignore[untyped-decorator]
    def run(x, ends, nodes, codes, biases, stops, sources, weights, heads):  # type: ignore[no-untyped-def]
        rows, one = x.shape[1], np.float32(1)
        y = np.empty((len(ends), rows, heads.shape[1]), np.float32)
        state = np.empty((64, rows), np.float32)
        state[: x.shape[0]] = x
        step, edge = 0, 0
        for genome in range(len(ends)):
            while step < ends[genome]:
                z = state[nodes[step]]
                z[:] = biases[step]
                while edge < stops[step]:
                    w, source = weights[edge], state[sources[edge]]
                    for r in range(rows):
                        z[r] += w * source[r]
                    edge += 1
                code = codes[step]
                if code == 0:
                    for r in range(rows):
                        z[r] = np.tanh(z[r])
                elif code == 1:
                    for r in range(rows):
                        z[r] = one / (one + np.exp(-z[r]))
                elif code == 2:
                    for r in range(rows):
                        z[r] = max(z[r], np.float32(0))
                elif code == 3:
                    for r in range(rows):
                        z[r] = np.exp(-z[r] * z[r])
                elif code == 4:
                    for r in range(rows):
                        z[r] = np.sin(z[r])
                elif code == 5:
                    for r in range(rows):
                        z[r] = abs(z[r])
                step += 1
            for k in range(heads.shape[1]):
                y[genome, :, k] = state[heads[genome, k]]
        return y

    columns = np.ascontiguousarray(x.T)
    return lambda: run(columns, ends, nodes, codes, biases, stops, sources, weights, heads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    graphs = [draw(seed) for seed in range(arguments.graphs)]
    x = np.random.default_rng(0).normal(size=(arguments.rows, INPUTS)).astype(np.float32)
    own = np.broadcast_to(x, (len(graphs), *x.shape)).copy()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    populations = {
        n: nnc.compile_population(graphs, options=nnc.Options(threads=n))
        for n in range(1, min(cores or 1, 2) + 1)
    }
    print(populations[1], f"{arguments.rows} rows")
    y = populations[1](x)
    runs: dict[str, Any] = {"read": lambda: nnc.compile_population(graphs)}
    for n, population in populations.items():
        runs[f"evaluated, {n} threads"] = lambda p=population: p(x)
        runs[f"rows of their own, {n} threads"] = lambda p=population: p(own)
    numba = by_numba(graphs, x)
    if numba is not None:
        np.testing.assert_allclose(numba(), y, rtol=1e-3, atol=1e-3)
        runs["numba by hand"] = numba
    sample = neat_networks(graphs[:SAMPLE])
    rows = x.tolist()
    if sample:
        found = [[network.activate(row) for row in rows] for network in sample]
        np.testing.assert_allclose(found, y[:SAMPLE], rtol=1e-3, atol=1e-3)
        runs["neat-python"] = lambda: [n.activate(row) for n in sample for row in rows]
    for name, timing in interleave(runs, seconds=arguments.seconds).items():
        factor = len(graphs) / len(sample) if name == "neat-python" else 1.0
        best, middle = readable(timing.best * factor), readable(timing.middle * factor)
        print(f"{name:32} best {best:>9}   median {middle:>9}")


if __name__ == "__main__":
    main()
