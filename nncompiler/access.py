"""Takes a node and indices, gives the scalar expression of that element, read through all views.

transpose(x)[i, j]      ->  x[j*8 + i]
pad(x, 1)[i]            ->  (1 <= i < 5 ? x[i - 1] : 0)
(x + broadcast(b))[i,j] ->  (x[i*4 + j] + b[j])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ir import scalar
from ir.graph import Literal, Node
from ir.index import Guard, Index, Var
from ir.op import Lowering
from ir.scalar import Scalar
from ir.types import Dim, Extent, Shape, boolean, i64

Indices = tuple[Index, ...]
Guards = tuple[Guard, ...]
# What the reader says of a node at indices: the expression to use, or None to look further inside.
Resolve = Callable[[Node, Indices, Guards], Scalar | None]
Memo = dict[tuple[Node, Indices, Guards], Scalar]

AXIS_NAMES = "ijpqrstuvwxy"  # k is for summed axes


def axis_variables(shape: Shape, prefix: str = "") -> tuple[Var, ...]:
    """A loop variable per axis of a shape."""
    return tuple(Var(f"{prefix}{AXIS_NAMES[axis % 12]}", dim) for axis, dim in enumerate(shape))


def point(variables: Iterable[Var]) -> Indices:
    """The indices at a point of a group's loops; there is no loop along an axis of length one."""
    return tuple(Index() if v.extent == 1 else Index.of(v) for v in variables)


def element(
    node: Node,
    indices: Indices,
    resolve: Resolve,
    guards: Guards = (),
    memo: Memo | None = None,
) -> Scalar:
    """The element of `node` at `indices`; `guards` hold wherever the value is used.

    `memo` keeps what was found: a value that is used twice on every level is visited once.
    """
    memo = {} if memo is None else memo
    key = (node, indices, guards)
    if key not in memo:
        found = resolve(node, indices, guards)
        memo[key] = _inside(node, indices, resolve, guards, memo) if found is None else found
    return memo[key]


def _inside(node: Node, indices: Indices, resolve: Resolve, guards: Guards, memo: Memo) -> Scalar:
    match node.op.lowering:
        case Lowering.LEAF:
            return _leaf(node, indices)
        case Lowering.MAP:
            args = [element(i, indices, resolve, guards, memo) for i in node.inputs]
            return scalar.apply(node.op.name, args, node.dtype)
        case Lowering.VIEW:
            return _view(node, indices, resolve, guards, memo)
        case Lowering.GATHER:
            return _gather(node, indices, resolve, guards, memo)
    raise AssertionError(f"{node!r} has to be computed by a kernel of its own")


def _leaf(node: Node, indices: Indices) -> Scalar:
    match node.op.name:
        case "constant":
            literal: Literal = node.attrs["value"]
            return scalar.const(literal.array.flat[0].item(), node.dtype)
        case "iota":
            return scalar.at(indices[node.attrs["axis"]], node.dtype)
        case "extent":
            return scalar.extent(node.attrs["dim"], node.dtype)
    raise AssertionError(f"{node!r} must have a buffer")


def _view(node: Node, indices: Indices, resolve: Resolve, guards: Guards, memo: Memo) -> Scalar:
    assert node.op.sources is not None
    types = [i.type for i in node.inputs]
    result: Scalar | None = None
    if "value" in node.attrs:
        result = scalar.const(node.attrs["value"], node.dtype)
    for source in reversed(node.op.sources(indices, types, **node.attrs)):
        if any(_never(g) for g in source.guards):
            continue
        needed = tuple(g for g in source.guards if not _always(g))
        inner = (*guards, *(g for g in needed if g not in guards))
        value = element(node.inputs[source.operand], source.indices, resolve, inner, memo)
        if not needed or result is None:
            result = value
        else:
            result = _filled(value, needed, inner, result)
    assert result is not None
    return result


def _filled(value: Scalar, needed: Guards, inner: Guards, filler: Scalar) -> Scalar:
    """The value where the `needed` guards hold, which `inner` has with those around it, else the
    filler: a load where its own guards tell."""
    if value.kind == "load" and filler.kind == "const" and set(needed) <= set(value.guards):
        if set(value.guards) <= set(inner):  # no view below has filled it
            indirect = zip(value.args, value.strides, strict=True)
            return scalar.load(
                value.name,
                value.index,
                value.dtype,
                indirect=indirect,
                guards=value.guards,
                fill=filler.value,
            )
        if scalar.const(value.fill, value.dtype) is filler:
            return value
    return scalar.apply("where", [_condition(needed), value, filler], value.dtype)


def _gather(node: Node, indices: Indices, resolve: Resolve, guards: Guards, memo: Memo) -> Scalar:
    table, rows = node.inputs
    split = rows.ndim
    if table.shape[0] == 1:  # whatever the index, it is clamped to the only row
        return element(table, (Index(), *indices[split:]), resolve, guards, memo)
    row = element(rows, indices[:split], resolve, guards, memo)
    count = table.shape[0]
    last = scalar.extent(count, row.dtype) if isinstance(count, Extent) else None
    if last is None:
        assert isinstance(count, int)
        limit = scalar.const(max(count - 1, 0), row.dtype)
    else:
        limit = scalar.apply("sub", [last, scalar.const(1, row.dtype)], row.dtype)
    zero = scalar.const(0, row.dtype)
    row = scalar.apply("maximum", [row, zero], row.dtype)
    row = scalar.apply("minimum", [row, limit], row.dtype)
    any_row = Var("row", count)
    base = resolve(table, (Index.of(any_row), *indices[split:]), ())
    assert base is not None and base.kind == "load", "the table of a gather has a buffer"
    stride, rest = base.index.coefficient(any_row), base.index.substitute({any_row: Index()})
    assert stride is not None
    return scalar.load(base.name, rest, node.dtype, indirect=[(row, stride)], guards=guards)


def _always(guard: Guard) -> bool:
    """True where the bounds of the index prove the guard."""
    low, high = guard.value.bounds
    if low is None or low < guard.low:
        return False
    if isinstance(guard.high, Extent):
        return _is_plain_variable(guard.value, guard.high)
    return high is not None and high < guard.high


def _never(guard: Guard) -> bool:
    """True where the bounds of the index contradict the guard."""
    low, high = guard.value.bounds
    if high is not None and high < guard.low:
        return True
    return isinstance(guard.high, int) and low is not None and low >= guard.high


def _is_plain_variable(value: Index, extent: Dim) -> bool:
    """value is one loop variable (over `extent`) times nothing: below its extent by definition."""
    if value.constant or len(value.terms) != 1:
        return False
    atom, coefficient = value.terms[0]
    return coefficient == 1 and isinstance(atom, Var) and atom.extent == extent


def _condition(guards: Guards) -> Scalar:
    """Guards as a boolean expression."""
    terms: list[Scalar] = []
    for guard in guards:
        value = scalar.at(guard.value, i64)
        low, high = guard.value.bounds
        if low is None or low < guard.low:
            terms.append(scalar.apply("le", [scalar.const(guard.low, i64), value], boolean))
        if isinstance(guard.high, Extent):
            terms.append(scalar.apply("lt", [value, scalar.extent(guard.high, i64)], boolean))
        elif high is None or high >= guard.high:
            terms.append(scalar.apply("lt", [value, scalar.const(guard.high, i64)], boolean))
    condition = terms[0] if terms else scalar.const(True, boolean)
    for term in terms[1:]:
        condition = scalar.apply("and", [condition, term], boolean)
    return condition
