"""Takes a load through windows over zeros between elements, gives its coordinates.

    x[n*256 + ((h + i - 1) // 2)*16 + (w + j - 1) // 2]   where h + i - 1 and w + j - 1 are even
    ->   n;   h + i - 1 by 2;   w + j - 1 by 2

That is how the input gradient of a strided convolution reads: spots and taps move over a spread
operand, and only every second of their sums meets an element.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from ir.index import Guard, Index, Quotient, Remainder, Var
from ir.places import Place, places
from ir.scalar import Scalar, load
from ir.types import Extent


@dataclass(frozen=True)
class Way:
    """A coordinate along which windows move: element (spot + far * tap + shift) / stride where that
    is whole and from `low` on below `high`; `unit` elements of memory lie between neighbours."""

    spot: Var
    tap: Var
    far: int
    stride: int
    shift: int
    unit: int
    low: int
    high: int

    @property
    def size(self) -> int:
        """How many taps a window has."""
        return _known(self.tap)

    @property
    def extent(self) -> int:
        """How many spots there are."""
        return _known(self.spot)

    @property
    def met(self) -> int:
        """How many taps of all spots meet an element or the border, and no zero between them."""
        sums = (s + self.far * t + self.shift for s in range(self.extent) for t in range(self.size))
        return sum(place % self.stride == 0 for place in sums)


@dataclass(frozen=True)
class Dilated:
    """The ways of an operand, those that are furthest apart in memory first, and the coordinates
    along which no windows move."""

    ways: tuple[Way, ...]
    alone: tuple[Place, ...]


def dilated(operand: Scalar, summed: Container[Var]) -> Dilated | None:
    """The coordinates of an operand whose taps are among the `summed` variables; None where it has
    no zeros between its elements, or where a spot would meet none of them."""
    torn = [(a, c) for a, c in operand.index.terms if isinstance(a, Quotient)]
    if operand.kind != "load" or operand.args or operand.fill != 0 or not torn:
        return None
    ways = [_torn_way(a, c, summed) for a, c in torn]
    if None in ways:
        return None
    own = {v for w in ways if w for v in (w.spot, w.tap)}
    plain = Index(tuple((a, c) for a, c in operand.index.terms if not isinstance(a, Quotient)))
    if len(own) < 2 * len(ways) or own & plain.variables:
        return None
    found: list[Way] = []
    for (quotient, _), way in zip(torn, ways, strict=True):
        assert way is not None and isinstance(quotient, Quotient)
        guards = [g for g in operand.guards if g.value.variables & {way.spot, way.tap}]
        limited = _limited(way, quotient, guards)
        if limited is None or limited.size <= limited.stride:
            return None
        found.append(limited)
    guards = [g for g in operand.guards if not g.value.variables & own]
    rest = places(load(operand.name, plain, operand.dtype, guards=tuple(guards)))
    return _joined(found, rest, summed) if rest is not None else None


def _torn_way(quotient: Quotient, unit: int, summed: Container[Var]) -> Way | None:
    terms = quotient.value.terms
    variables = [a for a, c in terms if isinstance(a, Var) and c == 1]
    if len(terms) != 2 or len(variables) != 2 or unit <= 0:
        return None
    tap = next((v for v in variables if v in summed), variables[1])
    (spot,) = (v for v in variables if v != tap)
    if tap not in summed or spot in summed or not _are_known(spot, tap):
        return None
    return _within(Way(spot, tap, 1, quotient.divisor, quotient.value.constant, unit, 0, 0))


def _within(way: Way) -> Way:
    """The elements that the spots reach."""
    last = way.extent - 1 + way.far * (way.size - 1) + way.shift
    return replace(way, low=-(-way.shift // way.stride), high=last // way.stride + 1)


def _limited(way: Way, quotient: Quotient, guards: Sequence[Guard]) -> Way | None:
    """The way with what its guards say: that nothing is between elements, and where they end."""
    remainder = Index.of(Index(((Remainder(quotient.value, quotient.divisor), 1),)))
    is_spread = False
    for g in guards:
        if g.value == remainder and (g.low, g.high) == (0, 1):
            is_spread = True
            continue
        beyond = g.value - quotient.value
        if beyond.terms or isinstance(g.high, Extent):
            return None
        low, high = (-((beyond.constant - end) // way.stride) for end in (g.low, g.high))
        way = replace(way, low=max(way.low, low), high=min(way.high, high))
    return way if is_spread else None


def _joined(found: list[Way], rest: Sequence[Place], summed: Container[Var]) -> Dilated | None:
    """The ways with those of stride one, which are places of two variables or with a border."""
    alone = []
    for place in rest:
        if len(place.terms) == 1 and place.guard is None:
            if place.terms[0][0] in summed and not _are_known(place.terms[0][0]):
                return None
            alone.append(place)
            continue
        spots = [(v, step) for v, step in place.terms if v not in summed]
        taps = [(v, step) for v, step in place.terms if v in summed]
        if len(spots) != 1 or len(taps) > 1 or spots[0][1] != 1:
            return None
        tap, far = taps[0] if taps else (Var(f"{spots[0][0]}_tap", 1), 1)
        if not _are_known(spots[0][0], tap):
            return None
        way = _within(Way(spots[0][0], tap, far, 1, 0, place.unit, 0, 0))
        if place.guard is not None:
            beyond = place.guard.value - place.index
            if beyond.terms or isinstance(place.guard.high, Extent):
                return None
            ends = (place.guard.low - beyond.constant, place.guard.high - beyond.constant)
            way = replace(way, low=max(way.low, ends[0]), high=min(way.high, ends[1]))
        found.append(way)
    found.sort(key=lambda w: -w.unit)
    return Dilated(tuple(found), tuple(alone))


def _are_known(*variables: Var) -> bool:
    return all(isinstance(v.extent, int) for v in variables)


def _known(v: Var) -> int:
    assert isinstance(v.extent, int), "windows have constant extents"
    return v.extent
