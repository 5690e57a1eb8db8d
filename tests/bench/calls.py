"""Takes nothing, prints what one call from Python costs: python -m tests.bench.calls

The nets are so small that calls are all there is; `native` is the same work in a native loop, and
numpy the same formulas by hand.
"""

from __future__ import annotations

from collections.abc import Callable

import networkx as nx
import numpy as np

import nncompiler as nnc
from tests.bench.timing import interleave

LOOP = 200


def dense_net(sizes: tuple[int, ...], activation: str) -> nx.DiGraph:
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", sizes[0]))
    names = [f"layer{i}" for i in range(len(sizes) - 1)]
    for name, units in zip(names, sizes[1:], strict=True):
        g.add_node(name, op="dense", units=units, activation=activation)
    g.nodes[names[-1]]["activation"] = None
    nx.add_path(g, ["x", *names])
    return g


def xor() -> dict[str, Callable[[], object]]:
    """2-2-1, batch 4: a training step."""
    g = dense_net((2, 2, 1), "sigmoid")
    one = nnc.Options(threads=1)
    model = nnc.compile(g, loss="mse", optimizer=nnc.SGD(0.1), options=one)
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    t = np.array([[0], [1], [1], [0]], np.float32)
    wide, wide_t = x.astype(np.float64), t.astype(np.float64)
    bound = model.bind(x, t)
    w1, b1, w2, b2 = (np.array(a) for a in model.parameters.values())

    def by_hand() -> float:
        nonlocal w1, b1, w2, b2
        h = 1 / (1 + np.exp(-(x @ w1 + b1)))
        error = h @ w2 + b2 - t
        loss = float(np.mean(error * error))
        g = error * np.float32(0.5)
        gh = g @ w2.T * h * (1 - h)
        w2, b2 = w2 - 0.1 * (h.T @ g), b2 - 0.1 * g.sum(0)
        w1, b1 = w1 - 0.1 * (x.T @ gh), b1 - 0.1 * gh.sum(0)
        return loss

    return {
        "xor model.step(x, t)": lambda: model.step(x, t),
        "xor model.step of f64": lambda: model.step(wide, wide_t),
        "xor model(x)": lambda: model(x),
        "xor bound()": bound,
        f"xor bound.run({LOOP})": lambda: bound.run(LOOP),
        "xor numpy": by_hand,
    }


def one_row() -> dict[str, Callable[[], object]]:
    """64-128-64-10, batch 1: a prediction."""
    model = nnc.compile(dense_net((64, 128, 64, 10), "relu"), options=nnc.Options(threads=1))
    x = np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32)
    bound = model.bind(x)
    w = [np.array(a) for a in model.parameters.values()]

    def by_hand() -> object:
        h = np.maximum(x @ w[0] + w[1], 0)
        return np.maximum(h @ w[2] + w[3], 0) @ w[4] + w[5]

    return {
        "mlp model(x)": lambda: model(x),
        "mlp bound()": bound,
        f"mlp bound.run({LOOP})": lambda: bound.run(LOOP),
        "mlp numpy": by_hand,
    }


def functions() -> dict[str, Callable[[], object]]:
    """Compiled functions of arrays."""
    a = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    row = a[:1].copy()
    product = nnc.jit(lambda a, b: a @ b)
    return {
        "jit row @ 64x64": lambda: product(row, a),
        "numpy row @ 64x64": lambda: row @ a,
        "jit 64x64 @ 64x64": lambda: product(a, a),
        "numpy 64x64 @ 64x64": lambda: a @ a,
    }


def main() -> None:
    for runs in (xor(), one_row(), functions()):
        times = interleave({"nothing": lambda: None, **runs}, seconds=0.5)
        base = times.pop("nothing").best
        for name, time in times.items():
            calls = LOOP if ".run(" in name else 1
            best, middle = ((t - base) / calls * 1e9 for t in (time.best, time.middle))
            print(f"{name:32} {best:8.0f} ns  (median {middle:.0f})")


if __name__ == "__main__":
    main()
