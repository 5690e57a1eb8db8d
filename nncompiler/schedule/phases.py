"""Takes a way through zeros between elements, gives its spots by phase: which taps meet elements.

    y[2p + q] = sum over i of w[i] * x[(2p + q + i - 1) / 2]     where that is whole
    ->   q = 0:  y[2p] = w[1] x[p]          q = 1:  y[2p + 1] = w[0] x[p] + w[2] x[p + 1]

A phase has taps of its own and multiplies no zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ir import scalar
from ir.dilated import Way
from ir.index import Index, Var
from ir.scalar import Scalar


@dataclass(frozen=True)
class Phase:
    """`count` neighbouring remainders from `first` on: spot stride * p + first + number meets
    element p + origin + far * step with tap start + stride * step - number, for `taps` steps.
    All of them have as many spots: `rest` tells whether one more after the last whole stride."""

    first: int
    count: int
    start: int
    taps: int
    origin: int
    rest: bool


@dataclass(frozen=True)
class Axis:
    """A way cut into phases: spots by quotient, and the elements that they reach."""

    way: Way
    name: str

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Neighbouring remainders that differ in nothing but the tap they begin with are one."""
        way, found = self.way, list[Phase]()
        for q in range(way.stride):
            start = -(q + way.shift) % way.stride
            taps = len(range(start, way.size, way.stride))
            origin = (q + start + way.shift) // way.stride
            rest = q < way.extent % way.stride
            before = found.pop() if found else Phase(q, 0, start, taps, origin, rest)
            first = replace(before, count=0)
            if first == Phase(before.first, 0, start + before.count, taps, origin, rest):
                found.append(replace(before, count=before.count + 1))
            else:
                found += [before, Phase(q, 1, start, taps, origin, rest)]
        return tuple(found)

    @property
    def lowest(self) -> int:
        """The first element that quotient 0 meets."""
        return min(p.origin for p in self.phases)

    @property
    def reach(self) -> int:
        """How far it is from there to the last element that quotient 0 meets."""
        far = self.way.far
        return max(p.origin + far * (p.taps - 1) for p in self.phases) - self.lowest

    def number(self, phase: Phase) -> Var:
        return Var(f"{self.name}_number{phase.first}", phase.count)

    def step(self, phase: Phase) -> Var:
        return Var(f"{self.name}_step{phase.first}", phase.taps)

    def changes(self, phase: Phase) -> dict[Var, Index]:
        """The tap of a phase."""
        step = Index.of(self.step(phase)) * self.way.stride
        return {self.way.tap: step - Index.of(self.number(phase)) + phase.start}

    def place(self, phase: Phase) -> Index:
        """Where the element of quotient 0 lies after the lowest one."""
        return Index.of(self.step(phase)) * self.way.far + (phase.origin - self.lowest)


def joined_taps(
    operand: Scalar, taps: Sequence[Var]
) -> tuple[Scalar, tuple[Var, ...], dict[Var, Index]]:
    """The operand with all taps as one variable, where they lie together: what is read, the
    variables of taps, and what the new one is.

    w[f*9 - i*3 - j + 8]   ->   w[f*9 + tap],   tap = 8 - i*3 - j
    """
    number, size = Index(), 1
    for v in reversed(taps):
        assert isinstance(v.extent, int)
        number, size = number + Index.of(v) * size, size * v.extent
    index = operand.index
    each = next((index.coefficient(v) or 0 for v in reversed(taps) if v.extent != 1), 0)
    if not each or any(index.coefficient(v) != each * (number.coefficient(v) or 0) for v in taps):
        return operand, tuple(taps), {}
    number = number if each > 0 else Index.of(size - 1) - number
    joined = Var("tap", size)
    lowest = {v: Index.of(0 if each > 0 else v.extent - 1) for v in taps}  # type: ignore[operator]
    place = index.substitute(lowest) + Index.of(joined) * abs(each)
    return scalar.load(operand.name, place, operand.dtype), (joined,), {joined: number}
