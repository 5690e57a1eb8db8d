"""Takes nothing, gives the networks whose start-up is measured: graph, optimizer, one batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import networkx as nx
import numpy as np

import nncompiler as nnc
from tests.bench.peer_nncompiler import graph
from tests.bench.workloads import DIGITS, MNIST, Workload

Network = tuple[nx.DiGraph, Any, tuple[int, ...]]  # graph, optimizer, shape of the inputs


def perceptron(name: str, sizes: dict[str, Any]) -> Network:
    w = Workload(name, "step", **sizes)
    optimizer = nnc.Adam(1e-3) if name == "mnist" else nnc.SGD(0.02, momentum=0.9)
    return graph(w), optimizer, (w.batch, w.sizes[0])


def lenet() -> Network:
    """LeCun et al. 1998, with maxima and relu."""
    conv = {"op": "conv", "kernel_size": 5, "activation": "relu"}
    layers: dict[str, dict[str, Any]] = {
        "c0": {**conv, "filters": 6, "padding": 2},
        "pool0": {"op": "max_pool", "pool_size": 2},
        "c1": {**conv, "filters": 16},
        "pool1": {"op": "max_pool", "pool_size": 2},
        "flat": {"op": "flatten"},
        "d0": {"op": "dense", "units": 120, "activation": "relu"},
        "d1": {"op": "dense", "units": 84, "activation": "relu"},
        "d2": {"op": "dense", "units": 10},
    }
    return chain((1, 28, 28), layers), nnc.SGD(0.01, momentum=0.9), (64, 1, 28, 28)


def chain(shape: tuple[int, ...], layers: dict[str, dict[str, Any]]) -> nx.DiGraph:
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", *shape))
    for name, attributes in layers.items():
        g.add_node(name, **attributes)
    nx.add_path(g, ["x", *layers])
    return g


def resnet8() -> Network:
    """Three residual blocks (He et al. 2015) of 16, 32 and 64 channels on 32 x 32 images."""
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 3, 32, 32))
    last = normed(g, "stem", "x", filters=16, activation="relu")
    for number, filters in enumerate((16, 32, 64)):
        name, strides = f"block{number}", 1 if number == 0 else 2
        inner = normed(g, f"{name}a", last, filters=filters, strides=strides, activation="relu")
        inner = normed(g, f"{name}b", inner, filters=filters)
        if strides > 1:
            last = normed(g, f"{name}c", last, filters=filters, strides=strides, size=1)
        g.add_node(f"{name}.sum", op="add")
        g.add_node(name, op="relu")
        g.add_edges_from([(inner, f"{name}.sum"), (last, f"{name}.sum"), (f"{name}.sum", name)])
        last = name
    g.add_node("mean", op="global_avg_pool")
    g.add_node("fc", op="dense", units=10)
    nx.add_path(g, [last, "mean", "fc"])
    return g, nnc.SGD(0.05, momentum=0.9), (32, 3, 32, 32)


def normed(
    g: nx.DiGraph,
    name: str,
    source: str,
    *,
    filters: int,
    strides: int = 1,
    size: int = 3,
    activation: str | None = None,
) -> str:
    """Adds a convolution without a bias and a batch norm; gives the name of what comes out."""
    taken = dict(filters=filters, kernel_size=size, strides=strides, padding=size // 2)
    g.add_node(name, op="conv", use_bias=False, **taken)
    g.add_node(f"{name}.norm", op="batch_norm", activation=activation)
    nx.add_path(g, [source, name, f"{name}.norm"])
    return f"{name}.norm"


def lstm(steps: int) -> Network:
    layers = {"cell": {"op": "lstm", "units": 128}, "head": {"op": "dense", "units": 10}}
    return chain((steps, 64), layers), nnc.Adam(1e-3), (4, steps, 64)


NETWORKS: dict[str, Callable[[], Network]] = {
    "digits MLP": partial(perceptron, "digits", DIGITS),
    "MNIST MLP": partial(perceptron, "mnist", MNIST),
    "LeNet": lenet,
    "ResNet-8": resnet8,
    "LSTM, T = 16": partial(lstm, 16),
    "LSTM, T = 1024": partial(lstm, 1024),
}


def batch(shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Inputs and labels of ten classes."""
    r = np.random.default_rng(0)
    return r.standard_normal(shape, dtype=np.float32), r.integers(0, 10, shape[0])
