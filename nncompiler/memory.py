"""Takes groups of nodes, gives where values live: names, order of kernels, donation, lifetimes.

    W' = W - lr * dW     written over W: every kernel that reads the old W runs before this one
    h  = relu(x W + b)   a temporary, alive from the kernel that makes it to the last that reads it

Graphs are pure; writing in place is decided here and nowhere else.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter

from ir import scalar
from ir.graph import Graph, Node
from ir.index import Index, flatten
from ir.loops import Kernel, Write
from ir.op import Lowering
from nncompiler.access import axis_variables, point
from nncompiler.fuse import Fusion, fuse
from nncompiler.groups import Group
from nncompiler.lower import Names, lower, needs_memory
from nncompiler.sparse import tables_of
from nncompiler.stored import has_buffer
from nncompiler.timeline import Swap, Timeline, bases

UPDATE = "update:"
WITHOUT_GAPS = (Lowering.SCATTER, Lowering.SPARSE)  # their results lie in one piece


@dataclass(frozen=True)
class Storage:
    """Kernels in the order in which they run, and every buffer that they name.

    `nodes` tells the type of a buffer, `outputs` and `updates` in which buffer a result is.
    `timeline` has the loops over time that the kernels stand in, and the views of buffers in them.
    """

    kernels: tuple[Kernel, ...]
    nodes: dict[str, Node]
    outputs: dict[str, str]
    updates: dict[str, str]
    timeline: Timeline


def place(fusion: Fusion) -> Storage:
    """Lower all groups with updates in place, except where a kernel shows that this is unsafe."""
    unsafe: set[str] = set()
    while True:
        timeline = Timeline()
        placer = _Placer(fusion, timeline, unsafe=unsafe)
        kernels = placer.kernels()
        found = placer.unsafe_updates(kernels)
        if not found:
            return placer.finish(kernels)
        unsafe |= found


class _Placer:
    """Places one graph: the program's, or (under a prefix) the body of a scan, whose inputs are in
    the buffers `given` and whose outputs go to `targets`."""

    def __init__(
        self,
        fusion: Fusion,
        timeline: Timeline,
        *,
        unsafe: set[str] | None = None,
        prefix: str = "",
        given: Mapping[Node, str] | None = None,
        targets: Mapping[str, str] | None = None,
    ) -> None:
        self.fusion, self.graph, self.timeline = fusion, fusion.graph, timeline
        self.prefix, self.targets = prefix, targets or {}
        self.names = _buffer_names(fusion, prefix, given or {})
        self.nodes: dict[str, Node] = {name: node for node, name in self.names.items()}
        self.writes: dict[Node, list[str]] = {}
        self.outputs: dict[str, str] = {}
        self.updates: dict[str, str] = {}
        self.late: list[tuple[str, str, Node]] = []  # (from, to, type): copies at the end
        self.early: list[tuple[str, str, Node]] = []
        self.donated: dict[Group, list[str]] = {}
        for name, node in self.graph.outputs.items():
            if name.startswith(UPDATE):
                self._update(name.removeprefix(UPDATE), node, unsafe or set())
            else:
                self._output(name, node)
        for node in fusion.owner:
            if needs_memory(node, fusion) and node not in self.writes:
                self.writes[node] = [self.names[node]]
        self.order = self._order()

    def _output(self, name: str, node: Node) -> None:
        buffer = self.targets.get(name, f"out {name}")
        self.nodes[buffer] = node
        self.outputs[name] = buffer
        if has_buffer(node):
            self.early.append((self.names[node], buffer, node))
        else:
            self._write(node, buffer)

    def _write(self, node: Node, buffer: str) -> None:
        """A kernel may write its result to several buffers; a scatter, which adds, to one."""
        targets = self.writes.setdefault(node, [])
        if buffer in self.timeline.strides and node.op.lowering in WITHOUT_GAPS:
            if not targets:
                targets.append(self.names[node])
            self.late.append((targets[0], buffer, node))
        elif targets and node.op.lowering is Lowering.SCATTER:
            self.late.append((targets[0], buffer, node))
        else:
            targets.append(buffer)

    def _update(self, id: str, node: Node, unsafe: set[str]) -> None:
        leaf = next(n for n in self.graph.inputs if n.attrs["id"] == id)
        target = self.names[leaf]
        self.updates[id] = target
        if node is leaf:
            return
        if has_buffer(node) or node.op.lowering is Lowering.ITEM or id in unsafe:
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
        names = Names(read, write, self.timeline.strides)
        return lower(
            fusion, names, lambda g: kernel_label(self.graph, g, f"{self.prefix}{number[g]:02d}")
        )

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
        self.run(kernels)
        every, views = tuple(self.timeline.kernels), self.timeline.views
        used = {b for k in every for buffer in k.buffers for b in bases(buffer.name, views)}
        used |= set(self.updates.values())
        nodes = {name: node for name, node in self.nodes.items() if name in used}
        return Storage(every, nodes, self.outputs, self.updates, self.timeline)

    def run(self, kernels: tuple[Kernel, ...]) -> None:
        """Append everything to the timeline, the loop of a scan where its placeholder stands."""
        for copy in self.early:
            self._copy(*copy)
        for kernel, group in zip(kernels, self.order, strict=True):
            if group.kind == "scan":
                self._loop(kernel.label, group)
            else:
                self.timeline.kernels.append(kernel)
        for copy in self.late:
            self._copy(*copy)

    def _copy(self, source: str, target: str, node: Node) -> None:
        self.timeline.kernels.append(copy_kernel(source, target, node, self.timeline.strides))

    # ------------------------------------------------------------ loops over time

    def _loop(self, label: str, group: Group) -> None:
        """Place the body of a scan: carried values in two buffers each, sequences by time."""
        scan, *items = group.nodes
        body, carries, length = (scan.attrs[n] for n in ("body", "carries", "length"))
        results = {n.attrs["index"]: n for n in items}
        span = self.timeline.open(length, scan.attrs["reverse"])
        prefix = f"{self.prefix}{self.order.index(group):02d}."
        given: dict[Node, str] = {}
        outputs: dict[str, Node] = {}
        targets: dict[str, str] = {}
        after: list[tuple[str, str, Node]] = []
        dense: list[tuple[str, str, Node]] = []
        for place, (operand, leaf) in enumerate(zip(scan.inputs, body.inputs, strict=True)):
            source = self._read_name(operand)
            if place < carries:
                goals = self._goals(results.get(place))
                last, *rest = self._carry(f"{prefix}carry{place}", span, source, leaf, goals)
                after += [(last, goal, leaf) for goal in rest]
                given[leaf] = f"{prefix}carry{place}"
                outputs[f"new{place}"] = body.outputs[place]
                targets[f"new{place}"] = f"{prefix}new{place}"
            elif place < carries + scan.attrs["sequences"]:
                given[leaf] = f"{prefix}at{place}"
                self.timeline.slice(given[leaf], source, leaf.type, span, length)
                if _is_base(leaf, body.graph):
                    dense.append((given[leaf], f"{prefix}base{place}", leaf))
                    given[leaf] = f"{prefix}base{place}"
            else:
                given[leaf] = source
        for index, node in results.items():
            for number, goal in enumerate(self._goals(node) if index >= carries else ()):
                name = f"result{index}.{number}"
                outputs[name] = body.outputs[index]
                targets[name] = f"{prefix}{name}"
                self.timeline.slice(targets[name], goal, outputs[name].type, span, length)
        first = len(self.timeline.kernels)
        graph = Graph(label, body.inputs, outputs)
        inner = _Placer(fuse(graph), self.timeline, prefix=prefix, given=given, targets=targets)
        inner.early += dense
        inner.run(inner.kernels())
        self.nodes = {**inner.nodes, **self.nodes}
        self.timeline.close(span, first)
        for copy in after:
            self._copy(*copy)

    def _read_name(self, node: Node) -> str:
        return self.writes[node][0] if node in self.writes else self.names[node]

    def _goals(self, node: Node | None) -> list[str]:
        return [] if node is None else self.writes.get(node, [])

    def _carry(self, name: str, span: int, source: str, leaf: Node, goals: list[str]) -> list[str]:
        """Two buffers for a carried value, one of them holding the first; gives where the last one
        will stand, and the goals that it has to be copied to."""
        plain = [g for g in goals if g not in self.timeline.views]
        last, other = plain[0] if plain else f"{name}.last", f"{name}.other"
        self.nodes[other] = leaf
        self.nodes.setdefault(last, leaf)
        self.timeline.views[name] = Swap(last, other, span, False)
        self.timeline.views[name.replace("carry", "new")] = Swap(last, other, span, True)
        even = self.timeline.spans[span].length % 2 == 0
        self._copy(source, last if even else other, leaf)
        return [last, *(g for g in goals if g != last)]


def _is_base(leaf: Node, graph: Graph) -> bool:
    """Is the value what a scatter adds to, which has to lie in one piece?"""
    scatters = (n for n in graph.users[leaf] if n.op.lowering is Lowering.SCATTER)
    return any(leaf in n.inputs[:-2] for n in scatters)


def copy_kernel(
    source: str, target: str, node: Node, strides: Mapping[str, tuple[int, ...]]
) -> Kernel:
    """A kernel that copies a whole buffer."""
    names = Names({node: source}, {node: (target,)}, strides)
    axes = axis_variables(node.shape)
    variables = tuple(v for v in axes if v.extent != 1)
    value = scalar.load(source, flatten(point(axes), names.strides_of(source, node)), node.dtype)
    offset = flatten(point(axes), names.strides_of(target, node))
    buffers = (names.buffer(source, node), names.buffer(target, node, written=True))
    write = Write(target, offset, value, False)
    return Kernel("copy_" + _clean(target), "rows", variables, (), (), (write,), buffers)


def _reads_elsewhere(kernel: Kernel, buffer: str) -> bool:
    """Does the kernel read the buffer at another point, or in a later pass, than it writes it?

    Results of a whole row are written when all passes over the row are done.
    """
    if kernel.scatter:  # what its base holds is read before it is added to
        return any(_has_load(s, buffer) for s in (kernel.scatter.row, kernel.scatter.value))
    if not kernel.axes and not any(w.inner for w in kernel.writes):
        return False  # one point: all is read before anything is written
    write = next(w for w in kernel.writes if w.buffer == buffer)
    sums = [r.value for r in kernel.reductions]
    results = [w.value for w in kernel.writes]
    after_all = kernel.recipe == "rows" and not write.inner
    if not after_all:
        if any(_has_load(value, buffer) for value in sums):
            return True
        if write.inner and sums:
            return any(_has_load(value, buffer) for value in results)
    places: set[Index] = set()
    for s in scalar.walk([*sums, *results]):
        if s.kind == "load" and s.name == buffer:
            places.add(s.index)
            if s.args or s.guards:
                return True
    return not places <= {write.index}


def _has_load(value: scalar.Scalar, buffer: str) -> bool:
    return any(s.name == buffer for s in scalar.loads(value))


# --------------------------------------------------------------------------- names


def _buffer_names(fusion: Fusion, prefix: str, given: Mapping[Node, str]) -> dict[Node, str]:
    """A readable, unique name for every node that may have memory."""
    names: dict[Node, str] = dict(given)
    taken: set[str] = set()
    nodes = fusion.graph.nodes
    tables = [t for n in nodes if n.op.lowering is Lowering.SPARSE for t in tables_of(n)]
    for number, node in enumerate((*nodes, *tables)):
        if node in names or (not has_buffer(node) and node not in fusion.owner):
            continue
        if node.op.name == "input":
            name = str(node.attrs["id"])
        else:
            name = prefix + (fusion.graph.names.get(node) or f"{node.op.name}{number}")
        while name in taken:
            name += "'"
        taken.add(name)
        names[node] = name
    return names


def kernel_label(graph: Graph, group: Group, number: str) -> str:
    """The kernel's name: its place in the program, and what was fused into it."""
    parts = [graph.names.get(node) or node.op.name for node in group.nodes]
    shown: list[str] = []
    for part in dict.fromkeys(_clean(p) for p in parts):
        if len("_".join([*shown, part])) > 48:
            break
        shown.append(part)
    return f"k{number}_{'_'.join(shown)}"


def _clean(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
