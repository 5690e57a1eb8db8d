"""Takes nothing, gives a compilation room: deep recursion, and no garbage collection meanwhile.

Expressions of one kernel may be nested deeply. And a compilation makes many small objects and keeps
nearly all of them to its end, so that looking through them again and again finds nothing.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nncompiler.errors import CompileError

DEEP = 20_000  # frames of Python: about a thousand operations in one expression


class _Settings:
    """The interpreter's, changed by the first compilation that begins, restored by the last."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.before = (True, 0)

    def begin(self) -> None:
        with self.lock:
            if not self.users:
                self.before = gc.isenabled(), sys.getrecursionlimit()
                gc.disable()
                sys.setrecursionlimit(max(self.before[1], DEEP))
            self.users += 1

    def end(self) -> None:
        with self.lock:
            self.users -= 1
            if not self.users:
                sys.setrecursionlimit(self.before[1])
                if self.before[0]:
                    gc.enable()


_settings = _Settings()


@contextmanager
def room() -> Iterator[None]:
    """Room for one compilation; CompileError where even so an expression is nested too deeply."""
    _settings.begin()
    try:
        yield
    except RecursionError:
        message = "too many operations follow one another on the same elements"
        raise CompileError(message, stage="lower", hint="compile it in two parts") from None
    finally:
        _settings.end()
