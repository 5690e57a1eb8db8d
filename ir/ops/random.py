"""Takes a key and a counter, gives random values as plain integer arithmetic over iota.

Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as
1, 2, 3", 2011): counter-based, so that a dropout mask is fused and recomputed, never stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ir.graph import Node
from ir.ops.core import Value, as_node, broadcast_to, full
from ir.ops.elementwise import bitcast, cast, cos, log, sqrt
from ir.ops.leaves import iota
from ir.types import DType, Shape, TensorType, as_dim, dtype_of, f32, f64, i32, u32

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def threefry2x32(key: tuple[Node, Node], counter: tuple[Node, Node]) -> tuple[Node, Node]:
    """Two random words for a key and a counter of two u32 words each."""
    keys = (key[0], key[1], key[0] ^ key[1] ^ PARITY)
    a, b = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(5):
        for turn in ROTATIONS[group % 2]:
            a = a + b
            b = a ^ ((b << turn) | (b >> (32 - turn)))
        a = a + keys[(group + 1) % 3]
        b = b + keys[(group + 2) % 3] + (group + 1)
    return a, b


def _words(key: Value, shape: Shape) -> tuple[Node, Node]:
    """A key as two u32 words: an int of up to 64 bits, a scalar Node, or a pair of either."""
    if isinstance(key, tuple):
        low, high = key
    elif isinstance(key, Node):
        low, high = key, 0
    else:
        low, high = int(key) & 0xFFFFFFFF, int(key) >> 32 & 0xFFFFFFFF
    return _word(low, shape), _word(high, shape)


def _word(value: Value, shape: Shape) -> Node:
    return broadcast_to(as_node(value, u32), shape)


def _position(shape: Shape) -> Node:
    """The row-major number of every element."""
    strides = TensorType(u32, shape).strides
    total = full(shape, 0, u32)
    for axis, stride in enumerate(strides):
        line = iota(shape, axis, u32)
        total = (line * stride if stride != 1 else line) + (total if axis else 0)
    return total


def _bits_pair(key: Value, counter: Value, shape: Iterable[Any]) -> tuple[Node, Node]:
    dims = tuple(as_dim(d) for d in shape)
    return threefry2x32(_words(key, dims), (_position(dims), _word(counter, dims)))


def random_bits(key: Value, counter: Value, shape: Iterable[Any]) -> Node:
    """Random u32 words; the same for the same key, counter (u32 scalars or ints) and shape."""
    return _bits_pair(key, counter, shape)[0]


def _fraction(bits: Node, keep: int, dtype: DType) -> Node:
    """The upper `keep` bits as a real number (exact: below 2**31, so signed is the same)."""
    return cast(bitcast(bits >> (32 - keep), i32), dtype)


def uniform(key: Value, counter: Value, shape: Iterable[Any], dtype: DType | str = f32) -> Node:
    """Random values in [0, 1): multiples of 2**-24 (f32) or 2**-53 (f64)."""
    target = dtype_of(dtype)
    high, low = _bits_pair(key, counter, shape)
    if target != f64:
        return _fraction(high, 24, target) * 2.0**-24
    return (_fraction(high, 27, f64) * 2.0**26 + _fraction(low, 26, f64)) * 2.0**-53


def normal(key: Value, counter: Value, shape: Iterable[Any], dtype: DType | str = f32) -> Node:
    """Random values of the standard normal distribution (Box and Muller)."""
    target = dtype_of(dtype)
    first, second = _bits_pair(key, counter, shape)
    bits = 24 if target == f32 else 31
    radius = (_fraction(first, bits, target) + 1.0) * 2.0**-bits  # in (0, 1]
    angle = _fraction(second, bits, target) * (2 * math.pi * 2.0**-bits)
    return sqrt(-2.0 * log(radius)) * cos(angle)
