"""Takes arguments that move with time, gives the loops over time and the addresses at each step.

%clock     the symbols of the call, then for every span how many steps are done; it is what the
           chunks of a kernel get for their symbols, so that they know the time
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nncompiler.timeline import Span

Say = Callable[[str], None]


@dataclass(frozen=True)
class Moving:
    """An argument that moves with time: one buffer, or two that change places; `swap` is the span
    whose steps change them, and whether the place of the next value is meant; `steps` are
    (span, bytes per time)."""

    buffers: tuple[int, ...]
    swap: tuple[int, bool] | None
    steps: tuple[tuple[int, int], ...]


Argument = int | Moving


def numbers(arguments: Sequence[Argument]) -> list[int]:
    """The buffers that arguments lie in."""
    found = {n for a in arguments for n in (a.buffers if isinstance(a, Moving) else (a,))}
    return sorted(found)


def spans_of(arguments: Sequence[Argument]) -> list[int]:
    """The loops whose time arguments move with."""
    moving = [a for a in arguments if isinstance(a, Moving)]
    return sorted({s for a in moving for s, _ in (*a.steps, *((a.swap,) if a.swap else ()))})


def start_clock(say: Say, symbols: int, spans: Sequence[Span]) -> None:
    if not spans:
        return
    say(f"%clock = alloca i64, i64 {symbols + len(spans)}, align 8")
    for number in range(symbols):
        say(f"%c{number} = getelementptr i64, ptr %clock, i64 {number}")
        say(f"store i64 %s{number}, ptr %c{number}, align 8")
    for number in range(len(spans)):
        say(f"%steps{number} = getelementptr i64, ptr %clock, i64 {symbols + number}")


def open_loops(say: Say, spans: Sequence[Span], call: int) -> None:
    """Begin the loops over time whose first call this is, outer ones first."""
    for number, span in enumerate(spans):
        if span.first == call and span.last > call:
            say(f"store i64 0, ptr %steps{number}, align 8")
            say(f"br label %time{number}")
            say(f"time{number}:")
            _tell(say, number, span)


def close_loops(say: Say, spans: Sequence[Span], call: int) -> None:
    """End the loops whose last call this is, inner ones first."""
    for number, span in reversed(list(enumerate(spans))):
        if span.last == call + 1 and span.first <= call:
            say(f"%following{number} = add i64 %step{number}, 1")
            say(f"store i64 %following{number}, ptr %steps{number}, align 8")
            say(f"%again{number} = icmp slt i64 %following{number}, {span.length}")
            say(f"br i1 %again{number}, label %time{number}, label %past{number}")
            say(f"past{number}:")


def read_clock(
    say: Say, symbols: int, spans: Sequence[Span], arguments: Sequence[Argument]
) -> None:
    """The time of a chunk, whose %syms is the clock."""
    for number in spans_of(arguments):
        say(f"%steps{number} = getelementptr i64, ptr %syms, i64 {symbols + number}")
        _tell(say, number, spans[number])


def _tell(say: Say, number: int, span: Span) -> None:
    """%at is the time, %odd tells whether an odd number of steps is left."""
    say(f"%step{number} = load i64, ptr %steps{number}, align 8")
    say(f"%left{number}.t = sub i64 {span.length}, %step{number}")
    say(f"%parity{number} = and i64 %left{number}.t, 1")
    say(f"%odd{number} = icmp ne i64 %parity{number}, 0")
    at = f"sub i64 %left{number}.t, 1" if span.reverse else f"add i64 %step{number}, 0"
    say(f"%at{number} = {at}")


def addresses(say: Say, arguments: Sequence[Argument], name: str) -> list[str]:
    """Where the arguments of a call lie now, from the pointers NAME.b0 ...; -1 is %cell."""
    found = []
    for place, argument in enumerate(arguments):
        if isinstance(argument, int):
            found.append(f"{name}.b{argument}" if argument >= 0 else "%cell")
            continue
        now = f"{name}.b{argument.buffers[0]}"
        if argument.swap:
            span, new = argument.swap
            last, other = (f"ptr {name}.b{b}" for b in argument.buffers)
            places = f"{last}, {other}" if new else f"{other}, {last}"
            now = f"{name}.p{place}"
            say(f"{now} = select i1 %odd{span}, {places}")
        for step, (span, size) in enumerate(argument.steps):
            by, there = f"{name}.by{place}.{step}", f"{name}.at{place}.{step}"
            say(f"{by} = mul i64 %at{span}, {size}")
            say(f"{there} = getelementptr i8, ptr {now}, i64 {by}")
            now = there
        found.append(now)
    return found
