"""Takes nothing, gives the native code of a team of threads (pool.py), one for all programs.

The caller walks through the kernels. A stage that is worth it is dealt out: the caller writes down
the job, and in every thread's slot which chunks are best run by it: (one behind the last, first).
Whoever adds one to a slot and finds a number below its end has that chunk as a ticket; a thread
empties its own slot first, then the others', so that chunks stay near the cache that knows them.
A stage is finished when all its chunks are: the job cannot change while somebody holds a ticket. A
worker that the system does not run delays the chunk that it holds and nothing else, and one that
holds none is never waited for.

    nnc_run(team, function, bufs, syms, stage, n)
        function(bufs, syms, stage, i) for i in 0 .. n - 1; false where the caller had better do
        all by itself

Workers that sleep are called when the caller has been busy for WAKE_AFTER with stages that they
could have shared, so a small call now and then does not pay for it. A worker that finds itself on
the caller's core gives it back. Where the caller had to wait long for a chunk (its worker lost the
core to somebody else), it runs alone for a while.
"""

from __future__ import annotations

import platform
import sys
from functools import cache
from typing import Any

from runtime import trial, worker
from runtime.loader import link_text
from runtime.places import filled

# In ticks of `nnc_now`: of the time-stamp counter (.2 to .5 ns), elsewhere nanoseconds.
SPIN = 150_000  # of a worker that finds nothing to do
PATIENCE = 60_000  # of the caller, before it sleeps until the last chunk is finished
WAKE_AFTER = 60_000  # of a burst of calls
WAKE_AGAIN = 600_000  # for those who did not come, or slept again
STALL = 150_000  # a wait that lets the caller run alone for as long
WORTH = 10  # team work that makes up for a wait, as a multiple of it; where there was less of it,
PENALTY = 8  # ... the caller runs alone for so many times the wait, twice as long as the last time,
LONGEST = 2_000_000_000  # ... but no longer than this
YIELDS = 100  # of a worker that wakes up on the caller's core, before it sleeps again

_FUTEX = {"x86_64": 202, "aarch64": 98}  # number of the system call
_WAIT, _WAKE = 128, 129  # futexes of one process
_FUNCTIONS = {"worker": "nnc_worker", "run": "nnc_run", "begin": "nnc_begin", "end": "nnc_end"}


def possible() -> bool:
    """Whether threads can meet on this system."""
    return sys.platform.startswith("linux") and platform.machine() in _FUTEX


def functions() -> tuple[Any, dict[str, int]]:
    """The library of the functions (to be kept), and their addresses by place (places.py)."""
    library = _linked(_text())
    return library, {place: library[name] for place, name in _FUNCTIONS.items()}


@cache
def _linked(text: str) -> Any:
    return link_text(text, list(_FUNCTIONS.values()))


def _text() -> str:
    numbers = dict(
        spin=SPIN,
        patience=PATIENCE,
        wake_after=WAKE_AFTER,
        wake_again=WAKE_AGAIN,
        stall=STALL,
        penalty=PENALTY,
        worth=WORTH,
        longest=LONGEST,
        yields=YIELDS,
        futex=_FUTEX[platform.machine()],
        wait=_WAIT,
        wake=_WAKE,
    )
    parts = (_TEXT, worker.TEXT, worker.processor(platform.machine()))
    return filled("\n".join(parts), numbers) + trial.text()


_TEXT = """\
declare i64 @syscall(i64, ...)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(i64)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @sigfillset(ptr)
declare i32 @sched_getcpu()
declare i32 @sched_yield()

define internal void @nnc_futex(ptr %at, i32 %operation, i32 %value) {
entry:
  %r = call i64 (i64, ...) @syscall(i64 <futex>, ptr %at, i32 %operation, i32 %value, ptr null)
  ret void
}

; The next chunk of a slot, or -1.
define internal i64 @nnc_ticket(ptr %slot) {
entry:
  %word = load atomic i64, ptr %slot monotonic, align 8
  %next = and i64 %word, 4294967295
  %end = lshr i64 %word, 32
  %open = icmp ult i64 %next, %end
  br i1 %open, label %try, label %none
try:
  %old = atomicrmw add ptr %slot, i64 1 acq_rel
  %number = and i64 %old, 4294967295
  %limit = lshr i64 %old, 32
  %got = icmp ult i64 %number, %limit
  br i1 %got, label %have, label %none
have:
  ret i64 %number
none:
  ret i64 -1
}

define i1 @nnc_run(
  ptr %team, ptr %function, ptr %bufs, ptr %syms, i64 %stage, i64 %count
) {
entry:
  %due.at = alloca i64, align 8
  %mine.at = alloca i32, align 4
  %start = call i64 @nnc_now()
  %alone.at = getelementptr i8, ptr %team, i64 <alone>
  %alone = load i64, ptr %alone.at, align 8
  %early = icmp ult i64 %start, %alone
  br i1 %early, label %refuse, label %publish
refuse:
  ret i1 false
publish:
  %function.at = getelementptr i8, ptr %team, i64 <function>
  store ptr %function, ptr %function.at, align 8
  %bufs.at = getelementptr i8, ptr %team, i64 <bufs>
  store ptr %bufs, ptr %bufs.at, align 8
  %syms.at = getelementptr i8, ptr %team, i64 <syms>
  store ptr %syms, ptr %syms.at, align 8
  %stage.at = getelementptr i8, ptr %team, i64 <stage>
  store i64 %stage, ptr %stage.at, align 8
  %state.at = getelementptr i8, ptr %team, i64 <state>
  call void @nnc_save(ptr %state.at)
  %core.at = getelementptr i8, ptr %team, i64 <core>
  %core = call i32 @sched_getcpu()
  store i32 %core, ptr %core.at, align 4
  %done.at = getelementptr i8, ptr %team, i64 <done>
  store atomic i32 0, ptr %done.at monotonic, align 4
  store i64 -1, ptr %due.at, align 8
  store i32 0, ptr %mine.at, align 4
  %threads.at = getelementptr i8, ptr %team, i64 <threads>
  %threads = load i64, ptr %threads.at, align 8
  %first.slot = getelementptr i8, ptr %team, i64 <slots>
  br label %share
share:
  %t = phi i64 [ %threads, %publish ], [ %below, %given ]
  %end = phi i64 [ %count, %publish ], [ %begin, %given ]
  %below = sub i64 %t, 1
  %part = mul i64 %count, %below
  %begin = udiv i64 %part, %threads
  %high = shl i64 %end, 32
  %word = or i64 %high, %begin
  %first = icmp eq i64 %below, 0
  br i1 %first, label %last.share, label %given
given:
  %distance = mul i64 %below, <stride>
  %slot = getelementptr i8, ptr %first.slot, i64 %distance
  store atomic i64 %word, ptr %slot release, align 8
  br label %share
last.share:
  %before = atomicrmw xchg ptr %first.slot, i64 %word seq_cst
  %sleepers.at = getelementptr i8, ptr %team, i64 <sleepers>
  %sleepers = load atomic i32, ptr %sleepers.at seq_cst, align 4
  %some = icmp ne i32 %sleepers, 0
  br i1 %some, label %asleep, label %begin.work
asleep:
  %last.at = getelementptr i8, ptr %team, i64 <last>
  %last = load i64, ptr %last.at, align 8
  store i64 %start, ptr %last.at, align 8
  %gap = sub i64 %start, %last
  %rested = icmp ugt i64 %gap, <spin>
  %burst.at = getelementptr i8, ptr %team, i64 <burst>
  %old.burst = load i64, ptr %burst.at, align 8
  %burst = select i1 %rested, i64 %start, i64 %old.burst
  store i64 %burst, ptr %burst.at, align 8
  %new.due = add i64 %burst, <wake_after>
  store i64 %new.due, ptr %due.at, align 8
  br label %begin.work
begin.work:
  br label %slots
slots:
  %s = phi i64 [ 0, %begin.work ], [ %s.next, %empty ]
  %away = mul i64 %s, <stride>
  %victim = getelementptr i8, ptr %first.slot, i64 %away
  br label %look
look:
  %due = load i64, ptr %due.at, align 8
  %never = icmp eq i64 %due, -1
  br i1 %never, label %take, label %time
time:
  %clock = call i64 @nnc_now()
  %late = icmp uge i64 %clock, %due
  br i1 %late, label %wake, label %take
wake:
  store i64 -1, ptr %due.at, align 8
  %wake.burst = getelementptr i8, ptr %team, i64 <burst>
  %not.before = add i64 %clock, <wake_again>
  store i64 %not.before, ptr %wake.burst, align 8
  call void @nnc_wake(ptr %team, i64 %count)
  br label %take
take:
  %number = call i64 @nnc_ticket(ptr %victim)
  %none = icmp eq i64 %number, -1
  br i1 %none, label %empty, label %work
work:
  call void %function(ptr %bufs, ptr %syms, i64 %stage, i64 %number)
  %was = load i32, ptr %mine.at, align 4
  %more = add i32 %was, 1
  store i32 %more, ptr %mine.at, align 4
  %eighth = and i32 %more, 7
  %look.again = icmp eq i32 %eighth, 0
  br i1 %look.again, label %look, label %take
empty:
  %s.next = add i64 %s, 1
  %others = icmp ult i64 %s.next, %threads
  br i1 %others, label %slots, label %finish
finish:
  %mine = load i32, ptr %mine.at, align 4
  %all = trunc i64 %count to i32
  %theirs = sub i32 %all, %mine
  br label %poll
poll:
  %turn = phi i32 [ 0, %finish ], [ %next.turn, %pause ]
  %done = load atomic i32, ptr %done.at acquire, align 4
  %complete = icmp eq i32 %done, %theirs
  br i1 %complete, label %good, label %pause
pause:
  call void @nnc_pause()
  %next.turn = add i32 %turn, 1
  %again = icmp ult i32 %next.turn, 64
  br i1 %again, label %poll, label %long
long:
  call void @nnc_wait(ptr %team, i32 %theirs, i64 %start, i32 %mine)
  br label %good
good:
  ret i1 true
}

; Waits for the chunks of the others: spins, then sleeps. A long wait is remembered.
define internal void @nnc_wait(ptr %team, i32 %theirs, i64 %start, i32 %mine) {
entry:
  %done.at = getelementptr i8, ptr %team, i64 <done>
  %waiting.at = getelementptr i8, ptr %team, i64 <waiting>
  %from = call i64 @nnc_now()
  br label %spin
spin:
  call void @nnc_pause()
  %seen = load atomic i32, ptr %done.at acquire, align 4
  %complete = icmp eq i32 %seen, %theirs
  br i1 %complete, label %good, label %look
good:
  ret void
look:
  %clock = call i64 @nnc_now()
  %passed = sub i64 %clock, %from
  %patient = icmp ult i64 %passed, <patience>
  br i1 %patient, label %spin, label %lie
lie:
  store atomic i32 1, ptr %waiting.at seq_cst, align 4
  br label %check
check:
  %now.done = load atomic i32, ptr %done.at seq_cst, align 4
  %all = icmp eq i32 %now.done, %theirs
  br i1 %all, label %awake, label %sleep
sleep:
  call void @nnc_futex(ptr %done.at, i32 <wait>, i32 %now.done)
  br label %check
awake:
  store atomic i32 0, ptr %waiting.at seq_cst, align 4
  %end = call i64 @nnc_now()
  %waited = sub i64 %end, %from
  %worked = sub i64 %from, %start
  %chunks = add i32 %mine, 1
  %wide = zext i32 %chunks to i64
  %per = udiv i64 %worked, %wide
  %twice = mul i64 %per, 3
  %allowed = add i64 %twice, <stall>
  %stalled = icmp ugt i64 %waited, %allowed
  br i1 %stalled, label %remember, label %over
remember:
  %alone.at = getelementptr i8, ptr %team, i64 <alone>
  %length.at = getelementptr i8, ptr %team, i64 <length>
  %last.alone = load i64, ptr %alone.at, align 8
  %length = load i64, ptr %length.at, align 8
  %since = sub i64 %from, %last.alone
  %soon = mul i64 %waited, <worth>
  %again = icmp ult i64 %since, %soon
  %double = shl i64 %length, 1
  %single = mul i64 %waited, <penalty>
  %longer = icmp ugt i64 %double, %single
  %repeated = select i1 %longer, i64 %double, i64 %single
  %wish = select i1 %again, i64 %repeated, i64 %waited
  %much = icmp ugt i64 %wish, <longest>
  %penalty = select i1 %much, i64 <longest>, i64 %wish
  %until = add i64 %end, %penalty
  store i64 %penalty, ptr %length.at, align 8
  store i64 %until, ptr %alone.at, align 8
  br label %over
over:
  ret void
}

; Calls sleeping workers to a job of so many chunks; starts those that never ran.
define internal void @nnc_wake(ptr %team, i64 %count) {
entry:
  %missing.at = getelementptr i8, ptr %team, i64 <missing>
  %missing = load i32, ptr %missing.at, align 4
  %new = icmp ne i32 %missing, 0
  br i1 %new, label %start, label %call
start:
  store i32 0, ptr %missing.at, align 4
  call void @nnc_start(ptr %team, i32 %missing)
  br label %call
call:
  %sequence.at = getelementptr i8, ptr %team, i64 <sequence>
  %old = atomicrmw add ptr %sequence.at, i32 1 seq_cst
  %others = sub i64 %count, 1
  %few = icmp ult i64 %others, 1000000
  %limited = select i1 %few, i64 %others, i64 1000000
  %wanted = trunc i64 %limited to i32
  call void @nnc_futex(ptr %sequence.at, i32 <wake>, i32 %wanted)
  ret void
}

; Starts workers; signals are for the other threads of the process.
define internal void @nnc_start(ptr %team, i32 %missing) {
entry:
  %all = alloca [128 x i8], align 16
  %kept = alloca [128 x i8], align 16
  %id.at = alloca i64, align 8
  %f = call i32 @sigfillset(ptr %all)
  %m = call i32 @pthread_sigmask(i32 2, ptr %all, ptr %kept)
  %worker.at = getelementptr i8, ptr %team, i64 <worker>
  %worker = load ptr, ptr %worker.at, align 8
  %first.slot = getelementptr i8, ptr %team, i64 <slots>
  %sleepers.at = getelementptr i8, ptr %team, i64 <sleepers>
  br label %loop
loop:
  %i = phi i32 [ 1, %entry ], [ %next, %on ]
  %wide = zext i32 %i to i64
  %distance = mul i64 %wide, <stride>
  %slot = getelementptr i8, ptr %first.slot, i64 %distance
  %failed = call i32 @pthread_create(ptr %id.at, ptr null, ptr %worker, ptr %slot)
  %none = icmp ne i32 %failed, 0
  br i1 %none, label %lost, label %detach
lost:
  %one = atomicrmw sub ptr %sleepers.at, i32 1 seq_cst
  br label %on
detach:
  %id = load i64, ptr %id.at, align 8
  %d = call i32 @pthread_detach(i64 %id)
  br label %on
on:
  %next = add i32 %i, 1
  %more = icmp ule i32 %next, %missing
  br i1 %more, label %loop, label %end
end:
  %r = call i32 @pthread_sigmask(i32 2, ptr %kept, ptr null)
  ret void
}
"""
