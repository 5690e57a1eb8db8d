"""Takes nothing, gives where everything stands in the memory of a team (pool.py).

done      chunks that workers finished; waiting: the caller sleeps until these are all
function  with (bufs, syms, stage, i) it runs chunk i; state: the floating-point state for it
core      the caller's
sleepers  workers that sleep, or were never started; sequence: what they sleep on
busy      a call is in flight; another one runs alone
alone     until when the caller stays alone, and length: for how long
last      when the caller last dealt out a stage to sleepers; burst: since when it is busy
missing   workers to be started, by native code, when there is enough to do
worker    the function that they run; threads: how many they are, the caller counted
run       the functions that a program calls (team.py); begin, end: those of trial.py
slots     one for each thread, stride apart: its chunks (end, next), the team's address, its
          number
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Offsets in bytes. What different threads write at the same time lies two cache lines apart.
PLACES = {
    **dict(done=0, waiting=4),
    **dict(function=128, bufs=136, syms=144, state=152, core=156, threads=160, stage=168),
    **dict(sleepers=256, sequence=260),
    **dict(busy=384, alone=392, length=400, last=408, burst=416, missing=424),
    **dict(worker=512, run=520, begin=528, end=536),
    **dict(slots=640, stride=128),
}

_MARK = re.compile(r"<(\w+)>")


def filled(text: str, numbers: Mapping[str, int]) -> str:
    """Native code in which <name> stands for a place or one of the numbers."""
    known = {**PLACES, **numbers}
    return _MARK.sub(lambda mark: str(known[mark[1]]), text)
