"""Takes the user's wishes, gives one frozen record that every stage reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """How to compile and run.

    threads            how many threads run a step; None: NNC_NUM_THREADS, else all cores
    cache              keep compiled objects in the user's private cache (NNC_CACHE_DIR)
    flush_denormals    treat denormal numbers as zero inside native code
    winograd           convolutions by 3 x 3 taps: 2 for Winograd's F(2, 3), which is as accurate as
                       a direct sum; 4 for F(4, 3), quicker but with errors some 20 times as large;
                       0 for direct sums alone. What a direct sum makes infinite may be NaN; by
                       F(4, 3) so are results beside it
    timed              with an entry that times every kernel; `model.profile` makes its own programs
    debug              interpret before and after every pass and compare (slow)
    """

    threads: int | None = None
    cache: bool = True
    flush_denormals: bool = True
    winograd: int = 2
    timed: bool = False
    debug: bool = False

    def __post_init__(self) -> None:
        if self.winograd not in (0, 2, 4) or isinstance(self.winograd, bool):
            raise ValueError(f"winograd is 0, 2 or 4, not {self.winograd!r}")
        threads = self.threads
        if threads is None:
            return
        if not isinstance(threads, int) or isinstance(threads, bool):
            raise TypeError(f"threads must be a whole number or None, not {threads!r}")
        if threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
