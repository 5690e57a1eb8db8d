"""Takes loop variables, gives index expressions: affine plus floordiv and mod, with bounds.

    i*64 + j          (i*64 + j) // 64  ->  i      where 0 <= j < 64
                      (i*64 + j) % 64   ->  j

Composing views is substitution of index expressions; there are no view objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ir.types import Dim, Extent


@dataclass(frozen=True)
class Var:
    """A loop variable in 0 <= var < extent (extent may be symbolic)."""

    name: str
    extent: Dim

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Quotient:
    """value // divisor (floor, divisor a positive constant) that could not be simplified."""

    value: Index
    divisor: int

    def __str__(self) -> str:
        return f"({self.value}) // {self.divisor}"


@dataclass(frozen=True)
class Remainder:
    """value % divisor (result in 0 .. divisor - 1) that could not be simplified."""

    value: Index
    divisor: int

    def __str__(self) -> str:
        return f"({self.value}) % {self.divisor}"


Atom = Var | Quotient | Remainder


@dataclass(frozen=True)
class Index:
    """constant + sum of coefficient * atom; terms are kept in a canonical order."""

    terms: tuple[tuple[Atom, int], ...] = ()
    constant: int = 0

    def __hash__(self) -> int:
        """Kept, for expressions share it and tables of them ask again and again."""
        kept = self.__dict__
        found: int | None = kept.get("hash")
        if found is None:
            found = kept["hash"] = hash((self.terms, self.constant))
        return found

    def __reduce__(self) -> Any:
        return Index, (self.terms, self.constant)  # without the hash: it is this process's

    @staticmethod
    def of(value: int | Var | Index) -> Index:
        if isinstance(value, Index):
            return value
        if isinstance(value, Var):
            return Index(((value, 1),))
        return Index((), int(value))

    def __add__(self, other: int | Index) -> Index:
        other = Index.of(other)
        total = dict(self.terms)
        for atom, coefficient in other.terms:
            total[atom] = total.get(atom, 0) + coefficient
        return _canonical(total, self.constant + other.constant)

    __radd__ = __add__

    def __sub__(self, other: int | Index) -> Index:
        return self + Index.of(other) * -1

    def __mul__(self, factor: int) -> Index:
        return _canonical({a: c * factor for a, c in self.terms}, self.constant * factor)

    __rmul__ = __mul__

    @cached_property
    def bounds(self) -> tuple[int | None, int | None]:
        """(lowest, highest) value, None where unbounded (a symbolic extent)."""
        low: int | None = self.constant
        high: int | None = self.constant
        for atom, coefficient in self.terms:
            first, last = _atom_bounds(atom)
            if coefficient < 0:
                first, last = last, first
            low = None if low is None or first is None else low + coefficient * first
            high = None if high is None or last is None else high + coefficient * last
        return low, high

    def __floordiv__(self, divisor: int) -> Index:
        if divisor == 1:
            return self
        whole, rest = self._split(divisor)
        low, high = rest.bounds
        if low is not None and high is not None and low // divisor == high // divisor:
            return whole + low // divisor
        return whole + Index(((Quotient(rest, divisor), 1),))

    def __mod__(self, divisor: int) -> Index:
        _, rest = self._split(divisor)
        low, high = rest.bounds
        if low is not None and high is not None and low // divisor == high // divisor:
            return rest - (low // divisor) * divisor
        return Index(((Remainder(rest, divisor), 1),))

    def _split(self, divisor: int) -> tuple[Index, Index]:
        """self = whole * divisor + rest, with everything divisible moved to `whole`."""
        whole = {a: c // divisor for a, c in self.terms if c % divisor == 0}
        rest = {a: c for a, c in self.terms if c % divisor}
        quotient, remainder = divmod(self.constant, divisor)
        return _canonical(whole, quotient), _canonical(rest, remainder)

    def substitute(self, values: Mapping[Var, Index]) -> Index:
        """Replace loop variables by index expressions, simplifying on the way."""
        if not self.terms:
            return self
        total = Index((), self.constant)
        for atom, coefficient in self.terms:
            match atom:
                case Var():
                    value = values.get(atom, Index.of(atom))
                case Quotient(inner, divisor):
                    value = inner.substitute(values) // divisor
                case Remainder(inner, divisor):
                    value = inner.substitute(values) % divisor
            total = total + value * coefficient
        return total

    @cached_property
    def variables(self) -> frozenset[Var]:
        found: set[Var] = set()
        for atom, _ in self.terms:
            found |= {atom} if isinstance(atom, Var) else atom.value.variables
        return frozenset(found)

    def coefficient(self, var: Var) -> int | None:
        """How far the value moves when `var` grows by one; None where that is not constant."""
        step = 0
        for atom, coefficient in self.terms:
            if atom == var:
                step = coefficient
            elif not isinstance(atom, Var) and var in atom.value.variables:
                return None
        return step

    def evaluate(self, values: Mapping[str, int]) -> int:
        return self.constant + sum(c * _evaluate_atom(a, values) for a, c in self.terms)

    def __str__(self) -> str:
        parts: list[str] = []
        for atom, coefficient in self.terms:
            sign = "-" if coefficient < 0 else "+"
            body = str(atom) if abs(coefficient) == 1 else f"{_factor(atom)}*{abs(coefficient)}"
            parts.append(f" {sign} {body}" if parts else ("-" if coefficient < 0 else "") + body)
        if self.constant or not parts:
            sign = "-" if self.constant < 0 else "+"
            text = str(abs(self.constant))
            parts.append(f" {sign} {text}" if parts else str(self.constant))
        return "".join(parts)


@dataclass(frozen=True, slots=True)
class Guard:
    """The condition low <= value < high under which an element exists (high may be symbolic)."""

    value: Index
    low: int
    high: Dim

    def __str__(self) -> str:
        return f"{self.low} <= {self.value} < {self.high}"


def _factor(atom: Atom) -> str:
    return str(atom) if isinstance(atom, Var) else f"({atom})"


def _canonical(terms: Mapping[Atom, int], constant: int) -> Index:
    kept = [(a, c) for a, c in terms.items() if c and not (isinstance(a, Var) and a.extent == 1)]
    if len(kept) > 1:
        whole = _joined(dict(kept))
        if whole is not None:
            return whole + constant
        kept.sort(key=lambda item: (-abs(item[1]), str(item[0])))
    return Index(tuple(kept), constant)


def _joined(terms: Mapping[Atom, int]) -> Index | None:
    """(v // d) * (d * c) + (v % d) * c is v * c; None where no such pair is there."""
    for atom, coefficient in terms.items():
        if not isinstance(atom, Remainder):
            continue
        for quotient in _quotients(atom.value, atom.divisor):
            if terms.get(quotient, 0) == coefficient * atom.divisor:
                rest = {a: c for a, c in terms.items() if a not in (atom, quotient)}
                return _canonical(rest, 0) + atom.value * coefficient
    return None


def _quotients(value: Index, divisor: int) -> list[Quotient]:
    """The ways in which value // divisor is written: (v // a) // b is v // (a * b)."""
    found = [Quotient(value, divisor)]
    match value:
        case Index(terms=((Quotient(value=inner, divisor=first), 1),), constant=0):
            found.append(Quotient(inner, first * divisor))
    return found


def _atom_bounds(atom: Atom) -> tuple[int | None, int | None]:
    match atom:
        case Var(extent=extent):
            return 0, None if isinstance(extent, Extent) else max(extent - 1, 0)
        case Quotient(value, divisor):
            low, high = value.bounds
            return (
                None if low is None else low // divisor,
                None if high is None else high // divisor,
            )
        case Remainder(_, divisor):
            return 0, divisor - 1


def _evaluate_atom(atom: Atom, values: Mapping[str, int]) -> int:
    match atom:
        case Var(name):
            return values[name]
        case Quotient(value, divisor):
            return value.evaluate(values) // divisor
        case Remainder(value, divisor):
            return value.evaluate(values) % divisor


def flatten(indices: tuple[Index, ...], strides: tuple[int, ...]) -> Index:
    """The row-major offset of an element."""
    total = Index()
    for index, stride in zip(indices, strides, strict=True):
        total = total + index * stride
    return total


def unflatten(offset: Index, shape: tuple[Dim, ...]) -> tuple[Index, ...]:
    """The indices of the element at a row-major offset (the inverse of `flatten`)."""
    indices: list[Index] = []
    for axis in range(len(shape) - 1, -1, -1):
        dim = shape[axis]
        if axis == 0:
            indices.append(offset)
        else:
            assert isinstance(dim, int), "a symbol may stand only on the leading axis"
            indices.append(offset % max(dim, 1))
            offset = offset // max(dim, 1)
    return tuple(reversed(indices))
