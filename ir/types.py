"""Takes nothing, gives the types of values: dtypes, extents that may be symbolic, tensor types.

    f32[batch,64]     a tensor whose leading extent is bound at run time
    f32[64*batch]     the same values after merging the two axes
    f32[]             a scalar

A symbol may stand only on the leading axis, so that every stride is a constant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, slots=True)
class DType:
    """A scalar type: `kind` is "float", "int" (signed), "uint" or "bool"."""

    name: str
    kind: str
    bits: int

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def numpy(self) -> np.dtype[np.generic]:
        return np.dtype(_NUMPY_NAMES[self.name])

    @property
    def bytes(self) -> int:
        return max(1, self.bits // 8)

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    def __str__(self) -> str:
        return self.name


_NUMPY_NAMES = {
    "f32": "float32",
    "f64": "float64",
    "i32": "int32",
    "i64": "int64",
    "u32": "uint32",
    "u64": "uint64",
    "bool": "bool",
}

f32 = DType("f32", "float", 32)
f64 = DType("f64", "float", 64)
i32 = DType("i32", "int", 32)
i64 = DType("i64", "int", 64)
u32 = DType("u32", "uint", 32)
u64 = DType("u64", "uint", 64)
boolean = DType("bool", "bool", 8)

DTYPES: Mapping[str, DType] = {d.name: d for d in (f32, f64, i32, i64, u32, u64, boolean)}
_BY_NUMPY: Mapping[str, DType] = {_NUMPY_NAMES[name]: dtype for name, dtype in DTYPES.items()}


def dtype_of(value: object) -> DType:
    """The DType of a numpy dtype, array or name ("float32", "f32"); TypeError if there is none."""
    if isinstance(value, DType):
        return value
    if isinstance(value, str) and value in DTYPES:
        return DTYPES[value]
    given = value if isinstance(value, type) else getattr(value, "dtype", value)
    name = np.dtype(given).name  # type: ignore[call-overload]
    if name not in _BY_NUMPY:
        raise TypeError(f"dtype {name} is not supported; use one of {', '.join(_BY_NUMPY)}")
    return _BY_NUMPY[name]


def integer_range(dtype: DType) -> tuple[int, int]:
    """The lowest and the highest integer of a dtype."""
    if dtype.kind == "uint":
        return 0, (1 << dtype.bits) - 1
    return -(1 << dtype.bits - 1), (1 << dtype.bits - 1) - 1


@dataclass(frozen=True, slots=True)
class Extent:
    """A symbolic length: `coefficient * symbol`, e.g. 64*batch."""

    coefficient: int
    symbol: str

    def __mul__(self, factor: int) -> Extent:
        return Extent(self.coefficient * factor, self.symbol)

    __rmul__ = __mul__

    def __str__(self) -> str:
        return self.symbol if self.coefficient == 1 else f"{self.coefficient}*{self.symbol}"


Dim = int | Extent
Shape = tuple[Dim, ...]


def as_dim(value: object) -> Dim:
    """An int, an Extent, or a symbol's name, as a Dim."""
    if isinstance(value, str):
        return Extent(1, value)
    if isinstance(value, Extent):
        return value
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    raise TypeError(f"an extent is an int or a symbol such as 'batch', not {value!r}")


def multiply(dims: Iterable[Dim]) -> Dim:
    """The product of extents; at most one of them may be symbolic."""
    total: Dim = 1
    for dim in dims:
        if isinstance(total, int):
            total = dim * total
        elif isinstance(dim, int):
            total = total * dim
        else:
            raise ValueError(f"the product of two symbolic extents, {total} and {dim}")
    return total


def divide(dim: Dim, divisor: Dim) -> Dim | None:
    """dim / divisor where that is exact for every value of the symbol, else None."""
    if isinstance(divisor, Extent):
        if not isinstance(dim, Extent) or dim.symbol != divisor.symbol:
            return None
        return divide(dim.coefficient, divisor.coefficient)
    if divisor == 0:
        return None
    if isinstance(dim, Extent):
        whole, rest = divmod(dim.coefficient, divisor)
        return None if rest else Extent(whole, dim.symbol)
    whole, rest = divmod(dim, divisor)
    return None if rest else whole


def bind_dim(dim: Dim, symbols: Mapping[str, int]) -> int:
    """The number that an extent stands for."""
    return dim if isinstance(dim, int) else dim.coefficient * symbols[dim.symbol]


@dataclass(frozen=True)
class TensorType:
    """dtype and shape of a value; ValueError where a symbol is not on the leading axis."""

    dtype: DType
    shape: Shape

    def __post_init__(self) -> None:
        for axis, dim in enumerate(self.shape):
            if isinstance(dim, Extent) and axis > 0:
                raise ValueError(
                    f"symbolic extent '{dim}' on axis {axis} of {self}: a symbol may stand only "
                    "on the leading axis"
                )
            if isinstance(dim, int) and dim < 0:
                raise ValueError(f"negative extent {dim} on axis {axis}")

    @property
    def rank(self) -> int:
        return len(self.shape)

    @cached_property
    def size(self) -> Dim:
        return multiply(self.shape)

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Row-major strides in elements; always constants."""
        strides: list[int] = []
        step = 1
        for dim in reversed(self.shape):
            strides.append(step)
            step = step * dim if isinstance(dim, int) else 0
        return tuple(reversed(strides))

    @property
    def symbols(self) -> frozenset[str]:
        return frozenset(d.symbol for d in self.shape if isinstance(d, Extent))

    def with_shape(self, shape: Iterable[Dim]) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class TupleType(TensorType):
    """The types of all results of a scan, of which `item` takes one; as a tensor it is a scalar."""

    parts: tuple[TensorType, ...]

    @staticmethod
    def of(parts: Iterable[TensorType]) -> TupleType:
        known = tuple(parts)
        return TupleType(known[0].dtype, (), known)

    @property
    def symbols(self) -> frozenset[str]:
        return frozenset(s for part in self.parts for s in part.symbols)

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.parts))})"
