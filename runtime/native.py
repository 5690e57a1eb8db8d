"""Takes a context that says what a native call wants, gives a callable that Python calls at once.

The callable is a built-in function over the code of glue.py: it parses no tuple, enters no Python
frame, and costs about as much as `len`. It keeps its context alive.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from runtime import glue
from runtime.buffers import Array, address
from runtime.glue import Kind, Slot
from runtime.loader import link_text

POSSIBLE = sys.implementation.name == "cpython" and ctypes.sizeof(ctypes.c_void_p) == 8
BRIEF = 1 << 16  # operations and bytes; a call as short as that keeps other threads waiting
_FASTCALL = 0x0080 | 0x0002  # METH_FASTCALL | METH_KEYWORDS


class Context:
    """A table of slots, and all objects whose addresses stand in it."""

    def __init__(self) -> None:
        self.slots = (ctypes.c_int64 * Slot.SIZE)()
        self.slots[Slot.COUNT] = -1
        self._kept: dict[int, object] = {}

    def number(self, slot: Slot, value: int) -> None:
        self.slots[slot] = value

    def hold(self, slot: Slot, value: object) -> None:
        """A Python object, which lives as long as it stands there; None is no object."""
        self.slots[slot] = 0 if value is None else id(value)
        self._kept[slot] = value

    def table(self, slot: Slot, numbers: Sequence[int], *, beside: object = None) -> None:
        """The address of numbers; what lies beside them and is pointed at from there lives on."""
        table = (ctypes.c_int64 * len(numbers))(*numbers)
        self.slots[slot] = ctypes.addressof(table)
        self._kept[slot] = table, beside

    def point(self, slot: Slot, value: Array) -> None:
        """The address of an array's first element."""
        self.slots[slot] = address(value)
        self._kept[slot] = value

    def lock(self, lock: Any) -> None:
        """The lock to hold while native code runs, or None."""
        self.hold(Slot.ACQUIRE, lock and lock.acquire)
        self.hold(Slot.RELEASE, lock and lock.release)

    def value(self, kind: Kind, result: object) -> None:
        """A result that is or comes from a Python object."""
        self.number(Slot.KIND, kind)
        self.hold(Slot.RESULT, result)

    def scalar(self, array: Array) -> None:
        """A result that is the one floating-point number in the array, as a Python float."""
        self.number(Slot.KIND, Kind.FLOAT32 if array.dtype == np.float32 else Kind.FLOAT64)
        self.point(Slot.RESULT, array)


class _MethodDef(ctypes.Structure):
    """PyMethodDef"""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


@cache
def _code() -> tuple[Any, _MethodDef]:
    """The library of the glue (to be kept) and the method that it defines."""
    library = link_text(glue.text(), [glue.CALL, glue.TABLE])
    table = (ctypes.c_void_p * len(glue.API)).from_address(library[glue.TABLE])
    for position, name in enumerate(glue.API):
        table[position] = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
    return library, _MethodDef(b"call", library[glue.CALL], _FASTCALL, None)


def entry_address(entry: Any) -> int:
    """Where the code of a ctypes function lies."""
    return ctypes.cast(entry, ctypes.c_void_p).value or 0


def native_callable(context: Context, owner: object) -> Callable[..., Any]:
    """The callable over a context; it keeps the owner, which must keep the context, alive."""
    _, method = _code()
    api = ctypes.pythonapi
    capsule_new = ctypes.PYFUNCTYPE(ctypes.py_object, *[ctypes.c_void_p] * 3)(
        ("PyCapsule_New", api)
    )
    function_new = ctypes.PYFUNCTYPE(
        ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.py_object
    )(("PyCFunction_NewEx", api))
    capsule = capsule_new(ctypes.addressof(context.slots), None, None)
    call: Callable[..., Any] = function_new(ctypes.addressof(method), capsule, owner)
    return call
