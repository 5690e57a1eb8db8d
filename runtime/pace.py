"""Takes how long native calls lasted, gives how much work the next one may do.

Native code cannot be interrupted, so long loops are cut into calls of about 50 ms: Ctrl-C and other
signals are handled between them.
"""

from __future__ import annotations

SLICE = 0.05  # seconds
GROWTH = 16  # how much longer a call may be than the longest before it


class Pace:
    """Units of work per second, learned from the calls themselves and kept between loops."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._longest = 0

    def units(self, left: int, step: int, seconds: float) -> int:
        """How many of the units left to do at once: a multiple of step, or all of them."""
        steps = int(self._rate * seconds) // step if self._rate else 1
        steps = max(1, min(steps, GROWTH * max(1, self._longest // step)))
        return min(left, steps * step)

    def learn(self, units: int, seconds: float) -> None:
        self._rate = units / max(seconds, 1e-7)
        self._longest = max(self._longest, units)
