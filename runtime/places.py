"""Takes nothing, gives where everything stands in the memory of a team (pool.py).

DONE      chunks that workers finished; WAITING: the caller sleeps until DONE is complete
FUNCTION  (BUFS, SYMS, STAGE, i) is chunk i; STATE: the floating-point state for it
CORE      the caller's
SLEEPERS  workers that sleep, or were never started; SEQUENCE: what they sleep on
BUSY      a call is in flight; another one runs alone
ALONE     until when the caller stays alone, and LENGTH: for how long
LAST      when the caller last dealt out a stage to sleepers; BURST: since when it is busy
MISSING   workers to be started, by native code, when there is enough to do
WORKER    the function that they run; THREADS: how many they are, the caller counted
RUN       the functions that a program calls (team.py); BEGIN, END: those of trial.py
SLOTS     one for each thread, STRIDE apart: its chunks (end, next), the team's address, its
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
