"""Takes a graph, gives an artifact: the whole lowering on one page, in order.

    graph -> simplify -> fuse -> place (lower) -> schedule -> emit -> assemble -> artifact
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path

from ir.graph import Graph
from ir.loops import Kernel
from ir.text import print_graph
from nncompiler.codegen.assemble import Scheduled, assemble, emit
from nncompiler.codegen.checks import Checks
from nncompiler.codegen.target import Target, host
from nncompiler.fuse import Fusion, fuse
from nncompiler.memory import place
from nncompiler.options import Options
from nncompiler.schedule import schedule
from nncompiler.simplify import simplify
from runtime.artifact import Artifact, Plan
from runtime.cache import Cache

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


def compile_graph(
    graph: Graph,
    *,
    options: Options | None = None,
    checks: Checks | None = None,
    label: str = "step",
) -> Artifact:
    """Native code for a graph, from the user's cache where it holds the same program.

    checks: input id -> (low, high) that its integers must keep, or None for "not NaN".
    """
    options = options or Options()
    if not options.cache:
        return _compile(graph, options, checks or {}, label)
    cache = Cache()
    digest = cache_key(graph, options, checks or {}, label)
    artifact = cache.get(digest)
    if artifact is None:
        artifact = _compile(graph, options, checks or {}, label)
        cache.put(digest, artifact)
    return artifact


def _compile(graph: Graph, options: Options, checks: Checks, label: str) -> Artifact:
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


def cache_key(graph: Graph, options: Options, checks: Checks, label: str) -> str:
    """Digest of all that the object code depends on: names too, for they stand in the plan."""
    parts = [
        print_graph(graph),
        repr(replace(options, threads=None)),
        repr(sorted(checks.items())),
        label,
        repr(host()),
        sources_digest(),
        metadata.version("llvmlite"),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@cache
def sources_digest() -> str:
    """Digest of our own sources: a changed compiler never finds old objects."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parent.parent
    for package in ("ir", "nncompiler", "runtime"):
        for path in sorted((root / package).rglob("*.py")):
            status = path.stat()
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()

