"""Takes groups of nodes, gives where values live: names, order of kernels, donation, lifetimes.

    W' = W - lr * dW     written over W: every kernel that reads the old W runs before this one
    h  = relu(x W + b)   a temporary, alive from the kernel that makes it to the last that reads it

Graphs are pure; writing in place is decided here and nowhere else.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter

from ir import scalar
from ir.graph import Graph, Node
from ir.index import Index, flatten
from ir.loops import Buffer, Kernel, Write
from ir.op import Lowering
from nncompiler.access import axis_variables, point
from nncompiler.fuse import Fusion, Group, has_buffer
from nncompiler.lower import Names, lower, needs_memory
from nncompiler.sparse import tables_of

UPDATE = "update:"


@dataclass(frozen=True)
class Storage:
    """Kernels in the order in which they run, and every buffer that they name.

    `nodes` tells the type of a buffer, `outputs` and `updates` in which buffer a result is.
    """

    kernels: tuple[Kernel, ...]
    nodes: dict[str, Node]
    outputs: dict[str, str]
    updates: dict[str, str]


def place(fusion: Fusion) -> Storage:
    """Lower all groups with updates in place, except where a kernel shows that this is unsafe."""
    unsafe: set[str] = set()
    while True:
        placer = _Placer(fusion, unsafe)
        kernels = placer.kernels()
        found = placer.unsafe_updates(kernels)
        if not found:
            return placer.finish(kernels)
        unsafe |= found


class _Placer:
    def __init__(self, fusion: Fusion, unsafe: set[str]) -> None:
        self.fusion, self.graph = fusion, fusion.graph
        self.names = _buffer_names(fusion)
        self.nodes: dict[str, Node] = {name: node for node, name in self.names.items()}
        self.writes: dict[Node, list[str]] = {}
        self.outputs: dict[str, str] = {}
        self.updates: dict[str, str] = {}
        self.late: list[tuple[str, str, Node]] = []  # (from, to, type): copies at the end
        self.early: list[tuple[str, str, Node]] = []
        self.donated: dict[Group, list[str]] = {}
        for name, node in self.graph.outputs.items():
            if name.startswith(UPDATE):
                self._update(name.removeprefix(UPDATE), node, unsafe)
            else:
                self._output(name, node)
        for node in fusion.owner:
            if needs_memory(node, fusion) and node not in self.writes:
                self.writes[node] = [self.names[node]]
        self.order = self._order()

    def _output(self, name: str, node: Node) -> None:
        buffer = f"out {name}"
        self.nodes[buffer] = node
        self.outputs[name] = buffer
        if has_buffer(node):
            self.early.append((self.names[node], buffer, node))
        else:
            self._write(node, buffer)

    def _write(self, node: Node, buffer: str) -> None:
        """A kernel may write its result to several buffers; a scatter, which adds, to one."""
        targets = self.writes.setdefault(node, [])
        if targets and node.op.lowering is Lowering.SCATTER:
            self.late.append((targets[0], buffer, node))
        else:
            targets.append(buffer)

    def _update(self, id: str, node: Node, unsafe: set[str]) -> None:
        leaf = next(n for n in self.graph.inputs if n.attrs["id"] == id)
        target = self.names[leaf]
        self.updates[id] = target
        if node is leaf:
            return
        if has_buffer(node) or id in unsafe:
            buffer = f"new {id}"
            self.nodes[buffer] = leaf
            self.late.append((buffer, target, leaf))
            if has_buffer(node):
                self.early.append((self.names[node], buffer, leaf))
            else:
                self._write(node, buffer)
            return
        self._write(node, target)
        self.donated.setdefault(self.fusion.owner[node], []).append(target)

    # ------------------------------------------------------------ order

    def _order(self) -> list[Group]:
        """Dependency order in which every reader of an old value runs before it is overwritten."""
        groups = list(self.fusion.groups)
        before: dict[Group, set[Group]] = {g: set() for g in groups}
        readers: dict[str, set[Group]] = {}
        for group in groups:
            for source in self._sources(group):
                if source in self.fusion.owner:
                    before[group].add(self.fusion.owner[source])
                elif has_buffer(source):
                    readers.setdefault(self.names[source], set()).add(group)
            before[group].discard(group)
        for group, targets in self.donated.items():
            for target in targets:
                before[group] |= readers.get(target, set()) - {group}
        sorter = TopologicalSorter(before)
        try:
            sorter.prepare()
        except CycleError:
            return groups  # `unsafe_updates` finds the update that closes the circle
        place = {group: at for at, group in enumerate(groups)}
        order: list[Group] = []
        ready = [place[group] for group in sorter.get_ready()]
        heapq.heapify(ready)  # of all that may run, the one that was first in the graph
        while ready:
            group = groups[heapq.heappop(ready)]
            order.append(group)
            sorter.done(group)
            for following in sorter.get_ready():
                heapq.heappush(ready, place[following])
        return order

    def _sources(self, group: Group) -> set[Node]:
        return {source for node in group.nodes for source, _ in self.fusion.reads(node, group)}

    # ------------------------------------------------------------ kernels

    def kernels(self) -> tuple[Kernel, ...]:
        read = dict(self.names)
        for node, targets in self.writes.items():
            read[node] = targets[0]
        write = {node: tuple(targets) for node, targets in self.writes.items()}
        number = {group: at for at, group in enumerate(self.order)}
        fusion = replace(self.fusion, groups=tuple(self.order))
        return lower(fusion, Names(read, write), lambda g: kernel_label(self.graph, g, number[g]))

    def unsafe_updates(self, kernels: tuple[Kernel, ...]) -> set[str]:
        """Updates that would destroy a value which is still to be read."""
        found: set[str] = set()
        writers = {w.buffer: at for at, kernel in enumerate(kernels) for w in kernel.writes}
        writers |= {k.scatter.buffer: at for at, k in enumerate(kernels) if k.scatter}
        last_reader: dict[Node, int] = {}
        for at, group in enumerate(self.order):
            last_reader.update(dict.fromkeys(self._sources(group), at))
        leaves = {str(n.attrs["id"]): n for n in self.graph.inputs}
        for id, target in self.updates.items():
            writer = writers.get(target)
            if writer is None:
                continue
            late = last_reader.get(leaves[id], -1) > writer
            if late or _reads_elsewhere(kernels[writer], target):
                found.add(id)
        return found

    def finish(self, kernels: tuple[Kernel, ...]) -> Storage:
        first = [copy_kernel(*c) for c in self.early]
        last = [copy_kernel(*c) for c in self.late]
        every = (*first, *kernels, *last)
        used = {b.name for k in every for b in k.buffers} | set(self.updates.values())
        nodes = {name: node for name, node in self.nodes.items() if name in used}
        return Storage(every, nodes, self.outputs, self.updates)


def copy_kernel(source: str, target: str, node: Node) -> Kernel:
    """A kernel that copies a whole buffer."""
    variables = tuple(v for v in axis_variables(node.shape) if v.extent != 1)
    offset = flatten(point(axis_variables(node.shape)), node.type.strides)
    value = scalar.load(source, offset, node.dtype)
    buffers = (
        Buffer(source, node.dtype, node.type.size),
        Buffer(target, node.dtype, node.type.size, True),
    )
    write = Write(target, offset, value, False)
    return Kernel("copy_" + _clean(target), "rows", variables, (), (), (write,), buffers)


def _reads_elsewhere(kernel: Kernel, buffer: str) -> bool:
    """Does the kernel read the buffer at another point, or in another pass, than it writes it?"""
    if kernel.scatter:  # what its base holds is read before it is added to
        return any(_has_load(s, buffer) for s in (kernel.scatter.row, kernel.scatter.value))
    write = next(w for w in kernel.writes if w.buffer == buffer)
    if any(_has_load(r.value, buffer) for r in kernel.reductions):
        return True
    if write.inner and kernel.reductions:
        return any(_has_load(w.value, buffer) for w in kernel.writes)
    places: set[Index] = set()
    for s in scalar.walk([w.value for w in kernel.writes]):
        if s.kind == "load" and s.name == buffer:
            places.add(s.index)
            if s.args or s.guards:
                return True
    return not places <= {write.index}


def _has_load(value: scalar.Scalar, buffer: str) -> bool:
    return any(s.name == buffer for s in scalar.loads(value))


# --------------------------------------------------------------------------- names


def _buffer_names(fusion: Fusion) -> dict[Node, str]:
    """A readable, unique name for every node that may have memory."""
    names: dict[Node, str] = {}
    taken: set[str] = set()
    nodes = fusion.graph.nodes
    tables = [t for n in nodes if n.op.lowering is Lowering.SPARSE for t in tables_of(n)]
    for number, node in enumerate((*nodes, *tables)):
        if node in names or (not has_buffer(node) and node not in fusion.owner):
            continue
        if node.op.name == "input":
            name = str(node.attrs["id"])
        else:
            name = fusion.graph.names.get(node) or f"{node.op.name}{number}"
        while name in taken:
            name += "'"
        taken.add(name)
        names[node] = name
    return names


def kernel_label(graph: Graph, group: Group, number: int) -> str:
    """The kernel's name: its place in the program, and what was fused into it."""
    parts = [graph.names.get(node) or node.op.name for node in group.nodes]
    shown: list[str] = []
    for part in dict.fromkeys(_clean(p) for p in parts):
        if len("_".join([*shown, part])) > 48:
            break
        shown.append(part)
    return f"k{number:02d}_{'_'.join(shown)}"


def _clean(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")


def lifetimes(touched: Sequence[Iterable[str]]) -> dict[str, tuple[int, int]]:
    """(first, last) step that touches each buffer, given the buffers of every step."""
    found: dict[str, tuple[int, int]] = {}
    for step, names in enumerate(touched):
        for name in names:
            first, _ = found.get(name, (step, step))
            found[name] = (first, step)
    return found
