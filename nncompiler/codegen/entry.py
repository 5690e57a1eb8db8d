"""Takes the kernel calls of a program, gives its entries: one call, n calls, timed calls, training.

    NAME(bufs, syms, team)               checks, then every kernel in order
    NAME_repeat(bufs, syms, team, n)     the same n times
    NAME_profile(bufs, syms, team, t)    t[i] += clock ticks of kernel i
    NAME_train(bufs, syms, team, feed)   over batches of rows, picked by number (runtime/feed.py)

All return 0, or 1 + the position of the check that failed. Denormals are flushed inside, and the
caller's floating-point state is restored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ir.types import DTYPES
from nncompiler.codegen.target import Target
from nncompiler.timeline import Span
from runtime.artifact import Plan

FLUSH = 0x8040  # MXCSR: flush-to-zero and denormals-are-zero
TABLE = "ptr %bufs, ptr %syms, ptr %team"


@dataclass(frozen=True)
class Moving:
    """An argument that moves with time: one buffer, or two that change places; `swap` is the span
    whose steps change them, and whether the place of the next value is meant; `steps` are
    (span, bytes per time)."""

    buffers: tuple[int, ...]
    swap: tuple[int, bool] | None
    steps: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Call:
    """A kernel's function, and its arguments: numbers of buffers, then names of symbols."""

    function: str
    buffers: tuple[int | Moving, ...]
    symbols: tuple[str, ...]


def entry_text(
    plan: Plan,
    calls: Sequence[Call],
    checks: Sequence[Call],
    spans: Sequence[Span],
    target: Target,
    flush_denormals: bool,
) -> str:
    """LLVM text of all entries of a program."""
    flush = flush_denormals and target.is_x86
    parts = [
        _entry(plan, calls, checks, spans, flush, profiled=False),
        _entry(plan, calls, checks, spans, flush, profiled=True),
        _repeat(plan.entry),
    ]
    if plan.feeds:
        parts.append(_train(plan))
    parts.append(_DECLARATIONS)
    return "\n".join(parts)


_DECLARATIONS = """\
declare i64 @llvm.readcyclecounter()
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
"""


class _Lines:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, text: str) -> None:
        self.lines.append(text if text.endswith(":") else f"  {text}")

    def function(self, header: str) -> str:
        return f"define {header} {{\n" + "\n".join(self.lines) + "\n}\n"


def _entry(
    plan: Plan,
    calls: Sequence[Call],
    checks: Sequence[Call],
    spans: Sequence[Span],
    flush: bool,
    *,
    profiled: bool,
) -> str:
    say = _Lines()
    say("entry:")
    for number in range(len(spans)):
        say(f"%steps{number} = alloca i64, align 8")
    if checks:
        say("%cell = alloca i32, align 4")
    if flush:
        say("%saved = alloca i32, align 4")
        say("%flushing = alloca i32, align 4")
    used = sorted({n for c in (*calls, *checks) for b in c.buffers for n in _numbers(b) if n >= 0})
    for number in used:
        say(f"%q{number} = getelementptr ptr, ptr %bufs, i64 {number}")
        say(f"%b{number} = load ptr, ptr %q{number}, align 8")
    for number, symbol in enumerate(plan.symbols):
        say(f"%r{number} = getelementptr i64, ptr %syms, i64 {number}")
        say(f"%s{number} = load i64, ptr %r{number}, align 8")
        del symbol
    for number, check in enumerate(checks):
        say(f"call void @{check.function}({_arguments(plan, check)})")
        say(f"%found{number} = load i32, ptr %cell, align 4")
        say(f"%bad{number} = icmp ne i32 %found{number}, 0")
        say(f"br i1 %bad{number}, label %fault{number}, label %fine{number}")
        say(f"fault{number}:")
        say(f"ret i64 {number + 1}")
        say(f"fine{number}:")
    if flush:
        say("call void @llvm.x86.sse.stmxcsr(ptr %saved)")
        say("%state = load i32, ptr %saved, align 4")
        say(f"%flushed = or i32 %state, {FLUSH}")
        say("store i32 %flushed, ptr %flushing, align 4")
        say("call void @llvm.x86.sse.ldmxcsr(ptr %flushing)")
    for number, call in enumerate(calls):
        _open_loops(say, spans, number)
        _move(say, call, number)
        if profiled:
            say(f"%before{number} = call i64 @llvm.readcyclecounter()")
        say(f"call void @{call.function}({_arguments(plan, call, number)})")
        if profiled:
            say(f"%after{number} = call i64 @llvm.readcyclecounter()")
            say(f"%spent{number} = sub i64 %after{number}, %before{number}")
            say(f"%t{number} = getelementptr i64, ptr %ticks, i64 {number}")
            say(f"%old{number} = load i64, ptr %t{number}, align 8")
            say(f"%new{number} = add i64 %old{number}, %spent{number}")
            say(f"store i64 %new{number}, ptr %t{number}, align 8")
        _close_loops(say, spans, number)
    if flush:
        say("call void @llvm.x86.sse.ldmxcsr(ptr %saved)")
    say("ret i64 0")
    name = f"{plan.entry}_profile({TABLE}, ptr %ticks)" if profiled else f"{plan.entry}({TABLE})"
    return say.function(f"i64 @{name} #0")


def _numbers(buffer: int | Moving) -> tuple[int, ...]:
    return buffer.buffers if isinstance(buffer, Moving) else (buffer,)


def _open_loops(say: _Lines, spans: Sequence[Span], call: int) -> None:
    """Begin the loops over time whose first call this is, outer ones first."""
    for number, span in enumerate(spans):
        if span.first != call or span.last <= span.first:
            continue
        say(f"store i64 0, ptr %steps{number}, align 8")
        say(f"br label %time{number}")
        say(f"time{number}:")
        say(f"%step{number} = load i64, ptr %steps{number}, align 8")
        say(f"%left{number} = sub i64 {span.length}, %step{number}")
        say(f"%parity{number} = and i64 %left{number}, 1")
        say(f"%odd{number} = icmp ne i64 %parity{number}, 0")
        at = f"sub i64 %left{number}, 1" if span.reverse else f"add i64 %step{number}, 0"
        say(f"%at{number} = {at}")


def _close_loops(say: _Lines, spans: Sequence[Span], call: int) -> None:
    """End the loops whose last call this is, inner ones first."""
    for number, span in reversed(list(enumerate(spans))):
        if span.last != call + 1 or span.last <= span.first:
            continue
        say(f"%following{number} = add i64 %step{number}, 1")
        say(f"store i64 %following{number}, ptr %steps{number}, align 8")
        say(f"%again{number} = icmp slt i64 %following{number}, {span.length}")
        say(f"br i1 %again{number}, label %time{number}, label %past{number}")
        say(f"past{number}:")


def _move(say: _Lines, call: Call, number: int) -> None:
    """The addresses of the arguments that move with time."""
    for place, buffer in enumerate(call.buffers):
        if not isinstance(buffer, Moving):
            continue
        name = f"%v{number}.{place}"
        now = f"%b{buffer.buffers[0]}"
        if buffer.swap:
            span, new = buffer.swap
            last, other = (f"ptr %b{b}" for b in buffer.buffers)
            places = f"{last}, {other}" if new else f"{other}, {last}"
            now = f"{name}.swap"
            say(f"{now} = select i1 %odd{span}, {places}")
        for step, (span, size) in enumerate(buffer.steps):
            say(f"{name}.by{step} = mul i64 %at{span}, {size}")
            say(f"{name}.at{step} = getelementptr i8, ptr {now}, i64 {name}.by{step}")
            now = f"{name}.at{step}"
        say(f"{name} = getelementptr i8, ptr {now}, i64 0")


def _arguments(plan: Plan, call: Call, number: int = 0) -> str:
    buffers = [
        f"ptr %v{number}.{place}"
        if isinstance(b, Moving)
        else (f"ptr %b{b}" if b >= 0 else "ptr %cell")
        for place, b in enumerate(call.buffers)
    ]
    symbols = [f"i64 %s{plan.symbols.index(s)}" for s in call.symbols]
    return ", ".join([*buffers, *symbols])


def _repeat(entry: str) -> str:
    return f"""\
define i64 @{entry}_repeat({TABLE}, i64 %n) #0 {{
entry:
  %any = icmp sgt i64 %n, 0
  br i1 %any, label %loop, label %done
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %ok ]
  %code = call i64 @{entry}(ptr %bufs, ptr %syms, ptr %team)
  %failed = icmp ne i64 %code, 0
  br i1 %failed, label %stop, label %ok
ok:
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %done
stop:
  ret i64 %code
done:
  ret i64 0
}}
"""


def _row_bytes(plan: Plan, number: int) -> int:
    spec = plan.buffers[number]
    size = DTYPES[spec.dtype].bytes
    for dim in spec.shape[1:]:
        assert isinstance(dim, int)
        size *= dim
    return size


def _train(plan: Plan) -> str:
    """Rows are gathered into the staging memory; without an order the source itself is used."""
    say = _Lines()

    def slot(name: str, number: int, kind: str = "i64") -> None:
        say(f"%{name}.at = getelementptr i64, ptr %feed, i64 {number}")
        say(f"%{name} = load {kind}, ptr %{name}.at, align 8")

    count = len(plan.feeds)
    say("entry:")
    for number, (name, kind) in enumerate(_SLOTS):
        slot(name, number, kind)
    for feed, number in enumerate(plan.feeds):
        slot(f"source{feed}", 6 + feed, "ptr")
        slot(f"staging{feed}", 6 + count + feed, "ptr")
        say(f"%place{feed} = getelementptr ptr, ptr %bufs, i64 {number}")
    say("%end = add i64 %first, %rows")
    say("%shuffled = icmp ne ptr %order, null")
    say("%any = icmp sgt i64 %rows, 0")
    say("br i1 %any, label %batch, label %done")
    say("batch:")
    say("%row = phi i64 [ %first, %entry ], [ %next, %ok ]")
    say("%left = sub i64 %end, %row")
    say("%whole = icmp slt i64 %size, %left")
    say("%now = select i1 %whole, i64 %size, i64 %left")
    say("store i64 %now, ptr %syms, align 8")
    say("br i1 %shuffled, label %gather, label %direct")
    say("direct:")
    for feed, number in enumerate(plan.feeds):
        say(f"%skip{feed} = mul i64 %row, {_row_bytes(plan, number)}")
        say(f"%from{feed} = getelementptr i8, ptr %source{feed}, i64 %skip{feed}")
        say(f"store ptr %from{feed}, ptr %place{feed}, align 8")
    say("br label %run")
    say("gather:")
    say("%j = phi i64 [ 0, %batch ], [ %j.next, %gather ]")
    say("%where = add i64 %row, %j")
    say("%pick.at = getelementptr i64, ptr %order, i64 %where")
    say("%pick = load i64, ptr %pick.at, align 8")
    for feed, number in enumerate(plan.feeds):
        size = _row_bytes(plan, number)
        say(f"%a{feed} = mul i64 %pick, {size}")
        say(f"%c{feed} = getelementptr i8, ptr %source{feed}, i64 %a{feed}")
        say(f"%d{feed} = mul i64 %j, {size}")
        say(f"%e{feed} = getelementptr i8, ptr %staging{feed}, i64 %d{feed}")
        copied = f"ptr align 4 %e{feed}, ptr align 4 %c{feed}, i64 {size}, i1 false"
        say(f"call void @llvm.memcpy.p0.p0.i64({copied})")
        say(f"store ptr %staging{feed}, ptr %place{feed}, align 8")
    say("%j.next = add i64 %j, 1")
    say("%j.more = icmp slt i64 %j.next, %now")
    say("br i1 %j.more, label %gather, label %run")
    say("run:")
    say(f"%code = call i64 @{plan.entry}(ptr %bufs, ptr %syms, ptr %team)")
    say("%failed = icmp ne i64 %code, 0")
    say("br i1 %failed, label %stop, label %ok")
    say("ok:")
    say("%weight = sitofp i64 %now to double")
    for number, name in enumerate(plan.scalars):
        _add_mean(say, plan, number, name)
    say("%next = add i64 %row, %now")
    say("%finished = sub i64 %next, %first")
    say("store i64 %finished, ptr %rows_done.at, align 8")
    say("%more = icmp slt i64 %next, %end")
    say("br i1 %more, label %batch, label %done")
    say("stop:")
    say("ret i64 %code")
    say("done:")
    say("ret i64 0")
    return say.function(f"i64 @{plan.entry}_train({TABLE}, ptr %feed) #0")


_SLOTS = (
    ("first", "i64"),
    ("rows", "i64"),
    ("size", "i64"),
    ("order", "ptr"),
    ("sums", "ptr"),
    ("rows_done", "i64"),
)


def _add_mean(say: _Lines, plan: Plan, number: int, name: str) -> None:
    """sums[number] += value * rows."""
    buffer = plan.outputs[name]
    kind = "float" if plan.buffers[buffer].dtype == "f32" else "double"
    say(f"%m{number}.at = getelementptr ptr, ptr %bufs, i64 {buffer}")
    say(f"%m{number}.ptr = load ptr, ptr %m{number}.at, align 8")
    say(f"%m{number} = load {kind}, ptr %m{number}.ptr, align 4")
    wide = f"%m{number}"
    if kind == "float":
        wide = f"%w{number}"
        say(f"{wide} = fpext float %m{number} to double")
    say(f"%x{number} = fmul double {wide}, %weight")
    say(f"%u{number} = getelementptr double, ptr %sums, i64 {number}")
    say(f"%y{number} = load double, ptr %u{number}, align 8")
    say(f"%z{number} = fadd double %y{number}, %x{number}")
    say(f"store double %z{number}, ptr %u{number}, align 8")
