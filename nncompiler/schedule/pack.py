"""Takes an operand of a contraction, gives its copy in the order in which tiles read it, and the
loops that make it."""

from __future__ import annotations

from collections.abc import Sequence

from ir import scalar
from ir.index import Index, Var
from ir.loops import Buffer, For, Kernel, Stmt, Store, Transpose
from ir.scalar import Scalar
from ir.types import Dim, multiply

READ_TOGETHER = 256  # bytes at most: pairs of lines, as the hardware fetches them


def moves(load: Scalar, v: Var) -> bool:
    return load.index.coefficient(v) != 0


def pack(
    kernel: Kernel,
    axis: Var,
    block: int,
    operand: Scalar,
    lanes: int,
    name: str,
) -> tuple[Scalar, Stmt, Buffer]:
    """A copy of an operand in the order in which tiles read it: (load of it, statement, buffer).

        W[k, j]  ->  packed[j // block][k][j % block]

    `axis` is cut into blocks, which are laid out one after the other where all extents are known.
    """
    others = [v for v in (*kernel.axes, *kernel.reduce_axes) if v != axis and moves(operand, v)]
    others.sort(key=lambda v: isinstance(v.extent, int))  # else in the order in which tiles read
    assert isinstance(axis.extent, int)
    column = Index.of(axis)
    if all(isinstance(v.extent, int) for v in others) and axis.extent > block:
        rows = multiply(v.extent for v in others)
        assert isinstance(rows, int)
        inner, start = block, (column // block) * (rows * block) + column % block
        size: Dim = -(-axis.extent // block) * rows * block
    else:
        inner, start = axis.extent, column
        size = multiply([*(v.extent for v in others), axis.extent])
    index, stride = start, inner
    for v in reversed(others):
        index = index + Index.of(v) * stride
        stride = stride * v.extent if isinstance(v.extent, int) else 0
    buffer = Buffer(name, operand.dtype, size, True)
    packed = scalar.load(name, index, operand.dtype)
    row = next((v for v in reversed(others) if operand.index.coefficient(v) == 1), None)
    copy: Stmt
    if row is not None and isinstance(row.extent, int):
        copy = Transpose(row, axis, name, index, operand, lanes)
        others = [v for v in others if v != row]
    else:
        copy = Store(name, index, operand)
    if isinstance(copy, Transpose):
        return packed, nest(others, copy), buffer
    if block != lanes:
        return packed, nest(others, For(axis, "vector", lanes, (copy,))), buffer
    return packed, _in_stretches(axis, others, copy, lanes), buffer


def _in_stretches(axis: Var, others: Sequence[Var], copy: Store, lanes: int) -> Stmt:
    """A copy block by block, where what is written lies together; of as many blocks at a time as
    share the lines that are read, which may be gone from the cache by the time of the next block.

        for i in 1024 / 64:  for k:  unroll vector for j in 64 step 8: packed = W[k, i*64 + j]
    """
    assert isinstance(axis.extent, int)
    most = READ_TOGETHER // copy.value.dtype.bytes
    stretch = max((s for s in range(lanes, most + 1, lanes) if axis.extent % s == 0), default=0)
    if stretch <= lanes:
        return For(axis, "vector", lanes, (nest(others, copy),))
    far, near = Var(f"{axis.name}_far", axis.extent // stretch), Var(f"{axis.name}_near", stretch)
    change = {axis: Index.of(far) * stretch + Index.of(near)}
    value = scalar.substitute(copy.value, change)
    copy = Store(copy.buffer, copy.index.substitute(change), value)
    return nest([far, *others], For(near, "unroll vector", lanes, (copy,)))


def nest(axes: Sequence[Var], stmt: Stmt) -> Stmt:
    return nest_all(axes, [stmt])[0]


def nest_all(axes: Sequence[Var], body: list[Stmt]) -> list[Stmt]:
    for v in reversed(axes):
        body = [For(v, "serial", 1, tuple(body))]
    return body
