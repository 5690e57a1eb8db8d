"""Takes the user's wishes, gives one frozen record that every stage reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """How to compile and run.

    threads            how many threads run a step; None: NNC_NUM_THREADS, else all cores
    cache              keep compiled objects in the user's private cache (NNC_CACHE_DIR)
    flush_denormals    treat denormal numbers as zero inside native code
    debug              interpret before and after every pass and compare (slow)
    """

    threads: int | None = None
    cache: bool = True
    flush_denormals: bool = True
    debug: bool = False

    def __post_init__(self) -> None:
        threads = self.threads
        if threads is None:
            return
        if not isinstance(threads, int) or isinstance(threads, bool):
            raise TypeError(f"threads must be a whole number or None, not {threads!r}")
        if threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
