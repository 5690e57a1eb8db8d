"""Takes Python operators, gives LLVM text: lets a formula read like the formula in a book."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ir.types import DType, i32, i64
from nncompiler.codegen.emit import Emitter
from nncompiler.codegen.values import Number, Value, constant


@dataclass(frozen=True, slots=True)
class Term:
    """A value and the emitter that computes with it; numbers take its type."""

    e: Emitter
    value: Value

    def lift(self, other: Term | Number) -> Value:
        """The other operand as a value of this one's type."""
        if isinstance(other, Term):
            return other.value
        return constant(other, self.value.dtype, self.value.lanes)

    def of(self, value: Value) -> Term:
        return Term(self.e, value)

    def constant(self, number: Number, dtype: DType | None = None) -> Term:
        return self.of(constant(number, dtype or self.value.dtype, self.value.lanes))

    @property
    def dtype(self) -> DType:
        return self.value.dtype

    @property
    def lanes(self) -> int:
        return self.value.lanes

    def __add__(self, other: Term | Number) -> Term:
        return self.of(self.e.add(self.value, self.lift(other)))

    def __sub__(self, other: Term | Number) -> Term:
        return self.of(self.e.sub(self.value, self.lift(other)))

    def __rsub__(self, other: Number) -> Term:
        return self.of(self.e.sub(self.lift(other), self.value))

    def __mul__(self, other: Term | Number) -> Term:
        return self.of(self.e.mul(self.value, self.lift(other)))

    __radd__ = __add__
    __rmul__ = __mul__

    def __truediv__(self, other: Term | Number) -> Term:
        return self.of(self.e.fdiv(self.value, self.lift(other)))

    def __rtruediv__(self, other: Number) -> Term:
        return self.of(self.e.fdiv(self.lift(other), self.value))

    def __neg__(self) -> Term:
        return self.of(self.e.fneg(self.value))

    def __and__(self, other: Term | Number) -> Term:
        return self._bitwise("and", other)

    def __or__(self, other: Term | Number) -> Term:
        return self._bitwise("or", other)

    def __xor__(self, other: Term | Number) -> Term:
        return self._bitwise("xor", other)

    def __lshift__(self, count: int) -> Term:
        return self._bitwise("shl", count)

    def __rshift__(self, count: int) -> Term:
        return self._bitwise("ashr" if self.dtype.kind == "int" else "lshr", count)

    def _bitwise(self, instruction: str, other: Term | Number) -> Term:
        return self.of(self.e.binary(instruction, self.value, self.lift(other)))

    def fma(self, factor: Term | Number, addend: Term | Number) -> Term:
        """self * factor + addend."""
        return self.of(self.e.fma(self.value, self.lift(factor), self.lift(addend)))

    def abs(self) -> Term:
        return self.of(self.e.fabs(self.value))

    def round(self) -> Term:
        return self.of(self.e.call("llvm.roundeven", self.dtype, (self.value,), self.lanes))

    def sqrt(self) -> Term:
        return self.of(self.e.call("llvm.sqrt", self.dtype, (self.value,), self.lanes))

    def clamp(self, low: float | None, high: float | None) -> Term:
        """Into [low, high]; NaN stays NaN."""
        x = self.value
        if high is not None:
            x = self.e.minimum(x, self.lift(high))
        if low is not None:
            x = self.e.maximum(x, self.lift(low))
        return self.of(x)

    def is_(self, predicate: str, other: Term | Number) -> Term:
        """fcmp or icmp with LLVM's name of the predicate."""
        compare = self.e.fcmp if self.dtype.is_float else self.e.icmp
        return self.of(compare(predicate, self.value, self.lift(other)))

    def where(self, yes: Term, no: Term | Number) -> Term:
        """yes where self (a condition) holds, else no."""
        return self.of(self.e.select(self.value, yes.value, yes.lift(no)))

    def bits(self) -> Term:
        """A float's bits as a signed integer."""
        return self.of(self.e.bits(self.value, i32 if self.dtype.bits == 32 else i64))

    def as_float(self, dtype: DType) -> Term:
        """Bits as the float they stand for."""
        return self.of(self.e.bits(self.value, dtype))

    def to(self, dtype: DType) -> Term:
        return self.of(self.e.convert(self.value, dtype))

    def sign_bit(self) -> Term:
        return self.bits() & sign_mask(self.dtype)

    def with_sign(self, sign: Term) -> Term:
        """A non-negative float with the sign bit of `sign` (an integer term)."""
        return (self.bits() | sign).as_float(self.dtype)


def sign_mask(dtype: DType) -> int:
    return -(1 << (dtype.bits - 1))


def horner(x: Term, coefficients: Sequence[float]) -> Term:
    """c0 + c1 x + c2 x^2 ... by fused multiply-adds, highest power first."""
    total = x.constant(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total.fma(x, c)
    return total


def by_pairs(x: Term, squared: Term, coefficients: Sequence[float]) -> Term:
    """The same as (c0 + c1 x) + x^2 ((c2 + c3 x) + x^2 ...): as many multiply-adds, but only every
    second one waits for the one before."""
    pairs = [coefficients[at : at + 2] for at in range(0, len(coefficients), 2)]
    total = horner(x, pairs[-1])
    for pair in reversed(pairs[:-1]):
        total = total.fma(squared, horner(x, pair))
    return total
