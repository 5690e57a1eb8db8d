"""Takes the loops of a kernel and the buffers that are fixed, gives what depends on those alone.

    packed[k, j] = fixed:w[j, k]           once: in an entry of its own, which `Session.refresh`
    y[i, j] = sum_k x[i, k] packed[k, j]   calls; every call finds `packed` in memory

What a statement gives has to lie in the workspace, and nothing else may write there.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace

from ir import scalar
from ir.dependence import scalars, written
from ir.loops import (
    Accumulate,
    Buffer,
    For,
    Function,
    Init,
    Let,
    Split,
    Stmt,
    Store,
    Tile,
    Transpose,
    statements,
)
from nncompiler.codegen.statements import symbols_of

PLAIN = (For, Let, Init, Accumulate, Store, Transpose, Tile)


@dataclass(frozen=True)
class Parted:
    """`once` are stages, in order; `kept` the buffers that they leave for `rest`."""

    once: tuple[Function, ...]
    kept: frozenset[str]
    rest: Function


@dataclass(frozen=True)
class _Stage:
    stmt: Stmt
    split: Split | None
    reads: frozenset[str]
    writes: frozenset[str]


def part(function: Function, fixed: Set[str]) -> Parted:
    """The stages that read nothing but fixed buffers, or what such stages wrote; and the rest."""
    found = _stages(function) if fixed else []
    settled = _settled(function, found, fixed)
    if not settled:
        return Parted((), frozenset(), function)
    others = [n for n in range(len(found)) if n not in settled]
    kept = frozenset(b for n in settled for b in found[n].writes if _is_in(b, function.workspace))
    rest = replace(
        function,
        body=tuple(function.body[n] for n in others),
        splits=tuple(function.splits[n] for n in others) if function.splits else (),
        whens=tuple(function.whens[n] for n in others) if function.whens else (),
    )
    return Parted(tuple(_alone(function, found[n]) for n in settled), kept, rest)


def _stages(function: Function) -> list[_Stage]:
    """The statements of the body, where they share nothing but buffers."""
    if not all(isinstance(stmt, (For, Tile, Transpose)) for stmt in function.body):
        return []
    splits = function.splits or (None,) * len(function.body)
    return [
        _Stage(stmt, split, *map(frozenset, _touched(stmt)))
        for stmt, split in zip(function.body, splits, strict=True)
    ]


def _touched(stmt: Stmt) -> tuple[set[str], set[str]]:
    """The buffers that are read, and those that are written."""
    inner = list(statements([stmt]))
    reads = {s.name for s in scalar.walk(x for i in inner for x in scalars(i)) if s.kind == "load"}
    return reads, written([stmt])


def _settled(function: Function, found: list[_Stage], fixed: Set[str]) -> list[int]:
    """The numbers of the stages that need no call to bring them anything."""
    scratch = {b.name for b in function.scratch}
    own = scratch | {b.name for b in function.workspace if isinstance(b.size, int)}
    settled = {n for n, s in enumerate(found) if s.writes <= own and _is_plain(s.stmt)}
    while True:
        others = [s for n, s in enumerate(found) if n not in settled]
        taken = {b for s in others for b in (*s.writes, *(s.reads & scratch))}
        made = {b for n in settled for b in found[n].writes - scratch}
        left = {
            n
            for n in settled
            if found[n].reads <= fixed | made | found[n].writes and not found[n].writes & taken
        }
        if left == settled:
            return sorted(settled)
        settled = left


def _is_plain(stmt: Stmt) -> bool:
    """Loops of known lengths, over statements whose results `_touched` tells."""
    simple = all(isinstance(s, PLAIN) for s in statements([stmt]))
    return simple and not symbols_of(Function("", (), (stmt,)))


def _alone(function: Function, stage: _Stage) -> Function:
    """The stage as a function of the buffers that it touches."""
    touched = stage.reads | stage.writes

    def used(buffers: tuple[Buffer, ...]) -> tuple[Buffer, ...]:
        return tuple(b for b in buffers if b.name in touched)

    return replace(
        function,
        buffers=used(function.buffers),
        scratch=used(function.scratch),
        workspace=used(function.workspace),
        body=(stage.stmt,),
        splits=(stage.split,) if stage.split else (),
        whens=(),
    )


def _is_in(name: str, buffers: tuple[Buffer, ...]) -> bool:
    return any(b.name == name for b in buffers)
