"""Takes a function, gives its stages, their chunks, its memory, and what equal functions share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from itertools import product
from typing import Any

from ir import scalar
from ir.index import Index, Var
from ir.loops import Function, Split, Stmt, When
from ir.scalar import Scalar
from ir.types import DType, Extent, bind_dim


def scratch_bytes(function: Function) -> int:
    """The memory that every thread has for itself."""
    return sum(b.size * b.dtype.bytes for b in function.scratch if isinstance(b.size, int))


def stages(function: Function) -> list[tuple[tuple[Stmt, ...], Split | None, When | None]]:
    """What is run one after the other, each with its split and its condition."""
    if not function.splits and not function.whens:
        return [(function.body, None, None)]
    none = (None,) * len(function.body)
    splits, whens = function.splits or none, function.whens or none
    return [((s,), x, when) for s, x, when in zip(function.body, splits, whens, strict=True)]


def chunks(split: Split, symbols: Mapping[str, int]) -> Iterator[dict[str, tuple[int, int]]]:
    """For every chunk where it starts and stops along each axis."""
    spans = []
    for var, length in split.axes:
        extent = bind_dim(var.extent, symbols)
        starts = range(0, extent, length)
        spans.append([(var.name, (start, min(start + length, extent))) for start in starts])
    yield from map(dict, product(*spans))


def structure(function: Function) -> tuple[Any, ...]:
    """A hashable value that is equal for functions that differ in names alone.

    Buffers count by their position, so that equal kernels are found before code is written.
    """
    buffers = (*function.buffers, *function.workspace, *function.scratch)
    names = {buffer.name: f"#{position}" for position, buffer in enumerate(buffers)}

    def plain(value: Any) -> Any:
        if isinstance(value, Scalar):
            return scalar.rename(value, names)
        if isinstance(value, str):
            return names.get(value, value)
        if isinstance(value, tuple):
            return tuple(plain(v) for v in value)
        if is_dataclass(value) and not isinstance(value, (Index, Var, DType, Extent)):
            return (type(value).__name__, *(plain(getattr(value, f.name)) for f in fields(value)))
        return value

    stages_ = (function.body, function.splits, function.whens)
    parts = (function.buffers, function.workspace, function.scratch, *stages_)
    return tuple(plain(part) for part in parts)
