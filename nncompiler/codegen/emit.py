"""Takes calls that name operations, gives the LLVM instructions for them (text.py).

    e.add(i, constant(1, i64))    ->    the line "%0 = add i64 %i, 1"

`Value`s carry their type; bools are i1 in registers and i8 in memory.
"""

from __future__ import annotations

from collections.abc import Iterable

from ir.types import DType, boolean, i32, i64
from nncompiler.codegen.target import Target
from nncompiler.codegen.text import Text
from nncompiler.codegen.values import (
    Value,
    constant,
    element_type,
    fold_binary,
    is_number,
    literal,
    llvm_type,
    memory_type,
    number_of,
    suffix,
)


class Emitter(Text):
    """The instructions of one function under construction, for a target."""

    def __init__(self, target: Target, declarations: dict[str, None] | None = None) -> None:
        super().__init__(declarations)
        self.target = target
        self._opaque: dict[str, Value] = {}

    # Arithmetic

    def binary(self, instruction: str, a: Value, b: Value) -> Value:
        folded = fold_binary(instruction, a, b)
        if folded is not None:
            return folded
        return self.value(f"{instruction} {a.typed}, {b.text}", a.dtype, a.lanes)

    def fdiv(self, a: Value, b: Value) -> Value:
        return self.binary("fdiv", a, b)

    def fneg(self, a: Value) -> Value:
        return self.value(f"fneg {a.typed}", a.dtype, a.lanes)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once where the target has such an instruction."""
        name = "llvm.fma" if self.target.has_fma else "llvm.fmuladd"
        return self.call(name, a.dtype, (a, b, c), a.lanes)

    def fabs(self, a: Value) -> Value:
        return self.call("llvm.fabs", a.dtype, (a,), a.lanes)

    def add(self, a: Value, b: Value) -> Value:
        """a + b of floats or of (wrapping) integers."""
        return self.binary("fadd" if a.dtype.is_float else "add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        return self.binary("fsub" if a.dtype.is_float else "sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        return self.binary("fmul" if a.dtype.is_float else "mul", a, b)

    def maximum(self, a: Value, b: Value) -> Value:
        return self._extreme("ogt", "max", a, b)

    def minimum(self, a: Value, b: Value) -> Value:
        return self._extreme("olt", "min", a, b)

    def _extreme(self, predicate: str, name: str, a: Value, b: Value) -> Value:
        """The greater or smaller operand, NaN if one is NaN."""
        if a.dtype.kind == "bool":
            return self.binary("or" if name == "max" else "and", a, b)
        if not a.dtype.is_float:
            return self.call(f"llvm.{_sign(a.dtype)}{name}", a.dtype, (a, b), a.lanes)
        if is_number(a):
            a, b = b, a
        if is_number(b):  # maxps(b, a) is a where a is NaN
            return self.select(self.fcmp(predicate, b, a), b, a)
        ordered = self.select(self.fcmp(predicate, a, b), a, b)  # b where one is NaN
        return self.select(self.fcmp("uno", a, a), a, ordered)

    def icmp(self, predicate: str, a: Value, b: Value) -> Value:
        return self.value(f"icmp {predicate} {a.typed}, {b.text}", boolean, a.lanes)

    def fcmp(self, predicate: str, a: Value, b: Value) -> Value:
        return self.value(f"fcmp {predicate} {a.typed}, {b.text}", boolean, a.lanes)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """a where the condition holds, else b; lane by lane where it is a vector."""
        if a == b or condition.text == "true":
            return a
        if condition.text == "false":
            return b
        return self.value(f"select {condition.typed}, {a.typed}, {b.typed}", a.dtype, a.lanes)

    # Types

    def bits(self, a: Value, dtype: DType) -> Value:
        """The same bits as another type of equal width."""
        if llvm_type(a.dtype) == llvm_type(dtype):
            return Value(a.text, dtype, a.lanes)
        return self.value(f"bitcast {a.typed} to {llvm_type(dtype, a.lanes)}", dtype, a.lanes)

    def convert(self, a: Value, dtype: DType) -> Value:
        """The value as another type: ints wrap, floats truncate toward zero and saturate,
        NaN becomes 0; anything but zero is True."""
        source, lanes = a.dtype, a.lanes
        if source == dtype:
            return a
        number = number_of(a)
        if number is not None and not (source.is_float and not dtype.is_float):
            return constant(number, dtype, lanes)
        if dtype.kind == "bool":
            zero = constant(0, source, lanes)
            return self.fcmp("une", a, zero) if source.is_float else self.icmp("ne", a, zero)
        if source.is_float and not dtype.is_float:
            sign = "u" if dtype.kind == "uint" else "s"
            kind = f"{suffix(dtype, lanes)}.{suffix(source, lanes)}"
            return self.call_full(f"llvm.fpto{sign}i.sat.{kind}", dtype, (a,), lanes)
        if source.is_float:
            word = "fpext" if dtype.bits > source.bits else "fptrunc"
        elif dtype.is_float:
            word = "sitofp" if source.kind == "int" else "uitofp"
        elif source.kind != "bool" and dtype.bits == source.bits:
            return Value(a.text, dtype, lanes)
        elif source.kind != "bool" and dtype.bits < source.bits:
            word = "trunc"
        else:
            word = "sext" if source.kind == "int" else "zext"
        return self.value(f"{word} {a.typed} to {llvm_type(dtype, lanes)}", dtype, lanes)

    def splat(self, a: Value, lanes: int) -> Value:
        """A scalar in every lane."""
        if lanes == a.lanes:
            return a
        number = number_of(a)
        if number is not None:
            return constant(number, a.dtype, lanes)
        kind = llvm_type(a.dtype, lanes)
        if a.dtype == boolean and self.target.has_masks and lanes in (8, 16, 32, 64):
            bits = self.op(f"sext {a.typed} to i{lanes}")  # a mask register is its bits
            return self.value(f"bitcast i{lanes} {bits} to {kind}", boolean, lanes)
        first = self.op(f"insertelement {kind} poison, {a.typed}, i64 0")
        text = f"shufflevector {kind} {first}, {kind} poison, <{lanes} x i32> zeroinitializer"
        return self.value(text, a.dtype, lanes)

    def extract(self, a: Value, lane: int) -> Value:
        if a.lanes == 1:
            return a
        return self.value(f"extractelement {a.typed}, i64 {lane}", a.dtype)

    def iota(self, dtype: DType, lanes: int) -> Value:
        """0, 1, 2 ... over the lanes."""
        if lanes == 1:
            return constant(0, dtype)
        element = element_type(dtype)
        text = ", ".join(f"{element} {literal(i, dtype)}" for i in range(lanes))
        return Value(f"<{text}>", dtype, lanes)

    def shuffle(self, a: Value, b: Value | None, lanes: Iterable[int]) -> Value:
        """Lanes picked by number from a and b joined; a single one of a is no vector."""
        picked = list(lanes)
        if b is None and len(picked) == 1:
            return self.extract(a, picked[0])
        mask = ", ".join(f"i32 {i}" for i in picked)
        other = f"{a.type} poison" if b is None else b.typed
        text = f"shufflevector {a.typed}, {other}, <{len(picked)} x i32> <{mask}>"
        return self.value(text, a.dtype, len(picked))

    def opaque(self, a: Value) -> Value:
        """A real constant, made on entry, that no instruction is chosen for; other values as they
        are."""
        if not (a.is_constant and a.dtype.is_float):
            return a
        if a.typed not in self._opaque:
            name = self.new_name("opaque")
            self.entry.append(f"  {name} = {self._fence(a)}")
            self._opaque[a.typed] = Value(name, a.dtype, a.lanes)
        return self._opaque[a.typed]

    def _fenced(self, a: Value) -> Value:
        """A real value that no instruction is chosen for together with what made it."""
        return Value(self.op(self._fence(a)), a.dtype, a.lanes)

    def _fence(self, a: Value) -> str:
        name = f"@llvm.arithmetic.fence.{suffix(a.dtype, a.lanes)}"
        self.declare(f"declare {a.type} {name}({a.type})")
        return f"call {a.type} {name}({a.typed})"

    # Memory

    def address(self, base: str, index: Value | int, dtype: DType) -> str:
        """The pointer to element `index` (i64) of an array of `dtype`."""
        text = str(index) if isinstance(index, int) else index.text
        if text == "0":
            return base
        return self.op(f"getelementptr inbounds {memory_type(dtype)}, ptr {base}, i64 {text}")

    def load(
        self, pointer: str, dtype: DType, lanes: int = 1, *, align: int = 0, key: bool = False
    ) -> Value:
        """`key` where nothing in scope writes there; `align` defaults to one element."""
        memory = memory_type(dtype, lanes)
        text = self.op(f"load {memory}, ptr {pointer}, align {align or dtype.bytes}", key)
        return self._from_memory(text, dtype, lanes)

    def _from_memory(self, text: str, dtype: DType, lanes: int) -> Value:
        if dtype.kind != "bool":
            return Value(text, dtype, lanes)
        zero = "0" if lanes == 1 else "zeroinitializer"
        return self.value(f"icmp ne {memory_type(dtype, lanes)} {text}, {zero}", dtype, lanes)

    def _to_memory(self, a: Value) -> str:
        """Type and text of the value as memory holds it."""
        if a.dtype.kind != "bool":
            return a.typed
        memory = memory_type(a.dtype, a.lanes)
        return f"{memory} {self.op(f'zext {a.typed} to {memory}')}"

    def store(self, a: Value, pointer: str, *, align: int = 0) -> None:
        self.do(f"store {self._to_memory(a)}, ptr {pointer}, align {align or a.dtype.bytes}")

    def masked_load(
        self, pointer: str, dtype: DType, mask: Value, *, fill: Value | None = None, align: int = 0
    ) -> Value:
        """Lanes whose mask bit is clear are not read; they are `fill`, or undefined.

        Real ones are fenced: LLVM 22 folds the load into an operation under the same mask, and
        where it splits that again to save a copy, the load has lost its mask and may fault.
        """
        lanes = mask.lanes
        where = f"ptr {pointer}, i32 {align or dtype.bytes}"
        value = self._read("load", where, dtype, mask, fill, lanes)
        return self._fenced(value) if dtype.is_float else value

    def gather(
        self,
        base: str,
        index: Value,
        dtype: DType,
        mask: Value | None = None,
        *,
        fill: Value | None = None,
    ) -> Value:
        """base[index] for every lane of an integer vector."""
        pointers = self._pointers(base, index, dtype)
        if mask is None:
            mask = constant(True, boolean, index.lanes)
        pointer = f"<{index.lanes} x ptr> {pointers}, i32 {dtype.bytes}"
        return self._read("gather", pointer, dtype, mask, fill, index.lanes)

    def _read(
        self, word: str, pointer: str, dtype: DType, mask: Value, fill: Value | None, lanes: int
    ) -> Value:
        memory = memory_type(dtype, lanes)
        other = f"{memory} poison" if fill is None else self._to_memory(fill)
        name, types = self._memory_intrinsic(word, dtype, lanes)
        self.declare(f"declare {memory} @{name}({types}, i32, <{lanes} x i1>, {memory})")
        text = self.op(f"call {memory} @{name}({pointer}, {mask.typed}, {other})", False)
        return self._from_memory(text, dtype, lanes)

    def masked_store(self, a: Value, pointer: str, mask: Value, *, align: int = 0) -> None:
        self._write("store", a, f"ptr {pointer}, i32 {align or a.dtype.bytes}", mask)

    def scatter(self, a: Value, base: str, index: Value, mask: Value | None = None) -> None:
        """base[index] = a for every lane, the last lane winning where indices repeat."""
        if mask is None:
            mask = constant(True, boolean, index.lanes)
        pointers = self._pointers(base, index, a.dtype)
        pointer = f"<{index.lanes} x ptr> {pointers}, i32 {a.dtype.bytes}"
        self._write("scatter", a, pointer, mask)

    def _write(self, word: str, a: Value, pointer: str, mask: Value) -> None:
        name, types = self._memory_intrinsic(word, a.dtype, a.lanes)
        memory = memory_type(a.dtype, a.lanes)
        self.declare(f"declare void @{name}({memory}, {types}, i32, <{a.lanes} x i1>)")
        self.do(f"call void @{name}({self._to_memory(a)}, {pointer}, {mask.typed})")

    def _memory_intrinsic(self, word: str, dtype: DType, lanes: int) -> tuple[str, str]:
        """Full name of a masked memory intrinsic, and its pointer operand's type.

        They are written in the form before LLVM 22, with the alignment as an operand, which later
        versions still read.
        """
        kind = f"v{lanes}i8" if dtype.kind == "bool" else suffix(dtype, lanes)
        many = word in ("gather", "scatter")
        pointer, name = (f"<{lanes} x ptr>", f"v{lanes}p0") if many else ("ptr", "p0")
        return f"llvm.masked.{word}.{kind}.{name}", pointer

    def _pointers(self, base: str, index: Value, dtype: DType) -> str:
        return self.op(f"getelementptr inbounds {memory_type(dtype)}, ptr {base}, {index.typed}")

    # Combination across lanes

    def combine(self, combine: str, a: Value, b: Value) -> Value:
        """One step of a reduction: sum, prod, max, min, maxabs (what is farther from zero)."""
        match combine:
            case "sum":
                return self.add(a, b)
            case "prod":
                return self.mul(a, b)
            case "max":
                return self.maximum(a, b)
            case "min":
                return self.minimum(a, b)
            case "maxabs":
                far, other = self.fabs(a), self.fabs(b)
                one = self.select(self.fcmp("oge", far, other), a, b)
                return self.maximum(one, self.select(self.fcmp("oge", other, far), b, a))
        raise ValueError(f"no reduction is called '{combine}'")

    def reduce(self, combine: str, a: Value) -> Value:
        """All lanes combined into a scalar, halves first: (0+4)+(2+6) ..., a fixed order."""
        while a.lanes > 1:
            half, odd = divmod(a.lanes, 2)
            rest = self.extract(a, a.lanes - 1) if odd else None
            low, high = self._halves(a, half)
            a = self.combine(combine, low, high)
            if rest is not None:
                return self.combine(combine, self.reduce(combine, a), rest)
        return a

    def _halves(self, a: Value, half: int) -> tuple[Value, Value]:
        if half == 1:
            return self.extract(a, 0), self.extract(a, 1)
        return self.shuffle(a, None, range(half)), self.shuffle(a, None, range(half, 2 * half))

    def lane_mask(self, count: Value, lanes: int) -> Value:
        """True in the first `count` (i64) lanes, in none where it is negative.

        Compared in 32 bits, which fill one register where 64 would take two.
        """
        number = number_of(count)
        few = self.minimum(count, constant(lanes, i64)) if number is None else count
        few = self.convert(few, i32)
        return self.icmp("slt", self.iota(i32, lanes), self.splat(few, lanes))


def _sign(dtype: DType) -> str:
    return "s" if dtype.kind == "int" else "u"
