"""Handwritten digits with a convolutional network: convolution, pooling, dropout, a dense layer.

The data are scikit-learn's 1797 images of 8 x 8 pixels (UCI, CC BY 4.0).

    python examples/digits_cnn.py
"""

from __future__ import annotations

import networkx as nx
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import nncompiler as nnc


def network() -> nx.DiGraph:
    g = nx.DiGraph()
    g.add_node("image", op="input", shape=("batch", 1, 8, 8))
    g.add_node("conv1", op="conv", filters=32, kernel_size=3, padding="same", activation="relu")
    g.add_node("conv2", op="conv", filters=32, kernel_size=3, padding="same", activation="relu")
    g.add_node("pool", op="max_pool", pool_size=2)
    g.add_node("flat", op="flatten")
    g.add_node("drop", op="dropout", rate=0.3)
    g.add_node("dense", op="dense", units=64, activation="relu")
    g.add_node("scores", op="dense", units=10)
    nx.add_path(g, ["image", "conv1", "conv2", "pool", "flat", "drop", "dense", "scores"])
    return g


def show(weight: np.ndarray) -> None:
    """The first layer's kernels as characters, dark where the weight is large."""
    shades = " .:-=+*#%@"
    low, high = weight.min(), weight.max()
    levels = ((weight - low) / (high - low) * (len(shades) - 1)).round().astype(int)
    for row in range(3):
        print("  ".join("".join(2 * shades[v] for v in kernel[0, row]) for kernel in levels[:8]))


def main() -> None:
    images, labels = load_digits(return_X_y=True)
    pictures = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    x, x_test, t, t_test = train_test_split(pictures, labels, test_size=0.25, random_state=0)
    model = nnc.compile(
        network(),
        loss="cross_entropy",
        optimizer=nnc.Adam(nnc.Cosine(0.002, 20 * 43)),
        metrics=("accuracy",),
        seed=0,
    )
    history = model.fit(x, t, epochs=20, batch_size=32, verbose=0).history["loss"]
    for epoch in (0, 4, 9, 19):
        print(f"epoch {epoch + 1:2d}: loss {history[epoch]:.4f}")
    print("\nEight of the 32 kernels that the first layer has learned:")
    show(model.parameters["conv1.weight"])

    result = model.evaluate(x_test, t_test)
    wrong = np.flatnonzero(model(x_test).argmax(1) != t_test)
    print(f"\n{len(wrong)} of {len(x_test)} images that it never saw are misread")
    print(f"test accuracy {result['accuracy']:.4f}")
    if result["accuracy"] < 0.98:
        raise SystemExit("the network did not learn")


if __name__ == "__main__":
    main()
