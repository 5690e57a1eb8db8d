"""Takes an index and the variables that run over lanes, gives where lanes are, where it is known.

q // 2, 4 lanes of q      ->  0 0 1 1      one load of two elements and a shuffle
2 q                       ->  0 2 4 6      two loads of four and a shuffle
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ir.index import Index, Quotient, Remainder, Var

Lanes = Mapping[str, int]  # how many values of a variable are computed at once


def lane_offsets(index: Index, lanes: Lanes) -> list[int] | None:
    """How far every lane is from the first one, None where that is not known. Lanes begin at
    multiples of their number."""
    total = [0] * max((lanes[v.name] for v in index.variables), default=1)
    for atom, coefficient in index.terms:
        part = _offsets(atom, lanes, len(total))
        if part is None:
            return None
        total = [t + coefficient * p for t, p in zip(total, part, strict=True)]
    return total


def _offsets(atom: Var | Quotient | Remainder, lanes: Lanes, count: int) -> list[int] | None:
    if isinstance(atom, Var):
        return list(range(count)) if lanes[atom.name] > 1 else [0] * count
    inner = lane_offsets(atom.value, lanes)
    if inner is None or not any(inner):
        return inner and [0] * count
    first = _first_remainder(atom.value, atom.divisor, lanes)
    if first is None:
        return None
    if isinstance(atom, Quotient):
        return [(first + o) // atom.divisor for o in inner]
    return [(first + o) % atom.divisor - first for o in inner]


def _first_remainder(index: Index, divisor: int, lanes: Lanes) -> int | None:
    """index % divisor in the first lane, where it is the same for all values of the variables."""
    total = index.constant
    for atom, coefficient in index.terms:
        if coefficient % divisor == 0:
            continue
        match atom:
            case Var() if lanes[atom.name] > 1 and coefficient * lanes[atom.name] % divisor == 0:
                continue
            case Remainder(value, inner) if inner % divisor == 0:
                found = _first_remainder(value, divisor, lanes)
                if found is None:
                    return None
                total += coefficient * found
            case _:
                return None
    return total % divisor


@dataclass(frozen=True)
class Cover:
    """Vectors of `width` elements from each of `starts`, relative to the first lane, and the place
    of every lane in them."""

    width: int
    starts: tuple[int, ...]
    picks: tuple[int, ...]

    def users(self, number: int) -> list[list[int]]:
        """For every element of a vector the lanes that use it."""
        places = range(number * self.width, (number + 1) * self.width)
        return [[lane for lane, p in enumerate(self.picks) if p == place] for place in places]


def cover(offsets: list[int]) -> Cover | None:
    """One or two vectors that hold all lanes and nothing outside of them; None where lanes are
    further apart. The last vector ends with the last element that is needed."""
    low, high = min(offsets), max(offsets)
    width = min(len(offsets), 1 << ((high - low + 1).bit_length() - 1))
    if width < 2 or high - low >= 2 * width:
        return None
    starts = (low,) if high - low < width else (low, high - width + 1)
    picks = [o - low if o - low < width else width + o - starts[-1] for o in offsets]
    return Cover(width, starts, tuple(picks))
