"""Takes index expressions, gives LLVM integers: one, or one for every lane.

An index is affine in the lanes as long as no quotient or remainder tears them apart.
"""

from __future__ import annotations

from collections.abc import Mapping

from ir.index import Index, Quotient, Remainder, Var
from ir.types import Dim, DType, i64
from nncompiler.codegen.emit import Emitter
from nncompiler.codegen.scope import Binding
from nncompiler.codegen.values import Value, constant, number_of


class Indices:
    """Evaluates extents and indices under the present bindings of loop variables."""

    def __init__(self, emitter: Emitter, symbols: Mapping[str, Value]) -> None:
        self.e = emitter
        self.symbols = symbols
        self.bindings: dict[str, Binding] = {}

    def extent(self, dim: Dim) -> Value:
        """A (symbolic) extent as i64."""
        if isinstance(dim, int):
            return constant(dim, i64)
        return self.e.mul(self.symbols[dim.symbol], constant(dim.coefficient, i64))

    # ------------------------------------------------------------ indices

    def affine(self, index: Index) -> tuple[Value, int] | None:
        """(value in the first lane, distance from lane to lane), or None where lanes jump."""
        total = constant(index.constant, i64)
        stride = 0
        for atom, coefficient in index.terms:
            part = self._atom(atom)
            if part is None:
                return None
            value, step = part
            total = self.e.add(total, self.e.mul(value, constant(coefficient, i64)))
            stride += step * coefficient
        return total, stride

    def _atom(self, atom: Var | Quotient | Remainder) -> tuple[Value, int] | None:
        if isinstance(atom, Var):
            binding = self.bindings[atom.name]
            return binding.base, 1 if binding.lanes > 1 else 0
        inner = self.affine(atom.value)
        if inner is None:
            return None
        value, stride = inner
        if stride and not self._lanes_stay_together(atom.value, atom.divisor, stride):
            return None
        if isinstance(atom, Quotient):
            return self._divide(value, atom, exact=False), 0
        return self._divide(value, atom, exact=True), stride

    def _lanes_stay_together(self, index: Index, divisor: int, stride: int) -> bool:
        """Do all lanes of index have the same quotient, so that the remainder just counts up?"""
        lanes = self._lanes_of(index)
        if stride != 1 or divisor % lanes or index.constant % lanes:
            return False
        for atom, coefficient in index.terms:
            is_lane = isinstance(atom, Var) and self.bindings[atom.name].lanes > 1
            if not is_lane and coefficient % lanes:
                return False
        return True

    def _lanes_of(self, index: Index) -> int:
        return max(self.bindings[v.name].lanes for v in index.variables)

    def _divide(self, value: Value, atom: Quotient | Remainder, *, exact: bool) -> Value:
        """Floor quotient or remainder by a positive constant; plain unsigned where value >= 0."""
        divisor = constant(atom.divisor, i64)
        number = number_of(value)
        if number is not None:
            return constant(
                int(number) % atom.divisor if exact else int(number) // atom.divisor, i64
            )
        low, _ = atom.value.bounds
        assert low is not None, "an index is bounded from below"
        word = "urem" if exact else "udiv"
        if low >= 0:
            return self.e.value(f"{word} i64 {value.text}, {divisor.text}", i64)
        shift = constant((-low // atom.divisor + 1) * atom.divisor, i64)
        moved = self.e.add(value, shift)
        result = self.e.value(f"{word} i64 {moved.text}, {divisor.text}", i64)
        if exact:
            return result
        return self.e.sub(result, constant((number_of(shift) or 0) // atom.divisor, i64))

    def lane_indices(self, index: Index) -> Value:
        """The index in every lane, as a vector of i64 (a scalar where it is the same in all)."""
        simple = self.affine(index)
        if simple is not None:
            base, stride = simple
            if not stride:
                return base
            lanes = self._lanes_of(index)
            text = ", ".join(f"i64 {lane * stride}" for lane in range(lanes))
            steps = Value(f"<{text}>", i64, lanes)
            return self.e.add(self.e.splat(base, lanes), steps)
        lanes = self._lanes_of(index)
        total = constant(index.constant, i64, lanes)
        for atom, coefficient in index.terms:
            part = self._lane_atom(atom, lanes)
            total = self.e.add(total, self.e.mul(part, constant(coefficient, i64, lanes)))
        return total

    def _lane_atom(self, atom: Var | Quotient | Remainder, lanes: int) -> Value:
        if isinstance(atom, Var):
            return self.e.splat(self.lane_indices(Index.of(atom)), lanes)
        inner = self.e.splat(self.lane_indices(atom.value), lanes)
        low, _ = atom.value.bounds
        assert low is not None, "an index is bounded from below"
        shift = (-low // atom.divisor + 1) * atom.divisor if low < 0 else 0
        moved = self.e.add(inner, constant(shift, i64, lanes))
        divisor = constant(atom.divisor, i64, lanes).text
        word = "udiv" if isinstance(atom, Quotient) else "urem"
        result = self.e.value(f"{word} {moved.typed}, {divisor}", i64, lanes)
        if isinstance(atom, Remainder) or not shift:
            return result
        return self.e.sub(result, constant(shift // atom.divisor, i64, lanes))

    def _index_value(self, index: Index, dtype: DType) -> Value:
        return self.e.convert(self.lane_indices(index), dtype)
