"""Takes a graph, gives its artifact: from the user's cache, else through the whole pipeline.

A graph that was compiled before costs one look-up: the pipeline's modules are imported when a graph
first goes through it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from ir.graph import Graph
from ir.text import print_graph
from nncompiler.codegen import llvm
from nncompiler.options import Options
from nncompiler.room import room
from runtime.artifact import Artifact
from runtime.cache import Cache

Checks = Mapping[str, tuple[int, int] | None]

PACKAGES = ("ir", "nncompiler", "runtime")


def compile_graph(
    graph: Graph,
    *,
    options: Options | None = None,
    checks: Checks | None = None,
    label: str = "step",
) -> Artifact:
    """Native code for a graph, from the user's cache where it holds the same program.

    checks: input id -> (low, high) that its integers must keep, or None for "not NaN".
    With options.debug every graph goes through the pipeline.
    """
    options, checks = options or Options(), checks or {}

    def build() -> Artifact:
        return _build(graph, options, checks, label)

    if not options.cache:
        return build()
    return cached(cache_key(graph, options, checks, label), build, again=options.debug)


def cached(digest: str, build: Callable[[], Artifact], *, again: bool = False) -> Artifact:
    """What the user's cache holds under the digest, else what is built now (`again`: always)."""
    cache = Cache()
    artifact = None if again else cache.get(digest)
    if artifact is None:
        artifact = build()
        cache.put(digest, artifact)
    return artifact


def _build(graph: Graph, options: Options, checks: Checks, label: str) -> Artifact:
    with room():
        from nncompiler.pipeline import build  # half of all our code: a look-up does without it

        return build(graph, options=options, checks=checks, label=label)


def cache_key(graph: Graph, options: Options, checks: Checks, label: str) -> str:
    """Digest of all that the object code depends on: names too, for they stand in the plan."""
    return digest_of(
        print_graph(graph),
        repr(replace(options, threads=None, debug=False)),
        repr(sorted(checks.items())),
        label,
    )


def digest_of(*parts: str) -> str:
    """Digest of the parts, of this machine, of our sources and of llvmlite."""
    every = [*parts, repr(llvm.host()), sources_digest(), llvm.version()]
    return hashlib.sha256("\0".join(every).encode()).hexdigest()


@cache
def sources_digest() -> str:
    """Digest of our own sources: a changed compiler never finds old objects."""
    root = Path(__file__).resolve().parent.parent
    lines = sorted(line for package in PACKAGES for line in _sources(str(root / package)))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _sources(folder: str) -> Iterator[str]:
    """Path, size and time of every module below a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".py"):
                status = entry.stat()
                yield f"{entry.path} {status.st_size} {status.st_mtime_ns}"
            elif entry.name != "__pycache__" and entry.is_dir():
                yield from _sources(entry.path)
