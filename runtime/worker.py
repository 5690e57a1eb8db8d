"""Takes nothing, gives the worker's part of a team's native code (see team.py), and what its parts
ask of the processor.

    nnc_worker(slot)     takes tickets for ever: spins a while, then sleeps
"""

from __future__ import annotations


def processor(machine: str) -> str:
    """The clock, a pause in a spin, and the floating-point state (without the flags of what
    happened) of an x86_64 or of another machine."""
    return _X86 if machine == "x86_64" else _OTHER


TEXT = """\
; Runs a chunk in the state of the caller; %own is the state of this thread.
define internal void @nnc_chunk(ptr %team, ptr %own, i64 %number) {
entry:
  %state.at = getelementptr i8, ptr %team, i64 <state>
  %mine = load i32, ptr %own, align 4
  %state = load i32, ptr %state.at, align 4
  %other = icmp ne i32 %mine, %state
  br i1 %other, label %change, label %work
change:
  store i32 %state, ptr %own, align 4
  call void @nnc_load(ptr %own)
  br label %work
work:
  %function.at = getelementptr i8, ptr %team, i64 <function>
  %bufs.at = getelementptr i8, ptr %team, i64 <bufs>
  %syms.at = getelementptr i8, ptr %team, i64 <syms>
  %function = load ptr, ptr %function.at, align 8
  %bufs = load ptr, ptr %bufs.at, align 8
  %syms = load ptr, ptr %syms.at, align 8
  %stage.at = getelementptr i8, ptr %team, i64 <stage>
  %stage = load i64, ptr %stage.at, align 8
  call void %function(ptr %bufs, ptr %syms, i64 %stage, i64 %number)
  ret void
}

; Tells the caller that chunks are finished. After the last one the job is over.
define internal void @nnc_report(ptr %team, i32 %chunks) {
entry:
  %done.at = getelementptr i8, ptr %team, i64 <done>
  %waiting.at = getelementptr i8, ptr %team, i64 <waiting>
  %before = atomicrmw add ptr %done.at, i32 %chunks seq_cst
  %waiting = load atomic i32, ptr %waiting.at seq_cst, align 4
  %waited = icmp ne i32 %waiting, 0
  br i1 %waited, label %tell, label %end
tell:
  call void @nnc_futex(ptr %done.at, i32 <wake>, i32 1)
  br label %end
end:
  ret void
}

; A worker counts as asleep until it runs.
define ptr @nnc_worker(ptr %slot) {
entry:
  %own = alloca i32, align 4
  call void @nnc_save(ptr %own)
  %team.at = getelementptr i8, ptr %slot, i64 8
  %team = load ptr, ptr %team.at, align 8
  %index.at = getelementptr i8, ptr %slot, i64 16
  %index = load i64, ptr %index.at, align 8
  %threads.at = getelementptr i8, ptr %team, i64 <threads>
  %threads = load i64, ptr %threads.at, align 8
  %first.slot = getelementptr i8, ptr %team, i64 <slots>
  %core.at = getelementptr i8, ptr %team, i64 <core>
  %sleepers.at = getelementptr i8, ptr %team, i64 <sleepers>
  %sequence.at = getelementptr i8, ptr %team, i64 <sequence>
  br label %awake
awake:
  %one.less = atomicrmw sub ptr %sleepers.at, i32 1 seq_cst
  br label %where
where:
  %yields = phi i32 [ 0, %awake ], [ %more.yields, %yield ]
  %here = call i32 @sched_getcpu()
  %core = load i32, ptr %core.at, align 4
  %hinders = icmp eq i32 %here, %core
  br i1 %hinders, label %yield, label %idle
yield:
  %y = call i32 @sched_yield()
  %more.yields = add i32 %yields, 1
  %enough = icmp ugt i32 %more.yields, <yields>
  br i1 %enough, label %lie, label %where
idle:
  %from = call i64 @nnc_now()
  br label %look
look:
  %turn = phi i32 [ 0, %idle ], [ %next.turn, %pause ], [ 0, %clock ]
  %word = load atomic i64, ptr %slot monotonic, align 8
  %next = and i64 %word, 4294967295
  %end = lshr i64 %word, 32
  %open = icmp ult i64 %next, %end
  br i1 %open, label %take, label %pause
pause:
  call void @nnc_pause()
  %next.turn = add i32 %turn, 1
  %again = icmp ult i32 %next.turn, 32
  br i1 %again, label %look, label %clock
clock:
  %now = call i64 @nnc_now()
  %passed = sub i64 %now, %from
  %patient = icmp ult i64 %passed, <spin>
  br i1 %patient, label %look, label %lie
lie:
  %one.more = atomicrmw add ptr %sleepers.at, i32 1 seq_cst
  %sequence = load atomic i32, ptr %sequence.at seq_cst, align 4
  %word.now = load atomic i64, ptr %slot seq_cst, align 8
  %next.now = and i64 %word.now, 4294967295
  %end.now = lshr i64 %word.now, 32
  %open.now = icmp ult i64 %next.now, %end.now
  br i1 %open.now, label %awake, label %sleep
sleep:
  call void @nnc_futex(ptr %sequence.at, i32 <wait>, i32 %sequence)
  br label %awake
take:
  %mine = phi i32 [ 0, %look ], [ %more, %work ]
  %number = call i64 @nnc_ticket(ptr %slot)
  %none = icmp eq i64 %number, -1
  br i1 %none, label %emptied, label %work
work:
  call void @nnc_chunk(ptr %team, ptr %own, i64 %number)
  %more = add i32 %mine, 1
  br label %take
emptied:
  %any = icmp ne i32 %mine, 0
  br i1 %any, label %report, label %help
report:
  call void @nnc_report(ptr %team, i32 %mine)
  br label %help
help:
  %victim.index = phi i64 [ %index, %emptied ], [ %index, %report ], [ %around, %empty ]
  %above = add i64 %victim.index, 1
  %last = icmp eq i64 %above, %threads
  %around = select i1 %last, i64 0, i64 %above
  %self = icmp eq i64 %around, %index
  br i1 %self, label %idle, label %victim
victim:
  %distance = mul i64 %around, <stride>
  %other.slot = getelementptr i8, ptr %first.slot, i64 %distance
  br label %steal
steal:
  %stolen = call i64 @nnc_ticket(ptr %other.slot)
  %nothing = icmp eq i64 %stolen, -1
  br i1 %nothing, label %empty, label %extra
extra:
  call void @nnc_chunk(ptr %team, ptr %own, i64 %stolen)
  call void @nnc_report(ptr %team, i32 1)
  br label %steal
empty:
  br label %help
}
"""

_X86 = """\
declare i64 @llvm.readcyclecounter()
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
declare void @llvm.x86.sse2.pause()

define internal i64 @nnc_now() {
entry:
  %t = call i64 @llvm.readcyclecounter()
  ret i64 %t
}

define internal void @nnc_pause() {
entry:
  call void @llvm.x86.sse2.pause()
  ret void
}

define internal void @nnc_save(ptr %at) {
entry:
  call void @llvm.x86.sse.stmxcsr(ptr %at)
  %state = load i32, ptr %at, align 4
  %clean = and i32 %state, -64
  store i32 %clean, ptr %at, align 4
  ret void
}

define internal void @nnc_load(ptr %at) {
entry:
  call void @llvm.x86.sse.ldmxcsr(ptr %at)
  ret void
}
"""

_OTHER = """\
declare void @llvm.aarch64.hint(i32)
declare i32 @clock_gettime(i32, ptr)

define internal i64 @nnc_now() {
entry:
  %pair = alloca [2 x i64], align 8
  %r = call i32 @clock_gettime(i32 1, ptr %pair)
  %s = load i64, ptr %pair, align 8
  %n.at = getelementptr i8, ptr %pair, i64 8
  %n = load i64, ptr %n.at, align 8
  %m = mul i64 %s, 1000000000
  %t = add i64 %m, %n
  ret i64 %t
}

define internal void @nnc_pause() {
entry:
  call void @llvm.aarch64.hint(i32 1)
  ret void
}

define internal void @nnc_save(ptr %at) {
entry:
  store i32 0, ptr %at, align 4
  ret void
}

define internal void @nnc_load(ptr %at) {
entry:
  ret void
}
"""
