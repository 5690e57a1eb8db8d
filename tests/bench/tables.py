"""Takes nothing, gives a table: a training step of an embedding bag by the size of its table.

    python -m tests.bench.tables

Every step reads 64 bags of 20 rows (64 numbers each) anywhere in the table. Lazy optimizers and
torch's SparseAdam (where torch is installed) touch those rows alone; what grows with the table is
the way of the rows through the caches. One thread, in turns, medians in microseconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from statistics import median
from typing import Any

os.environ.setdefault("NNC_NUM_THREADS", "1")  # before NumPy's and torch's threads are made
os.environ.setdefault("OMP_NUM_THREADS", "1")

import networkx as nx
import numpy as np

import nncompiler as nnc

try:
    import torch
except ImportError:
    torch = None

SIZES = (1_000, 10_000, 100_000, 1_000_000)
BAGS, LENGTH, WIDTH, CLASSES, BATCHES, STEPS = 64, 20, 64, 2, 20, 100

OURS: dict[str, Any] = {
    "SGD": nnc.SGD(0.01),
    "SGD, momentum, lazy": nnc.SGD(0.01, momentum=0.9, lazy=True),
    "Adam, lazy": nnc.Adam(lazy=True),
    "Adagrad, lazy": nnc.Adagrad(lazy=True),
}


def batches(size: int) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(0)
    return [
        (rng.integers(0, size, (BAGS, LENGTH)), rng.integers(0, CLASSES, BAGS))
        for _ in range(BATCHES)
    ]


def ours(optimizer: Any, size: int) -> Iterator[Any]:
    """Steps of ours, one for every value that is taken."""
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", LENGTH), dtype="int32")
    bag = {"num_embeddings": size, "embedding_dim": WIDTH, "initializer": 0.1}
    g.add_node("bag", op="embedding_bag", **bag)
    g.add_node("y", op="dense", units=CLASSES)
    nx.add_path(g, ["x", "bag", "y"])
    model = nnc.compile(g, loss="cross_entropy", optimizer=optimizer)
    for x, t in cycle([(x.astype(np.int32), t) for x, t in batches(size)]):
        yield model.step(x, t)


def sparse_adam(size: int) -> Iterator[Any]:
    """The same steps by torch."""
    torch.set_num_threads(1)
    bag = torch.nn.EmbeddingBag(size, WIDTH, sparse=True, _weight=torch.full((size, WIDTH), 0.1))
    dense = torch.nn.Linear(WIDTH, CLASSES)
    table, rest = torch.optim.SparseAdam(bag.parameters()), torch.optim.Adam(dense.parameters())
    for x, t in cycle([tuple(map(torch.tensor, batch)) for batch in batches(size)]):
        table.zero_grad()
        rest.zero_grad()
        loss = torch.nn.functional.cross_entropy(dense(bag(x)), t)
        loss.backward()
        table.step()
        rest.step()
        yield loss


def main() -> None:
    makers: dict[str, Callable[[int], Iterator[Any]]] = {
        name: (lambda size, o=optimizer: ours(o, size)) for name, optimizer in OURS.items()
    }
    if torch is not None:
        makers["torch SparseAdam"] = sparse_adam
    print(f"{'':24s}" + "".join(f"{size:>12,}" for size in SIZES))
    rows: dict[str, list[float]] = {name: [] for name in makers}
    for size in SIZES:
        runs = {name: make(size) for name, make in makers.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(STEPS + BATCHES):
            for name, run in runs.items():
                began = time.perf_counter()
                next(run)
                if number >= BATCHES:
                    times[name].append(time.perf_counter() - began)
        for name, taken in times.items():
            rows[name].append(1e6 * median(taken))
    for name, found in rows.items():
        print(f"{name:24s}" + "".join(f"{value:>12.0f}" for value in found))


if __name__ == "__main__":
    main()
