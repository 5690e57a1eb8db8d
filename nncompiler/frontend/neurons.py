"""Takes a graph of single neurons, gives a Network; writes trained numbers back into such a graph.

A neuron computes z = f(bias + sum over its predecessors of weight * z_j). Any directed acyclic
graph is accepted; lifting.py says what of it becomes dense layers.

    x1, x2 -> h1, h2 (relu) -> y (linear)     ->     layer1: (2, 2) relu     layer2: (2, 1) linear
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ir.types import DType
from nncompiler.frontend.blocks import Builder, Layout, Values
from nncompiler.frontend.initializers import Array, Initializer
from nncompiler.frontend.lifting import Block, lift
from nncompiler.frontend.packing import check_shared
from nncompiler.frontend.site import Built, Network, Program, Site, View
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
) -> Network:
    """The network of a neuron graph; data are (batch, inputs) -> (batch, outputs).

    Raises CompileError naming the neuron for whatever is wrong.
    """
    wiring = check_shared(read_wiring(graph, outputs, dtype))
    blocks = lift(wiring)
    layouts: dict[str, Layout] = {}

    @cache
    def run(training: bool) -> tuple[Program, Built, dict[str, View]]:
        program = Program(dtype, training, initializer)
        built, views = _build(program, wiring, blocks, layouts)
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
    program: Program, wiring: Wiring, blocks: Sequence[Block], layouts: dict[str, Layout]
) -> tuple[Built, dict[str, View]]:
    site = Site(program, INPUT, INPUT, False, "input")
    values = Values()
    x = site.input(("batch", len(wiring.inputs)), program.dtype)
    values.add(x, wiring.inputs)
    needed = {n for block in blocks for n in block.sources} | set(wiring.outputs)
    builder = Builder(program, wiring, values, needed, layouts)
    for block in blocks:
        builder.build(block)
    result = values.columns(wiring.outputs)
    program.names.setdefault(result, OUTPUT)
    ends = {OUTPUT: program.ends[result]} if result in program.ends else {}
    seen = values.before(wiring.outputs, "sigmoid")
    if seen is not None:
        ends[OUTPUT] = ("sigmoid", seen)
    names = dict(program.names)
    return Built({OUTPUT: result}, names, {}, ends, tuple(program.layers)), builder.views


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
