"""Takes a graph and arrays, gives its outputs as each stage of the pipeline computes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ir.graph import Graph, Node
from ir.interpret import run_graph
from ir.interpret_loops import run_function, run_kernel
from ir.loops import Kernel
from ir.op import Lowering
from ir.types import bind_dim
from nncompiler.codegen.llvm import host
from nncompiler.compilation import compile_graph
from nncompiler.debug import own_buffers
from nncompiler.fuse import Fusion, fuse
from nncompiler.layout import layout
from nncompiler.lower import Names, lower
from nncompiler.memory import Storage, place
from nncompiler.narrow import narrow
from nncompiler.options import Options
from nncompiler.replay import replay, with_room
from nncompiler.schedule import schedule
from nncompiler.simplify import simplify
from runtime.session import Session

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
Run = Callable[[Arrays], dict[str, Array]]


def stages(graph: Graph) -> dict[str, Run]:
    """What runs the graph at each stage, by the stage's name; everything is compiled once."""
    simple = simplify(graph)
    columns = narrow(simple)
    laid = layout(columns, host())
    fusion = fuse(laid)
    if any(n.op.lowering is Lowering.SCAN for n in simple.nodes):
        return placed_stages(graph, simple, place(fusion))
    names = own_buffers(fusion)
    kernels = lower(fusion, names, lambda group: f"k{group.number}")
    session = Session(compile_graph(graph, options=Options(threads=1, cache=False)))

    def run_by(kernel_runner: Callable[..., None]) -> Run:
        return lambda arrays: run_kernels(laid, fusion, names, kernels, kernel_runner, arrays)

    target = host()
    functions = {kernel: schedule(kernel, target)[1] for kernel in kernels}
    return {
        "graph": lambda arrays: run_graph(graph, arrays),
        "simplified": lambda arrays: run_graph(simple, arrays),
        "narrowed": lambda arrays: run_graph(columns, arrays),
        "laid out": lambda arrays: run_graph(laid, arrays),
        "kernels": run_by(run_kernel),
        "loops": run_by(lambda kernel, *rest: run_function(functions[kernel], *rest)),
        "compiled": lambda arrays: session(arrays),
    }


def placed_stages(graph: Graph, simple: Graph, storage: Storage) -> dict[str, Run]:
    """The same for graphs with loops over time, whose kernels know their buffers."""
    session = Session(compile_graph(graph, options=Options(threads=1, cache=False)))
    functions = {kernel: schedule(kernel, host())[1] for kernel in storage.kernels}
    return {
        "graph": lambda arrays: run_graph(graph, arrays),
        "simplified": lambda arrays: run_graph(simple, arrays),
        "kernels": lambda arrays: run_storage(simple, storage, run_kernel, arrays),
        "loops": lambda arrays: run_storage(
            simple, storage, lambda kernel, *rest: run_function(functions[kernel], *rest), arrays
        ),
        "compiled": lambda arrays: session(arrays),
    }


def run_storage(
    graph: Graph, storage: Storage, runner: Callable[..., None], arrays: Arrays
) -> dict[str, Array]:
    """Run placed kernels, loops over time and all, on buffers full of NaN."""
    symbols = bind_symbols(graph, arrays)
    memory = {
        name: with_room(_memory(node, arrays, symbols)) for name, node in storage.nodes.items()
    }
    for at, buffers in replay(storage, memory):
        runner(storage.kernels[at], buffers, symbols)
    found = {}
    for name, buffer in storage.outputs.items():
        node = graph.outputs[name]
        shape = tuple(bind_dim(d, symbols) for d in node.shape)
        found[name] = memory[buffer][: bind_dim(node.type.size, symbols)].reshape(shape)
    return found


def run_kernels(
    graph: Graph,
    fusion: Fusion,
    names: Names,
    kernels: tuple[Kernel, ...],
    runner: Callable[..., None],
    arrays: Arrays,
) -> dict[str, Array]:
    """Run kernels one after the other on buffers full of NaN."""
    symbols = bind_symbols(graph, arrays)
    buffers = {}
    for node, name in names.read.items():
        buffers[name] = _memory(node, arrays, symbols)
    for kernel in kernels:
        runner(kernel, buffers, symbols)
    shapes = {k: tuple(bind_dim(d, symbols) for d in n.shape) for k, n in graph.outputs.items()}
    return {k: buffers[names.read[n]].reshape(shapes[k]) for k, n in graph.outputs.items()}


def _memory(node: Node, arrays: Arrays, symbols: Mapping[str, int]) -> Array:
    if node.op.name == "input" and node.attrs["id"] in arrays:  # no leaf of a step
        return np.ravel(np.asarray(arrays[node.attrs["id"]], node.dtype.numpy))
    if node.op.name == "constant":
        return np.array(node.attrs["value"].array).ravel()
    size = bind_dim(node.type.size, symbols)
    if node.op.lowering.value == "scatter":
        return np.zeros(size, node.dtype.numpy)
    return np.full(size, np.nan if node.dtype.is_float else 0, node.dtype.numpy)


def bind_symbols(graph: Graph, arrays: Arrays) -> dict[str, int]:
    symbols: dict[str, int] = {}
    for node in graph.inputs:
        for dim, length in zip(node.shape, np.shape(arrays[node.attrs["id"]]), strict=True):
            if not isinstance(dim, int):
                symbols[dim.symbol] = length // dim.coefficient
    return symbols
