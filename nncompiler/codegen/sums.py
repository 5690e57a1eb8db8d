"""Takes sums (also products, extremes) over loops, gives values that grow with every statement.

Where a loop runs over lanes each lane has a sum of its own until the result is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ir import scalar
from ir.dependence import scalars
from ir.loops import (
    Accumulate,
    For,
    Init,
    Stmt,
    statements,
)
from ir.scalar import Scalar
from ir.types import integer_range
from nncompiler.codegen.expressions import Expressions
from nncompiler.codegen.scope import Accumulator
from nncompiler.codegen.values import Value, constant


class Sums(Expressions):
    """Keeps accumulators: in one lane, or in the lanes of the loop that adds to them."""

    def start(self, name: str, value: Scalar, following: Sequence[Stmt]) -> None:
        """Begin a sum; `following` are the statements that add to it."""
        outside = max((b.lanes for b in self.bindings.values()), default=1)
        inside = _lanes_accumulating(name, following)
        start = self.evaluate(value)
        if outside > 1:
            self.accumulators[name] = Accumulator(self.e.splat(start, outside), "", False)
        else:
            wide = self.e.splat(start, inside)
            combine = _combine_of(name, following)
            self.accumulators[name] = Accumulator(wide, combine, inside > 1)
        self.values.pop(name, None)

    def accumulate(self, name: str, combine: str, value: Scalar) -> None:
        """Add to a sum, in the lanes that exist."""
        accumulator = self.accumulators[name]
        total = accumulator.value
        product = self.factors(value) if combine == "sum" else None
        if product is not None:
            after = self.multiply_add(*product, total)
        else:
            after = self.e.combine(combine, total, self.e.splat(self.evaluate(value), total.lanes))
        mask = self.lane_mask if accumulator.partial else None
        accumulator.value = after if mask is None else self.e.select(mask, after, total)

    def neutral(self, combine: str, like: Value) -> Value:
        """The value that changes nothing: -0.0 for float sums, so that even signs of zero stay."""
        dtype = like.dtype
        if combine == "maxabs":
            return constant(0, dtype, like.lanes)
        if combine in ("sum", "prod"):
            zero = -0.0 if dtype.is_float else 0
            return constant(zero if combine == "sum" else 1, dtype, like.lanes)
        if dtype.is_float:
            edge = float("-inf") if combine == "max" else float("inf")
            return constant(edge, dtype, like.lanes)
        if dtype.kind == "bool":
            return constant(combine == "min", dtype, like.lanes)
        low, high = integer_range(dtype)
        return constant(low if combine == "max" else high, dtype, like.lanes)

    def finish(self, body: Sequence[Stmt]) -> None:
        """Combine the lanes of sums that are read here where every block that follows knows it."""
        changed = set(accumulated(body))
        for s in scalars_of(body):
            if s.kind == "ref" and s.name in self.accumulators and s.name not in changed:
                self.reference(s.name)

    def is_partial(self, name: str) -> bool:
        return name in self.accumulators and self.accumulators[name].partial


def scalars_of(body: Iterable[Stmt]) -> list[Scalar]:
    """Every expression of the statements, operands first."""
    return list(scalar.walk(s for stmt in statements(body) for s in scalars(stmt)))


def accumulated(body: Iterable[Stmt]) -> list[str]:
    """Accumulators that the statements change but do not start."""
    started = {s.name for s in statements(body) if isinstance(s, Init)}
    found = dict.fromkeys(s.name for s in statements(body) if isinstance(s, Accumulate))
    return [name for name in found if name not in started]


def _lanes_accumulating(name: str, body: Iterable[Stmt]) -> int:
    """In how many lanes the statements add to an accumulator."""
    for stmt in body:
        if isinstance(stmt, For):
            inside = any(isinstance(s, Accumulate) and s.name == name for s in statements([stmt]))
            if inside and "vector" in stmt.kind:
                return stmt.step
            if inside:
                return _lanes_accumulating(name, stmt.body)
    return 1


def _combine_of(name: str, body: Iterable[Stmt]) -> str:
    found = [s.combine for s in statements(body) if isinstance(s, Accumulate) and s.name == name]
    return found[0] if found else "sum"
