"""Takes an op on arrays, gives how it is written for one example: matrix products, or a function.

(batch, i) with (i, j) to (batch, j)      W^T z
(batch, j) with (i, j) to (batch, i)      W delta
(batch, i) with (batch, j) to (i, j)      sum_n z delta^T
"""

from __future__ import annotations

from typing import Any, Protocol

from ir.graph import Node
from ir.op import Lowering
from ir.ops import parse_spec, uniform_value
from ir.types import DType, Extent
from nncompiler.explain.notation import ATOM, POWER, PRODUCT, Notation

HIDDEN = ("dtype", "shape", "body", "axes", "value")  # attributes that the values tell already


class Writes(Protocol):
    """What a Writer does: the text of a value, in parentheses where it has to be."""

    notation: Notation

    def __call__(self, node: Node, least: int = ...) -> str: ...
    def leveled(self, node: Node) -> tuple[str, int]: ...


def has_batch(node: Node) -> bool:
    """Whether the leading axis is the batch."""
    return bool(node.shape) and isinstance(node.shape[0], Extent)


def rank(node: Node) -> int:
    """The axes of a value for one example; a value that is spread counts as before."""
    while node.op.name == "broadcast":
        node = node.inputs[0]
    return node.ndim - has_batch(node)


def tensor_text(writer: Writes, node: Node) -> tuple[str, int]:
    """(text, how tightly it holds together)"""
    match node.op.lowering:
        case Lowering.CONTRACT:
            return _contraction(writer, node)
        case Lowering.REDUCE:
            return _reduction(writer, node)
        case Lowering.VIEW:
            return _view(writer, node)
        case Lowering.ITEM:
            return _result_of_loop(writer, node)
    if node.op.name == "iota":
        return "k", ATOM  # the place along an axis, as in [t = k]
    return _function(writer, node)


# --------------------------------------------------------------------------- products of matrices


def _contraction(writer: Writes, node: Node) -> tuple[str, int]:
    a, b = node.inputs
    left, right, out = parse_spec(node.attrs["spec"])
    batch = left[0] if has_batch(a) else right[0] if has_batch(b) else ""
    over_examples = batch and batch not in out
    left, right, out = (part.replace(batch, "") if batch else part for part in (left, right, out))
    factors = _matrices(writer, a, b, left, right, out)
    if factors is None:
        spec = f'"{left},{right}->{out}"'
        text, level = writer.notation.call("einsum", [spec, writer(a), writer(b)]), ATOM
    else:
        text, level = writer.notation.product(factors), PRODUCT
    return (writer.notation.over_examples(text), PRODUCT) if over_examples else (text, level)


def _matrices(
    writer: Writes, a: Node, b: Node, left: str, right: str, out: str
) -> list[str] | None:
    """The factors of a product of (transposed) matrices, vectors standing as columns."""
    if max(len(left), len(right)) > 2 or not left or not right:
        return None
    summed = set(left) - set(out)
    if len(summed) > 1 or (len(out) == 2 and (len(left) == 2) != (len(right) == 2)):
        return None
    first, second, x, y = left, right, a, b
    if (len(left) == 1 and len(right) == 2) or (len(out) == 2 and out[0] in right):
        first, second, x, y = right, left, b, a
    if len(out) == 2 and (out[0] not in first or out[1] not in second):
        return None
    if len(first) == 1:  # outer or inner product
        turned = (False, True) if len(out) == 2 else (True, False)
    else:
        (inner,) = summed or {""}
        if not inner or (len(second) == 2 and inner not in second):
            return None
        turned = (first[0] == inner, len(second) == 2 and second[1] == inner)
    return [_turned(writer, n, t) for n, t in ((x, turned[0]), (y, turned[1]))]


def _turned(writer: Writes, node: Node, turn: bool) -> str:
    return writer.notation.transposed(writer(node, ATOM)) if turn else writer(node, POWER)


# --------------------------------------------------------------------------- sums, views


def _reduction(writer: Writes, node: Node) -> tuple[str, int]:
    (x,) = node.inputs
    axes = [a for a in node.attrs["axes"] if not (a == 0 and has_batch(x))]
    if len(axes) < len(node.attrs["axes"]) and node.op.combine == "sum" and not axes:
        return writer.notation.over_examples(writer(x, PRODUCT)), PRODUCT
    behind = [a - has_batch(x) for a in axes]
    options = [] if len(axes) == rank(x) else [f"axis={behind[0] if len(axes) == 1 else behind}"]
    if len(axes) < len(node.attrs["axes"]):
        options = [*options, "over n"]
    return writer.notation.call(node.op.name, [writer(x), *options]), ATOM


def _view(writer: Writes, node: Node) -> tuple[str, int]:
    x = node.inputs[0]
    match node.op.name:
        case "broadcast":
            return writer.leveled(x)
        case "transpose" if rank(node) == 2 and node.attrs["perm"][-2:] == (
            node.ndim - 1,
            node.ndim - 2,
        ):
            return writer.notation.transposed(writer(x, ATOM)), POWER
        case "reshape" if _sizes(x) == _sizes(node):
            return writer.leveled(x)
        case "reshape":
            shape = ", ".join(map(str, node.shape[has_batch(node) :]))
            return writer.notation.call("reshape", [writer(x), f"({shape})"]), ATOM
    return _function(writer, node)


def _sizes(node: Node) -> list[Any]:
    return [d for d in node.shape[has_batch(node) :] if d != 1]


def _result_of_loop(writer: Writes, node: Node) -> tuple[str, int]:
    """loop[2](what goes in): one result of a loop over time"""
    (loop,) = node.inputs
    name = f"{'backward_' if loop.attrs['reverse'] else ''}loop[{node.attrs['index']}]"
    operands = [writer(i) for i in loop.inputs if uniform_value(i) is None]
    return writer.notation.call(name, operands), ATOM


def _function(writer: Writes, node: Node) -> tuple[str, int]:
    """name(operands, attribute=value ...)"""
    options = [
        f"{name}={_value(value)}"
        for name, value in node.attrs.items()
        if name not in HIDDEN and _is_short(value)
    ]
    operands = [writer(i) for i in node.inputs]
    return writer.notation.call(node.op.name, [*operands, *options]), ATOM


def _is_short(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_short, value))
    return isinstance(value, (int, float, str, Extent, DType))


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_value, value))})"
    return str(value)
