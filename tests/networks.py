"""Small networks and data that many tests share."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np

import nncompiler as nnc

WIDTH, CLASSES = 4, 3


def classifier(activation: Any = "tanh", **input_options: Any) -> nx.DiGraph:
    """x (batch, 4) -> hidden (8) -> scores (3)."""
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", WIDTH), **input_options)
    g.add_node("hidden", op="dense", units=8, activation=activation)
    g.add_node("scores", op="dense", units=CLASSES)
    nx.add_path(g, ["x", "hidden", "scores"])
    return g


def two_inputs() -> nx.DiGraph:
    """a (batch, 2) and b (batch, 3) -> their concatenation -> y (1) and z (2)."""
    g = nx.DiGraph()
    g.add_node("a", op="input", shape=("batch", 2))
    g.add_node("b", op="input", shape=("batch", 3))
    g.add_node("both", op="concat")
    g.add_node("y", op="dense", units=1)
    g.add_node("z", op="dense", units=2, activation="sigmoid")
    g.add_edges_from([("a", "both"), ("b", "both"), ("both", "y"), ("both", "z")])
    return g


def neurons() -> nx.DiGraph:
    g = nx.DiGraph()
    g.add_nodes_from(["x1", "x2"])
    g.add_node("h1", activation="tanh", bias=0.0)
    g.add_node("h2", activation="tanh", bias=-1.0)
    g.add_node("y", activation="linear", bias=0.0)
    g.add_weighted_edges_from((x, h, 0.5) for h in ("h1", "h2") for x in ("x1", "x2"))
    g.add_weighted_edges_from([("h1", "y", 1.0), ("h2", "y", -2.0)])
    return g


def data(rows: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of float32 and class numbers that depend on them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, WIDTH)).astype(np.float32)
    return x, np.argmax(x[:, :CLASSES], axis=1)


def compiled(graph: nx.DiGraph | None = None, **settings: Any) -> nnc.Model:
    """A classifier with cross-entropy, SGD with momentum and accuracy, unless told otherwise."""
    defaults: dict[str, Any] = {
        "loss": "cross_entropy",
        "optimizer": nnc.SGD(0.1, momentum=0.9),
        "metrics": ("accuracy",),
    }
    return nnc.compile(classifier() if graph is None else graph, **{**defaults, **settings})
