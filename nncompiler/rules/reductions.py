"""Takes a reduction or contraction, gives a cheaper one: views and scalar factors move out of it.

Normal form: a reduction combines axes longer than one of a value that is no broadcast, transpose,
multiple of a scalar or reduction of its own kind (but for a sum of row sums); a contraction sums
over at least one axis longer than one, of operands that are no broadcast, transpose, negative or
multiple of a scalar.

Scalars that are infinite or NaN, and products that overflow on one of the two ways, can give
another one of inf and NaN than before; so can an empty sum that is multiplied by an infinite value.
"""

from __future__ import annotations

from ir.graph import Node, make
from ir.op import Lowering
from ir.ops.contraction import contract, parse_spec
from ir.ops.core import full_like, uniform_value
from ir.types import Dim, Extent, multiply
from nncompiler.rules.match import constant_of, rescale, scaled, spread

Axes = tuple[int, ...]
MOST_TERMS = 8  # how deep the terms of a sum may be nested


def reduce_less(node: Node) -> Node | None:
    """Reductions over no axes or axes of length one -> reshape;  sum(sum(x)) -> sum(x)

    A sum of row sums stays: the rows' kernel has more to do with a row than to add it up.
    """
    if node.op.lowering is not Lowering.REDUCE:
        return None
    (x,), axes = node.inputs, node.attrs["axes"]
    if not axes:
        return x
    short = [a for a in axes if x.shape[a] == 1]
    if short:
        bare = make("reshape", x, shape=tuple(d for a, d in enumerate(x.shape) if a not in short))
        rest = tuple(a - sum(s < a for s in short) for a in axes if a not in short)
        return make(node.op, bare, axes=rest) if rest else bare
    if x.op is node.op and (0 in x.attrs["axes"] or 0 not in axes):
        left = _kept(x)
        both = sorted((*x.attrs["axes"], *(left[a] for a in axes)))
        return make(node.op, x.inputs[0], axes=tuple(both))
    return None


def _kept(reduction: Node) -> list[int]:
    """The axes of the operand that a reduction leaves."""
    axes = reduction.attrs["axes"]
    return [a for a in range(reduction.inputs[0].ndim) if a not in axes]


def reduce_views(node: Node) -> Node | None:
    """sum(transpose(x)) -> transpose(sum(x)),  and of a reshape of all or of length-one axes"""
    if node.op.lowering is not Lowering.REDUCE:
        return None
    (x,), axes = node.inputs, node.attrs["axes"]
    match x.op.name:
        case "transpose":
            perm = x.attrs["perm"]
            gone = sorted(perm[a] for a in axes)
            left = [a for a in range(x.ndim) if a not in gone]
            order = tuple(left.index(perm[a]) for a in range(x.ndim) if a not in axes)
            smaller = make(node.op, x.inputs[0], axes=tuple(gone))
            return make("transpose", smaller, perm=order) if smaller.ndim > 1 else smaller
        case "reshape":
            return _reduce_reshape(node, x.inputs[0], x)
    return None


def _reduce_reshape(node: Node, x: Node, view: Node) -> Node | None:
    inner = [a for a, d in enumerate(x.shape) if d != 1]
    outer = [a for a, d in enumerate(view.shape) if d != 1]
    if [x.shape[a] for a in inner] != [view.shape[a] for a in outer]:
        return make(node.op, x, axes=tuple(range(x.ndim))) if node.ndim == 0 else None
    axes = tuple(i for i, o in zip(inner, outer, strict=True) if o in node.attrs["axes"])
    if len(axes) < len(node.attrs["axes"]):
        return None
    return make("reshape", make(node.op, x, axes=axes), shape=node.shape)


def reduce_broadcast(node: Node) -> Node | None:
    """sum(broadcast(x)) -> broadcast(sum(x)) * n,  max(broadcast(x)) -> broadcast(max(x))

    n is the number of repetitions: a constant, or the (symbolic) extent as a value.
    """
    if node.op.lowering is not Lowering.REDUCE or node.inputs[0].op.name != "broadcast":
        return None
    view, axes = node.inputs[0], node.attrs["axes"]
    own: Axes = view.attrs["axes"]
    repeated = [view.shape[a] for a in axes if a not in own]
    count = multiply(repeated)
    if repeated and (node.op.combine == "prod" or count == 0 or _may_be_empty(node, count)):
        return None
    x = view.inputs[0]
    inner = tuple(k for k, a in enumerate(own) if a in axes)
    x = make(node.op, x, axes=inner) if inner else x
    left = [a for a in range(view.ndim) if a not in axes]
    y = spread(x, node.shape, tuple(left.index(a) for a in own if a not in axes))
    if node.op.combine != "sum" or count == 1:
        return y
    return rescale(y, "mul", _number(node, count))


def _may_be_empty(node: Node, count: Dim) -> bool:
    """Whether there may be nothing to combine, where that is not 0 times something."""
    return node.op.combine != "sum" and isinstance(count, Extent)


def _number(node: Node, count: Dim) -> Node:
    if isinstance(count, Extent):
        return make("extent", dim=count, dtype=node.dtype)
    return constant_of(node.dtype.numpy.type(count), node.dtype)


def sum_of_multiple(node: Node) -> Node | None:
    """sum(x * b) -> sum(x) * b where b is the same along the summed axes,  sum(-x) -> -sum(x)

    sum(x / b)  ->  sum(x) / b   of floats
    """
    if node.op.name != "sum":
        return None
    (x,), axes = node.inputs, node.attrs["axes"]
    if x.op.name == "neg":
        return make("neg", make("sum", x.inputs[0], axes=axes))
    factor = _multiple(x, axes)
    if factor is None or not _exact(node, x.op.name):
        return None
    bare, repeated = factor
    left = _kept(node)
    places = tuple(left.index(a) for a in repeated.attrs["axes"])
    total = make("sum", bare, axes=axes)
    return make(x.op, total, spread(repeated.inputs[0], node.shape, places))


def _multiple(x: Node, axes: Axes) -> tuple[Node, Node] | None:
    """x = a * b or a / b with a broadcast b that is the same along `axes`, as (a, b)."""
    if x.op.name not in ("mul", "div"):
        return None
    a, b = x.inputs
    for bare, factor in ((a, b), (b, a)) if x.op.name == "mul" else ((a, b),):
        if factor.op.name == "broadcast" and not {*factor.attrs["axes"]} & {*axes}:
            return bare, factor
    return None


def sum_of_deviations(node: Node) -> Node | None:
    """sum(x - mean(x)) -> 0,  sum(y + (x - mean(x)) * b) -> sum(y), b the same along the axes

    The derivatives of all normalizations have such terms. An x that is infinite or NaN is lost.
    """
    if node.op.name != "sum" or not node.dtype.is_float:
        return None
    (x,), axes = node.inputs, node.attrs["axes"]
    rest = _without_deviations(x, axes)
    if rest is x:
        return None
    return full_like(node, 0) if rest is None else make("sum", rest, axes=axes)


def _without_deviations(x: Node, axes: Axes, depth: int = 0) -> Node | None:
    """The terms of x that are no multiples of deviations from a mean over `axes`."""
    if _is_deviation(x, axes):
        return None
    if x.op.name not in ("add", "sub") or depth == MOST_TERMS:
        return x
    a, b = (_without_deviations(i, axes, depth + 1) for i in x.inputs)
    if b is None:
        return a
    if a is None:
        return b if x.op.name == "add" else make("neg", b)
    return x if (a, b) == x.inputs else make(x.op, a, b)


def _is_deviation(x: Node, axes: Axes) -> bool:
    while (factor := _multiple(x, axes)) is not None:
        x = factor[0]
    if x.op.name != "sub" or x.inputs[1].op.name != "broadcast":
        return False
    value, view = x.inputs
    mean, own = view.inputs[0], view.attrs["axes"]
    left = [a for a in range(x.ndim) if a not in axes and x.shape[a] != 1]
    if left != [a for a in own if x.shape[a] != 1]:
        return False
    quotient = _without_ones(mean)
    if quotient.op.name not in ("mul", "div"):
        return False
    total = _without_ones(quotient.inputs[0])
    if total.op.name != "sum" or total.inputs[0] is not value or total.attrs["axes"] != axes:
        return False
    return _is_count(quotient, multiply(x.shape[a] for a in axes))


def _without_ones(x: Node) -> Node:
    """What a reshape that only adds or drops axes of length one is made from."""
    while x.op.name == "reshape":
        before, after = ([d for d in i.shape if d != 1] for i in (x.inputs[0], x))
        if before != after:
            break
        x = x.inputs[0]
    return x


def _is_count(quotient: Node, count: Dim) -> bool:
    """Is the value divided by `count`, or multiplied by its inverse?"""
    divisor = quotient.inputs[1]
    if isinstance(count, int):
        number = count if quotient.op.name == "div" else 1 / max(count, 1)
        return uniform_value(divisor) == number
    inner = divisor.inputs[0] if divisor.op.name == "broadcast" else divisor
    is_extent = inner.op.name == "extent" and inner.attrs["dim"] == count
    return quotient.op.name == "div" and is_extent


def _exact(node: Node, op: str) -> bool:
    """Integer division rounds, so it does not distribute."""
    return op == "mul" or node.dtype.is_float


def contract_transposed(node: Node) -> Node | None:
    """contract(transpose(a), b) -> contract(a, b),  transpose(contract(a, b)) -> contract(a, b)

    contract(transpose(a), b, "ab,bc->ac")  ->  contract(a, b, "ba,bc->ac")
    """
    if node.op.name == "transpose" and node.inputs[0].op.name == "contract":
        inner = node.inputs[0]
        left, right, out = parse_spec(inner.attrs["spec"])
        moved = "".join(out[p] for p in node.attrs["perm"])
        return contract(inner.inputs[0], inner.inputs[1], f"{left},{right}->{moved}")
    if node.op.name != "contract":
        return None
    left, right, out = parse_spec(node.attrs["spec"])
    a, left = _untransposed(node.inputs[0], left)
    b, right = _untransposed(node.inputs[1], right)
    if (a, b) == node.inputs:
        return None
    return contract(a, b, f"{left},{right}->{out}")


def _untransposed(x: Node, letters: str) -> tuple[Node, str]:
    if x.op.name != "transpose":
        return x, letters
    perm = x.attrs["perm"]
    return x.inputs[0], "".join(letters[perm.index(a)] for a in range(x.ndim))


def contract_of_multiple(node: Node) -> Node | None:
    """contract(a * s, b) -> contract(a, b) * s,  the same of a / s and of -a"""
    if node.op.name != "contract":
        return None
    a, b = node.inputs
    spec = node.attrs["spec"]
    for x, other, first in ((a, b, True), (b, a, False)):
        factor = scaled(x)
        if x.op.name != "neg" and (factor is None or not _exact(node, factor[1])):
            continue
        bare = factor[0] if factor else x.inputs[0]
        pair = (bare, other) if first else (other, bare)
        product = make("contract", *pair, spec=spec)
        return rescale(product, *factor[1:]) if factor else make("neg", product)
    return None


def contract_broadcast(node: Node) -> Node | None:
    """The axes that an operand repeats leave the contraction.

    contract(broadcast(a), b, "ab,bc->ac"), a repeated along "b"  ->  a * (sum of b over "b")
    """
    if node.op.name != "contract":
        return None
    a, b = node.inputs
    left, right, out = parse_spec(node.attrs["spec"])
    if a.op.name == "broadcast":
        return _without_repeats(node, (a, left), (b, right), out, True)
    if b.op.name == "broadcast":
        return _without_repeats(node, (b, right), (a, left), out, False)
    return None


def _without_repeats(
    node: Node, view: tuple[Node, str], other: tuple[Node, str], out: str, first: bool
) -> Node:
    (broadcast, letters), (y, others) = view, other
    kept = "".join(letters[a] for a in broadcast.attrs["axes"])
    repeated = set(letters) - set(kept)
    summed = tuple(k for k, c in enumerate(others) if c in repeated and c not in out)
    if summed:
        y = make("sum", y, axes=summed)
        others = "".join(c for k, c in enumerate(others) if k not in summed)
    inner = "".join(c for c in out if c in kept + others)
    x = broadcast.inputs[0]
    operands = (x, y, f"{kept},{others}") if first else (y, x, f"{others},{kept}")
    result = contract(operands[0], operands[1], f"{operands[2]}->{inner}")
    return spread(result, node.shape, tuple(out.index(c) for c in inner))


def contract_nothing(node: Node) -> Node | None:
    """A contraction that sums over nothing is a product; an axis of length one is nothing.

    contract(a, b, "a,b->ab")  ->  broadcast(a) * broadcast(b)
    """
    if node.op.name != "contract":
        return None
    left, right, out = parse_spec(node.attrs["spec"])
    a, b = node.inputs
    summed = [c for c in left if c not in out]
    if not summed:
        shape = node.shape
        operands = [
            spread(x, shape, tuple(out.index(c) for c in letters))
            for x, letters in ((a, left), (b, right))
        ]
        return make("mul", *operands)
    short = {c for c in summed if a.shape[left.index(c)] == 1}
    if not short:
        return None
    a, left = _without(a, left, short)
    b, right = _without(b, right, short)
    return contract(a, b, f"{left},{right}->{out}")


def _without(x: Node, letters: str, short: set[str]) -> tuple[Node, str]:
    kept = [k for k, c in enumerate(letters) if c not in short]
    bare = make("reshape", x, shape=tuple(x.shape[k] for k in kept))
    return bare, "".join(letters[k] for k in kept)


RULES = (
    reduce_less,
    reduce_views,
    reduce_broadcast,
    sum_of_multiple,
    sum_of_deviations,
    contract_transposed,
    contract_of_multiple,
    contract_broadcast,
    contract_nothing,
)
