"""Handwritten digits through a bottleneck of eight numbers, beside principal components.

Convolutions make the picture smaller, transposed ones make it larger again. Eight principal
components are the best that a linear map can do.

    python examples/autoencoder_digits.py
"""

from __future__ import annotations

import networkx as nx
import numpy as np
from sklearn.datasets import load_digits

import nncompiler as nnc

CODE, SHADES = 8, " .:-=+*#%@"


def network() -> nx.DiGraph:
    g = nx.DiGraph()
    half = {"kernel_size": 3, "strides": 2, "padding": 1, "activation": "relu"}
    g.add_node("picture", op="input", shape=("batch", 1, 8, 8))
    g.add_node("smaller", op="conv", filters=16, **half)
    g.add_node("smallest", op="conv", filters=32, **half)
    g.add_node("flat", op="flatten")
    g.add_node("code", op="dense", units=CODE)
    g.add_node("wide", op="dense", units=128, activation="relu")
    g.add_node("small", op="reshape", shape=(32, 2, 2))
    g.add_node("larger", op="conv_transpose", filters=16, output_padding=1, **half)
    last = {**half, "activation": "sigmoid"}
    g.add_node("again", op="conv_transpose", filters=1, output_padding=1, **last)
    nx.add_path(g, ["picture", "smaller", "smallest", "flat", "code"])
    nx.add_path(g, ["code", "wide", "small", "larger", "again"])
    return g


def principal(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The test rows from their CODE principal components."""
    mean = train.mean(0)
    axes = np.linalg.svd(train - mean, full_matrices=False)[2][:CODE]
    return (test - mean) @ axes.T @ axes + mean


def show(*pictures: np.ndarray) -> None:
    """Pictures (8, 8) of numbers in 0 .. 1 side by side, as text."""
    for rows in zip(*(p.clip(0, 1) for p in pictures), strict=True):
        parts = ("".join(2 * SHADES[int(v * 9.99)] for v in row) for row in rows)
        print("   ".join(parts))


def main() -> None:
    x = (load_digits().images / 16).astype(np.float32)[:, None]
    order = np.random.default_rng(0).permutation(len(x))
    train, test = x[order[:1400]], x[order[1400:]]
    model = nnc.compile(network(), loss="mse", optimizer=nnc.Adam(0.002), seed=0)
    model.fit(train, train, epochs=60, batch_size=32, verbose=0)
    found = model.predict(test)
    linear = principal(train.reshape(-1, 64), test.reshape(-1, 64)).reshape(test.shape)
    error, linear_error = np.mean((found - test) ** 2), np.mean((linear - test) ** 2)
    print(f"{len(test)} pictures of 64 numbers, each from {CODE}; mean squared errors:")
    print(f"principal components {linear_error:.4f}, the network {error:.4f}")
    for i in range(2):
        show(test[i, 0], linear[i, 0], found[i, 0])
    if error > linear_error:
        raise SystemExit("the network did not learn")


if __name__ == "__main__":
    main()
