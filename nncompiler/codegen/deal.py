"""Takes the calls of stages with a split, gives the code that deals them out to a team (pool.py).

NAME.chunks(bufs, syms, N, i)  chunk i of stage N, whoever runs it
in the entry                   where there is a team and the symbols are large enough for it:
                               nnc_run(team, NAME.chunks, bufs, syms, N, how many), else one call
                               of the kernel for the whole

The functions of teams are compiled once for all programs; a program finds them in the team's table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ir.loops import Split, When
from ir.types import Dim
from nncompiler.codegen.moving import Argument, addresses, numbers, read_clock
from nncompiler.codegen.target import Target
from nncompiler.timeline import Span
from runtime.artifact import Plan
from runtime.places import PLACES

Say = Callable[[str], None]


@dataclass(frozen=True)
class Call:
    """A stage of a kernel: its function, its arguments (buffers by number or as they move with
    time, names of symbols), and where it runs at all."""

    function: str
    buffers: tuple[Argument, ...]
    symbols: tuple[str, ...]
    kernel: int = 0
    split: Split | None = None
    when: When | None = None


RECORD = "internal global [10 x i64] zeroinitializer, align 64"  # see runtime/trial.py
CELL = -1  # instead of a buffer's number: where a check leaves its answer


def can_team(target: Target) -> bool:
    """Whether threads can meet on the system (as runtime/team.py knows it)."""
    architecture = target.triple.partition("-")[0]
    return "linux" in target.triple and architecture in ("x86_64", "aarch64")


def arguments(say: Say, plan: Plan, call: Call, bounds: list[str], name: str) -> str:
    """The arguments of a call: pointers from the table, loaded here so that they are needed for no
    longer than the call, and the symbols (%s0 ...)."""
    for number in numbers(call.buffers):
        if number != CELL:
            say(f"{name}.q{number} = getelementptr ptr, ptr %bufs, i64 {number}")
            say(f"{name}.b{number} = load ptr, ptr {name}.q{number}, align 8")
    buffers = [f"ptr {place}" for place in addresses(say, call.buffers, name)]
    symbols = [f"i64 %s{plan.symbols.index(s)}" for s in call.symbols]
    return ", ".join([*buffers, *symbols, *(f"i64 {b}" for b in bounds)])


def load_symbols(say: Say, plan: Plan) -> None:
    """Names for the symbols: %s0 ..."""
    for number in range(len(plan.symbols)):
        say(f"%r{number} = getelementptr i64, ptr %syms, i64 {number}")
        say(f"%s{number} = load i64, ptr %r{number}, align 8")


def acquire(say: Say, plan: Plan) -> None:
    """%joined: there is a team, and until the end of the call it is ours; %helps: use it."""
    say("%some = icmp ne ptr %team, null")
    say("br i1 %some, label %ask, label %begin")
    say("ask:")
    say(f"%busy = getelementptr i8, ptr %team, i64 {PLACES['busy']}")
    say("%answer = cmpxchg ptr %busy, i32 0, i32 1 acquire monotonic")
    say("%won = extractvalue { i32, i1 } %answer, 1")
    say("br i1 %won, label %choose, label %begin")
    say("choose:")
    symbol = "%s0" if plan.symbols else "0"
    record = f"ptr @{plan.entry}.record"
    _function(say, "begin", "%nnc_begin")
    say(f"%way = call i32 %nnc_begin(ptr %team, {record}, i64 {symbol})")
    say("%better = icmp eq i32 %way, 0")
    say("br i1 %better, label %decline, label %begin")
    say("decline:")
    say("store atomic i32 0, ptr %busy release, align 4")
    say("br label %begin")
    say("begin:")
    ways = "[ 0, %ready ], [ 0, %ask ], [ %way, %choose ], [ 0, %decline ]"
    say(f"%chosen = phi i32 {ways}")
    say("%joined = icmp ne i32 %chosen, 0")
    say("%helps = icmp eq i32 %chosen, 1")


def release(say: Say, plan: Plan) -> None:
    say("br i1 %joined, label %leave, label %left")
    say("leave:")
    _function(say, "end", "%nnc_end")
    say(f"call void %nnc_end(ptr @{plan.entry}.record)")
    say(f"%free = getelementptr i8, ptr %team, i64 {PLACES['busy']}")
    say("store atomic i32 0, ptr %free release, align 4")
    say("br label %left")
    say("left:")


def _function(say: Say, place: str, name: str) -> None:
    """A function of the team."""
    say(f"{name}.at = getelementptr i8, ptr %team, i64 {PLACES[place]}")
    say(f"{name} = load ptr, ptr {name}.at, align 8")


@contextmanager
def condition(say: Say, plan: Plan, call: Call, number: int) -> Iterator[None]:
    """What is said inside is done only where the call's condition holds."""
    when = call.when
    if when is None:
        yield
        return
    value = f"%s{plan.symbols.index(when.symbol)}"
    last = (1 << 63) - 1 if when.most is None else when.most
    say(f"%above{number} = icmp uge i64 {value}, {when.least}")
    say(f"%below{number} = icmp ule i64 {value}, {last}")
    say(f"%holds{number} = and i1 %above{number}, %below{number}")
    say(f"br i1 %holds{number}, label %when{number}, label %passed{number}")
    say(f"when{number}:")
    yield
    say(f"br label %passed{number}")
    say(f"passed{number}:")


def whole(say: Say, plan: Plan, call: Call, name: str) -> None:
    """One call of the kernel for all chunks together."""
    bounds = []
    for number, (var, _) in enumerate(call.split.axes if call.split else ()):
        bounds += ["0", _extent(say, plan, var.extent, f"{name}.e{number}")]
    given = arguments(say, plan, call, bounds, name)
    say(f"call void @{call.function}({given})")


def dealt(say: Say, plan: Plan, call: Call, number: int, syms: str) -> None:
    """A stage that the team may help with; chunks get `syms` for their symbols."""
    split = call.split
    assert split is not None
    say(f"br i1 %helps, label %size{number}, label %alone{number}")
    say(f"size{number}:")
    total = _count(say, plan, split, 0, f"%size{number}")
    for axis in range(1, len(split.axes)):
        count = _count(say, plan, split, axis, f"%size{number}")
        say(f"%total{number}.{axis} = mul i64 {total}, {count}")
        total = f"%total{number}.{axis}"
    say(f"%fit{number}.0 = icmp ugt i64 {total}, 1")
    enough = f"%fit{number}.0"
    for i, (symbol, least) in enumerate(split.least, 1):
        say(f"%l{number}.{i} = icmp uge i64 %s{plan.symbols.index(symbol)}, {least}")
        say(f"%fit{number}.{i} = and i1 {enough}, %l{number}.{i}")
        enough = f"%fit{number}.{i}"
    say(f"br i1 {enough}, label %deal{number}, label %alone{number}")
    say(f"deal{number}:")
    _function(say, "run", f"%run{number}")
    given = f"ptr %team, ptr @{chunks_name(plan)}, ptr %bufs, ptr {syms}, i64 {number}, i64 {total}"
    say(f"%ran{number} = call i1 %run{number}({given})")
    say(f"br i1 %ran{number}, label %after{number}, label %alone{number}")
    say(f"alone{number}:")
    whole(say, plan, call, f"%whole{number}")
    say(f"br label %after{number}")
    say(f"after{number}:")


def chunks_name(plan: Plan) -> str:
    return f"{plan.entry}.chunks"


def chunks_body(say: Say, plan: Plan, calls: Sequence[Call], spans: Sequence[Span]) -> None:
    """One chunk of any stage: its number gives the bounds along every axis, the last axis counts
    fastest."""
    shared = {number: call for number, call in enumerate(calls) if call.split}
    say("entry:")
    load_symbols(say, plan)
    read_clock(say, len(plan.symbols), spans, [a for c in shared.values() for a in c.buffers])
    say("switch i64 %stage, label %none [")
    for number in shared:
        say(f"i64 {number}, label %stage{number}")
    say("]")
    say("none:")
    say("ret void")
    for number, call in shared.items():
        say(f"stage{number}:")
        _chunk(say, plan, call, f"%chunk{number}")
        say("ret void")


def _chunk(say: Say, plan: Plan, call: Call, name: str) -> None:
    split = call.split
    assert split is not None
    left = "%number"
    places: dict[int, str] = {}
    for axis in reversed(range(len(split.axes))):
        places[axis] = left
        if axis:
            count = _count(say, plan, split, axis, f"{name}.axis{axis}")
            say(f"{name}.place{axis} = urem i64 {left}, {count}")
            say(f"{name}.left{axis} = udiv i64 {left}, {count}")
            places[axis], left = f"{name}.place{axis}", f"{name}.left{axis}"
    bounds = []
    for axis, (var, length) in enumerate(split.axes):
        end = _extent(say, plan, var.extent, f"{name}.end{axis}")
        say(f"{name}.from{axis} = mul i64 {places[axis]}, {length}")
        say(f"{name}.next{axis} = add i64 {name}.from{axis}, {length}")
        say(f"{name}.short{axis} = icmp ult i64 {end}, {name}.next{axis}")
        say(f"{name}.to{axis} = select i1 {name}.short{axis}, i64 {end}, i64 {name}.next{axis}")
        bounds += [f"{name}.from{axis}", f"{name}.to{axis}"]
    given = arguments(say, plan, call, bounds, name)
    say(f"call void @{call.function}({given})")


def _count(say: Say, plan: Plan, split: Split, axis: int, name: str) -> str:
    """How many chunks there are along an axis."""
    var, length = split.axes[axis]
    if isinstance(var.extent, int):
        return str(-(-var.extent // length))
    extent = _extent(say, plan, var.extent, f"{name}.x{axis}")
    say(f"{name}.y{axis} = add i64 {extent}, {length - 1}")
    say(f"{name}.z{axis} = udiv i64 {name}.y{axis}, {length}")
    return f"{name}.z{axis}"


def _extent(say: Say, plan: Plan, dim: Dim, name: str) -> str:
    if isinstance(dim, int):
        return str(dim)
    symbol = f"%s{plan.symbols.index(dim.symbol)}"
    if dim.coefficient == 1:
        return symbol
    say(f"{name} = mul i64 {symbol}, {dim.coefficient}")
    return name
