"""Takes numbers and types, gives them as LLVM text: values, constants, what is known of them."""

from __future__ import annotations

import math
import struct
from functools import cache
from typing import NamedTuple

import numpy as np

from ir.types import DType

Number = float | int | bool


class Value(NamedTuple):
    """An SSA name or a constant literal, with its type."""

    text: str
    dtype: DType
    lanes: int = 1

    @property
    def type(self) -> str:
        return llvm_type(self.dtype, self.lanes)

    @property
    def typed(self) -> str:
        """Type and text, as an operand is written first in an instruction."""
        return f"{llvm_type(self.dtype, self.lanes)} {self.text}"

    @property
    def is_constant(self) -> bool:
        return self.text[0] not in "%@"


_ELEMENT = {"f32": "float", "f64": "double", "bool": "i1"}


def element_type(dtype: DType) -> str:
    return _ELEMENT.get(dtype.name) or f"i{dtype.bits}"


@cache
def llvm_type(dtype: DType, lanes: int = 1) -> str:
    """The type of a value in registers: float, <16 x float>, <16 x i1> ..."""
    element = element_type(dtype)
    return element if lanes == 1 else f"<{lanes} x {element}>"


def memory_type(dtype: DType, lanes: int = 1) -> str:
    """The type of a value in memory: that in registers, but i8 for bools."""
    if dtype.kind != "bool":
        return llvm_type(dtype, lanes)
    return "i8" if lanes == 1 else f"<{lanes} x i8>"


def suffix(dtype: DType, lanes: int = 1) -> str:
    """How intrinsic names spell the type: f32, v16f32, i64 ..."""
    element = dtype.name if dtype.is_float else element_type(dtype)
    return element if lanes == 1 else f"v{lanes}{element}"


def literal(number: Number, dtype: DType) -> str:
    """A scalar constant; floats as the bits of the double, which LLVM reads exactly."""
    if dtype.kind == "bool":
        return "true" if number else "false"
    if dtype.is_float:
        value = float(np.float32(number)) if dtype.bits == 32 else float(number)
        if math.isnan(value):
            return "0x7FF8000000000000"
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
    return str(wrap(int(number), dtype))


def wrap(number: int, dtype: DType) -> int:
    """The integer modulo 2**bits, in the range of its type."""
    number &= (1 << dtype.bits) - 1
    if dtype.kind == "int" and number >> (dtype.bits - 1):
        number -= 1 << dtype.bits
    return number


def constant(number: Number, dtype: DType, lanes: int = 1) -> Value:
    """A constant, splat over the lanes."""
    text = literal(number, dtype)
    return Value(text if lanes == 1 else f"splat ({element_type(dtype)} {text})", dtype, lanes)


def number_of(value: Value) -> Number | None:
    """The number of a constant made by `constant`, else None."""
    text = value.text
    return None if text[0] == "%" else _number(text)


@cache
def _number(text: str) -> Number | None:
    if text.startswith("splat ("):
        text = text[:-1].rpartition(" ")[2]
    if text in ("true", "false"):
        return text == "true"
    if text.startswith("0x"):
        return float(struct.unpack("<d", struct.pack("<Q", int(text, 16)))[0])
    if text.lstrip("-").isdigit():
        return int(text)
    return None


def is_number(a: Value) -> bool:
    number = number_of(a)
    return number is not None and number == number


_INTEGER_FOLDS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
}
_NEUTRAL = {"add": 0, "sub": 0, "mul": 1, "fmul": 1.0, "fdiv": 1.0, "fsub": 0.0}


def fold_binary(instruction: str, a: Value, b: Value) -> Value | None:
    """Exact foldings only: x + 0.0 stays, for it turns -0.0 into 0.0."""
    if not (a.is_constant or b.is_constant) or instruction not in _NEUTRAL:
        return None
    x, y = number_of(a), number_of(b)
    if x is not None and y is not None and instruction in _INTEGER_FOLDS:
        return constant(_INTEGER_FOLDS[instruction](int(x), int(y)), a.dtype, a.lanes)
    neutral = _NEUTRAL[instruction]
    if y == neutral and not (instruction == "fsub" and math.copysign(1.0, y) < 0):
        return a
    if x == neutral and instruction in ("add", "mul", "fmul"):
        return b
    if instruction == "mul" and 0 in (x, y):
        return constant(0, a.dtype, a.lanes)
    return None
