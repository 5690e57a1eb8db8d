"""Takes a load, gives its coordinates: sums of loop variables that move through memory together.

    x[n*1024 + (h+i-1)*32 + (w+j-1)] where 0 <= h+i-1 < 32    ->    n, h+i, w+j

A coordinate of more than one variable is that of a window: several points meet in one element.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ir.index import Guard, Index, Var
from ir.scalar import Scalar
from ir.types import Dim, Extent


@dataclass(frozen=True)
class Place:
    """A coordinate of an operand: the sum of `terms`, from 0 on, each a variable and how far it
    moves; `unit` elements of memory lie between neighbours, and they exist where `guard` holds."""

    terms: tuple[tuple[Var, int], ...]
    unit: int
    guard: Guard | None = None

    @property
    def index(self) -> Index:
        return Index(tuple((v, step) for v, step in self.terms if v.extent != 1))

    @property
    def extent(self) -> Dim:
        """How many places there are."""
        reach = 0
        for v, step in self.terms:
            if isinstance(v.extent, Extent):
                assert len(self.terms) == 1 and step == 1, "windows have constant extents"
                return v.extent
            reach += step * (v.extent - 1)
        return reach + 1

    @property
    def is_window(self) -> bool:
        """Do windows overlap: is an element at more than one point?"""
        return overlaps([(v, step) for v, step in self.terms])


def overlaps(terms: Sequence[tuple[Var, int]]) -> bool:
    """Are there two points of the variables with the same sum?"""
    found = 0
    for v, step in sorted(terms, key=lambda t: t[1]):
        if v.extent != 1 and step <= found:
            return True
        found += reach([(v, step)])
    return False


def reach(terms: Sequence[tuple[Var, int]]) -> int:
    """The largest sum of the variables."""
    return sum(s * (v.extent - 1) if isinstance(v.extent, int) else 1 << 62 for v, s in terms)


def places(operand: Scalar) -> list[Place] | None:
    """The coordinates of an operand, those that are furthest apart in memory first; None where it
    does not move forward at constant strides.

    A guard names its coordinate; without one, variables whose steps reach over each other are one.
    """
    index = operand.index
    if operand.kind != "load" or operand.args:
        return None
    left: dict[Var, int] = {}
    for atom, coefficient in index.terms:
        if not isinstance(atom, Var) or coefficient < 0:
            return None
        left[atom] = coefficient
    found = []
    for guard in operand.guards:
        place = _guarded(guard, left)
        if place is None:
            return None
        found.append(place)
        for v, _ in place.terms:
            del left[v]
    found += _grouped(left)
    if any(_is_mixed(p) for p in found):
        return None
    return sorted(found, key=lambda p: (isinstance(p.extent, int), -p.unit))


def _guarded(guard: Guard, left: dict[Var, int]) -> Place | None:
    terms: list[tuple[Var, int]] = []
    units = set()
    for atom, step in guard.value.terms:
        if not isinstance(atom, Var) or atom not in left or step <= 0 or left[atom] % step:
            return None
        terms.append((atom, step))
        units.add(left[atom] // step)
    if len(units) != 1:
        return None
    return Place(tuple(terms), units.pop(), guard)


def _grouped(left: dict[Var, int]) -> list[Place]:
    groups: list[list[tuple[Var, int]]] = []
    for v, step in sorted(left.items(), key=lambda t: t[1]):
        group = next((g for g in groups if step <= reach(g)), None)
        if group is None:
            groups.append([(v, step)])
        else:
            group.append((v, step))
    found = []
    for group in groups:
        unit = math.gcd(*(step for _, step in group))
        found.append(Place(tuple((v, step // unit) for v, step in group), unit))
    return found


def _is_mixed(place: Place) -> bool:
    return len(place.terms) > 1 and any(isinstance(v.extent, Extent) for v, _ in place.terms)


def without(place: Place, around: Sequence[Var]) -> Place:
    """What a block of work that is done for each value of `around` sees of a coordinate."""
    return replace(place, terms=tuple(t for t in place.terms if t[0] not in around))
