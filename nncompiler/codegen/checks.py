"""Takes an input and its limits, gives the loops that look for elements outside of them.

Native code runs these before it writes anything: labels of a cross-entropy must be classes, float
targets must not be NaN.
"""

from __future__ import annotations

from collections.abc import Mapping

from ir import scalar
from ir.graph import Node
from ir.index import Index, Var
from ir.loops import Accumulate, Buffer, For, Function, Init, Store
from ir.scalar import Scalar
from ir.types import boolean, i32
from nncompiler.codegen.target import Target

Checks = Mapping[str, tuple[int, int] | None]  # id -> low <= value < high; None: not NaN


def check_function(node: Node, limits: tuple[int, int] | None, target: Target) -> Function:
    """cell[0] = 1 where any element of the input is outside of its limits, else 0."""
    id = str(node.attrs["id"])
    cell = Var("i", node.type.size)
    value = scalar.load(id, Index.of(cell), node.dtype)
    one, zero = scalar.const(1, i32), scalar.const(0, i32)
    found = scalar.apply("where", [_bad(value, limits), one, zero], i32)
    sweep = For(cell, "vector", target.lanes(node.dtype), (Accumulate("bad", "max", found),))
    store = Store("cell", Index(), scalar.ref("bad", i32))
    buffers = (Buffer(id, node.dtype, node.type.size), Buffer("cell", i32, 1, True))
    return Function(f"check_{id}", buffers, (Init("bad", zero), sweep, store))


def _bad(value: Scalar, limits: tuple[int, int] | None) -> Scalar:
    if limits is None:
        return scalar.apply("ne", [value, value], boolean)
    low, high = (scalar.const(limit, value.dtype) for limit in limits)
    below = scalar.apply("lt", [value, low], boolean)
    above = scalar.apply("le", [high, value], boolean)
    return scalar.apply("or", [below, above], boolean)
