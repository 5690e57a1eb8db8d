"""Takes a kernel or its loop statements and buffers, runs them in Python: the slow, certain way.

A wrong result is bisected with it to the stage that made it. Every access is checked against the
buffer's bounds; parallel loops run in a random order; a micro-kernel stands for its loop nest.
Loops whose iterations are independent run as NumPy arrays, so that tests of real sizes are
feasible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ir.dependence import independent
from ir.function import chunks, stages
from ir.index import Index
from ir.interpret_sparse import run_sparse
from ir.loops import (
    Accumulate,
    Buffer,
    For,
    Function,
    Init,
    Kernel,
    Let,
    Prefetch,
    Stmt,
    Store,
    StoreRow,
    Tile,
    Transpose,
)
from ir.nests import block_loops, plain_loops
from ir.op import REGISTRY
from ir.scalar import Scalar
from ir.sparse_loops import PairSums, PairTotals, Sweep
from ir.types import DType, bind_dim, integer_range

Array = np.ndarray[Any, Any]
LIMIT = 1 << 16  # points evaluated at once

REDUCE: Mapping[str, Any] = {"sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min}
COMBINE: Mapping[str, Any] = {
    "sum": np.add,
    "prod": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


def run_kernel(
    kernel: Kernel, buffers: Mapping[str, Array], symbols: Mapping[str, int], *, seed: int = 0
) -> None:
    """Run a kernel as its docstring says, writing into `buffers` (flat arrays by buffer name)."""
    run_function(plain_loops(kernel), buffers, symbols, seed=seed)


def run_function(
    function: Function, buffers: Mapping[str, Array], symbols: Mapping[str, int], *, seed: int = 0
) -> None:
    """Run loop statements, writing into `buffers`.

    IndexError names the function and the buffer of an access out of bounds; ValueError a buffer
    that is missing, of the wrong dtype, too small, or stored to without being declared written.
    """
    with np.errstate(all="ignore"):
        _Machine(function, buffers, symbols, seed).run_stages(function)


class _Machine:
    """State of a run. Loops that run as arrays are dimensions, the innermost loop the first one, so
    that values of outer scopes broadcast by themselves."""

    def __init__(
        self,
        function: Function,
        buffers: Mapping[str, Array],
        symbols: Mapping[str, int],
        seed: int,
    ) -> None:
        self.label = function.label
        self.symbols = symbols
        self.random = np.random.default_rng(seed)
        self.declared = {b.name: b for b in function.buffers}
        self.arrays = {b.name: self._bind(b, buffers) for b in function.buffers}
        own = (*function.scratch, *function.workspace)
        for b in own:
            self.declared[b.name] = b
            self.arrays[b.name] = _poison(bind_dim(b.size, symbols), b.dtype)
        self.writable = {b.name for b in function.buffers if b.written}
        self.writable |= {b.name for b in own}
        self.memory = _shared_memory(self.arrays)
        self.variables: dict[str, Any] = {}
        self.ranges: dict[str, tuple[int, int]] = {}  # of the axes of a split, in this chunk
        self.names: dict[str, Array] = {}
        self.depth: dict[str, int] = {}  # of accumulators: dimensions where they were made
        self.shape: tuple[int, ...] = ()
        self.nests: dict[Tile | Transpose, tuple[Stmt, ...]] = {}
        self.independent: dict[For, bool] = {}

    def _bind(self, buffer: Buffer, buffers: Mapping[str, Array]) -> Array:
        if buffer.name not in buffers:
            raise ValueError(f"{self.label}: no memory for buffer '{buffer.name}'")
        array = buffers[buffer.name]
        size = bind_dim(buffer.size, self.symbols)
        if array.ndim != 1 or array.dtype != buffer.dtype.numpy or array.size < size:
            raise ValueError(
                f"{self.label}: buffer '{buffer.name}' is {buffer.dtype}[{size}], "
                f"got {array.dtype}{list(array.shape)}"
            )
        return array[:size]

    # ---------------------------------------------------------------- statements

    def run_stages(self, function: Function) -> None:
        """Stages one after the other, the chunks of each in a random order."""
        for body, split, when in stages(function):
            if when is not None and not when.holds(self.symbols):
                continue
            found = list(chunks(split, self.symbols)) if split else [{}]
            for number in self.random.permutation(len(found)):
                self.ranges = found[number]
                self.run(body)

    def run(self, body: tuple[Stmt, ...]) -> None:
        for stmt in body:
            match stmt:
                case For():
                    self._loop(stmt)
                case Let(name, value):
                    self.names[name] = self.evaluate(value)
                case Init(name, value):
                    self.names[name] = self.evaluate(value)
                    self.depth[name] = len(self.shape)
                case Accumulate():
                    self._accumulate(stmt)
                case Store(buffer, index, value):
                    self._store(buffer, index, value)
                case StoreRow():
                    self._scatter(stmt)
                case Prefetch():
                    pass
                case Sweep() | PairSums() | PairTotals():
                    run_sparse(stmt, self.arrays, self.symbols, self.ranges)
                case Tile() | Transpose():
                    if stmt not in self.nests:
                        self.nests[stmt] = block_loops(stmt)
                    self.run(self.nests[stmt])

    def _loop(self, loop: For) -> None:
        for values in self._batches(loop):
            outer = self.shape
            if values.ndim:
                self.shape = (len(values), *outer)
                values = values.reshape(-1, *(1,) * len(outer))
            self.variables[loop.var.name] = values
            self.run(loop.body)
            self.shape = outer
        self.variables.pop(loop.var.name, None)

    def _batches(self, loop: For) -> Iterator[Array]:
        """The values of the loop variable: arrays of those that run at once, or single ones."""
        step = 1 if "vector" in loop.kind else loop.step
        whole = 0, bind_dim(loop.var.extent, self.symbols)
        values = np.arange(*self.ranges.get(loop.var.name, whole), step, dtype=np.int64)
        if loop.kind == "parallel":
            values = self.random.permutation(values)
        if loop not in self.independent:
            self.independent[loop] = independent(loop, self.memory.__getitem__)
        if self.independent[loop]:
            count = max(1, LIMIT // max(1, int(np.prod(self.shape))))
        elif "vector" in loop.kind:
            count = loop.step
        else:
            yield from (np.asarray(v) for v in values)
            return
        for start in range(0, len(values), count):
            yield values[start : start + count]

    def _accumulate(self, stmt: Accumulate) -> None:
        if stmt.name not in self.depth:
            raise ValueError(f"{self.label}: accumulator '{stmt.name}' is used before its Init")
        value = self.evaluate(stmt.value)
        extra = len(self.shape) - self.depth[stmt.name]
        if extra:
            value = value.reshape((1,) * (len(self.shape) - value.ndim) + value.shape)
            value = np.broadcast_to(value, self.shape[:extra] + value.shape[extra:])
            axes = tuple(range(extra))
            kept = {"dtype": value.dtype} if stmt.combine in ("sum", "prod") else {}
            value = REDUCE[stmt.combine](value, axis=axes, **kept)
        combined = COMBINE[stmt.combine](self.names[stmt.name], value)
        self.names[stmt.name] = np.asarray(combined, stmt.value.dtype.numpy)

    def _store(self, name: str, index: Index, value: Scalar) -> None:
        array = self._target(name, value)
        offset = self._index(index)
        result = self.evaluate(value)
        self._check(name, offset, None)
        offset, result = np.broadcast_arrays(offset, result)
        array[offset] = result

    def _scatter(self, stmt: StoreRow) -> None:
        """Rows outside of the buffer are left out."""
        array = self._target(stmt.buffer, stmt.value)
        row = self.evaluate(stmt.row)
        valid = (row >= 0) & (row < array.size // max(stmt.stride, 1))
        offset = self._index(stmt.index) + np.where(valid, row, 0).astype(np.int64) * stmt.stride
        self._check(stmt.buffer, offset, valid)
        offset, valid = np.broadcast_to(offset, self.shape), np.broadcast_to(valid, self.shape)
        value = np.broadcast_to(self.evaluate(stmt.value), self.shape)
        if stmt.combine == "sum":
            np.add.at(array, offset[valid], value[valid])
        else:
            array[offset[valid]] = value[valid]

    def _target(self, name: str, value: Scalar) -> Array:
        array = self._buffer(name, value.dtype)
        if name not in self.writable:
            raise ValueError(f"{self.label}: store to '{name}', which is not declared as written")
        return array

    # ---------------------------------------------------------------- expressions

    def evaluate(self, root: Scalar, mask: Array | None = None) -> Array:
        """The value of an expression; accesses are checked only where `mask` holds."""
        values: dict[Scalar, Array] = {}
        stack: list[tuple[Scalar, bool]] = [(root, False)]
        while stack:
            s, ready = stack.pop()
            if s in values:
                continue
            if ready or s.kind != "apply":
                args = tuple(values[a] for a in s.args) if s.kind == "apply" else ()
                values[s] = self._value(s, args, mask)
            else:
                stack.append((s, True))
                stack.extend((a, False) for a in s.args)
        return values[root]

    def _value(self, s: Scalar, args: tuple[Array, ...], mask: Array | None) -> Array:
        match s.kind:
            case "const":
                return np.asarray(s.value, s.dtype.numpy)
            case "load":
                return self._load(s, mask)
            case "at":
                return self._index(s.index).astype(s.dtype.numpy)
            case "extent":
                return np.asarray(bind_dim(s.dim, self.symbols)).astype(s.dtype.numpy)
            case "ref":
                if s.name not in self.names:
                    raise ValueError(f"{self.label}: '{s.name}' is used before it is defined")
                return self.names[s.name]
        attrs = {"dtype": s.dtype} if s.name in ("cast", "bitcast") else {}
        return np.asarray(REGISTRY[s.name].evaluate(*args, **attrs), s.dtype.numpy)

    def _load(self, s: Scalar, mask: Array | None) -> Array:
        array = self._buffer(s.name, s.dtype)
        inside = np.asarray(True)
        for guard in s.guards:
            value = self._index(guard.value)
            high = bind_dim(guard.high, self.symbols)
            inside = inside & (value >= guard.low) & (value < high)
        live = inside if mask is None else inside & mask
        offset = self._index(s.index)
        for arg, stride in zip(s.args, s.strides, strict=True):
            offset = offset + self.evaluate(arg, live).astype(np.int64) * stride
        self._check(s.name, offset, live)
        fill = np.asarray(s.fill, s.dtype.numpy)
        if not live.any():
            return np.broadcast_to(fill, np.broadcast_shapes(offset.shape, live.shape))
        values = array[np.where(live, offset, 0)]
        return np.where(live, values, fill) if s.guards else values

    def _index(self, index: Index) -> Array:
        try:
            values: Any = self.variables
            return np.asarray(index.evaluate(values), np.int64)
        except KeyError as error:
            raise ValueError(
                f"{self.label}: variable {error} of [{index}] is not in scope"
            ) from None

    def _buffer(self, name: str, dtype: DType) -> Array:
        if name not in self.arrays:
            raise ValueError(f"{self.label}: buffer '{name}' is not declared")
        if self.declared[name].dtype != dtype:
            kept = self.declared[name].dtype
            raise ValueError(f"{self.label}: '{name}' holds {kept}, accessed as {dtype}")
        return self.arrays[name]

    def _check(self, name: str, offset: Array, where: Array | None) -> None:
        size = self.arrays[name].size
        outside = (offset < 0) | (offset >= size)
        if where is not None:
            outside = outside & where
        if outside.any():
            worst = np.broadcast_to(offset, outside.shape)[outside].flat[0]
            raise IndexError(f"{self.label}: {name}[{worst}] is outside of 0 .. {size - 1}")


def _poison(size: int, dtype: DType) -> Array:
    """Memory that shows when it is read before it is written."""
    if dtype.is_float:
        return np.full(size, np.nan, dtype.numpy)
    return np.full(size, dtype.kind == "bool" or integer_range(dtype)[1], dtype.numpy)


def _shared_memory(arrays: Mapping[str, Array]) -> dict[str, str]:
    """For every buffer the name of the first one that has the same memory.

    Buffers that overlap without being the same are a fault of the memory plan: ValueError.
    """
    first: dict[str, str] = {}
    owners: list[tuple[int, int, int, str]] = []
    for name, array in arrays.items():
        start = array.__array_interface__["data"][0]
        stop = start + array.nbytes
        first[name] = name
        for low, high, width, owner in owners:
            if start < high and low < stop:
                if start != low or width != array.itemsize:
                    raise ValueError(f"buffers '{owner}' and '{name}' overlap but do not coincide")
                first[name] = owner
                break
        else:
            owners.append((start, stop, array.itemsize, name))
    return first
