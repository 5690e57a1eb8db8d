"""The adding problem: remember two marked numbers over a hundred steps, and give their sum.

Each sequence has random numbers in 0 .. 1 and marks, two of which are 1. Who always answers 1 has
a mean squared error of 1/6; a network without memory does no better (Hochreiter and Schmidhuber
1997).

    python examples/lstm_adding.py
"""

from __future__ import annotations

import time

import networkx as nx
import numpy as np

import nncompiler as nnc

TIMES, UNITS, SEQUENCES = 100, 32, 10_000


def network() -> nx.DiGraph:
    g = nx.DiGraph()
    g.add_node("sequence", op="input", shape=("batch", TIMES, 2))
    g.add_node("memory", op="lstm", units=UNITS)
    g.add_node("sum", op="dense", units=1)
    nx.add_path(g, ["sequence", "memory", "sum"])
    return g


def draw(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sequences (count, TIMES, 2) of numbers and marks, and the sums (count, 1) of the marked."""
    numbers = rng.uniform(size=(count, TIMES)).astype(np.float32)
    marks = np.zeros_like(numbers)
    rows = np.arange(count)
    marks[rows, rng.integers(0, TIMES // 2, count)] = 1
    marks[rows, rng.integers(TIMES // 2, TIMES, count)] = 1
    return np.stack([numbers, marks], axis=2), (numbers * marks).sum(1, keepdims=True)


def main() -> None:
    rng = np.random.default_rng(0)
    x, t = draw(rng, SEQUENCES)
    x_test, t_test = draw(rng, 1000)
    model = nnc.compile(
        network(), loss="mse", optimizer=nnc.Adam(0.01, clip_norm=1.0), metrics=("mae",), seed=0
    )
    model.parameters["memory.bias"][UNITS : 2 * UNITS] = 1  # forget gates begin open
    print(f"{model.parameters['memory.weight_hidden'].shape} hidden weights, {TIMES} steps")
    print(f"always 1:    error {np.mean((t_test - 1) ** 2):.4f}")
    began = time.perf_counter()
    for epoch in range(1, 31):
        model.fit(x, t, epochs=1, batch_size=64, verbose=0)
        error = model.evaluate(x_test, t_test)["loss"]
        if epoch % 3 == 0 or error < 0.002:
            print(f"epoch {epoch:2d}:    error {error:.4f}, {time.perf_counter() - began:.1f} s")
        if error < 0.002:
            break
    for sequence, wanted in zip(x_test[:3], t_test[:3], strict=True):
        marked = " + ".join(f"{v:.3f}" for v, mark in sequence if mark)
        print(f"{marked} = {model(sequence[None])[0, 0]:.3f} ({wanted[0]:.3f})")
    if error > 0.01:
        raise SystemExit("the network did not learn")


if __name__ == "__main__":
    main()
