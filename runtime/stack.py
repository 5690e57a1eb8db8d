"""Takes how much a program keeps on the stack, raises where threads here have less.

Blocks that a thread works on lie on its stack. A stack that is too small would end the process, so
what is configured for threads is looked at before a program is used.
"""

from __future__ import annotations

import threading

ROOM = 1 << 18  # bytes for Python's own frames
try:
    import resource
except ImportError:  # where there are no such limits
    resource = None  # type: ignore[assignment]


def check_stack(need: int, name: str) -> None:
    """ValueError where threads have less than `need` bytes and some room on their stacks."""
    own = threading.stack_size()  # of threads that Python starts from now on; 0: the default
    threading.stack_size(own)  # to ask is to set the default
    sizes = [own]
    if resource is not None:
        soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
        sizes.append(0 if soft == resource.RLIM_INFINITY else soft)
    least = min((size for size in sizes if size > 0), default=need + ROOM)
    if least < need + ROOM:
        raise ValueError(
            f"'{name}' keeps {need // 1024} KiB on the stack, but threads have {least // 1024} "
            "KiB: raise it (`ulimit -s`, threading.stack_size) or compile with Options(winograd=0)"
        )
