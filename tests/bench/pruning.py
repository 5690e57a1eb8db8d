"""Takes nothing, gives a table: a pruned 784-512-256-10 against the whole one, by one thread.

    python -m tests.bench.pruning

Nine tenths of the edges go (the rest is computed edge by edge), or two thirds of the hidden neurons
(the layers get narrower). Inference by call at batches of 1 and 128, all networks in turns; then
the network of few edges is trained, and the edges that it has left are counted.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np

import nncompiler as nnc
from tests.bench.timing import interleave, readable

SIZES = (784, 512, 256, 10)
EDGES, NEURONS = 0.9, 2 / 3  # that go
BATCHES = (1, 128)
OPTIONS = nnc.Options(threads=1)


def perceptron(sizes: tuple[int, ...] = SIZES) -> Any:
    """The layers, neuron by neuron."""
    random = np.random.default_rng(0)
    g: Any = nx.DiGraph()
    layers = [[f"l{k}_{i}" for i in range(n)] for k, n in enumerate(sizes)]
    g.add_nodes_from(layers[0])
    for before, after in pairwise(layers):
        activation = "linear" if after is layers[-1] else "relu"
        g.add_nodes_from(after, activation=activation, bias=0.0)
        weights = random.normal(0, (2 / len(before)) ** 0.5, (len(before), len(after))).tolist()
        for u, row in zip(before, weights, strict=True):
            g.add_weighted_edges_from((u, v, w) for v, w in zip(after, row, strict=True))
    return g


def training(g: Any) -> nnc.Model:
    return nnc.compile(g, loss="cross_entropy", optimizer=nnc.Adam(1e-3), options=OPTIONS)


def main() -> None:
    whole = nnc.compile(perceptron(), options=OPTIONS)
    graphs = {
        "whole": whole.to_networkx(),
        f"{EDGES:.0%} of the edges gone": nnc.prune(whole, EDGES),
        f"{NEURONS:.0%} of the neurons gone": nnc.prune(whole, NEURONS, neurons=True),
    }
    models = {name: nnc.compile(g, options=OPTIONS) for name, g in graphs.items()}
    random = np.random.default_rng(1)
    for batch in BATCHES:
        x = random.standard_normal((batch, SIZES[0]), dtype=np.float32)
        found = interleave({name: partial(model, x) for name, model in models.items()})
        for name, timing in found.items():
            ratio = found["whole"].middle / timing.middle
            edges = graphs[name].number_of_edges()
            line = f"{readable(timing.middle):>9}  {ratio:5.2f} x the whole network's speed"
            print(f"batch {batch:>3}  {name:<26} {edges:>7} edges  {line}")
    (few,) = (name for name in graphs if "edges" in name)
    model = training(graphs[few])
    x, t = random.standard_normal((128, SIZES[0]), dtype=np.float32), random.integers(0, 10, 128)
    losses = [model.step(x, t) for _ in range(20)]
    same = set(model.to_networkx().edges) == set(graphs[few].edges)
    print(f"20 steps: loss {losses[0]:.3f} -> {losses[-1]:.3f}, the same edges: {same}")
    step = interleave({"step": lambda: model.step(x, t)}, seconds=1.0)["step"]
    print(f"a step of a batch of 128: {readable(step.middle)}")


if __name__ == "__main__":
    main()
