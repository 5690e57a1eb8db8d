"""Takes the axis of the lanes and the values along it, gives the axis in pieces without guards.

y[j] = (0 <= j < 128 ? a[j] : 0) + (0 <= j - 128 < 128 ? b[j - 128] : 0)
->  j0 < 128: y[j0] = a[j0] + 0;   j1 < 128: y[j1 + 128] = 0 + b[j1]

What was laid side by side (the gates of a cell, skipped layers) is then copied or computed piece by
piece, instead of reading all operands everywhere under masks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

from ir import scalar
from ir.index import Guard, Index, Var
from ir.loops import Write
from ir.scalar import Scalar
from ir.types import boolean

MOST = 16  # pieces, each a loop of its own


def pieces(writes: tuple[Write, ...], axis: Var, lanes: int) -> list[tuple[Var, tuple[Write, ...]]]:
    """A variable and the writes of every piece; one piece where the values change nowhere, or at
    distances that fill no vector."""
    whole = [(axis, writes)]
    if not isinstance(axis.extent, int):
        return whole
    found = {cut for cut in _cuts((w.value for w in writes), axis) if 0 < cut < axis.extent}
    bounds = [0, *sorted(found), axis.extent]
    spans = list(pairwise(bounds))
    if not 1 < len(spans) <= MOST or min(stop - start for start, stop in spans) < lanes:
        return whole
    return [_piece(writes, axis, number, *span) for number, span in enumerate(spans)]


def _piece(
    writes: tuple[Write, ...], axis: Var, number: int, start: int, stop: int
) -> tuple[Var, tuple[Write, ...]]:
    part = Var(f"{axis.name}_{number}", stop - start)
    change = {axis: Index.of(part) + start}
    changed = tuple(
        replace(
            w,
            index=w.index.substitute(change),
            value=decided(scalar.substitute(w.value, change)),
        )
        for w in writes
    )
    return part, changed


def _cuts(values: Iterable[Scalar], axis: Var) -> Iterator[int]:
    """Where along the axis a guard or a comparison with a number changes its answer."""
    for s in scalar.walk(values):
        conditions = list(s.guards)
        if s.name in ("lt", "le") and s.kind == "apply":
            conditions += _compared(s)
        for guard in conditions:
            rest = guard.value - Index.of(axis)
            if not rest.terms:
                yield guard.low - rest.constant
                if isinstance(guard.high, int):
                    yield guard.high - rest.constant


def _compared(s: Scalar) -> list[Guard]:
    """A comparison of an index with a number, as the guard that holds where it is true."""
    a, b = s.args
    strict = int(s.name == "lt")
    match a.kind, b.kind:
        case "at", "const":
            return [Guard(a.index, -(1 << 62), int(b.value) + 1 - strict)]
        case "const", "at":
            return [Guard(b.index, int(a.value) + strict, 1 << 62)]
    return []


def decided(root: Scalar) -> Scalar:
    """The value without the conditions that the bounds of the loops decide."""
    memo: dict[Scalar, Scalar] = {}
    for s in scalar.walk([root]):
        memo[s] = _decide(scalar.with_args(s, tuple(memo[a] for a in s.args)))
    return memo[root]


def _decide(s: Scalar) -> Scalar:
    match s.kind, s.name, s.args:
        case "load", _, _ if s.guards:
            answers = [_answer(g) for g in s.guards]
            if False in answers:
                return scalar.const(s.fill, s.dtype)
            open = tuple(g for g, a in zip(s.guards, answers, strict=True) if a is None)
            given = zip(s.args, s.strides, strict=True)
            return scalar.load(
                s.name, s.index, s.dtype, indirect=given, guards=open, fill=s.fill if open else 0
            )
        case "apply", "lt" | "le", _:
            for guard in _compared(s):
                answer = _answer(guard)
                if answer is not None:
                    return scalar.const(answer, boolean)
        case "apply", "and", (a, b) if s.dtype == boolean:
            for one, other in ((a, b), (b, a)):
                if one.kind == "const":
                    return other if one.value else one
        case "apply", "where", (condition, a, b) if condition.kind == "const":
            return a if condition.value else b
    return s


def _answer(guard: Guard) -> bool | None:
    """Whether a guard holds wherever the loops go; None where that differs."""
    low, high = guard.value.bounds
    if low is None or high is None or not isinstance(guard.high, int):
        return None
    if low >= guard.low and high < guard.high:
        return True
    return False if high < guard.low or low >= guard.high else None
