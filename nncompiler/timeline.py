"""Takes buffers and the loops over time around a kernel, gives where each step finds its values.

A kernel inside a scan is an ordinary kernel: what moves with time is the address of its arguments.

    Slice    x[:, t]     one time of a sequence: the buffer's address plus t * step
    Swap     h, h'       a carried value: two buffers that change places after every step
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ir.loops import Kernel
from ir.types import Dim, TensorType


@dataclass(frozen=True)
class Span:
    """Kernels first .. last - 1 run `length` times, one after the other, with time growing from 0,
    or falling to 0 where `reverse`."""

    first: int
    last: int
    length: int
    reverse: bool


@dataclass(frozen=True)
class Slice:
    """One time of the sequence in `buffer`: `step` elements further at every time of the span."""

    buffer: str
    step: int
    span: int
    size: Dim  # elements of one time


@dataclass(frozen=True)
class Swap:
    """A carried value as a step finds it, or (`new`) where it leaves the next one. It stands in
    `last` when an even number of steps is left, so that the last value stands there too."""

    last: str
    other: str
    span: int
    new: bool


View = Slice | Swap


@dataclass
class Timeline:
    """What has been placed so far: kernels in order, loops over them, and views of buffers.

    `strides` has those of the views whose elements have gaps between them.
    """

    kernels: list[Kernel] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    views: dict[str, View] = field(default_factory=dict)
    strides: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def open(self, length: int, reverse: bool) -> int:
        """The number of a new span; `start` and `close` say where it begins and ends."""
        self.spans.append(Span(0, 0, length, reverse))
        return len(self.spans) - 1

    def close(self, number: int, first: int) -> None:
        span = self.spans[number]
        self.spans[number] = Span(first, len(self.kernels), span.length, span.reverse)

    def slice(self, name: str, buffer: str, step: TensorType, span: int, length: int) -> None:
        """Let `name` be the value of type `step` at the span's time in the sequence `buffer`."""
        whole = step.with_shape((*step.shape[:1], length, *step.shape[1:]))
        strides = self.strides.get(buffer, whole.strides)
        axis = min(1, step.rank)
        self.views[name] = Slice(buffer, strides[axis], span, step.size)
        if step.rank:
            self.strides[name] = strides[:axis] + strides[axis + 1 :]


def bases(name: str, views: Mapping[str, View]) -> tuple[str, ...]:
    """The buffers in which a view's values lie."""
    match views.get(name):
        case Slice(buffer=buffer):
            return bases(buffer, views)
        case Swap(last=last, other=other):
            return (last, other)
    return (name,)


def spans_of(name: str, views: Mapping[str, View]) -> Iterator[int]:
    """The loops whose time a view moves with."""
    view = views.get(name)
    if view is not None:
        yield view.span
        if isinstance(view, Slice):
            yield from spans_of(view.buffer, views)


def lifetimes(
    touched: Sequence[Iterable[str]], spans: Sequence[Span], views: Mapping[str, View]
) -> dict[str, tuple[int, int]]:
    """(first, last) step that touches each buffer, given the names that every step uses.

    What comes from outside of a loop, or goes on to its next step, lives for the whole loop.
    """
    found: dict[str, tuple[int, int]] = {}
    whole: dict[str, set[int]] = {}
    for step, names in enumerate(touched):
        for name in names:
            for buffer in bases(name, views):
                first, _ = found.get(buffer, (step, step))
                found[buffer] = (first, step)
                whole.setdefault(buffer, set()).update(spans_of(name, views))
    for number, span in sorted(enumerate(spans), key=lambda s: s[1].last - s[1].first):
        for buffer, (first, last) in found.items():
            meets = first < span.last and last >= span.first
            inside = first >= span.first and last < span.last
            if meets and (not inside or number in whole[buffer]):
                found[buffer] = (min(first, span.first), max(last, span.last - 1))
    return found


def repeats(step: int, spans: Iterable[Span]) -> int:
    """How often a step runs in one call."""
    total = 1
    for span in spans:
        total *= span.length if span.first <= step < span.last else 1
    return total
