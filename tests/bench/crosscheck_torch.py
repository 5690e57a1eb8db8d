"""Takes nothing, gives a table: layers in training against torch's of that name, where it is there.

    python -m tests.bench.crosscheck_torch [part of a name]

Value, gradients by the inputs and by every parameter, from the same float32 numbers; then a table
after lazy steps against SparseAdam's, and stateful layers against detached states. An error is the
largest difference divided by 1 or the largest number, whichever is larger; above BOUND the program
ends with status 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch import nn

import nncompiler as nnc
from tests.bench.torch_checks import ROWS, Check
from tests.bench.torch_layers import layers
from tests.bench.torch_networks import networks, recurrent

BOUND = 1e-5


def run(check: Check) -> dict[str, float]:
    """Largest errors of the value, the gradients, and the states after a step."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    module = check.theirs().train()
    values = check.draw(rng)
    model = nnc.compile(network(check), loss=_weighed, optimizer=nnc.SGD(0.0))
    for ours, theirs in check.paths(check.names).items():
        model.parameters[ours] = _read(module, theirs, model.parameters[ours].shape)
    for ours, theirs in check.paths(check.states).items():
        model.state[ours] = _read(module, theirs, model.state[ours].shape)
    moves = {slot: f"move {slot}" for slot, v in values.items() if v.dtype == np.float32}
    given = {
        slot: torch.tensor(v + np.asarray(model.parameters[moves[slot]]), requires_grad=True)
        if slot in moves
        else torch.tensor(v)
        for slot, v in values.items()
    }
    expected = module(*given.values())
    weights = rng.normal(size=expected.shape).astype(np.float32)
    (expected * torch.tensor(weights)).sum().backward()
    x = {f"x {slot}": v for slot, v in values.items()}
    errors = {"value": error(model.forward(x, training=True), expected.detach().numpy())}
    _, gradients = model.backward(x, weights)
    for slot, name in moves.items():
        errors[f"d {slot}"] = error(gradients[name], given[slot].grad.sum(0).numpy())
    for ours, theirs in check.paths(check.names).items():
        found = gradients[ours]
        errors[f"d {ours}"] = error(found, _read(module, theirs, found.shape, gradient=True))
    model.step(x, weights)
    for ours, theirs in check.paths(check.states).items():
        found = model.state[ours]
        errors[ours] = error(found, _read(module, theirs, found.shape))
    return errors


def _weighed(y: Any, weights: Any) -> Any:
    return nnc.sum(y * weights)


def network(check: Check) -> Any:
    """The layers on x + move, so that a gradient by the input is one by a parameter."""
    g: Any = nx.DiGraph()
    sources = {}
    for slot, operand in check.operands.items():
        name = sources[slot] = f"x {slot}"
        g.add_node(name, op="input", shape=("batch", *operand.shape), **operand.dtype)
        if not operand.dtype:
            g.add_node(f"move {slot}", op="parameter", shape=operand.shape, initializer="normal")
            g.add_node(f"moved {slot}", op="add")
            g.add_edges_from([(name, f"moved {slot}"), (f"move {slot}", f"moved {slot}")])
            sources[slot] = f"moved {slot}"
    if callable(check.op):
        check.op(g, *sources.values())
        return g
    g.add_node("n", **check.op)
    for slot, source in sources.items():
        g.add_edge(source, "n", slot=0 if slot == "input" else slot)
    return g


TURNS: Mapping[str, Callable[[Any], Any]] = {
    "T": np.transpose,
    "mirrored": lambda a: np.flip(a, tuple(range(2, a.ndim))),
    **{f"third{i}": lambda a, i=i: np.split(a, 3)[i] for i in range(3)},
}


def _read(module: Any, path: str, shape: tuple[int, ...], *, gradient: bool = False) -> Any:
    """A parameter, buffer or gradient of torch's in our layout: its path, then TURNS of it."""
    value: Any = module
    turns = []
    for part in path.split("."):
        if part in TURNS:
            turns.append(TURNS[part])
        else:
            value = value[int(part)] if part.isdigit() else getattr(value, part)
    array = (value.grad if gradient else value.detach()).numpy().copy()
    for turn in turns:
        array = turn(array)
    return array.reshape(shape)


def run_lazy(steps: int = 20) -> dict[str, float]:
    """Largest errors of a table and its moments after steps of Adam(lazy=True) and SparseAdam."""
    rng = np.random.default_rng(0)
    module = nn.Embedding(50, 5, sparse=True)
    theirs = torch.optim.SparseAdam(module.parameters(), lr=0.01)
    op = {"op": "embedding", "num_embeddings": 50, "embedding_dim": 5}
    check = Check("lazy", (4,), op, lambda: module, {}, below=50)
    model = nnc.compile(network(check), loss=_weighed, optimizer=nnc.Adam(0.01, lazy=True))
    model.parameters["n.weight"] = module.weight.detach().numpy()
    for _ in range(steps):
        x = rng.integers(0, 40, (ROWS, 4))
        weights = rng.normal(size=(ROWS, 4, 5)).astype(np.float32)
        theirs.zero_grad()
        (module(torch.tensor(x)) * torch.tensor(weights)).sum().backward()
        theirs.step()
        model.step(x, weights)
    state = theirs.state[module.weight]
    expected = {"n.weight": module.weight.detach()}
    expected |= {"optimizer.m.n.weight": state["exp_avg"]}
    expected |= {"optimizer.v.n.weight": state["exp_avg_sq"]}
    return {name: error(model.state[name], t.numpy()) for name, t in expected.items()}


def run_carried(check: Check, steps: int = 4) -> dict[str, float]:
    """Largest errors of losses and parameters after steps of SGD over the pieces of one stream, the
    state of every piece detached and handed on to the next."""
    rng = np.random.default_rng(0)
    module = check.theirs()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    assert isinstance(check.op, dict)
    stateful = replace(check, op={**check.op, "stateful": ROWS})
    model = nnc.compile(network(stateful), loss=_weighed, optimizer=nnc.SGD(0.1))
    names = check.paths(check.names)
    for ours, path in names.items():
        model.parameters[ours] = _read(module, path, model.parameters[ours].shape)
    carried, errors = None, {"loss": 0.0}
    for _ in range(steps):
        model.parameters["move input"] = np.zeros(model.parameters["move input"].shape)
        x, weights = rng.normal(size=(ROWS, *check.shape)), rng.normal(size=(ROWS, 5))
        y, carried = module.cell(torch.tensor(x, dtype=torch.float32), carried)
        loss = (y[:, -1] * torch.tensor(weights, dtype=torch.float32)).sum()
        optimizer.zero_grad()
        loss.backward()
        if check.op["op"] == "rnn":  # it has one bias, torch's two
            module.cell.bias_hh_l0.grad.zero_()
        optimizer.step()
        carried = (
            tuple(s.detach() for s in carried) if check.op["op"] == "lstm" else carried.detach()
        )
        found = np.asarray(model.step(x, weights))
        errors["loss"] = max(errors["loss"], error(found, loss.detach().numpy()))
    for ours, path in names.items():
        value = model.parameters[ours]
        errors[ours] = error(value, _read(module, path, value.shape))
    return errors


def error(found: Any, expected: Any) -> float:
    if found.shape != expected.shape:
        return float("inf")
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    return float(np.abs(found - expected).max(initial=0.0)) / scale


def main(part: str = "") -> int:
    worst = 0.0
    tasks = {check.name: partial(run, check) for check in (*layers(), *recurrent(), *networks())}
    cells = [c for c in recurrent() if c.name in ("rnn", "lstm", "gru")]
    carried = {f"{c.name}, carried": partial(run_carried, c) for c in cells}
    every = {**tasks, "SparseAdam": run_lazy, **carried}
    for title, task in every.items():
        if part not in title:
            continue
        errors = task()
        worst = max(worst, *errors.values())
        words = ", ".join(f"{name} {value:.0e}" for name, value in errors.items())
        mark = "" if max(errors.values()) <= BOUND else "   <-- above the bound"
        print(f"{title:34s} {words}{mark}")
    print(f"largest error {worst:.1e}, bound {BOUND:.0e}")
    return int(worst > BOUND)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
