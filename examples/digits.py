"""Handwritten digits: a network as a layer graph, trained, evaluated, saved and loaded again.

The data are scikit-learn's 1797 images of 8 x 8 pixels (UCI, CC BY 4.0).

    python examples/digits.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import networkx as nx
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import nncompiler as nnc


def network() -> nx.DiGraph:
    g = nx.DiGraph()
    g.add_node("pixels", op="input", shape=("batch", 64))
    g.add_node("hidden1", op="dense", units=128, activation="relu")
    g.add_node("hidden2", op="dense", units=64, activation="relu")
    g.add_node("scores", op="dense", units=10)
    nx.add_path(g, ["pixels", "hidden1", "hidden2", "scores"])
    return g


def main() -> None:
    images, labels = load_digits(return_X_y=True)
    x, x_test, t, t_test = train_test_split(
        (images / 16).astype(np.float32), labels, test_size=0.2, random_state=0
    )
    model = nnc.compile(
        network(),
        loss="cross_entropy",
        optimizer=nnc.SGD(0.05, momentum=0.9),
        regularizer=nnc.L2(1e-5),
        metrics=("accuracy",),
        seed=0,
    )
    model.summary()
    history = model.fit(x, t, epochs=20, batch_size=32, validation_split=0.1, verbose=0)
    for epoch in (0, 4, 9, 19):
        loss, val_loss = history.history["loss"][epoch], history.history["val_loss"][epoch]
        print(f"epoch {epoch + 1:2d}: loss {loss:.4f}, on validation data {val_loss:.4f}")

    result = model.evaluate(x_test, t_test)
    print(f"test accuracy {result['accuracy']:.4f} on {len(x_test)} images never seen")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.nnc"
        model.save(path)
        again = nnc.load(path)
        print(f"saved in {path.stat().st_size} bytes; same answers:", end=" ")
        print(bool(np.array_equal(again(x_test), model(x_test))))
    if result["accuracy"] < 0.95:
        raise SystemExit("the network did not learn")


if __name__ == "__main__":
    main()
