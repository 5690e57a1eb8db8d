"""Takes a blueprint, gives the same model run by NumPy: what compiled code must equal.

It holds its own copy of parameters and state, and trains on the same batches in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ir.graph import Graph
from ir.interpret import run_graph
from nncompiler.blueprint import Blueprint, Kinds
from nncompiler.data import convert_all, graph_ports
from nncompiler.machine import Machine
from runtime.artifact import CheckSpec, limits_of
from runtime.inputs import Port, check_limits, check_names, convert, find_fault
from runtime.state import State

Array = np.ndarray[Any, Any]
Checks = Mapping[str, tuple[int, int] | None]


class Reference(Machine):
    """A model that NumPy runs, one op at a time, from the unoptimized graphs."""

    def __init__(
        self,
        blueprint: Blueprint,
        state: Mapping[str, Array] | None = None,
        *,
        shared: State | None = None,
    ) -> None:
        super().__init__(blueprint, shared)
        if state is not None:
            self.state.restore({k: v for k, v in state.items() if k in self.state})

    def _part(self, blueprint: Blueprint) -> Reference:
        return Reference(blueprint, shared=self.state)

    def _open(self, name: str, kinds: Kinds, weighted: bool) -> Interpreter:
        graph = self.blueprint.graph(name, kinds, weighted)
        return Interpreter(graph, self.state, self.blueprint.find(kinds, weighted).checks)

    def training_loss(self, x: Any, t: Any) -> float:
        """The loss that `backward` differentiates."""
        data = self.blueprint.pack(x, t)
        return float(self._runner_for("training_loss", data)(data)["loss"])


class Interpreter:
    """Runs one graph as a Session does: the same inputs, outputs, checks and updates."""

    def __init__(self, graph: Graph, state: State, checks: Checks) -> None:
        self.graph = graph
        self.state = state
        self.wanted = graph_ports(graph, state)
        self.checks = {
            port.name: CheckSpec(port.number, *(checks[port.name] or (0, 0)))
            for port in self.wanted
            if port.name in checks
        }
        self.limits = limits_of(checks)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        arrays = convert_all(self.wanted, inputs)
        for port in self.wanted:
            self._check(port, arrays[port.name])
        rows = {p.symbol: arrays[p.name].shape[0] for p in self.wanted if p.symbol is not None}
        symbolic = rows.values()
        check_limits(self.limits, rows)
        scalar = any(n == "loss" or n.startswith("update:") for n in self.graph.outputs)
        if scalar and 0 in symbolic:
            raise ValueError(f"empty batch: 'batch' of '{self.graph.name}' is 0")
        needed = {node.attrs["id"] for node in self.graph.inputs}
        kept = {name: array for name, array in self.state.items() if name in needed}
        results = run_graph(self.graph, {**kept, **arrays})
        outputs = {}
        for name, value in results.items():
            if name.startswith("update:") and name.removeprefix("update:") in self.state:
                self.state[name.removeprefix("update:")] = value
            else:
                outputs[name] = value
        return outputs

    def _check(self, port: Port, array: Array) -> None:
        check = self.checks.get(port.name)
        if check is not None and (message := find_fault(check, port, array)):
            raise ValueError(message)

    def prepare(self, data: Mapping[str, Any]) -> dict[str, Array]:
        check_names([p for p in self.wanted if p.name in data], data)
        prepared = {p.name: convert(p, data[p.name]) for p in self.wanted if p.name in data}
        for port in self.wanted:
            if port.name in prepared:
                self._check(port, prepared[port.name])
        return prepared

    def train(
        self, data: Mapping[str, Any], batch_size: int, order: Array | None = None
    ) -> dict[str, float]:
        """Runs all batches of the data; means over rows of the scalar results."""
        arrays = self.prepare(data)
        batched = {p.name for p in self.wanted if p.symbol is not None}
        rows = max((len(arrays[n]) for n in batched), default=1)
        sums: dict[str, float] = {}
        for first in range(0, rows, batch_size):
            last = min(first + batch_size, rows)
            chosen: Any = slice(first, last) if order is None else order[first:last]
            part = {n: a[chosen] if n in batched else a for n, a in arrays.items()}
            for name, value in self(part).items():
                if value.ndim == 0:
                    sums[name] = sums.get(name, 0.0) + float(value) * (last - first)
        return {name: total / rows for name, total in sums.items()}
