"""Takes what a user passes as inputs, gives arrays that native code may read, or a clear error.

The user's arrays are never changed: whatever does not fit as it is (dtype, strides, byte order) is
copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.artifact import BufferSpec, CheckSpec, Plan
from runtime.buffers import DTYPES, Array


@dataclass(frozen=True)
class Port:
    """One input that the caller passes: its name, its entry in the pointer table, what it holds.

    `donated` inputs are written by native code, so they are always copied first.
    """

    name: str
    number: int
    spec: BufferSpec
    dtype: np.dtype[Any]
    donated: bool

    @property
    def symbol(self) -> str | None:
        """The symbol on the leading axis, if there is one."""
        leading = self.spec.shape[0] if self.spec.shape else 0
        return None if isinstance(leading, int) else leading[1]

    @property
    def coefficient(self) -> int:
        """How many entries of the leading axis belong to one unit of its symbol."""
        leading = self.spec.shape[0] if self.spec.shape else 0
        return 0 if isinstance(leading, int) else leading[0]


def ports(plan: Plan, persistent: Iterable[str]) -> list[Port]:
    """The inputs of a plan that its caller must pass; ValueError where a symbol has no input."""
    kept = frozenset(persistent)
    wanted = [
        Port(spec.name, number, spec, DTYPES[spec.dtype], spec.name in plan.updates)
        for number, spec in enumerate(plan.buffers)
        if spec.role == "input" and spec.name not in kept
    ]
    told = {port.symbol for port in wanted}
    for symbol in plan.symbols:
        if symbol not in told:
            raise ValueError(f"no input of '{plan.name}' tells the extent of '{symbol}'")
    return wanted


def check_names(wanted: Sequence[Port], given: Mapping[str, object]) -> None:
    """ValueError where an input is missing or unknown."""
    names = [port.name for port in wanted]
    expected = f"expected {', '.join(names) or 'none'}"
    for name in names:
        if name not in given:
            raise ValueError(f"input '{name}' is missing; {expected}")
    for name in given:
        if name not in names:
            raise ValueError(f"unknown input '{name}'; {expected}")


def convert(port: Port, value: object) -> Array:
    """The value as a contiguous array of the port's dtype and rank.

    TypeError where the dtype does not fit, ValueError where the shape does not.
    """
    array = cast(port, inspect(port, value))
    return array if array.flags.c_contiguous and array.flags.aligned else array.copy()


def inspect(port: Port, value: object) -> Array:
    """The value as an array whose dtype may be cast and whose rank fits, without copying data."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"input '{port.name}' is no array: {error}") from error
    if array.size == 0 and not isinstance(value, np.ndarray):
        array = array.astype(port.dtype)  # an empty list has no dtype of its own
    _check_dtype(port, array.dtype)
    if _is_column(port.spec) and array.ndim == 1:
        array = array.reshape(-1, 1)
    if not _fits(port.spec, array.shape):
        raise ValueError(
            f"input '{port.name}': expected shape {show_shape(port.spec)}, got {array.shape}"
        )
    return array


def cast(port: Port, array: Array) -> Array:
    """The array in the port's dtype; ValueError where an integer does not fit in it."""
    if array.dtype == port.dtype:
        return array
    if port.dtype.kind in "iu" and array.size:
        limits = np.iinfo(port.dtype)
        for extreme in (array.min(), array.max()):
            if not limits.min <= int(extreme) <= limits.max:
                raise ValueError(f"input '{port.name}': value {extreme} does not fit {port.dtype}")
    return array.astype(port.dtype)


def bind_symbols(plan: Plan, wanted: Sequence[Port], arrays: Sequence[Array]) -> tuple[int, ...]:
    """The extent of every symbol; ValueError where two inputs disagree."""
    extents: dict[str, tuple[int, str]] = {}
    for port, array in zip(wanted, arrays, strict=True):
        if port.symbol is None:
            continue
        extent = array.shape[0] // port.coefficient
        seen, name = extents.setdefault(port.symbol, (extent, port.name))
        if seen != extent:
            raise ValueError(
                f"inputs '{name}' and '{port.name}' disagree on '{port.symbol}': "
                f"{seen} and {extent}"
            )
    return tuple(extents[symbol][0] for symbol in plan.symbols)


def check_limits(limits: Mapping[str, int], symbols: Mapping[str, int]) -> None:
    """ValueError where an extent is larger than its limit."""
    for symbol, extent in symbols.items():
        most = limits.get(symbol, extent)
        if extent > most:
            raise ValueError(f"'{symbol}' is {extent}, but states are carried for {most} rows")


def find_fault(check: CheckSpec, port: Port, array: Array, rows: Array | None = None) -> str | None:
    """Says where the array breaks a check, or gives None where it does not.

    `rows`, where given, are the numbers of the array's rows in the user's data.
    """
    if port.dtype.kind == "f":
        bad = np.isnan(array)
    else:
        bad = (array < check.low) | (array >= check.high)
    if not bad.any():
        return None
    position = [int(i) for i in np.unravel_index(int(np.argmax(bad)), array.shape)]
    value = array[tuple(position)]
    if rows is not None:
        position[0] = int(rows[position[0]])
    place = f"input '{port.name}'" + (f" at {position}" if position else "")
    if port.dtype.kind == "f":
        return f"{place} is NaN"
    return f"{place} is {value}, outside the range {check.low}..{check.high - 1}"


def row_numbers(order: npt.ArrayLike, rows: int) -> Array:
    """An order as contiguous i64 numbers of existing rows; ValueError or TypeError otherwise."""
    numbers = np.asarray(order)
    if numbers.ndim != 1:
        raise ValueError(f"order must have one axis, got shape {numbers.shape}")
    if numbers.size and numbers.dtype.kind not in "iu":
        raise TypeError(f"order must hold row numbers, got {numbers.dtype}")
    if numbers.size and (int(numbers.min()) < 0 or int(numbers.max()) >= rows):
        raise ValueError(f"order names rows outside 0..{rows - 1}")
    return np.ascontiguousarray(numbers, np.int64)


def show_shape(spec: BufferSpec) -> str:
    def show(dim: Any) -> str:
        if isinstance(dim, int):
            return str(dim)
        return str(dim[1]) if dim[0] == 1 else f"{dim[0]}*{dim[1]}"

    dims = [show(dim) for dim in spec.shape]
    return f"({dims[0]},)" if len(dims) == 1 else f"({', '.join(dims)})"


def _check_dtype(port: Port, given: np.dtype[Any]) -> None:
    allowed = {"f": "fiub", "i": "iub", "u": "iub", "b": "b"}[port.dtype.kind]
    if given.kind in allowed:
        return
    if given.kind == "f":
        reason = "would be cut to integers" if port.dtype.kind in "iu" else "is not boolean"
    else:
        reason = "cannot be cast to it"
    raise TypeError(f"input '{port.name}': expected {port.dtype}, got {given}, which {reason}")


def _is_column(spec: BufferSpec) -> bool:
    return len(spec.shape) == 2 and not isinstance(spec.shape[0], int) and spec.shape[1] == 1


def _fits(spec: BufferSpec, shape: tuple[int, ...]) -> bool:
    if len(shape) != len(spec.shape):
        return False
    return all(
        n == dim if isinstance(dim, int) else n % dim[0] == 0
        for n, dim in zip(shape, spec.shape, strict=True)
    )
