"""XOR as a graph of neurons: exact with weights given by hand, learned from random ones.

The first network is the textbook's: two ReLU neurons with biases 0 and -1. No linear model can do
it: the best one answers 1/2 to everything.

    python examples/xor_neurons.py
"""

from __future__ import annotations

import networkx as nx
import numpy as np

import nncompiler as nnc

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
T = np.array([[0], [1], [1], [0]], np.float32)


def by_hand() -> nx.DiGraph:
    """h1 = relu(x1 + x2), h2 = relu(x1 + x2 - 1), y = h1 - 2 h2."""
    g = nx.DiGraph()
    g.add_nodes_from(["x1", "x2"])
    g.add_node("h1", activation="relu", bias=0.0)
    g.add_node("h2", activation="relu", bias=-1.0)
    g.add_node("y", activation="linear", bias=0.0)
    g.add_weighted_edges_from([("x1", "h1", 1.0), ("x2", "h1", 1.0)])
    g.add_weighted_edges_from([("x1", "h2", 1.0), ("x2", "h2", 1.0)])
    g.add_weighted_edges_from([("h1", "y", 1.0), ("h2", "y", -2.0)])
    return g


def to_learn(hidden: int) -> nx.DiGraph:
    """Two inputs, `hidden` tanh neurons, one sigmoid neuron; the initializer draws the weights."""
    g = nx.DiGraph()
    names = [f"h{i}" for i in range(hidden)]
    g.add_nodes_from(["x1", "x2"])
    g.add_nodes_from(names, activation="tanh")
    g.add_node("y", activation="sigmoid")
    g.add_edges_from((x, h) for h in names for x in ("x1", "x2"))
    g.add_edges_from((h, "y") for h in names)
    return g


def main() -> None:
    exact = nnc.compile(by_hand())
    print("given weights:", exact(X).ravel())

    model = nnc.compile(to_learn(8), loss="mse", optimizer=nnc.Adam(0.05), seed=0)
    print(
        "before training:",
        model(X).ravel().round(3),
        "loss",
        round(model.evaluate(X, T)["loss"], 4),
    )
    step = model.bind(X, T)  # fixed buffers: 500 steps are one native call
    loss = step.run(500)
    print("after 500 steps:", model(X).ravel().round(3), "loss", round(float(loss), 6))
    print("one weight, by its name: h0->y =", float(model.parameters["h0->y"]))
    if not np.array_equal(model(X).round(), T):
        raise SystemExit("XOR was not learned")


if __name__ == "__main__":
    main()
