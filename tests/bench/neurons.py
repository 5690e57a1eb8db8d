"""Takes nothing, gives a table: training steps of an irregular net of neurons, ours and others'.

    python -m tests.bench.neurons                 batch 1024, one thread
    python -m tests.bench.neurons --threads 2     and ours by two threads

16 inputs, 200 hidden neurons and 4 outputs of mixed activations with 1500 edges in all, by SGD.
PyTorch and JAX, where they are installed, take a matrix for every topological level, of the rows
that some neuron of it reads, and set what is no edge to zero again at every step; both write the
levels into one array ("written"), or join them to it ("joined"). All start from the same weights
and their first losses must agree; then they take turns.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import networkx as nx
import numpy as np

import nncompiler as nnc
from tests.bench.timing import Run, interleave, readable

INPUTS, HIDDEN, OUTPUTS, EDGES = 16, 200, 4, 1500
ACTIVATIONS = ("tanh", "sigmoid", "relu", "gaussian")
RATE = 0.01
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "NPROC": "1",
}


class Level(NamedTuple):
    """Neurons that depend on earlier ones alone, in the order of their activations."""

    low: int
    high: int
    rows: Any  # what they read, of all that comes before
    weight: Any  # (neurons, rows)
    bias: Any  # (neurons, 1)
    parts: list[tuple[str, int, int]]


def draw(seed: int = 0) -> Any:
    """Edges come from anywhere before, or from the last 40 neurons, one as often as the other."""
    rng = np.random.default_rng(seed)
    first_output = INPUTS + HIDDEN
    count = first_output + OUTPUTS
    g: Any = nx.DiGraph(inputs=list(range(INPUTS)), outputs=list(range(first_output, count)))
    g.add_nodes_from(range(INPUTS))
    for v in range(INPUTS, count):
        g.add_node(v, activation=str(rng.choice(ACTIVATIONS)), bias=float(rng.normal(0, 0.3)))
        g.add_edge(int(rng.integers(min(v, first_output))), v)
    while g.number_of_edges() < EDGES:
        v = int(rng.integers(INPUTS, count))
        end = min(v, first_output)
        g.add_edge(int(rng.integers(rng.choice([0, max(0, end - 40)]), end)), v)
    for _, _, edge in g.edges(data=True):
        edge["weight"] = float(rng.normal(0, 0.45))
    return g


def by_level(g: Any) -> tuple[list[Level], list[int]]:
    """The levels, and where the outputs are among all neurons in their order."""
    depth: dict[int, int] = {}
    for v in nx.topological_sort(g):
        depth[v] = 1 + max((depth[u] for u in g.predecessors(v)), default=-1)
    position = {v: i for i, v in enumerate(range(INPUTS))}
    levels = []
    for d in range(1, max(depth.values()) + 1):
        neurons = sorted((v for v in depth if depth[v] == d), key=partial(activation, g))
        rows = sorted({position[u] for v in neurons for u in g.predecessors(v)})
        weight = np.zeros((len(neurons), len(rows)), np.float32)
        for i, v in enumerate(neurons):
            for u in g.predecessors(v):
                weight[i, rows.index(position[u])] = g.edges[u, v]["weight"]
        parts, at = [], 0
        for name, members in groupby(neurons, partial(activation, g)):
            parts.append((name, at, at := at + len(list(members))))
        bias = np.array([[g.nodes[v]["bias"]] for v in neurons], np.float32)
        low = len(position)
        position |= {v: low + i for i, v in enumerate(neurons)}
        levels.append(Level(low, low + at, np.array(rows), weight, bias, parts))
    return levels, [position[v] for v in g.graph["outputs"]]


def activation(g: Any, v: int) -> str:
    return str(g.nodes[v]["activation"])


def ours(g: Any, x: Any, t: Any, threads: int) -> Run:
    options = nnc.Options(threads=threads)
    model = nnc.compile(g, loss="mse", optimizer=nnc.SGD(RATE), options=options)
    return lambda: model.step(x, t)


def by_jax(g: Any, x: Any, t: Any) -> dict[str, Run]:
    """Every way as a jitted step; nothing where jax is not installed."""
    try:
        import jax
        import jax.numpy as jnp
    except ImportError:
        return {}
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    functions: dict[str, Callable[[Any], Any]] = {
        "tanh": jnp.tanh,
        "sigmoid": jax.nn.sigmoid,
        "relu": jax.nn.relu,
        "gaussian": lambda z: jnp.exp(-z * z),
    }
    levels, outputs = by_level(g)
    chosen = np.array(outputs)

    def loss(parameters: Any, x: Any, t: Any, joined: bool) -> Any:
        state = x.T if joined else jnp.zeros((levels[-1].high, len(x))).at[:INPUTS].set(x.T)
        for level, (weight, bias) in zip(levels, parameters, strict=True):
            z = weight @ state[level.rows] + bias
            z = jnp.concatenate([functions[name](z[a:b]) for name, a, b in level.parts])
            if joined:
                state = jnp.concatenate([state, z])
            else:
                state = state.at[level.low : level.high].set(z)
        return jnp.square(state[chosen].T - t).mean()

    @partial(jax.jit, static_argnums=3, donate_argnums=0)
    def step(parameters: Any, x: Any, t: Any, joined: bool) -> Any:
        value, gradients = jax.value_and_grad(loss)(parameters, x, t, joined)
        changed = [
            (w - RATE * dw * (level.weight != 0), b - RATE * db)
            for (w, b), (dw, db), level in zip(parameters, gradients, levels, strict=True)
        ]
        return value, changed

    def run(joined: bool) -> Run:
        held = [[(jnp.array(level.weight), jnp.array(level.bias)) for level in levels]]
        given, wanted = jnp.array(x), jnp.array(t)

        def once() -> Any:
            value, held[0] = step(held[0], given, wanted, joined)
            return value.block_until_ready()

        return once

    return {"JAX, written": run(False), "JAX, joined": run(True)}


def by_torch(g: Any, x: Any, t: Any) -> dict[str, Run]:
    """Every way as a step; nothing where torch is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(1)
    functions: dict[str, Callable[[Any], Any]] = {
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "relu": torch.relu,
        "gaussian": lambda z: torch.exp(-z * z),
    }
    levels, outputs = by_level(g)
    chosen = torch.tensor(outputs)
    given, wanted = torch.tensor(x), torch.tensor(t)
    rows = [torch.tensor(level.rows) for level in levels]
    edges = [torch.tensor(level.weight != 0) for level in levels]

    def run(joined: bool) -> Run:
        weights = [torch.tensor(level.weight, requires_grad=True) for level in levels]
        biases = [torch.tensor(level.bias, requires_grad=True) for level in levels]
        optimizer = torch.optim.SGD([*weights, *biases], lr=RATE, foreach=True)

        def once() -> Any:
            state = given.T if joined else torch.empty(levels[-1].high, len(x))
            if not joined:
                state[:INPUTS] = given.T
            for level, row, w, b in zip(levels, rows, weights, biases, strict=True):
                z = torch.addmm(b, w, state.index_select(0, row))
                parts = [functions[name](z[low:high]) for name, low, high in level.parts]
                if joined:
                    state = torch.cat([state, *parts])
                else:
                    state[level.low : level.high] = torch.cat(parts)
            value = torch.nn.functional.mse_loss(state.index_select(0, chosen).T, wanted)
            optimizer.zero_grad()
            value.backward()
            for w, edge in zip(weights, edges, strict=True):
                w.grad *= edge
            optimizer.step()
            return value.detach()

        return once

    return {"PyTorch, written": run(False), "PyTorch, joined": run(True)}


def check(runs: dict[str, Run]) -> None:
    """All learn the same: the first losses agree, and fall."""
    losses = {name: [float(run()) for _ in range(5)] for name, run in runs.items()}  # type: ignore[arg-type]
    first = next(iter(losses.values()))
    for name, found in losses.items():
        np.testing.assert_allclose(found, first, rtol=1e-4, err_msg=name)
    assert first[-1] < first[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    os.environ.update(ONE_THREAD)  # read when the others are imported
    g = draw()
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (options.batch, INPUTS)).astype(np.float32)
    t = rng.normal(size=(options.batch, OUTPUTS)).astype(np.float32)
    start = time.perf_counter()
    runs = {"nncompiler": ours(g, x, t, 1)}
    runs["nncompiler"]()
    print(f"compiled, and the first step: {readable(time.perf_counter() - start)}")
    runs["nncompiler"] = ours(g, x, t, 1)  # from its first weights again
    if options.threads > 1:
        runs[f"nncompiler, {options.threads} threads"] = ours(g, x, t, options.threads)
    runs |= by_jax(g, x, t) | by_torch(g, x, t)
    check(runs)
    times = interleave(runs, seconds=options.seconds)
    for name, found in times.items():
        best, middle = readable(found.best), readable(found.middle)
        ratio = found.best / times["nncompiler"].best
        print(f"{name:24} best {best:>8}  middle {middle:>8}  {ratio:6.2f} x")


if __name__ == "__main__":
    main()
