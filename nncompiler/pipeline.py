"""Takes a graph, gives an artifact: the whole lowering on one page, in order.

graph -> simplify -> fuse -> place (lower) -> schedule -> emit -> assemble -> artifact
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ir.graph import Graph
from ir.loops import Kernel
from nncompiler.codegen.assemble import Scheduled, emit
from nncompiler.codegen.checks import Checks
from nncompiler.codegen.llvm import assemble, host
from nncompiler.codegen.target import Target
from nncompiler.fuse import Fusion, fuse
from nncompiler.memory import place
from nncompiler.options import Options
from nncompiler.schedule import schedule
from nncompiler.simplify import simplify
from runtime.artifact import Artifact, Plan

Observer = Callable[[str, object], None]


@dataclass(frozen=True)
class Lowered:
    """Everything between the input graph and the object code."""

    graph: Graph
    simplified: Graph
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
) -> Artifact:
    """Native code for a graph; see compilation.py for the cache before this."""
    lowered = lower_graph(graph, options=options, checks=checks, label=label)
    return Artifact(lowered.plan, assemble(lowered.module, lowered.target))


def lower_graph(
    graph: Graph,
    *,
    options: Options | None = None,
    checks: Checks | None = None,
    label: str = "step",
    target: Target | None = None,
    observe: Observer = lambda stage, value: None,
) -> Lowered:
    """All stages down to LLVM text; `observe` sees each one as it is done."""
    options, target = options or Options(), target or host()
    observe("graph", graph)
    simplified = simplify(graph)
    observe("simplified", simplified)
    fusion = fuse(simplified)
    storage = place(fusion)
    observe("kernels", storage.kernels)
    scheduled = tuple(Scheduled(*schedule(k, target)) for k in storage.kernels)
    observe("loops", tuple(s.function for s in scheduled))
    plan, module = emit(
        simplified,
        storage,
        scheduled,
        target,
        checks or {},
        label=label,
        flush_denormals=options.flush_denormals,
    )
    observe("llvm", module)
    kernels = tuple(s.kernel for s in scheduled)
    return Lowered(graph, simplified, fusion, kernels, scheduled, plan, module, target)
