"""Takes a kind of layer with its attributes, gives the checks that hold for every layer.

The layer stands behind a dense layer, so that its derivative by its input is checked as well as
those by its parameters.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy as np

import nncompiler as nnc
from ir import ops
from ir.graph import Graph
from ir.interpret import run_graph
from nncompiler.autodiff import differentiate
from nncompiler.compilation import compile_graph
from nncompiler.reference import Reference
from runtime.session import Session

BOUNDS = {"float32": 3e-5, "float64": 1e-11}


@dataclass(frozen=True)
class Case:
    """`op` on values of shape (batch, *shape); `differences` off where it jumps (dropout).

    Every one of its `operands` comes from a dense layer, with the attributes `before`.
    """

    op: str
    shape: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    differences: bool = True
    operands: int = 1
    before: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        words = [f"{k}={v}" for k, v in self.attributes.items()]
        return " ".join([self.op, "x".join(map(str, self.shape)), *words])

    def network(self) -> Any:
        g: Any = nx.DiGraph()
        g.add_node("x", op="input", shape=("batch", *self.shape[:-1], 3))
        g.add_node("layer", op=self.op, **self.attributes)
        for slot in range(self.operands):
            name = f"before{slot}"
            g.add_node(name, op="dense", units=self.shape[-1], **self.before)
            g.add_edge("x", name)
            g.add_edge(name, "layer", slot=slot)
        return g

    def data(self, rows: int) -> tuple[Any, Any]:
        rng = np.random.default_rng(rows)
        x = rng.normal(size=(rows, *self.shape[:-1], 3))
        return x, None


def check_layer(case: Case, dtype: str) -> None:
    """`check_model` of the layer's network."""
    model = nnc.compile(
        case.network(), loss="mse", optimizer=nnc.SGD(0.1, momentum=0.9), dtype=dtype
    )
    check_model(model, lambda rows: case.data(rows)[0], differences=case.differences)


def check_model(model: nnc.Model, data: Any, *, differences: bool = True) -> None:
    """Outputs, gradients and steps as NumPy gives them, for batches of 5 and 1 and a short last
    one in `fit`; gradients as differences give them; outputs of a snapshot as those of the model.
    `data(rows)` gives the inputs."""
    rng = np.random.default_rng(0)
    for array in model.parameters.values():
        array += 0.3 * rng.normal(size=array.shape)
    bound = BOUNDS[model.settings.dtype]
    for rows in (5, 1):
        x = data(rows)
        t = 0.1 * rng.normal(size=np.shape(model.forward(x)))
        assert model.compare(x, t).worst < bound
        trained = model.forward(x, training=True)
        if model.settings.dtype == "float64" and differences:
            assert model.check_gradients(x, t, samples=8).worst < 1e-5
        twin = Reference(model.blueprint, model.state.copy())
        assert close(trained, twin.forward(x, training=True), bound)
        assert close(model.step(x, t), twin.step(x, t), bound)
        assert_same_state(model, twin, bound)
    x = data(7)
    t = 0.1 * rng.normal(size=np.shape(model.forward(x)))
    twin = Reference(model.blueprint, model.state.copy())
    for machine in (model, twin):
        machine.fit(x, t, epochs=1, batch_size=4, verbose=0)
    assert_same_state(model, twin, bound)
    frozen = model.freeze()
    for rows in (1, 6):
        x = data(rows)
        assert close(frozen(x), model(x), bound)


def check_second(model: nnc.Model, data: Any) -> None:
    """The derivative of the gradient along a random direction, by the parameters: compiled as
    NumPy gives it, and as differences of gradients give it; for batches of 3 and 1."""
    objective = model.blueprint.objective
    backward = objective.graph("backward")
    names = list(objective.trainable)
    nodes = [objective.trainable[n].node for n in names]
    ways = [ops.input(f"way:{n}", p.dtype, p.shape) for n, p in zip(names, nodes, strict=True)]
    slopes = [ops.sum(backward.outputs[f"grad:{n}"] * w) for n, w in zip(names, ways, strict=True)]
    seconds = differentiate(functools.reduce(ops.add, slopes), nodes)
    graph = Graph("second", (*backward.inputs, *ways), dict(zip(names, seconds, strict=True)))
    session = Session(compile_graph(graph, options=nnc.Options(threads=1, cache=False)))
    rng = np.random.default_rng(1)
    for rows in (3, 1):
        x = data(rows)
        t = 0.1 * rng.normal(size=np.shape(model.forward(x)))
        feed = {**model.state, **model.blueprint.pack(x, t)}
        feed = {n.attrs["id"]: feed[n.attrs["id"]] for n in backward.inputs}
        along = {n: rng.normal(size=np.shape(feed[n])) for n in names}
        given = {**feed, **{f"way:{n}": w for n, w in along.items()}}
        found, reference = session(given), run_graph(graph, given)
        step = 1e-5
        ends = [
            run_graph(backward, {**feed, **{n: feed[n] + s * along[n] for n in names}})
            for s in (step, -step)
        ]
        scale = max(float(np.abs(r).max(initial=1.0)) for r in reference.values())
        for name in names:
            assert close(found[name], reference[name], 1e-10 * scale), name
            slope = (ends[0][f"grad:{name}"] - ends[1][f"grad:{name}"]) / (2 * step)
            np.testing.assert_allclose(reference[name], slope, rtol=1e-5, atol=1e-6 * scale)


def close(a: Any, b: Any, bound: float) -> bool:
    return bool(np.all(np.abs(np.asarray(a) - b) <= bound * (1 + np.abs(b))))


def assert_same_state(model: Any, twin: Any, bound: float) -> None:
    for name, array in twin.state.items():
        assert close(model.state[name], array, 100 * bound), name
