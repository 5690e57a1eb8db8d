"""Takes a graph of single neurons, gives a Network; writes trained numbers back into such a graph.

A neuron computes z = f(bias + sum over its predecessors of weight * z_j). Any directed acyclic
graph is accepted, and of data with times any directed graph; lifting.py says what of it becomes
dense layers.

    x1, x2 -> h1, h2 (relu) -> y (linear)     ->     layer1: (2, 2) relu     layer2: (2, 1) linear
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ir.graph import Node
from ir.types import DType
from nncompiler.frontend.blocks import Builder, Layout, Values
from nncompiler.frontend.delays import find_delays
from nncompiler.frontend.feedback import over_time
from nncompiler.frontend.initializers import Array, Initializer
from nncompiler.frontend.lifting import Block, lift
from nncompiler.frontend.packing import check_shared
from nncompiler.frontend.site import Built, Network, Program, Site, Times, View
from nncompiler.frontend.wiring import Wiring, read_wiring

if TYPE_CHECKING:
    import networkx as nx

INPUT, OUTPUT = "inputs", "outputs"


def read_neurons(
    graph: nx.DiGraph[Any],
    *,
    dtype: DType,
    outputs: Sequence[Hashable] | None,
    initializer: Initializer,
    times: Times | None = None,
) -> Network:
    """The network of a neuron graph; data are (batch, inputs) -> (batch, outputs), with `times`
    (batch, time, inputs) -> (batch, time, outputs).

    Raises CompileError naming the neuron for whatever is wrong.
    """
    delays = None if times is None else find_delays(graph)
    wiring = check_shared(read_wiring(graph, outputs, dtype, delays))
    blocks = lift(wiring)
    layouts: dict[str, Layout] = {}

    @cache
    def run(training: bool) -> tuple[Program, Built, dict[str, View]]:
        program = Program(dtype, training, initializer)
        built, views = _build(program, wiring, blocks, layouts, times)
        return program, built, views

    program, _, views = run(False)
    return Network(
        dtype=dtype,
        inputs=program.inputs,
        parameters=program.parameters,
        states={},
        build=lambda training: run(training)[1],
        views=views,
    )


def _build(
    program: Program,
    wiring: Wiring,
    blocks: Sequence[Block],
    layouts: dict[str, Layout],
    times: Times | None,
) -> tuple[Built, dict[str, View]]:
    views: dict[str, View] = {}

    def outputs(values: Values) -> tuple[Node, ...]:
        """The outputs, and what they are the sigmoids of, if they all are."""
        needed = {n for block in blocks for n in block.sources} | set(wiring.outputs)
        needed |= {source.neuron for source in wiring.lagged}
        builder = Builder(program, wiring, values, needed, layouts, views)
        for block in blocks:
            builder.build(block)
        seen = values.before(wiring.outputs, "sigmoid")
        return (values.columns(wiring.outputs), *(() if seen is None else (seen,)))

    site = Site(program, INPUT, INPUT, False, "input")
    count = len(wiring.inputs)
    if times is None:
        values = Values()
        values.add(site.input(("batch", count), program.dtype), wiring.inputs)
        result, *seen = outputs(values)
    else:
        x = site.input(("batch", times.count, count), program.dtype)
        every = over_time(x, wiring, outputs)
        result, *seen = [y[:, -1] for y in every] if times.last_only else every
    program.names.setdefault(result, OUTPUT)
    ends = {OUTPUT: ("sigmoid", seen[0])} if seen else {}
    names = dict(program.names)
    return Built({OUTPUT: result}, names, {}, ends, tuple(program.layers)), views


def write_neurons(graph: nx.DiGraph[Any], values: Mapping[str, Array]) -> nx.DiGraph[Any]:
    """A copy of the graph, its nodes and attributes, with these weights and biases.

    Numbers that take no part in the outputs stay as they are.
    """
    result = graph.copy()
    for node, data in result.nodes(data=True):
        if f"{node}.bias" in values:
            data["bias"] = _number(values[f"{node}.bias"])
    for u, v, data in result.edges(data=True):
        name = data.get("weight_name", f"{u}->{v}")
        if name in values:
            data["weight"] = _number(values[name])
    return result


def _number(value: Array) -> float:
    return float(np.asarray(value))
