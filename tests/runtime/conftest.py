"""Takes LLVM text written by hand, gives artifacts: the runtime is tested without the compiler."""

from __future__ import annotations

import llvmlite.binding as llvm
import pytest

from runtime.artifact import Artifact, BufferSpec, CheckSpec, KernelSpec, Plan

# y = x * w + target, loss = mean over the batch of the sum of y, count += 1;
# code 1: a target outside 0..9, code 2: NaN in x.
STEP = """
declare i64 @llvm.readcyclecounter()
declare ptr @memcpy(ptr, ptr, i64)

define i64 @step(ptr %bufs, ptr %syms, ptr %team) {
  %n = load i64, ptr %syms
  %x = load ptr, ptr %bufs
  %p1 = getelementptr ptr, ptr %bufs, i64 1
  %t = load ptr, ptr %p1
  %p2 = getelementptr ptr, ptr %bufs, i64 2
  %w = load ptr, ptr %p2
  %p4 = getelementptr ptr, ptr %bufs, i64 4
  %tmp = load ptr, ptr %p4
  %p5 = getelementptr ptr, ptr %bufs, i64 5
  %y = load ptr, ptr %p5
  %p6 = getelementptr ptr, ptr %bufs, i64 6
  %loss = load ptr, ptr %p6
  %p7 = getelementptr ptr, ptr %bufs, i64 7
  %count = load ptr, ptr %p7
  %n3 = mul i64 %n, 3
  br label %labels
labels:
  %i = phi i64 [ 0, %0 ], [ %i1, %good ]
  %at = getelementptr i64, ptr %t, i64 %i
  %label = load i64, ptr %at
  %bad = icmp uge i64 %label, 10
  br i1 %bad, label %fail1, label %good
good:
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, %n
  br i1 %more, label %labels, label %nans
fail1:
  ret i64 1
nans:
  %j = phi i64 [ 0, %good ], [ %j1, %fine ]
  %ax = getelementptr float, ptr %x, i64 %j
  %vx = load float, ptr %ax
  %nan = fcmp uno float %vx, %vx
  br i1 %nan, label %fail2, label %fine
fine:
  %w_at = urem i64 %j, 3
  %aw = getelementptr float, ptr %w, i64 %w_at
  %vw = load float, ptr %aw
  %product = fmul float %vx, %vw
  %atmp = getelementptr float, ptr %tmp, i64 %j
  store float %product, ptr %atmp
  %j1 = add i64 %j, 1
  %more_x = icmp ult i64 %j1, %n3
  br i1 %more_x, label %nans, label %sums
fail2:
  ret i64 2
sums:
  %k = phi i64 [ 0, %fine ], [ %k1, %sums ]
  %s = phi float [ 0.0, %fine ], [ %s1, %sums ]
  %row = udiv i64 %k, 3
  %ltmp = getelementptr float, ptr %tmp, i64 %k
  %vtmp = load float, ptr %ltmp
  %lt = getelementptr i64, ptr %t, i64 %row
  %vt = load i64, ptr %lt
  %ft = sitofp i64 %vt to float
  %vy = fadd float %vtmp, %ft
  %ly = getelementptr float, ptr %y, i64 %k
  store float %vy, ptr %ly
  %s1 = fadd float %s, %vy
  %k1 = add i64 %k, 1
  %more_y = icmp ult i64 %k1, %n3
  br i1 %more_y, label %sums, label %end
end:
  %fn = sitofp i64 %n to float
  %mean = fdiv float %s1, %fn
  store float %mean, ptr %loss
  %c = load float, ptr %count
  %c1 = fadd float %c, 1.0
  store float %c1, ptr %count
  ret i64 0
}

define i64 @step_repeat(ptr %bufs, ptr %syms, ptr %team, i64 %n) {
  br label %loop
loop:
  %i = phi i64 [ 0, %0 ], [ %i1, %ok ]
  %code = call i64 @step(ptr %bufs, ptr %syms, ptr %team)
  %failed = icmp ne i64 %code, 0
  br i1 %failed, label %out, label %ok
ok:
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, %n
  br i1 %more, label %loop, label %out
out:
  ret i64 %code
}

define i64 @step_profile(ptr %bufs, ptr %syms, ptr %team, ptr %ticks) {
  %a = call i64 @llvm.readcyclecounter()
  %code = call i64 @step(ptr %bufs, ptr %syms, ptr %team)
  %b = call i64 @llvm.readcyclecounter()
  %d = sub i64 %b, %a
  %old = load i64, ptr %ticks
  %new = add i64 %old, %d
  store i64 %new, ptr %ticks
  ret i64 %code
}

define i64 @step_train(ptr %bufs, ptr %syms, ptr %team, ptr %feed) {
  %first = load i64, ptr %feed
  %f1 = getelementptr i64, ptr %feed, i64 1
  %rows = load i64, ptr %f1
  %f2 = getelementptr i64, ptr %feed, i64 2
  %batch = load i64, ptr %f2
  %f3 = getelementptr i64, ptr %feed, i64 3
  %order = load ptr, ptr %f3
  %f4 = getelementptr i64, ptr %feed, i64 4
  %sums = load ptr, ptr %f4
  %f5 = getelementptr i64, ptr %feed, i64 5
  %f6 = getelementptr i64, ptr %feed, i64 6
  %xs = load ptr, ptr %f6
  %f7 = getelementptr i64, ptr %feed, i64 7
  %ts = load ptr, ptr %f7
  %f8 = getelementptr i64, ptr %feed, i64 8
  %xstage = load ptr, ptr %f8
  %f9 = getelementptr i64, ptr %feed, i64 9
  %tstage = load ptr, ptr %f9
  %p1 = getelementptr ptr, ptr %bufs, i64 1
  %p6 = getelementptr ptr, ptr %bufs, i64 6
  store ptr %xstage, ptr %bufs
  store ptr %tstage, ptr %p1
  %sequence = icmp eq ptr %order, null
  br label %batches
batches:
  %done = phi i64 [ 0, %0 ], [ %done1, %counted ]
  %left = sub i64 %rows, %done
  %short = icmp ult i64 %left, %batch
  %n = select i1 %short, i64 %left, i64 %batch
  store i64 %n, ptr %syms
  br label %gather
gather:
  %i = phi i64 [ 0, %batches ], [ %i1, %copy ]
  %position0 = add i64 %first, %done
  %position = add i64 %position0, %i
  br i1 %sequence, label %copy, label %pick
pick:
  %o_at = getelementptr i64, ptr %order, i64 %position
  %picked = load i64, ptr %o_at
  br label %copy
copy:
  %row = phi i64 [ %position, %gather ], [ %picked, %pick ]
  %xoff = mul i64 %row, 12
  %xfrom = getelementptr i8, ptr %xs, i64 %xoff
  %xto_off = mul i64 %i, 12
  %xto = getelementptr i8, ptr %xstage, i64 %xto_off
  call ptr @memcpy(ptr %xto, ptr %xfrom, i64 12)
  %tfrom = getelementptr i64, ptr %ts, i64 %row
  %tto = getelementptr i64, ptr %tstage, i64 %i
  call ptr @memcpy(ptr %tto, ptr %tfrom, i64 8)
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, %n
  br i1 %more, label %gather, label %call
call:
  %code = call i64 @step(ptr %bufs, ptr %syms, ptr %team)
  %failed = icmp ne i64 %code, 0
  br i1 %failed, label %out, label %counted
counted:
  %loss = load ptr, ptr %p6
  %vloss = load float, ptr %loss
  %dloss = fpext float %vloss to double
  %dn = sitofp i64 %n to double
  %weighted = fmul double %dloss, %dn
  %old = load double, ptr %sums
  %new = fadd double %old, %weighted
  store double %new, ptr %sums
  %done1 = add i64 %done, %n
  store i64 %done1, ptr %f5
  %again = icmp ult i64 %done1, %rows
  br i1 %again, label %batches, label %out
out:
  ret i64 %code
}
"""

BATCH3 = [[1, "batch"], 3]


def assemble(text: str) -> bytes:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(reloc="pic")
    return machine.emit_object(llvm.parse_assembly(text))


@pytest.fixture(scope="session")
def step_artifact() -> Artifact:
    plan = Plan(
        name="step",
        symbols=["batch"],
        buffers=[
            BufferSpec("x", "f32", BATCH3, "input"),
            BufferSpec("target", "i64", [[1, "batch"]], "input"),
            BufferSpec("w", "f32", [3], "input"),
            BufferSpec("count", "f32", [], "input"),
            BufferSpec("product", "f32", BATCH3, "temporary", first=0, last=1),
            BufferSpec("y", "f32", BATCH3, "output"),
            BufferSpec("loss", "f32", [], "output"),
            BufferSpec("update:count", "f32", [], "alias", alias=3),
        ],
        kernels=[KernelSpec("k00_scale", "k00", [0, {"batch": 6}], [0, {"batch": 32}], [])],
        outputs={"y": 5, "loss": 6, "update:count": 7},
        updates={"count": 7},
        checks=[CheckSpec(1, 0, 10), CheckSpec(0)],
        feeds=[0, 1],
        scalars=["loss"],
        entry="step",
        target="host",
    )
    return Artifact(plan, assemble(STEP))


# y = 3 x, one number per row, handed out under two names
FORWARD = """
define i64 @forward(ptr %bufs, ptr %syms, ptr %team) {
  %n = load i64, ptr %syms
  %x = load ptr, ptr %bufs
  %p1 = getelementptr ptr, ptr %bufs, i64 1
  %w = load ptr, ptr %p1
  %p2 = getelementptr ptr, ptr %bufs, i64 2
  %y = load ptr, ptr %p2
  %vw = load double, ptr %w
  br label %loop
loop:
  %i = phi i64 [ 0, %0 ], [ %i1, %loop ]
  %ax = getelementptr double, ptr %x, i64 %i
  %vx = load double, ptr %ax
  %vy = fmul double %vx, %vw
  %ay = getelementptr double, ptr %y, i64 %i
  store double %vy, ptr %ay
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, %n
  br i1 %more, label %loop, label %out
out:
  ret i64 0
}
"""


@pytest.fixture(scope="session")
def forward_artifact() -> Artifact:
    plan = Plan(
        name="forward",
        symbols=["batch"],
        buffers=[
            BufferSpec("x", "f64", [[1, "batch"], 1], "input"),
            BufferSpec("factor", "f64", [], "constant", data="0000000000000840"),
            BufferSpec("y", "f64", [[1, "batch"], 1], "output"),
        ],
        kernels=[],
        outputs={"y": 2, "same": 2},
        updates={},
        checks=[],
        feeds=[0],
        scalars=[],
        entry="forward",
        target="host",
    )
    return Artifact(plan, assemble(FORWARD))
