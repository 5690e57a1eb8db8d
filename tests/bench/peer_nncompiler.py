"""Takes a workload, gives it through nncompiler's public interface, one thread."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import networkx as nx

import nncompiler as nnc
from tests.bench.workloads import Workload, batches, weights

NAME = "nncompiler"


def build(w: Workload) -> dict[str, Callable[[], Any]]:
    """One way to run it per name: "" is a plain call, "bound" one on fixed buffers."""
    data = batches(w)
    if w.mode == "product":
        a, b = data[0]
        product = nnc.jit(lambda a, b: a @ b)
        return {"": lambda: product(a, b)}
    model = compile_model(w)
    turns = cycle(data)
    if w.mode == "infer":
        bound = model.bind(data[0][0])
        return {"": lambda: model(next(turns)[0]), "bound": bound}
    if w.mode == "step":
        bound = compile_model(w).bind(*data[0])
        return {"": lambda: model.step(*next(turns)), "bound": bound}
    x, t = data[0]
    if w.mode == "loop":
        native = model.bind(x, t)
        return {"": lambda: native.run(w.repeat)}
    options: dict[str, Any] = dict(epochs=1, batch_size=w.batch, shuffle=False, verbose=0)
    return {"": lambda: model.fit(x, t, **options).history["loss"][-1]}


def graph(w: Workload) -> nx.DiGraph:
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", w.sizes[0]))
    last = len(w.sizes) - 2
    for i, units in enumerate(w.sizes[1:]):
        activation = w.activation if i < last else w.output
        g.add_node(f"layer{i}", op="dense", units=units, activation=activation or None)
    nx.add_path(g, ["x", *(f"layer{i}" for i in range(last + 1))])
    return g


def compile_model(w: Workload, threads: int = 1) -> Any:
    optimizer = {
        "sgd": lambda: nnc.SGD(w.lr),
        "momentum": lambda: nnc.SGD(w.lr, momentum=0.9),
        "adam": lambda: nnc.Adam(w.lr),
    }[w.optimizer]()
    training = w.mode != "infer"
    model = nnc.compile(
        graph(w),
        loss={"ce": "cross_entropy", "mse": "mse"}[w.loss] if training else None,
        optimizer=optimizer if training else None,
        options=nnc.Options(threads=threads),
    )
    for i, (matrix, bias) in enumerate(weights(w)):
        model.parameters[f"layer{i}.weight"][...] = matrix
        model.parameters[f"layer{i}.bias"][...] = bias
    return model
