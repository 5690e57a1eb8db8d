"""Takes a node, gives the facts that rules ask for: known values, scalar factors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ir.graph import Literal, Node, make
from ir.ops.core import uniform_value
from ir.types import DType, Shape, multiply

Array = np.ndarray[Any, Any]
SMALL = 64  # elements up to which constants are folded


def size_of(node: Node) -> int | None:
    """The number of elements, None where it is symbolic."""
    size = multiply(node.shape)
    return size if isinstance(size, int) else None


def known(node: Node) -> Array | None:
    """The value of a constant, or of a small broadcast of one, else None."""
    if node.op.name == "constant":
        value: Literal = node.attrs["value"]
        return value.array
    size = size_of(node)
    if node.op.name != "broadcast" or size is None or size > SMALL:
        return None
    inner = known(node.inputs[0])
    return None if inner is None else node.op.evaluate(inner, **node.attrs)


def is_uniform(node: Node, value: float) -> bool:
    """Whether the node is known to hold `value` at every point."""
    return uniform_value(node) == value


def constant_of(array: Any, dtype: DType) -> Node:
    return make("constant", value=Literal.of(array, dtype))


def power_of_two(value: float) -> bool:
    """Whether multiplying by the value (or its inverse) only moves the exponent."""
    return math.isfinite(value) and abs(math.frexp(value)[0]) == 0.5


def is_normal(value: float, dtype: DType) -> bool:
    """Whether the value is neither subnormal nor too large in a float dtype."""
    info = np.finfo(np.float32 if dtype.bits == 32 else np.float64)
    return bool(float(info.tiny) <= abs(value) <= float(info.max))


def spread(x: Node, shape: Shape, axes: tuple[int, ...]) -> Node:
    """x broadcast to a shape, its axes (in any order) at the given ones."""
    order = sorted(range(len(axes)), key=axes.__getitem__)
    if order != list(range(len(axes))):
        x = make("transpose", x, perm=tuple(order))
    if x.shape == shape:
        return x
    return make("broadcast", x, shape=shape, axes=tuple(sorted(axes)))


def scaled(node: Node) -> tuple[Node, str, Node] | None:
    """x * broadcast(s) or x / broadcast(s), s a scalar, as (x, "mul" or "div", s)."""
    match node.op.name:
        case "mul" | "div" if _is_spread_scalar(node.inputs[1]) and node.ndim:
            return node.inputs[0], node.op.name, node.inputs[1].inputs[0]
        case "mul" if _is_spread_scalar(node.inputs[0]) and node.ndim:
            return node.inputs[1], "mul", node.inputs[0].inputs[0]
    return None


def _is_spread_scalar(node: Node) -> bool:
    return node.op.name == "broadcast" and node.inputs[0].ndim == 0


def rescale(x: Node, op: str, scalar: Node) -> Node:
    """x times (or divided by) a scalar."""
    return make(op, x, spread(scalar, x.shape, ()))
