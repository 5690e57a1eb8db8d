"""Takes two operands, gives their einsum: the CONTRACT record and matmul, dot, einsum, outer.

Every index of the spec stands in the output or in both operands, so that the derivative of a
contraction is again a contraction:  ab,bc->ac   gives   ac,bc->ab   and   ab,ac->bc.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ir.graph import Node, make
from ir.op import Lowering, Op, Sample, register
from ir.ops.core import NUMBERS, Array, Value, promote, random_for
from ir.ops.elementwise import mul
from ir.ops.reductions import sum
from ir.ops.views import reshape, transpose
from ir.types import Dim, TensorType

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def parse_spec(spec: str) -> tuple[str, str, str]:
    """ "ab,bc->ac" as ("ab", "bc", "ac")."""
    operands, _, out = spec.partition("->")
    left, _, right = operands.partition(",")
    return left, right, out


def _contract_type(a: TensorType, b: TensorType, *, spec: str) -> TensorType:
    left, right, out = parse_spec(spec)
    if a.dtype != b.dtype or a.dtype.kind not in NUMBERS:
        raise ValueError(f"contraction '{spec}' of {a} and {b}: the dtypes do not fit")
    if len(left) != a.rank or len(right) != b.rank:
        raise ValueError(f"contraction '{spec}' of {a} and {b}: the ranks do not fit")
    extents: dict[str, Dim] = {}
    for letter, dim in zip(left + right, a.shape + b.shape, strict=True):
        if extents.setdefault(letter, dim) != dim:
            raise ValueError(
                f"contraction '{spec}' of {a} and {b}: index {letter} is both "
                f"{extents[letter]} and {dim}"
            )
    for part in (left, right, out):
        if len(set(part)) < len(part):
            raise ValueError(f"contraction '{spec}': an index stands twice in '{part}'")
    if set(out) - set(extents) or (set(left) ^ set(right)) - set(out):
        raise ValueError(f"contraction '{spec}': every index must be in the output or in both")
    return a.with_shape(extents[letter] for letter in out)


def _contract_vjp(g: Node, y: Node, a: Node, b: Node, *, spec: str) -> tuple[Node, Node]:
    left, right, out = parse_spec(spec)
    return contract(g, b, f"{out},{right}->{left}"), contract(a, g, f"{left},{out}->{right}")


def _contract_evaluate(a: Array, b: Array, *, spec: str) -> Array:
    return np.asarray(np.einsum(spec, a, b, optimize=True), a.dtype)


def _contract_samples() -> list[Sample]:
    random = random_for("contract")
    cases: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = [
        ("ab,bc->ac", (7, 5), (5, 3)),
        ("ab,bc->ac", (17, 33), (33, 7)),
        ("ab,cb->ac", (3, 7), (5, 7)),
        ("ab,ac->bc", (33, 3), (33, 17)),
        ("ab,bc->ac", (0, 3), (3, 4)),
        ("ab,bc->ac", (3, 0), (0, 4)),
        ("ab,bc->ac", (1, 1), (1, 1)),
        ("a,a->", (1000,), (1000,)),
        ("ab,b->a", (17, 7), (7,)),
        ("a,b->ab", (7,), (17,)),
        ("abc,acd->abd", (3, 5, 7), (3, 7, 2)),
        ("abc,cd->abd", (2, 3, 5), (5, 7)),
        ("ab,ab->", (3, 17), (3, 17)),
        ("ab,ab->a", (5, 33), (5, 33)),
    ]
    return [
        Sample((random.normal(size=a), random.normal(size=b)), {"spec": s}) for s, a, b in cases
    ]


register(
    Op(
        "contract",
        Lowering.CONTRACT,
        _contract_type,
        _contract_evaluate,
        _contract_vjp,
        _contract_samples,
        doc="the sum of products over the indices that the output lacks",
    )
)


def contract(a: Node, b: Node, spec: str) -> Node:
    """The contraction, its indices renamed in the order in which they appear."""
    order = dict.fromkeys(c for c in spec if c.isalpha())
    if len(order) > len(LETTERS):
        raise ValueError(f"contraction '{spec}' has more than {len(LETTERS)} indices")
    names = dict(zip(order, LETTERS, strict=False))
    return make("contract", a, b, spec="".join(names.get(c, c) for c in spec))


def matmul(a: Value, b: Value) -> Node:
    """numpy.matmul: leading axes broadcast, the last of a meets the last but one of b."""
    a, b = promote(a, b)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"matmul of {a.type} and {b.type}: scalars are multiplied with *")
    if b.ndim == 1:
        return _batched(a, b, "k", "")
    if a.ndim == 1:
        return _batched(a, b, "k", "n", lead="")
    return _batched(a, b, "kn", "n")


def _batched(a: Node, b: Node, right: str, out: str, lead: str = "m") -> Node:
    """a[..., m, k] @ b[..., k, n]; leading axes of length one are left out and repeated."""
    left = lead + "k" if a.ndim > 1 else "k"
    right = "kn" if b.ndim > 1 else "k"
    tail = left[:-1] + (out if b.ndim > 1 else "")
    batch_a, batch_b = a.shape[: a.ndim - len(left)], b.shape[: b.ndim - len(right)]
    rank = max(len(batch_a), len(batch_b))
    letters = "ABCDEFGHIJ"[:rank]
    shape: list[Dim] = []
    index_a = index_b = ""
    for position in range(rank):
        dim_a = _batch_dim(batch_a, position, rank)
        dim_b = _batch_dim(batch_b, position, rank)
        if dim_a != dim_b and 1 not in (dim_a, dim_b):
            raise ValueError(f"matmul of {a.type} and {b.type}: the leading axes do not fit")
        shape.append(dim_b if dim_a == 1 else dim_a)
        index_a += letters[position] if dim_a != 1 else ""
        index_b += letters[position] if dim_b != 1 else ""
    core_a, core_b = a.shape[len(batch_a) :], b.shape[len(batch_b) :]
    a = reshape(a, tuple(d for d in batch_a if d != 1) + core_a)
    b = reshape(b, tuple(d for d in batch_b if d != 1) + core_b)
    used = "".join(c for c in letters if c in index_a + index_b)
    y = contract(a, b, f"{index_a}{left},{index_b}{right}->{used}{tail}")
    return reshape(y, (*shape, *y.shape[len(used) :]))


def _batch_dim(batch: tuple[Dim, ...], position: int, rank: int) -> Dim:
    at = position - (rank - len(batch))
    return batch[at] if at >= 0 else 1


def dot(a: Value, b: Value) -> Node:
    """numpy.dot: a product with a scalar, else the last axis of a with the last but one of b."""
    a, b = promote(a, b)
    if a.ndim == 0 or b.ndim == 0:
        return mul(a, b)
    if b.ndim <= 2:
        return matmul(a, b)
    letters = LETTERS[: a.ndim + b.ndim - 1]
    left, rest = letters[: a.ndim], letters[a.ndim :]
    right = rest[:-1] + left[-1] + rest[-1]
    return contract(a, b, f"{left},{right}->{left[:-1]}{rest}")


def outer(a: Value, b: Value) -> Node:
    """The products of all pairs of elements of two vectors."""
    a, b = promote(a, b)
    return contract(a, b, "a,b->ab")


def einsum(spec: str, *operands: Value) -> Node:
    """numpy.einsum of one or two operands, each index at most once in an operand, no dots."""
    spec = spec.replace(" ", "")
    inputs, arrow, out = spec.partition("->")
    parts = inputs.split(",")
    nodes = promote(*operands)
    if len(parts) != len(nodes) or not 1 <= len(nodes) <= 2 or "." in spec:
        raise ValueError(f"einsum '{spec}' of {len(nodes)} operands: one or two, without dots")
    if not arrow:
        joined = "".join(parts)
        out = "".join(sorted(c for c in set(joined) if joined.count(c) == 1))
    for part, node in zip(parts, nodes, strict=True):
        if len(part) != node.ndim or len(set(part)) < len(part):
            raise ValueError(f"einsum '{spec}': '{part}' does not fit {node.type}")
    if len(nodes) == 1:
        return _einsum_one(nodes[0], parts[0], out)
    a, left = _sum_lonely(nodes[0], parts[0], parts[1] + out)
    b, right = _sum_lonely(nodes[1], parts[1], parts[0] + out)
    return contract(a, b, f"{left},{right}->{out}")


def _sum_lonely(x: Node, part: str, used: str) -> tuple[Node, str]:
    axes = tuple(i for i, c in enumerate(part) if c not in used)
    return (sum(x, axes) if axes else x), "".join(c for c in part if c in used)


def _einsum_one(x: Node, part: str, out: str) -> Node:
    x, part = _sum_lonely(x, part, out)
    if set(part) != set(out):
        raise ValueError(f"einsum: the output '{out}' has an index that no operand has")
    return transpose(x, [part.index(c) for c in out])


def tensordot(a: Value, b: Value, axes: Any = 2) -> Node:
    """numpy.tensordot: the last `axes` of a with the first of b, or two lists of axes."""
    a, b = promote(a, b)
    if isinstance(axes, int):
        axes = (range(a.ndim - axes, a.ndim), range(axes))
    pairs = [
        (int(i) % a.ndim, int(j) % b.ndim)
        for i, j in zip(np.atleast_1d(axes[0]), np.atleast_1d(axes[1]), strict=True)
    ]
    left = LETTERS[: a.ndim]
    right = list(LETTERS[a.ndim : a.ndim + b.ndim])
    for i, j in pairs:
        right[j] = left[i]
    shared = {left[i] for i, _ in pairs}
    out = "".join(c for c in left + "".join(right) if c not in shared)
    return contract(a, b, f"{left},{''.join(right)}->{out}")


__all__ = ["contract", "dot", "einsum", "matmul", "outer", "parse_spec", "tensordot"]
