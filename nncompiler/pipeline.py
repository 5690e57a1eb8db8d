"""Takes a graph, gives an artifact: the whole lowering on one page, in order.

graph -> simplify -> narrow -> layout -> fuse -> place (lower) -> schedule -> emit -> assemble
    -> artifact
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ir.graph import Graph
from ir.loops import Kernel
from nncompiler.codegen.assemble import Scheduled, emit
from nncompiler.codegen.checks import Checks
from nncompiler.codegen.llvm import assemble, host
from nncompiler.codegen.target import Target
from nncompiler.fuse import Fusion, fuse
from nncompiler.layout import layout
from nncompiler.memory import place
from nncompiler.narrow import narrow
from nncompiler.options import Options
from nncompiler.schedule import schedule
from nncompiler.simplify import simplify
from runtime.artifact import Artifact, Plan

Observer = Callable[[str, object], None]  # (name of a pass, what it gave)


@dataclass(frozen=True)
class Lowered:
    """Everything between the input graph and the object code."""

    graph: Graph
    simplified: Graph  # with images in the layout that they have in memory
    fusion: Fusion
    kernels: tuple[Kernel, ...]
    scheduled: tuple[Scheduled, ...]
    plan: Plan
    module: str
    target: Target


def build(
    graph: Graph,
    *,
    options: Options | None = None,
    checks: Checks | None = None,
    label: str = "step",
    observers: Sequence[Observer] = (),
) -> Artifact:
    """Native code for a graph; see compilation.py for the cache before this."""
    if options is not None and options.debug:
        from nncompiler.debug import Debugger  # the interpreters, which nothing else here needs

        observers = (*observers, Debugger(checks or {}))
    lowered = lower_graph(graph, options=options, checks=checks, label=label, observers=observers)
    artifact = Artifact(lowered.plan, assemble(lowered.module, lowered.target))
    _show(observers, "assemble", artifact)
    return artifact


def _show(observers: Sequence[Observer], stage: str, value: object) -> None:
    for observe in observers:
        observe(stage, value)


def lower_graph(
    graph: Graph,
    *,
    options: Options | None = None,
    checks: Checks | None = None,
    label: str = "step",
    target: Target | None = None,
    observers: Sequence[Observer] = (),
) -> Lowered:
    """All stages down to LLVM text; every observer sees what each pass gives before the next."""
    options, target = options or Options(), target or host()
    _show(observers, "graph", graph)
    simplified = simplify(graph)
    _show(observers, "simplify", simplified)
    narrowed = narrow(simplified)
    _show(observers, "narrow", narrowed)
    laid = layout(narrowed, target)
    _show(observers, "layout", laid)
    fusion = fuse(laid)
    _show(observers, "fuse", fusion)
    storage = place(fusion)
    _show(observers, "place", storage)
    scheduled = tuple(Scheduled(*schedule(k, target, options)) for k in storage.kernels)
    _show(observers, "schedule", scheduled)
    plan, module = emit(
        laid,
        storage,
        scheduled,
        target,
        checks or {},
        label=label,
        flush_denormals=options.flush_denormals,
        timed=options.timed,
    )
    _show(observers, "emit", module)
    kernels = tuple(s.kernel for s in scheduled)
    shown = simplified if laid is narrowed else laid  # tiny networks are read whole, not by columns
    return Lowered(graph, shown, fusion, kernels, scheduled, plan, module, target)
