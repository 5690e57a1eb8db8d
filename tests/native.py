"""Takes a function that emits code for one value, gives a NumPy function that runs it natively.

The generated loop reads `lanes` elements of every argument at a time, so lengths must be multiples.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from ir.types import DType, boolean, dtype_of, i64
from nncompiler.codegen.emit import Emitter
from nncompiler.codegen.llvm import host
from nncompiler.codegen.math import emit_apply
from nncompiler.codegen.target import Target
from nncompiler.codegen.values import Value

Array = np.ndarray[Any, Any]
Emit = Callable[[Emitter, Sequence[Value]], Value]


def module_text(
    emit: Emit, types: Sequence[DType], result: DType, lanes: int, target: Target
) -> str:
    """`void f(i64 n, ptr out, ptr a0, ptr a1 ...)` over n elements."""
    e = Emitter(target)
    loop, done, after = e.new_label("loop"), e.new_label("done"), e.new_name("next")
    e.do("%empty = icmp eq i64 %n, 0")
    e.do(f"br i1 %empty, label %{done}, label %{loop}")
    e.label(loop)
    e.do("%i = phi i64 [ 0, %entry ], [ " + after + ", %latch ]")
    index = Value("%i", i64)
    args = [e.load(e.address(f"%a{k}", index, t), t, lanes) for k, t in enumerate(types)]
    e.store(emit(e, args), e.address("%out", index, result))
    e.branch("latch")
    e.label("latch")
    e.do(f"{after} = add i64 %i, {lanes}")
    e.do(f"%more = icmp ult i64 {after}, %n")
    e.do(f"br i1 %more, label %{loop}, label %{done}")
    e.label(done)
    e.do("ret void")
    pointers = "".join(f", ptr %a{k}" for k in range(len(types)))
    return "\n".join([*e.declarations, e.function(f"void @f(i64 %n, ptr %out{pointers})")])


class Native:
    """A loop over arrays, compiled; `assembly` is its text."""

    def __init__(
        self,
        emit: Emit,
        types: Sequence[DType],
        result: DType,
        *,
        lanes: int = 1,
        target: Target | None = None,
    ) -> None:
        target = target or host()
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.text = module_text(emit, types, result, lanes, target)
        self.result, self.lanes = result, lanes
        module = llvm.parse_assembly(self.text)
        module.verify()
        machine = llvm.Target.from_triple(target.triple).create_target_machine(
            cpu=target.cpu, features=target.features, opt=2
        )
        self.assembly: str = machine.emit_assembly(module)
        self._engine = llvm.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()
        kinds = [ctypes.c_int64, *[ctypes.c_void_p] * (1 + len(types))]
        self.run = ctypes.CFUNCTYPE(None, *kinds)(self._engine.get_function_address("f"))

    def __call__(self, *arrays: Array) -> Array:
        size = arrays[0].size
        if size % self.lanes:
            padded = [np.concatenate([a, np.repeat(a[-1:], -size % self.lanes)]) for a in arrays]
            return self(*padded)[:size]
        held = [np.ascontiguousarray(a) for a in arrays]
        out = np.empty(held[0].shape, self.result.numpy)
        self.run(size, out.ctypes.data, *(a.ctypes.data for a in held))
        return out


def apply_native(
    op: str,
    *arrays: Array,
    result: DType | None = None,
    lanes: int = 1,
    target: Target | None = None,
) -> Array:
    """One elementwise op on flat arrays."""
    types = [dtype_of(a) for a in arrays]
    kind = result or (boolean if op in ("eq", "ne", "lt", "le") else types[-1])
    return native(op, types, kind, lanes=lanes, target=target)(*arrays)


def native(
    op: str, types: Sequence[DType], result: DType, *, lanes: int, target: Target | None = None
) -> Native:
    return Native(
        lambda e, args: emit_apply(e, op, args, result, lanes),
        types,
        result,
        lanes=lanes,
        target=target,
    )
