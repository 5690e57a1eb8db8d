"""Takes nothing, gives LLVM text that finds out whether a team makes a short call quicker.

Threads that share a short call also pass its data from cache to cache, and no estimate knows what
that costs. So a call that takes less than LONG is timed a few times by one thread and a few times
by all; the quicker way is kept for HOLD calls, then both are timed again. Results are the same bits
either way. A record of the program holds (slots of 8 bytes):

    PHASE   0 settled, 1 one thread is timed, 2 workers wake up, 3 the team is timed
    LEFT    calls of the phase; ALONE: whether one thread was quicker; HOLD: how long that is kept
    BEST    ticks of the quickest call: of one thread, of the team
    SYMBOL  the batch that all this is about; OTHERS: how many smaller ones came since
    START   ticks when the call began, 0 where it is not timed; SINCE: when the workers were called

    nnc_begin(team, record, symbol)   0 run alone, 1 with the team, 2 alone and tell the time
    nnc_end(record)                   after 1 and 2

A batch between half and twice as large goes the same way; smaller ones run alone, and become the
subject when they keep coming, as larger ones do at once.
"""

from __future__ import annotations

from runtime.places import filled

LONG = 250_000  # ticks of a call that a team always helps with
FIRST = 4  # calls of a new subject, with the team, before anything is timed
TIMED = 6
WARM, PATIENCE = 16, 3_000_000  # calls and ticks that workers have to wake up
HOLD, LONGEST_HOLD = 128, 1 << 14
FAITHFUL = 64  # smaller batches that become the subject

RECORD = "internal global [10 x i64] zeroinitializer, align 64"


def text() -> str:
    """The two functions."""
    numbers = dict(
        long=LONG,
        first=FIRST,
        timed=TIMED,
        warm=WARM,
        patience=PATIENCE,
        hold=HOLD,
        longest_hold=LONGEST_HOLD,
        faithful=FAITHFUL,
    )
    return filled(_TEXT.replace("<record>\n", _RECORD), numbers)


_NAMES = (
    *("phase", "left", "alone", "hold", "best.one", "best.team"),
    *("symbol", "others", "start", "since"),
)
_RECORD = "".join(
    f"  %{name}.at = getelementptr i64, ptr %record, i64 {place}\n"
    for place, name in enumerate(_NAMES)
)

_TEXT = """\
define i32 @nnc_begin(ptr %team, ptr %record, i64 %symbol) {
entry:
<record>
  %now = call i64 @nnc_now()
  store i64 %now, ptr %start.at, align 8
  %subject = load i64, ptr %symbol.at, align 8
  %same = icmp eq i64 %subject, %symbol
  br i1 %same, label %known, label %differs
differs:
  %double = shl i64 %subject, 1
  %larger = icmp ugt i64 %symbol, %double
  br i1 %larger, label %reset, label %not.larger
not.larger:
  store i64 0, ptr %start.at, align 8
  %twice = shl i64 %symbol, 1
  %small = icmp ult i64 %twice, %subject
  br i1 %small, label %smaller, label %similar
similar:
  %there = load i64, ptr %alone.at, align 8
  %joins = icmp eq i64 %there, 0
  %way = zext i1 %joins to i32
  ret i32 %way
smaller:
  %others = load i64, ptr %others.at, align 8
  %more.others = add i64 %others, 1
  store i64 %more.others, ptr %others.at, align 8
  %faithful = icmp uge i64 %more.others, <faithful>
  br i1 %faithful, label %reset, label %by.itself
by.itself:
  ret i32 0
reset:
  store i64 %now, ptr %start.at, align 8
  store i64 %symbol, ptr %symbol.at, align 8
  store i64 0, ptr %phase.at, align 8
  store i64 <first>, ptr %left.at, align 8
  store i64 0, ptr %alone.at, align 8
  store i64 <hold>, ptr %hold.at, align 8
  br label %known
known:
  store i64 0, ptr %others.at, align 8
  %phase = load i64, ptr %phase.at, align 8
  %left = load i64, ptr %left.at, align 8
  %less = sub i64 %left, 1
  %over = icmp sle i64 %left, 0
  switch i64 %phase, label %team.timed [
    i64 0, label %settled
    i64 1, label %one.timed
    i64 2, label %waking
  ]
settled:
  br i1 %over, label %try, label %keep
keep:
  store i64 %less, ptr %left.at, align 8
  %alone = load i64, ptr %alone.at, align 8
  %helps = icmp eq i64 %alone, 0
  %chosen = zext i1 %helps to i32
  ret i32 %chosen
try:
  store i64 1, ptr %phase.at, align 8
  store i64 <timed>, ptr %left.at, align 8
  store i64 -1, ptr %best.one.at, align 8
  store i64 -1, ptr %best.team.at, align 8
  br label %one.timed
one.timed:
  ret i32 2
waking:
  %until.at = getelementptr i8, ptr %team, i64 <alone>
  %until = load i64, ptr %until.at, align 8
  %punished = icmp ult i64 %now, %until
  br i1 %punished, label %later, label %awaken
later:
  store i64 %now, ptr %since.at, align 8
  br label %team.timed
awaken:
  store i64 %less, ptr %left.at, align 8
  %sleepers.at = getelementptr i8, ptr %team, i64 <sleepers>
  %sleepers = load atomic i32, ptr %sleepers.at monotonic, align 4
  %awake = icmp eq i32 %sleepers, 0
  %since = load i64, ptr %since.at, align 8
  %passed = sub i64 %now, %since
  %late = icmp ugt i64 %passed, <patience>
  %enough = and i1 %late, %over
  %ready = or i1 %awake, %enough
  br i1 %ready, label %go, label %team.timed
go:
  store i64 3, ptr %phase.at, align 8
  store i64 <timed>, ptr %left.at, align 8
  br label %team.timed
team.timed:
  ret i32 1
}

define void @nnc_end(ptr %record) {
entry:
<record>
  %start = load i64, ptr %start.at, align 8
  %untimed = icmp eq i64 %start, 0
  br i1 %untimed, label %done, label %time
time:
  %now = call i64 @nnc_now()
  %ticks = sub i64 %now, %start
  %phase = load i64, ptr %phase.at, align 8
  %left = load i64, ptr %left.at, align 8
  %less = sub i64 %left, 1
  %last = icmp sle i64 %less, 0
  switch i64 %phase, label %done [
    i64 0, label %settled
    i64 1, label %one.timed
    i64 3, label %team.timed
  ]
settled:
  %long = icmp ugt i64 %ticks, <long>
  br i1 %long, label %stay, label %done
stay:
  %few = icmp slt i64 %left, 2
  br i1 %few, label %postpone, label %done
postpone:
  store i64 2, ptr %left.at, align 8
  br label %done
one.timed:
  store i64 %less, ptr %left.at, align 8
  %one = load i64, ptr %best.one.at, align 8
  %quicker.one = icmp ult i64 %ticks, %one
  %new.one = select i1 %quicker.one, i64 %ticks, i64 %one
  store i64 %new.one, ptr %best.one.at, align 8
  br i1 %last, label %wake, label %done
wake:
  store i64 2, ptr %phase.at, align 8
  store i64 %now, ptr %since.at, align 8
  store i64 <warm>, ptr %left.at, align 8
  br label %done
team.timed:
  store i64 %less, ptr %left.at, align 8
  %all = load i64, ptr %best.team.at, align 8
  %quicker.all = icmp ult i64 %ticks, %all
  %new.all = select i1 %quicker.all, i64 %ticks, i64 %all
  store i64 %new.all, ptr %best.team.at, align 8
  br i1 %last, label %decide, label %done
decide:
  %by.one = load i64, ptr %best.one.at, align 8
  %a = mul i64 %new.all, 20
  %b = mul i64 %by.one, 19
  %slower = icmp ugt i64 %a, %b
  %alone = zext i1 %slower to i64
  %before = load i64, ptr %alone.at, align 8
  %agrees = icmp eq i64 %alone, %before
  %hold = load i64, ptr %hold.at, align 8
  %twice = shl i64 %hold, 1
  %little = icmp ult i64 %twice, <hold>
  %double = select i1 %little, i64 <hold>, i64 %twice
  %much = icmp ugt i64 %double, <longest_hold>
  %longer = select i1 %much, i64 <longest_hold>, i64 %double
  %new.hold = select i1 %agrees, i64 %longer, i64 <hold>
  store i64 %alone, ptr %alone.at, align 8
  store i64 %new.hold, ptr %hold.at, align 8
  store i64 %new.hold, ptr %left.at, align 8
  store i64 0, ptr %phase.at, align 8
  br label %done
done:
  ret void
}
"""
