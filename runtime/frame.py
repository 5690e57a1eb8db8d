"""Takes a plan, gives the tables of pointers and extents that one native call in flight reads.

A frame belongs to one call at a time. Small inputs and outputs lie in memory of its own, so that
a call costs a copy instead of a pointer look-up; larger ones are pointed at where they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runtime.artifact import Plan
from runtime.buffers import (
    ALIGNMENT,
    DTYPES,
    Arena,
    Array,
    address,
    aligned_copy,
    aligned_empty,
    bind_shape,
)
from runtime.inputs import Port, find_fault
from runtime.profile import cost
from runtime.recycle import result_empty

SMALL = 16384  # bytes; up to here a copy is cheaper than finding out an address


class Layout:
    """What all frames of a session share: persistent arrays, constants, what is computed once for
    all calls, and who aliases whom."""

    def __init__(self, plan: Plan, wanted: Sequence[Port], persistent: Mapping[str, Array]) -> None:
        self.plan = plan
        self.wanted = list(wanted)
        self.fixed: dict[int, Array] = {}
        for number, spec in enumerate(plan.buffers):
            if spec.role == "constant":
                dtype = DTYPES[spec.dtype]
                raw = np.frombuffer(bytes.fromhex(spec.data), dtype)
                self.fixed[number] = aligned_copy(raw.reshape(bind_shape(spec, {})))
            elif spec.role == "kept":
                self.fixed[number] = aligned_empty(bind_shape(spec, {}), DTYPES[spec.dtype])
            elif spec.role == "input" and spec.name in persistent:
                self.fixed[number] = _checked(plan, number, persistent[spec.name])
        self.outputs = [n for n, spec in enumerate(plan.buffers) if spec.role == "output"]
        self.followers: dict[int, list[int]] = {}
        for number, spec in enumerate(plan.buffers):
            if spec.role == "alias":
                self.followers.setdefault(self.root(number), []).append(number)

    def root(self, number: int) -> int:
        """The buffer whose memory this one uses."""
        while self.plan.buffers[number].role == "alias":
            number = self.plan.buffers[number].alias
        return number


def _checked(plan: Plan, number: int, array: Array) -> Array:
    spec = plan.buffers[number]
    if array.dtype != DTYPES[spec.dtype] or array.shape != bind_shape(spec, {}):
        raise ValueError(
            f"'{spec.name}' is {array.dtype}{list(array.shape)}, "
            f"but was compiled as {spec.dtype}{list(spec.shape)}"
        )
    if not array.flags.carray or (array.size and address(array) % ALIGNMENT):
        raise ValueError(
            f"'{spec.name}' must be a contiguous, writable array that begins at a multiple of "
            f"{ALIGNMENT} bytes"
        )
    return array


class Frame:
    """The memory of one native call: `table` and `syms` are what the entry gets (addresses).

    Frames that are never in flight at once may have one `arena`, if they bind the same extents.
    """

    def __init__(
        self, layout: Layout, *, own_all: bool = False, arena: Arena | None = None
    ) -> None:
        plan = layout.plan
        self.layout = layout
        self.extents: tuple[int, ...] | None = None
        self.own_all = own_all
        self.arena = Arena(plan) if arena is None else arena
        self._pointers = aligned_empty((max(len(plan.buffers), 1),), np.int64)
        self._symbols = aligned_empty((max(len(plan.symbols), 1),), np.int64)
        self.table = address(self._pointers)
        self.syms = address(self._symbols)
        self.arrays: dict[int, Array] = {}  # every bound input and output, by buffer number
        self.copied: list[tuple[str, Array, np.dtype[Any], tuple[int, ...]]] = []
        self.pointed: list[tuple[str, int, np.dtype[Any], tuple[int, ...]]] = []
        self.fresh: list[tuple[int, tuple[int, ...], np.dtype[Any]]] = []
        for number, array in layout.fixed.items():
            self.point(number, array)

    def point(self, number: int, array: Array) -> None:
        """Lets native code find this buffer, and all that share its memory, at the array."""
        self._set(number, address(array))
        self.arrays[number] = array

    def _set(self, number: int, where: int) -> None:
        self._pointers[number] = where
        for follower in self.layout.followers.get(number, ()):
            self._pointers[follower] = where

    def bind(self, extents: tuple[int, ...]) -> None:
        """Gives every symbol its extent and every buffer its memory, but for large inputs."""
        if extents == self.extents:
            return
        plan = self.layout.plan
        bound = dict(zip(plan.symbols, extents, strict=True))
        self._symbols[: len(extents)] = extents
        if self.arena.fit(extents) or self.extents is None:
            for number, where in zip(self.arena.numbers, self.arena.addresses(), strict=True):
                self._set(number, where)
        self.copied, self.pointed, self.fresh = [], [], []
        for port in self.layout.wanted:
            shape = bind_shape(port.spec, bound)
            if self._owned(shape, port.dtype) or port.donated:
                self.point(port.number, aligned_empty(shape, port.dtype))
                self.copied.append((port.name, self.arrays[port.number], port.dtype, shape))
            else:
                self.pointed.append((port.name, port.number, port.dtype, shape))
        for number in self.layout.outputs:
            spec = plan.buffers[number]
            shape, dtype = bind_shape(spec, bound), DTYPES[spec.dtype]
            if self._owned(shape, dtype):
                self.point(number, aligned_empty(shape, dtype))
            else:
                self.fresh.append((number, shape, dtype))
        self.extents = extents

    def _owned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
        return self.own_all or dtype.itemsize * int(np.prod(shape, dtype=np.int64)) <= SMALL

    def load(self, inputs: Mapping[str, Array]) -> bool:
        """The quick way: takes inputs that fit the bound extents exactly, else gives False."""
        for name, target, dtype, shape in self.copied:
            value = inputs.get(name)
            if type(value) is not np.ndarray or value.dtype != dtype or value.shape != shape:
                return False
            target[...] = value
        for name, number, dtype, shape in self.pointed:
            value = inputs.get(name)
            if type(value) is not np.ndarray or value.dtype != dtype or value.shape != shape:
                return False
            if not (value.flags.c_contiguous and value.flags.aligned):
                return False
            self.point(number, value)
        return True

    def store(self, arrays: Mapping[str, Array]) -> None:
        """Takes converted inputs of the bound extents."""
        for name, target, _, _ in self.copied:
            target[...] = arrays[name]
        for name, number, _, _ in self.pointed:
            self.point(number, arrays[name])

    def allocate(self) -> None:
        """Arrays for the outputs that are handed out without a copy."""
        for number, shape, dtype in self.fresh:
            self.point(number, result_empty(shape, dtype))

    def release(self) -> None:
        """Forgets the caller's arrays and those handed out."""
        for _, number, _, _ in self.pointed:
            self.arrays.pop(number, None)
        for number, _, _ in self.fresh:
            self.arrays.pop(number, None)

    def work(self) -> float:
        """About how many operations and bytes a call takes."""
        plan = self.layout.plan
        bound = dict(zip(plan.symbols, self.extents or (), strict=True))
        return sum(cost(c, bound) for k in plan.kernels for c in (k.flops, k.bytes))

    def view(self, number: int) -> Array:
        """The buffer's values as they now lie in memory; not a copy."""
        plan = self.layout.plan
        bound = dict(zip(plan.symbols, self.extents or (), strict=True))
        shape = bind_shape(plan.buffers[number], bound)
        root = self.layout.root(number)
        if plan.buffers[root].role == "temporary":
            root_shape = bind_shape(plan.buffers[root], bound)
            return self.arena.view(root, root_shape).reshape(shape)
        return self.arrays[root].reshape(shape)

    def fault(self, code: int, rows: Array | None = None) -> ValueError:
        """The error that a nonzero code of native code stands for.

        `rows` are the numbers in the user's data of the rows now bound.
        """
        plan = self.layout.plan
        if not 0 < code <= len(plan.checks):
            return ValueError(f"'{plan.name}' failed with code {code}")
        check = plan.checks[code - 1]
        name = plan.buffers[check.buffer].name
        port = next((p for p in self.layout.wanted if p.number == check.buffer), None)
        message = port and find_fault(check, port, self.view(check.buffer), rows)
        return ValueError(message or f"'{name}' holds NaN or a value outside its range")
