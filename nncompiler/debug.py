"""Takes what every pass gives, gives nothing; CompileError naming the pass that broke the program.

    compile(..., options=Options(debug=True))

    graph -> simplify, narrow, layout -> fuse, lower -> place -> schedule -> emit, assemble
      |         |                           |           |          |              |
      NumPy     NumPy                       kernels     kernels    loops          native code

Small random inputs run through each of these by the interpreters: outputs are compared with those
of the first graph, what a kernel stores with NumPy's values of the last one. The verifiers
see every stage before it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ir.graph import Graph, Node
from ir.interpret import bind_inputs, run_graph, run_nodes
from ir.interpret_loops import run_function, run_kernel
from ir.loops import Buffer, Kernel
from ir.op import Lowering
from ir.types import bind_dim
from ir.verify import verify_graph
from ir.verify_loops import verify_function, verify_kernel
from nncompiler.codegen.assemble import Scheduled
from nncompiler.codegen.checks import Checks
from nncompiler.errors import CompileError
from nncompiler.fuse import Fusion
from nncompiler.lower import Names, lower, needs_memory
from nncompiler.memory import UPDATE, Storage
from nncompiler.replay import replay, with_room
from nncompiler.sparse import tables_of
from nncompiler.stored import has_buffer
from runtime.artifact import FIXED, Artifact
from runtime.buffers import aligned_copy
from runtime.session import Session

Array = np.ndarray[Any, Any]
BATCH = 3  # what every symbol stands for: no multiple of a vector, more than one row

# An error is a fault where it exceeds the first number times the largest value plus the second:
# passes reorder sums, and a derivative may cancel to almost nothing.
TOLERANCES = {32: (2e-3, 1e-4), 64: (1e-7, 1e-10)}


class Debugger:
    """An observer of `lower_graph` (and of `build`) that verifies, runs and compares."""

    def __init__(self, checks: Checks, seed: int = 0) -> None:
        self.checks = checks
        self.random = np.random.default_rng(seed)
        self.inputs: dict[str, Array] = {}
        self.symbols: dict[str, int] = {}
        self.outputs: dict[str, Array] = {}
        self.rewritten: Graph | None = None
        self.storage: Storage | None = None
        self.expected: dict[str, Array] = {}

    def __call__(self, stage: str, value: Any) -> None:
        """One of the methods below, by the name of the pass that gave the value."""
        watch: dict[str, Callable[[Any], None]] = {
            "graph": self.graph,
            "simplify": lambda graph: self.rewrite("simplify", graph),
            "narrow": lambda graph: self.rewrite("narrow", graph),
            "layout": lambda graph: self.rewrite("layout", graph),
            "fuse": self.fuse,
            "place": self.place,
            "schedule": self.schedule,
            "assemble": self.assemble,
        }
        if stage in watch:
            watch[stage](value)

    def graph(self, graph: Graph) -> None:
        _verify("graph", verify_graph, [graph])
        self.inputs = self._draw(graph)
        self.symbols = bind_inputs(graph.inputs, self.inputs)[1]
        self.outputs = run_graph(graph, self.inputs)

    def rewrite(self, stage: str, graph: Graph) -> None:
        _verify(stage, verify_graph, [graph])
        self.rewritten = graph
        found = run_graph(graph, self.inputs)
        for name, value in self.outputs.items():
            compare(stage, f"output '{name}'", found[name], value)

    def fuse(self, fusion: Fusion) -> None:
        """Kernels with a buffer of its own for every value."""
        names = own_buffers(fusion)
        kernels = lower(fusion, names, lambda group: f"k{group.number:02d}")
        _verify("fuse", verify_kernel, [k for k in kernels if k.recipe != "scan"])
        values = run_nodes(names.read, self.inputs)
        expected = {name: np.ravel(values[node]) for node, name in names.read.items()}
        buffers = {name: self._memory(node) for node, name in names.read.items()}
        for kernel, group in zip(kernels, fusion.groups, strict=True):
            if kernel.recipe == "scan":  # its loop comes with the next pass
                items = [names.read[n] for n in group.nodes if n in names.read]
                buffers |= {name: expected[name] for name in items}
                continue
            run_kernel(kernel, buffers, self.symbols)
            _compare_written("fuse", kernel, kernel.buffers, buffers, expected)

    def place(self, storage: Storage) -> None:
        """The same kernels where updates are written over their inputs, and loops over time."""
        _verify("place", verify_kernel, storage.kernels)
        self.storage = storage
        self.expected = {} if storage.timeline.spans else self._placed_values(storage)
        memory = self._placed_memory(storage)
        for at, buffers in replay(storage, memory):
            kernel = storage.kernels[at]
            run_kernel(kernel, buffers, self.symbols)
            _compare_written("place", kernel, kernel.buffers, buffers, self.expected)
        self._compare_results("place", storage, memory)

    def schedule(self, scheduled: tuple[Scheduled, ...]) -> None:
        assert self.storage is not None
        _verify("schedule", verify_function, [s.function for s in scheduled])
        memory = self._placed_memory(self.storage)
        for at, buffers in replay(self.storage, memory):
            s = scheduled[at]
            run_function(s.function, buffers, self.symbols)
            _compare_written("schedule", s.kernel, s.function.buffers, buffers, self.expected)
        self._compare_results("schedule", self.storage, memory)

    def assemble(self, artifact: Artifact) -> None:
        kept = {n: aligned_copy(a) for n, a in self.inputs.items() if n.startswith(FIXED)}
        data = {n: a for n, a in self.inputs.items() if n not in kept}
        found = Session(artifact, kept)(data)
        for name, value in self.outputs.items():
            compare("emit", f"output '{name}'", found[name], value)

    # ------------------------------------------------------------ data

    def _draw(self, graph: Graph) -> dict[str, Array]:
        """Data are normal, what an optimizer keeps is positive, labels are inside their limits."""
        return {str(n.attrs["id"]): self._draw_input(str(n.attrs["id"]), n) for n in graph.inputs}

    def _draw_input(self, id: str, node: Node) -> Array:
        shape = tuple(d if isinstance(d, int) else d.coefficient * BATCH for d in node.shape)
        if not node.dtype.is_float:
            low, high = self.checks.get(id) or (0, 2)
            return np.asarray(self.random.integers(low, high, shape), node.dtype.numpy)
        positive = id.startswith("optimizer.") or id == "learning_rate"
        drawn = self.random.uniform(0.1, 1.0, shape) if positive else self.random.normal(size=shape)
        return np.asarray(drawn, node.dtype.numpy)

    def _memory(self, node: Node) -> Array:
        """A flat buffer: an input, a constant, or NaN where something is still to be stored."""
        if node.op.name == "input" and node.attrs["id"] in self.inputs:  # no leaf of a step
            array = self.inputs[str(node.attrs["id"])]
            return np.array(array, node.dtype.numpy).ravel()
        if node.op.name == "constant":
            return np.array(node.attrs["value"].array).ravel()
        size = bind_dim(node.type.size, self.symbols)
        return np.full(size, np.nan if node.dtype.is_float else 0, node.dtype.numpy)

    def _placed_memory(self, storage: Storage) -> dict[str, Array]:
        values = {name: self._memory(node) for name, node in storage.nodes.items()}
        if not storage.timeline.spans:
            return values
        return {name: with_room(value) for name, value in values.items()}

    def _placed_values(self, storage: Storage) -> dict[str, Array]:
        """What every buffer holds after it was stored to."""
        assert self.rewritten is not None
        values = run_nodes(storage.nodes.values(), self.inputs)
        found = {name: values[node] for name, node in storage.nodes.items()}
        for id, buffer in storage.updates.items():
            found[buffer] = found[f"new {id}"] = self.outputs[UPDATE + id]
        return {name: np.ravel(value) for name, value in found.items()}

    def _compare_results(self, stage: str, storage: Storage, buffers: Mapping[str, Array]) -> None:
        """At the end everything is where the runtime looks for it."""
        updates = {UPDATE + id: buffer for id, buffer in storage.updates.items()}
        for name, buffer in {**storage.outputs, **updates}.items():
            value = np.ravel(self.outputs[name])
            compare(stage, f"output '{name}'", buffers[buffer][: value.size], value)


def own_buffers(fusion: Fusion) -> Names:
    """A buffer of its own for every value that has memory."""
    nodes = fusion.graph.nodes
    tables = [t for n in nodes if n.op.lowering is Lowering.SPARSE for t in tables_of(n)]
    stored = dict.fromkeys(n for n in (*nodes, *tables) if has_buffer(n) or n in fusion.owner)
    stored = {n: None for n in stored if n.op.lowering is not Lowering.SCAN}
    read = {node: f"{node.op.name}{i}" for i, node in enumerate(stored)}
    write = {n: (read[n],) for n in stored if not has_buffer(n) and needs_memory(n, fusion)}
    return Names(read, write)


# --------------------------------------------------------------------------- comparing


def _verify(stage: str, verify: Callable[[Any], None], parts: Iterable[Any]) -> None:
    for part in parts:
        try:
            verify(part)
        except ValueError as error:
            raise _fault(stage, f"gives what is not well formed: {error}") from error


def _compare_written(
    stage: str,
    kernel: Kernel,
    touched: Iterable[Buffer],
    buffers: Mapping[str, Array],
    expected: Mapping[str, Array],
) -> None:
    for buffer in touched:
        if buffer.written and buffer.name in expected:
            what = f"'{buffer.name}' of kernel {kernel.label} ({', '.join(kernel.nodes)})"
            compare(stage, what, buffers[buffer.name], expected[buffer.name])


def compare(stage: str, what: str, found: Array, expected: Array) -> None:
    """CompileError where values differ by more than rounding; NaN equals NaN."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        types = f"{found.dtype}{found.shape} instead of {expected.dtype}{expected.shape}"
        raise _fault(stage, f"changes the type of {what}: {types}")
    if expected.dtype.kind != "f":
        wrong = int(np.count_nonzero(found != expected))
        if wrong:
            raise _fault(stage, f"changes {what}: {wrong} of {expected.size} values are wrong")
        return
    relative, absolute = TOLERANCES[8 * expected.dtype.itemsize]
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        worst = float(np.max(np.where(same, 0.0, np.abs(found - expected)), initial=0.0))
    scale = float(np.max(np.abs(expected), where=np.isfinite(expected), initial=0.0))
    if not worst <= relative * scale + absolute:
        raise _fault(stage, f"changes {what}: error {worst:.3g}, the largest value is {scale:.3g}")


def _fault(stage: str, message: str) -> CompileError:
    hint = "a mistake of the compiler, not of the network: please report it"
    return CompileError(f"pass '{stage}' {message}", stage=stage, hint=hint)
