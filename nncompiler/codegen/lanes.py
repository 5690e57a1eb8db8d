"""Takes an index and the variables that run over lanes, gives where lanes are, where it is known.

q // 2, 4 lanes of q      ->  0 0 1 1      one load of two elements and a shuffle
2 q                       ->  0 2 4 6      two loads of four and a shuffle
q // 2 + q % 2 * 99       ->  0 99 1 100   two loads of two and a shuffle
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def lane_values(index: Index, lanes: Lanes) -> list[int] | None:
    """The index in every lane, None where it depends on anything else."""
    total = index.constant
    for atom, coefficient in index.terms:
        if not isinstance(atom, Remainder):
            return None
        first = _first_remainder(atom.value, atom.divisor, lanes)
        if first is None:
            return None
        total += coefficient * first
    offsets = lane_offsets(index, lanes)
    return offsets and [total + o for o in offsets]


@dataclass(frozen=True)
class Cover:
    """Vectors of `width` elements from each of `starts`, relative to the first lane, and the place
    of every lane in them, None for a lane that reads nothing."""

    width: int
    starts: tuple[int, ...]
    picks: tuple[int | None, ...]

    def users(self, number: int) -> list[list[int]]:
        """For every element of a vector the lanes that use it."""
        places = range(number * self.width, (number + 1) * self.width)
        return [[lane for lane, p in enumerate(self.picks) if p == place] for place in places]


def cover(offsets: Sequence[int | None]) -> Cover | None:
    """One or two vectors that hold all lanes but those without an offset, and nothing outside of
    them; None where lanes are further apart, or where no lane reads. The last vector ends with the
    last element that is needed."""
    needed = sorted({o for o in offsets if o is not None})
    if not needed:
        return None
    low, high = needed[0], needed[-1]
    width = min(len(offsets), 1 << ((high - low + 1).bit_length() - 1))
    if width < 2:
        return None
    starts: tuple[int, ...] = (low,) if high - low < width else (low, high - width + 1)
    if high - low >= 2 * width:
        stretches = _two_stretches(needed)
        if stretches is None:
            return None
        width, starts = stretches
    return Cover(
        width, starts, tuple(None if o is None else _pick(o, width, starts) for o in offsets)
    )


def _pick(offset: int, width: int, starts: tuple[int, ...]) -> int:
    """The place of an element in the vectors laid side by side."""
    number = 0 if offset < starts[0] + width else 1
    return number * width + offset - starts[number]


def _two_stretches(needed: Sequence[int]) -> tuple[int, tuple[int, ...]] | None:
    """(width, starts) of two vectors that lie apart and hold no more than what is needed."""
    gap = max(range(1, len(needed)), key=lambda n: needed[n] - needed[n - 1])
    parts = needed[:gap], needed[gap:]
    widths = {part[-1] - part[0] + 1 for part in parts}
    width = widths.pop()
    if widths or width < 2 or width & (width - 1):
        return None
    return width, (parts[0][0], parts[1][0])
