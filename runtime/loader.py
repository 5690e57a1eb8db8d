"""Takes object bytes of an artifact (or LLVM text), gives native functions that Python can call.

The second of the two files that touch llvmlite (nncompiler/codegen/llvm.py is the first). One JIT
linker lives as long as the process; every program is a library of its own in it, so names never
clash, and is unloaded with its last reference. ctypes releases the GIL around every call.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import platform
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runtime.artifact import Artifact, Plan
from runtime.cache import Cache

Native = Callable[..., int]

_ENTRY = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 3)
_REPEAT = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 3, ctypes.c_int64)
_TABLE = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 4)

_NO_PLAN = Plan("", [], [], [], {}, {}, [], [], [], "", "")

_lock = threading.Lock()
_numbers = itertools.count()
_linker: Any = None


@dataclass(frozen=True)
class Program:
    """The native functions of one artifact; None where the artifact has no such function.

    entry    (bufs, syms, team) -> 0, or 1 + the position of the failed check
    repeat   (bufs, syms, team, n): n calls of the entry
    profile  (bufs, syms, team, ticks): one call, ticks[i] += clock ticks of kernel i
    train    (bufs, syms, team, feed): the entry over batches of rows, see feed.py
    once     (bufs, syms, team): what all calls share, computed from fixed inputs
    """

    entry: Native
    repeat: Native | None
    profile: Native | None
    train: Native | None
    once: Native | None
    library: Any  # keeps the code in memory
    source: bytes  # what it was linked from


_loaded: weakref.WeakValueDictionary[int, Program] = weakref.WeakValueDictionary()


def load(artifact: Artifact) -> Program:
    """Links the artifact's code into this process, once for all that share its bytes; ValueError
    if it cannot be linked."""
    known = _loaded.get(id(artifact.object))  # the program keeps these bytes, and so their id
    if known is None:
        _loaded[id(artifact.object)] = known = _load(artifact)
    return known


def _load(artifact: Artifact) -> Program:
    entry = artifact.plan.entry
    optional = [f"{entry}_{kind}" for kind in ("repeat", "profile", "train", "once")]
    present = [name for name in optional if name.encode() + b"\0" in artifact.object]
    library = _link(artifact.object, [entry, *present])

    def function(kind: str, prototype: Any) -> Native | None:
        name = f"{entry}_{kind}"
        return prototype(library[name]) if name in present else None

    return Program(
        entry=_ENTRY(library[entry]),
        repeat=function("repeat", _REPEAT),
        profile=function("profile", _TABLE),
        train=function("train", _TABLE),
        once=function("once", _ENTRY),
        library=(library, _linker),
        source=artifact.object,
    )


def link_text(text: str, names: list[str]) -> Any:
    """The addresses of those names of an LLVM module, which serves no program but the runtime.

    The object code is kept in the user's cache.
    """
    import llvmlite  # loaded by now: there is a program already

    cache = Cache()
    digest = hashlib.sha256(f"{llvmlite.__version__} {platform.machine()} {text}".encode())
    artifact = cache.get(digest.hexdigest())
    if artifact is None:
        artifact = Artifact(_NO_PLAN, _assemble(text))
        cache.put(digest.hexdigest(), artifact)
    return _link(artifact.object, names)


def _assemble(text: str) -> bytes:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(reloc="pic", opt=1)
    return bytes(machine.emit_object(llvm.parse_assembly(text)))


def _link(code: bytes, names: list[str]) -> Any:
    import llvmlite.binding as llvm  # llvmlite is loaded at the first compile

    global _linker
    with _lock:
        if _linker is None:
            llvm.initialize_native_target()
            llvm.initialize_native_asmprinter()
            machine = llvm.Target.from_default_triple().create_target_machine(reloc="pic")
            _linker = llvm.create_lljit_compiler(machine)
        builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
        for name in names:
            builder.export_symbol(name)
        try:
            return builder.link(_linker, f"nnc{next(_numbers)}")
        except RuntimeError as error:
            raise ValueError(f"the compiled object cannot be loaded: {error}") from error
