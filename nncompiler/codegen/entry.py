"""Takes the kernel calls of a program, gives its entries: one call, n calls, timed calls, training.

    NAME(bufs, syms, team)               checks, then every kernel in order
    NAME_repeat(bufs, syms, team, n)     the same n times
    NAME_profile(bufs, syms, team, t)    t[i] += clock ticks of kernel i
    NAME_train(bufs, syms, team, feed)   over batches of rows, picked by number (runtime/feed.py)
    NAME_once(bufs, syms, team)          what depends on fixed inputs alone (codegen/once.py)

All return 0, or 1 + the position of the check that failed. Denormals are flushed inside, and the
caller's floating-point state is restored. A team, if there is one, helps with what is worth it; the
checks come before, so that a call that fails has no helpers. Profiles are of one thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from ir.types import DTYPES
from nncompiler.codegen import deal
from nncompiler.codegen.deal import Call
from nncompiler.codegen.moving import close_loops, open_loops, start_clock
from nncompiler.codegen.target import Target
from nncompiler.timeline import Span
from runtime.artifact import Plan

FLUSH = 0x8040  # MXCSR: flush-to-zero and denormals-are-zero
TABLE = "ptr %bufs, ptr %syms, ptr %team"


def entry_text(
    plan: Plan,
    calls: Sequence[Call],
    checks: Sequence[Call],
    spans: Sequence[Span],
    target: Target,
    *,
    once: Sequence[Call],
    flush_denormals: bool,
    timed: bool,
) -> str:
    """LLVM text of all entries of a program; that of profiles only where it is `timed`."""
    flush = flush_denormals and target.is_x86
    parts = []
    if plan.shared:
        parts += [f"@{plan.entry}.record = {deal.RECORD}", _chunks(plan, calls, spans)]
    parts.append(_entry(plan, calls, checks, spans, flush))
    if plan.shared or spans or any(name in plan.updates for name in _checked(plan)):
        parts.append(_repeat(plan.entry))
    else:
        parts.append(_tight_repeat(plan, calls, checks, flush))
    if timed:
        parts.append(_profile(plan, calls, checks, spans, flush))
    if plan.feeds:
        parts.append(_train(plan))
    if once:
        parts.append(_once(plan, once, flush))
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


def _chunks(plan: Plan, calls: Sequence[Call], spans: Sequence[Span]) -> str:
    say = _Lines()
    deal.chunks_body(say, plan, calls, spans)
    arguments = "ptr %bufs, ptr %syms, i64 %stage, i64 %number"
    return say.function(f"internal void @{deal.chunks_name(plan)}({arguments}) #1")


def _entry(
    plan: Plan,
    calls: Sequence[Call],
    checks: Sequence[Call],
    spans: Sequence[Span],
    flush: bool,
) -> str:
    say = _Lines()
    _begin(say, plan, calls, checks, spans, flush)
    if plan.shared:
        deal.acquire(say, plan)
    for number, call in enumerate(calls):
        open_loops(say, spans, number)
        with deal.condition(say, plan, call, number):
            if plan.shared and call.split:
                deal.dealt(say, plan, call, number, "%clock" if spans else "%syms")
            else:
                deal.whole(say, plan, call, f"%whole{number}")
        close_loops(say, spans, number)
    if plan.shared:
        deal.release(say, plan)
    _end(say, flush)
    return say.function(f"i64 @{plan.entry}({TABLE}) #{1 if plan.shared else 0}")


def _profile(
    plan: Plan, calls: Sequence[Call], checks: Sequence[Call], spans: Sequence[Span], flush: bool
) -> str:
    say = _Lines()
    _begin(say, plan, calls, checks, spans, flush)
    for number, call in enumerate(calls):
        open_loops(say, spans, number)
        say(f"%before{number} = call i64 @llvm.readcyclecounter()")
        with deal.condition(say, plan, call, number):
            deal.whole(say, plan, call, f"%whole{number}")
        say(f"%after{number} = call i64 @llvm.readcyclecounter()")
        say(f"%spent{number} = sub i64 %after{number}, %before{number}")
        say(f"%t{number} = getelementptr i64, ptr %ticks, i64 {call.kernel}")
        say(f"%old{number} = load i64, ptr %t{number}, align 8")
        say(f"%new{number} = add i64 %old{number}, %spent{number}")
        say(f"store i64 %new{number}, ptr %t{number}, align 8")
        close_loops(say, spans, number)
    _end(say, flush)
    return say.function(f"i64 @{plan.entry}_profile({TABLE}, ptr %ticks) #0")


def _begin(
    say: _Lines,
    plan: Plan,
    calls: Sequence[Call],
    checks: Sequence[Call],
    spans: Sequence[Span],
    flush: bool,
) -> None:
    """Reads the table, runs the checks, and sets the floating-point state."""
    say("entry:")
    if checks:
        say("%cell = alloca i32, align 4")
    if flush:
        say("%saved = alloca i32, align 4")
        say("%flushing = alloca i32, align 4")
    deal.load_symbols(say, plan)
    start_clock(say, len(plan.symbols), spans)
    for number, check in enumerate(checks):
        deal.whole(say, plan, check, f"%check{number}")
        say(f"%found{number} = load i32, ptr %cell, align 4")
        say(f"%bad{number} = icmp ne i32 %found{number}, 0")
        say(f"br i1 %bad{number}, label %fault{number}, label %fine{number}")
        say(f"fault{number}:")
        say(f"ret i64 {number + 1}")
        say(f"fine{number}:")
    say("br label %ready")
    say("ready:")
    if flush:
        say("call void @llvm.x86.sse.stmxcsr(ptr %saved)")
        say("%state = load i32, ptr %saved, align 4")
        say(f"%flushed = or i32 %state, {FLUSH}")
        say("store i32 %flushed, ptr %flushing, align 4")
        say("call void @llvm.x86.sse.ldmxcsr(ptr %flushing)")


def _end(say: _Lines, flush: bool) -> None:
    if flush:
        say("call void @llvm.x86.sse.ldmxcsr(ptr %saved)")
    say("ret i64 0")


def _once(plan: Plan, calls: Sequence[Call], flush: bool) -> str:
    say = _Lines()
    _begin(say, plan, (), (), (), flush)
    for number, call in enumerate(calls):
        deal.whole(say, plan, call, f"%whole{number}")
    _end(say, flush)
    return say.function(f"i64 @{plan.entry}_once({TABLE}) #1")


def _checked(plan: Plan) -> list[str]:
    return [plan.buffers[check.buffer].name for check in plan.checks]


def _tight_repeat(plan: Plan, calls: Sequence[Call], checks: Sequence[Call], flush: bool) -> str:
    """Of a small program: what it checks stays as it is, so that once is enough."""
    say = _Lines()
    _begin(say, plan, calls, checks, (), flush)
    say("%any = icmp sgt i64 %n, 0")
    say("br i1 %any, label %again, label %done")
    say("again:")
    say("%i = phi i64 [ 0, %ready ], [ %next, %once ]")
    for number, call in enumerate(calls):
        with deal.condition(say, plan, call, number):
            deal.whole(say, plan, call, f"%whole{number}")
    say("br label %once")
    say("once:")
    say("%next = add i64 %i, 1")
    say("%more = icmp slt i64 %next, %n")
    say("br i1 %more, label %again, label %done")
    say("done:")
    _end(say, flush)
    return say.function(f"i64 @{plan.entry}_repeat({TABLE}, i64 %n) #0")


def _repeat(entry: str) -> str:
    """A call of the program at a time."""
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
