"""Takes a plan and the extents of its symbols, gives the memory that native code works in.

Temporaries share one 64-byte-aligned arena by best fit of their lifetimes; it is laid out for the
largest extents seen and serves all smaller ones with the same offsets.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.artifact import BufferSpec, Plan

Array = npt.NDArray[Any]

ALIGNMENT = 64

DTYPES: Mapping[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64),
    "u32": np.dtype(np.uint32),
    "u64": np.dtype(np.uint64),
    "bool": np.dtype(np.bool_),
}


def address(array: Array) -> int:
    """Where the array's first element lies."""
    if array.flags.carray and array.size:  # the quick way, open to writable arrays alone
        return ctypes.addressof(ctypes.c_char.from_buffer(array.data))
    return int(array.__array_interface__["data"][0])


def aligned_empty(shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
    """An uninitialised array whose memory begins at a multiple of 64 bytes."""
    dtype = np.dtype(dtype)
    size = dtype.itemsize
    for extent in shape:
        size *= extent
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -address(raw) % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def aligned_copy(array: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> Array:
    """A copy in aligned, contiguous memory."""
    source = np.asarray(array)
    copy = aligned_empty(source.shape, dtype or source.dtype)
    copy[...] = source
    return copy


def bind_shape(spec: BufferSpec, symbols: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of a buffer where its symbols have the given extents."""
    return tuple(d if isinstance(d, int) else d[0] * symbols[d[1]] for d in spec.shape)


def layout(sizes: Sequence[int], lives: Sequence[tuple[int, int]]) -> tuple[list[int], int]:
    """Offsets of blocks such that blocks alive at the same step never overlap, and the total.

    Best fit, largest block first: each goes to the smallest gap between the blocks already placed
    that live at the same time, else behind them.
    """
    offsets = [0] * len(sizes)
    placed: list[int] = []
    total = 0
    for block in sorted(range(len(sizes)), key=lambda i: (-sizes[i], lives[i][0], i)):
        size = _rounded(sizes[block])
        first, last = lives[block]
        rivals = [i for i in placed if lives[i][0] <= last and first <= lives[i][1]]
        offsets[block] = _best_gap(size, [(offsets[i], _rounded(sizes[i])) for i in rivals])
        total = max(total, offsets[block] + size)
        placed.append(block)
    return offsets, total


def _best_gap(size: int, taken: list[tuple[int, int]]) -> int:
    end = 0
    best, slack = -1, -1
    for offset, length in sorted(taken):
        gap = offset - end
        if gap >= size and (best < 0 or gap - size < slack):
            best, slack = end, gap - size
        end = max(end, offset + length)
    return end if best < 0 else best


def _rounded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


class Arena:
    """The temporaries of one call in flight."""

    def __init__(self, plan: Plan) -> None:
        self.numbers = [i for i, b in enumerate(plan.buffers) if b.role == "temporary"]
        self._specs = [plan.buffers[i] for i in self.numbers]
        self._symbols = plan.symbols
        self.capacity = [-1] * len(plan.symbols)
        self._memory: Array = aligned_empty((0,), np.uint8)
        self.offsets = [0] * len(self._specs)
        self.size = 0
        self._ready = False

    def fit(self, extents: Sequence[int]) -> bool:
        """Makes room for these extents of the symbols; True where the addresses have changed."""
        if self._ready and all(n <= c for n, c in zip(extents, self.capacity, strict=True)):
            return False
        self.capacity = [max(n, c) for n, c in zip(extents, self.capacity, strict=True)]
        bound = dict(zip(self._symbols, self.capacity, strict=True))
        sizes = [
            DTYPES[s.dtype].itemsize * int(np.prod(bind_shape(s, bound), dtype=np.int64))
            for s in self._specs
        ]
        self.offsets, self.size = layout(sizes, [(s.first, s.last) for s in self._specs])
        self._memory = aligned_empty((self.size,), np.uint8)
        self._ready = True
        return True

    def addresses(self) -> list[int]:
        start = address(self._memory)
        return [start + offset for offset in self.offsets]

    def view(self, number: int, shape: tuple[int, ...]) -> Array:
        """The temporary of that buffer number as an array over the arena's memory."""
        spec = self._specs[position := self.numbers.index(number)]
        dtype = DTYPES[spec.dtype]
        start = self.offsets[position]
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        return self._memory[start : start + size].view(dtype).reshape(shape)
