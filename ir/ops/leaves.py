"""Takes nothing, gives the leaves of a graph: input, constant, iota, extent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ir.graph import Literal, Node, make
from ir.op import Lowering, Op, Sample, register
from ir.ops.core import Array, Value, as_node, literal
from ir.types import Dim, DType, Extent, Shape, TensorType, as_dim, dtype_of, f32, f64, i32, u32


def _evaluate_input(*, id: str, dtype: DType, shape: Shape) -> Array:
    raise ValueError(f"input '{id}' has no value")


register(
    Op(
        "input",
        Lowering.LEAF,
        lambda *, id, dtype, shape: TensorType(dtype, shape),
        _evaluate_input,
        doc="A value given by the caller under the name `id`.",
    )
)

register(
    Op(
        "constant",
        Lowering.LEAF,
        lambda *, value: TensorType(value.dtype, value.shape),
        lambda *, value: value.array,
        samples=lambda: [
            Sample((), {"value": Literal.of(np.asarray([1.5, -0.0, np.inf]), f32)}, smooth=False),
            Sample((), {"value": Literal.of(np.asarray(0.1), f64)}, smooth=False),
            Sample((), {"value": Literal.of(np.zeros((0, 3)), i32)}, smooth=False),
            Sample((), {"value": Literal.of(np.arange(100.0).reshape(4, 25), f32)}, smooth=False),
        ],
        doc="A known value.",
    )
)


def _iota_type(*, shape: Shape, axis: int, dtype: DType) -> TensorType:
    if not 0 <= axis < len(shape):
        raise ValueError(f"iota along axis {axis} of shape {shape}")
    if dtype.kind == "bool":
        raise ValueError("iota does not give bool")
    return TensorType(dtype, shape)


def _evaluate_iota(*, shape: tuple[int, ...], axis: int, dtype: DType) -> Array:
    line = np.arange(shape[axis]).astype(dtype.numpy)
    return np.broadcast_to(line.reshape([-1 if a == axis else 1 for a in range(len(shape))]), shape)


register(
    Op(
        "iota",
        Lowering.LEAF,
        _iota_type,
        _evaluate_iota,
        samples=lambda: [
            Sample((), {"shape": s, "axis": a, "dtype": d}, smooth=False)
            for s, a, d in [((7,), 0, i32), ((3, 5), 1, f32), ((3, 5), 0, u32), ((0, 2), 1, f64)]
        ],
        doc="0, 1, 2, ... along one axis.",
    )
)

register(
    Op(
        "extent",
        Lowering.LEAF,
        lambda *, dim, dtype: TensorType(dtype, ()),
        lambda *, dim, dtype: np.asarray(dim, dtype.numpy),
        samples=lambda: [Sample((), {"dim": 7, "dtype": f32}, smooth=False)],
        doc="The length of a (symbolic) axis as a number.",
    )
)


def input(id: str, dtype: DType | str, shape: Iterable[Any]) -> Node:
    """The value that the caller gives under the name `id`; its first extent may be a symbol."""
    dims = tuple(as_dim(d) for d in shape)
    return make("input", id=id, dtype=dtype_of(dtype), shape=dims)


def constant(value: Value, dtype: DType | str | None = None) -> Node:
    """A constant; Python numbers are f32 or i32 unless `dtype` says otherwise."""
    if dtype is None or isinstance(value, Node):
        return as_node(value)
    return literal(value, dtype_of(dtype))


def iota(shape: Iterable[Any], axis: int = 0, dtype: DType | str = i32) -> Node:
    """0, 1, 2, ... along `axis` of the given shape."""
    dims = tuple(as_dim(d) for d in shape)
    return make("iota", shape=dims, axis=axis % max(len(dims), 1), dtype=dtype_of(dtype))


def extent(dim: Dim | str, dtype: DType | str = f32) -> Node:
    """A length as a scalar value: a constant, or read at run time where it is symbolic."""
    dim, dtype = as_dim(dim), dtype_of(dtype)
    return make("extent", dim=dim, dtype=dtype) if isinstance(dim, Extent) else literal(dim, dtype)
