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
