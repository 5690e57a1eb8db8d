"""Takes scheduled kernels and their storage, gives the program: its plan and its LLVM module."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from ir.function import scratch_bytes, stages, structure
from ir.graph import Graph, Node
from ir.loops import Function, Kernel
from ir.types import DTYPES, Dim, Extent
from nncompiler.codegen.checks import Checks, check_function
from nncompiler.codegen.costs import flops, moved, scaled
from nncompiler.codegen.deal import CELL, Call, can_team
from nncompiler.codegen.entry import entry_text
from nncompiler.codegen.moving import Moving
from nncompiler.codegen.once import part
from nncompiler.codegen.sparse import write_sparse
from nncompiler.codegen.statements import symbols_of, write_function
from nncompiler.codegen.target import Target
from nncompiler.codegen.tile import write_tile
from nncompiler.codegen.transpose import write_transpose
from nncompiler.memory import Storage
from nncompiler.timeline import Slice, Span, Swap, lifetimes, repeats
from runtime.artifact import FIXED, BufferSpec, CheckSpec, KernelSpec, Plan, limits_of

ATTRIBUTES = """\
attributes #0 = { nounwind "min-legal-vector-width"="512" }
attributes #1 = { nounwind noinline optnone }
!0 = !{i32 1}
"""  # !0 marks stores that go past the caches; #1 is code that must be compiled soon, not run soon


@dataclass(frozen=True)
class Scheduled:
    """A kernel and its loops."""

    kernel: Kernel
    function: Function


def emit(
    graph: Graph,
    storage: Storage,
    scheduled: Sequence[Scheduled],
    target: Target,
    checks: Checks,
    *,
    label: str,
    flush_denormals: bool,
    timed: bool,
) -> tuple[Plan, str]:
    """The plan of a program and the text of its LLVM module; equal kernels are written once."""
    module = _Module(target)
    table = _Table(graph, storage, scheduled)
    calls: list[Call] = []
    once: list[Call] = []
    for step, item in enumerate(scheduled):
        parted = part(item.function, table.fixed)
        table.add_workspace(step, item, parted.kept)
        for number, stage in enumerate(parted.once):
            name = module.add(stage, f"{item.kernel.label}.once{number}")
            split = next(iter(stage.splits), None)
            once.append(Call(name, table.arguments(stage), (), step, split))
        parts = stages(parted.rest)
        arguments = table.arguments(item.function)
        for left, (body, split, when) in zip(reversed(range(len(parts))), parts, strict=True):
            splits = (split,) if split else ()
            function = replace(item.function, body=body, splits=splits, whens=())
            shown = f"{item.kernel.label}.{left}" if left else item.kernel.label
            name = module.add(function, shown)
            calls.append(Call(name, arguments, symbols_of(function), step, split, when))
    specs: list[CheckSpec] = []
    check_calls: list[Call] = []
    for node in graph.inputs:
        id = str(node.attrs["id"])
        if id not in checks:
            continue
        function = check_function(node, checks[id], target)
        name = module.add(function, f"check_{len(specs)}")
        check_calls.append(Call(name, (table.index[id], CELL), symbols_of(function)))
        low, high = checks[id] or (0, 0)
        specs.append(CheckSpec(table.index[id], low, high))
    names = {call.kernel: call.function for call in calls}  # of the last stage, which does the work
    kernels = []
    spans = storage.timeline.spans
    for step, item in enumerate(scheduled):
        k, times = table.without_gaps(item.kernel), repeats(step, spans)
        costs = scaled(flops(k), times), scaled(moved(k), times)
        kernels.append(KernelSpec(k.label, names[step], *costs, list(k.nodes)))
    plan = replace(
        table.plan(label, kernels, specs, target),
        limits=limits_of(checks),
        shared=can_team(target) and any(call.split for call in calls),
        stack=max((scratch_bytes(item.function) for item in scheduled), default=0),
    )
    loops = [_of_calls(span, calls) for span in spans]
    entries = entry_text(
        plan,
        calls,
        check_calls,
        loops,
        target,
        once=once,
        flush_denormals=flush_denormals,
        timed=timed,
    )
    return plan, module.text(entries)


def _of_calls(span: Span, calls: Sequence[Call]) -> Span:
    """The span in numbers of calls: a kernel may have several."""
    inside = [n for n, call in enumerate(calls) if span.first <= call.kernel < span.last]
    first, last = (inside[0], inside[-1] + 1) if inside else (0, 0)
    return replace(span, first=first, last=last)


class _Module:
    """Functions that were written, each under the name of the first kernel that needed it."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.declarations: dict[str, None] = {}
        self.names: dict[str, str] = {}
        self.known: dict[Any, str] = {}

    def add(self, function: Function, label: str) -> str:
        key = structure(function)
        if key in self.known:
            return self.known[key]
        recipes = (write_tile, write_transpose, write_sparse)
        text = write_function(function, "NAME", self.target, self.declarations, *recipes)
        self.known[key] = self.names.setdefault(text, label)
        return self.known[key]

    def text(self, entries: str) -> str:
        bodies = [text.replace("@NAME(", f"@{name}(", 1) for text, name in self.names.items()]
        return module_text(self.target, self.declarations, [*bodies, entries])


def module_text(target: Target, declarations: Iterable[str], functions: Iterable[str]) -> str:
    head = f'target triple = "{target.triple}"'
    return "\n".join([head, *declarations, *functions, ATTRIBUTES])


class _Table:
    """The program's table of buffers."""

    def __init__(self, graph: Graph, storage: Storage, scheduled: Sequence[Scheduled]) -> None:
        self.graph, self.storage = graph, storage
        self.specs: list[BufferSpec] = []
        self.index: dict[str, int] = {}
        self.fixed: set[str] = set()  # buffers that hold the same in every call
        self.workspace: dict[str, int] = {}
        self.views = storage.timeline.views
        touched = [[b.name for b in item.kernel.buffers] for item in scheduled]
        alive = lifetimes(touched, storage.timeline.spans, self.views)
        outputs = {buffer: name for name, buffer in storage.outputs.items()}
        for node in graph.inputs:
            self._add(str(node.attrs["id"]), node, BufferSpec("", "", [], "input"))
        if any(name.startswith(FIXED) for name in self.index):
            leaves = {name for name, node in storage.nodes.items() if node.op.name == "constant"}
            self.fixed = leaves | {name for name in self.index if name.startswith(FIXED)}
        for name, node in storage.nodes.items():
            if name in self.index:
                continue
            if name in outputs:
                spec = BufferSpec(outputs[name], "", [], "output")
            elif node.op.name == "constant":
                spec = BufferSpec("", "", [], "constant", data=node.attrs["value"].data.hex())
            else:
                first, last = alive[name]
                spec = BufferSpec("", "", [], "temporary", first=first, last=last)
            self._add(name, node, spec)

    def _add(self, name: str, node: Node, spec: BufferSpec) -> None:
        self.index[name] = len(self.specs)
        shape = [_plan_dim(d) for d in node.shape]
        self.specs.append(replace(spec, name=spec.name or name, dtype=node.dtype.name, shape=shape))

    def argument(self, name: str) -> int | Moving:
        """A buffer's number, or how the address of a view moves with time."""
        steps: list[tuple[int, int]] = []
        while isinstance(view := self.views.get(name), Slice):
            steps.append((view.span, view.step))
            name = view.buffer
        if isinstance(view, Swap):
            swap = (view.span, view.new)
            numbers: tuple[int, ...] = (self.index[view.last], self.index[view.other])
        else:
            swap, numbers = None, (self.index[name],)
        size = DTYPES[self.specs[numbers[0]].dtype].bytes
        moves = tuple((span, step * size) for span, step in steps)
        return Moving(numbers, swap, moves) if swap or moves else numbers[0]

    def without_gaps(self, kernel: Kernel) -> Kernel:
        """The kernel with one time of every sequence as the size of its memory."""
        views = self.views
        buffers = [
            replace(b, size=v.size) if isinstance(v := views.get(b.name), Slice) else b
            for b in kernel.buffers
        ]
        return replace(kernel, buffers=tuple(buffers))

    def add_workspace(self, step: int, item: Scheduled, kept: Set[str]) -> None:
        """Temporaries of a kernel; those that are `kept` from call to call."""
        self.workspace = {}
        for buffer in item.function.workspace:
            self.workspace[buffer.name] = len(self.specs)
            role = "kept" if buffer.name in kept else "temporary"
            name = f"{item.kernel.label}.{buffer.name}"
            spec = BufferSpec(name, buffer.dtype.name, [_plan_dim(buffer.size)], role)
            self.specs.append(replace(spec, first=step, last=step))

    def arguments(self, function: Function) -> tuple[int | Moving, ...]:
        """Those of a stage of the kernel whose workspace was added last."""
        own = [self.workspace[b.name] for b in function.workspace]
        return (*(self.argument(b.name) for b in function.buffers), *own)

    def plan(
        self, label: str, kernels: list[KernelSpec], checks: list[CheckSpec], target: Target
    ) -> Plan:
        symbols = sorted({s for n in self.graph.inputs for s in n.type.symbols})
        outputs = {name: self.index[buffer] for name, buffer in self.storage.outputs.items()}
        scalars = [
            name
            for name, number in outputs.items()
            if not self.specs[number].shape and self.specs[number].dtype in ("f32", "f64")
        ]
        return Plan(
            name=label,
            symbols=symbols,
            buffers=self.specs,
            kernels=kernels,
            outputs=outputs,
            updates={id: self.index[buffer] for id, buffer in self.storage.updates.items()},
            checks=checks,
            feeds=self._feeds() if symbols == ["batch"] else [],
            scalars=scalars,
            entry=label,
            target=f"{target.triple} {target.cpu} {target.features}",
        )

    def _feeds(self) -> list[int]:
        """Inputs whose leading axis is the batch; none where a symbol stands otherwise."""
        leading = [n for n in self.graph.inputs if n.type.symbols]
        if any(n.shape[0] != Extent(1, "batch") for n in leading):
            return []
        return [self.index[str(n.attrs["id"])] for n in leading]


def _plan_dim(dim: Dim) -> int | list[Any]:
    return [dim.coefficient, dim.symbol] if isinstance(dim, Extent) else dim
