"""An activation of your own is a Python function on symbolic values.

Its derivative is found by the compiler, fused into the layer it follows, and checked here against
central differences. The data are scikit-learn's 178 Italian wines of three cultivars.

    python examples/custom_activation.py
"""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
from sklearn.datasets import load_wine

import nncompiler as nnc


def bent(x: Any) -> Any:
    """Bent identity: (sqrt(x^2 + 1) - 1) / 2 + x."""
    return (nnc.sqrt(x * x + 1) - 1) / 2 + x


def network(activation: Any) -> nx.DiGraph:
    g = nx.DiGraph()
    g.add_node("wine", op="input", shape=("batch", 13))
    g.add_node("hidden", op="dense", units=16, activation=activation)
    g.add_node("cultivar", op="dense", units=3)
    nx.add_path(g, ["wine", "hidden", "cultivar"])
    return g


def main() -> None:
    x, t = load_wine(return_X_y=True)
    x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)
    train = np.arange(len(x)) % 3 > 0

    functions = {
        "relu": "relu",
        "leaky_relu 0.2": ("leaky_relu", {"slope": 0.2}),
        "softsign by hand": lambda v: v / (1 + abs(v)),
        "bent identity": bent,
    }
    for name, activation in functions.items():
        model = nnc.compile(
            network(activation),
            loss="cross_entropy",
            optimizer=nnc.Adam(0.01),
            metrics=("accuracy",),
        )
        model.fit(x[train], t[train], epochs=30, batch_size=16, verbose=0)
        accuracy = model.evaluate(x[~train], t[~train])["accuracy"]
        print(f"{name:18s} accuracy on unseen wines {accuracy:.3f}")

    checked = nnc.compile(network(bent), loss="cross_entropy", dtype="float64")
    print("gradients against central differences:", checked.check_gradients(x[:8], t[:8]))
    print("bent(1) =", nnc.jit(bent)(np.array(1.0)), "slope there:", nnc.grad(bent)(np.array(1.0)))


if __name__ == "__main__":
    main()
