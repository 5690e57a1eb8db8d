"""Takes values of any kind, gives Nodes of one dtype and shape; and the factories of op families.

Broadcasting and constants are made explicit here, so that records see equal types only.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ir.graph import Literal, Node, make
from ir.index import Index
from ir.op import Lowering, Op, Sample, Source, register
from ir.types import (
    Dim,
    DType,
    Extent,
    Shape,
    TensorType,
    as_dim,
    boolean,
    dtype_of,
    f32,
    i32,
    integer_range,
)

Array = np.ndarray[Any, Any]
Value = Any  # a Node, a Python number, or an array: what the functions accept

FLOATS = frozenset({"float"})
INTEGERS = frozenset({"int", "uint"})
NUMBERS = FLOATS | INTEGERS
BITS = INTEGERS | {"bool"}
ANY = NUMBERS | {"bool"}

# Shapes of the generated tests: empty, one, odd, more than one vector, a scalar.
SHAPES: tuple[tuple[int, ...], ...] = ((7,), (0,), (1,), (17,), (33,), (3, 5), (1000,), ())

# --------------------------------------------------------------------------- promotion


def literal(value: Value, dtype: DType) -> Node:
    """The constant `value` (a number or array) in the given dtype.

    TypeError where the value's kind does not fit (a fraction as integer, a number as bool);
    ValueError where an integer is out of range.
    """
    array = np.asarray(value)
    kind = array.dtype.kind
    if kind not in "fiub":
        raise TypeError(f"{value!r} is not a number or an array of numbers")
    if (kind == "f" and not dtype.is_float) or (kind in "iu" and dtype.kind == "bool"):
        what = repr(value) if array.ndim == 0 else f"an array of {array.dtype}"
        raise TypeError(f"{what} does not fit a value of dtype {dtype}: cast it explicitly")
    if kind in "iu" and dtype.kind in INTEGERS and array.size:
        low, high = integer_range(dtype)
        if int(array.min()) < low or int(array.max()) > high:
            raise ValueError(f"{value!r} is out of range for {dtype}")
    with np.errstate(over="ignore"):
        return make("constant", value=Literal.of(array, dtype))


def default_dtype(value: Value) -> DType:
    """The dtype of a value that meets no Node: f32 and i32 for Python numbers, else its own."""
    if isinstance(value, Node):
        return value.dtype
    if isinstance(value, (np.ndarray, np.generic)):
        return dtype_of(value)
    kind = np.asarray(value).dtype.kind
    return {"f": f32, "b": boolean}.get(kind, i32)


def as_node(value: Value, dtype: DType | None = None) -> Node:
    """The value as a Node; numbers and arrays become constants of `dtype` (or their own)."""
    if isinstance(value, Node):
        return value
    return literal(value, default_dtype(value) if dtype is None else dtype)


def promote(*values: Value) -> tuple[Node, ...]:
    """All values as Nodes; numbers and arrays adopt the dtype of the Nodes beside them.

    Nodes of different dtypes meet in the common one: x * (x > 0) is real.
    """
    nodes = [v for v in values if isinstance(v, Node)]
    if len(nodes) == len(values) and len({n.dtype for n in nodes}) == 1:
        return tuple(nodes)
    if not nodes:
        arrays = [v for v in values if isinstance(v, (np.ndarray, np.generic))]
        dtype = default_dtype(max(arrays or values, key=lambda v: default_dtype(v).kind == "float"))
        return tuple(as_node(v, dtype) for v in values)
    dtype = common_dtype([n.dtype for n in nodes])
    return tuple(_meet(as_node(v, dtype), dtype) for v in values)


def common_dtype(dtypes: Sequence[DType]) -> DType:
    """The widest of the highest kind, bool below integers below reals.

    The first where signed and unsigned integers meet: neither holds the other's values.
    """
    reals = [d for d in dtypes if d.is_float]
    numbers = reals or [d for d in dtypes if d.kind in INTEGERS]
    if not numbers or len({d.kind for d in numbers}) > 1:
        return dtypes[0]
    return max(numbers, key=lambda d: d.bits)


def _meet(x: Node, dtype: DType) -> Node:
    """x in a common dtype; as it is where the dtypes have none."""
    if x.dtype == dtype or (x.dtype.kind in INTEGERS and dtype.kind in INTEGERS - {x.dtype.kind}):
        return x
    return make("cast", x, dtype=dtype)


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The shape that NumPy's rules give; a symbolic extent equals itself only."""
    rank = max((len(s) for s in shapes), default=0)
    result: list[Dim] = [1] * rank
    for shape in shapes:
        for axis, dim in enumerate(shape, rank - len(shape)):
            if result[axis] == 1:
                result[axis] = dim
            elif dim not in (1, result[axis]):
                texts = " and ".join(f"({', '.join(map(str, s))})" for s in shapes)
                raise ValueError(f"shapes {texts} do not broadcast together")
    return tuple(result)


def broadcast_to(x: Value, shape: Iterable[Any]) -> Node:
    """x repeated along new and length-one axes, as numpy.broadcast_to."""
    node, target = as_node(x), tuple(as_dim(d) for d in shape)
    return node if node.shape == target else _broadcast(node, target)


def _broadcast(x: Node, target: Shape) -> Node:
    offset = len(target) - x.ndim
    if offset < 0 or any(d not in (1, t) for d, t in zip(x.shape, target[offset:], strict=True)):
        raise ValueError(f"cannot broadcast {x.type} to ({', '.join(map(str, target))})")
    kept = [a for a, d in enumerate(x.shape) if d == target[offset + a]]
    if len(kept) < x.ndim:
        x = make("reshape", x, shape=tuple(x.shape[a] for a in kept))
    return make("broadcast", x, shape=target, axes=tuple(offset + a for a in kept))


def broadcast_together(*values: Value) -> tuple[Node, ...]:
    """All values as Nodes of one shape (dtypes are left alone)."""
    nodes = [as_node(v) for v in values]
    if all(n.shape == nodes[0].shape for n in nodes):
        return tuple(nodes)
    shape = broadcast_shapes(*(n.shape for n in nodes))
    return tuple(broadcast_to(n, shape) for n in nodes)


def full(shape: Iterable[Any], value: Value, dtype: DType | str | None = None) -> Node:
    """A value of the given shape, the same number everywhere."""
    return broadcast_to(as_node(value, None if dtype is None else dtype_of(dtype)), shape)


def full_like(x: Node, value: Value) -> Node:
    return full(x.shape, value, x.dtype)


def uniform_value(node: Node) -> float | int | bool | None:
    """The number that a constant holds at every point (seen through views), else None."""
    while node.op.name in ("broadcast", "reshape", "transpose"):
        node = node.inputs[0]
    if node.op.name != "constant":
        return None
    data: Literal = node.attrs["value"]
    array = data.array.reshape(-1)
    if array.size != 1:
        return None
    return array[0].item()  # type: ignore[no-any-return]


def normalize_axes(axis: Any, rank: int) -> tuple[int, ...]:
    """None, an int or a tuple of (negative) axes as an ascending tuple; ValueError if wrong."""
    if axis is None:
        return tuple(range(rank))
    given = (axis,) if isinstance(axis, (int, np.integer)) else tuple(axis)
    for a in given:
        if not -rank <= a < rank:
            raise ValueError(f"axis {a} is out of bounds for a value with {rank} axes")
    axes = tuple(sorted(int(a) % rank for a in given))
    if len(set(axes)) < len(axes):
        raise ValueError(f"duplicate axis in {given}")
    return axes


# --------------------------------------------------------------------------- type rules


def same_types(name: str, types: Sequence[TensorType], kinds: frozenset[str]) -> TensorType:
    """The type that all operands share; ValueError naming them where they differ."""
    for t in types:
        if t.dtype.kind not in kinds:
            raise ValueError(f"{name} does not take {t.dtype}; it takes {', '.join(sorted(kinds))}")
        if t.dtype != types[0].dtype:
            raise ValueError(f"{name} of different dtypes: {', '.join(map(str, types))}")
        if t.shape != types[0].shape:
            raise ValueError(f"{name} of different shapes: {', '.join(map(str, types))}")
    return types[0]


def random_for(name: str) -> np.random.Generator:
    """A generator that gives the same samples for an op in every run."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def samples_of(name: str, *cases: tuple[tuple[int, ...], dict[str, Any]]) -> list[Sample]:
    """One sample of random values per (shape, attributes)."""
    random = random_for(name)
    return [Sample((random.normal(size=shape),), attrs) for shape, attrs in cases]


# --------------------------------------------------------------------------- factories


def elementwise(
    name: str,
    evaluate: Callable[..., Array],
    vjp: Callable[..., Any] | None = None,
    *,
    arity: int = 1,
    kinds: frozenset[str] = FLOATS,
    result: DType | None = None,
    flags: Iterable[str] = (),
    domain: tuple[float, float] = (-2.0, 2.0),
    smooth: bool = True,
    doc: str = "",
) -> Callable[..., Node]:
    """Declare a scalar function of `arity` operands of one type; gives the function on values.

    `domain` is where the test samples are drawn from; `result` the dtype where it is not the
    operands'. The function broadcasts and promotes its arguments.
    """

    def type_rule(*types: TensorType) -> TensorType:
        _check_arity(name, types, arity)
        common = same_types(name, types, kinds)
        return common if result is None else common.with_dtype(result)

    def samples() -> list[Sample]:
        random = random_for(name)
        return [Sample(tuple(draw(random, s) for _ in range(arity)), {}, smooth) for s in SHAPES]

    def draw(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
        if "float" in kinds:
            return np.asarray(random.uniform(*domain, shape))
        if "int" in kinds:
            return np.asarray(random.integers(0, 40, shape, np.int32))
        return np.asarray(random.integers(0, 2, shape).astype(bool))

    op = Op(
        name,
        Lowering.MAP,
        type_rule,
        evaluate,
        vjp,
        samples,
        frozenset(flags),
        doc=doc or name,
    )
    register(op)

    def function(*values: Value) -> Node:
        if len(values) != arity:
            raise TypeError(f"{name} takes {arity} value(s), not {len(values)}")
        return make(op, *broadcast_together(*promote(*values)))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc or f"{name} at every point; {arity} operand(s), broadcast."
    return function


def _check_arity(name: str, types: Sequence[TensorType], arity: int) -> None:
    if len(types) != arity:
        raise ValueError(f"{name} takes {arity} operand(s), not {len(types)}")


def view(
    name: str,
    type_rule: Callable[..., TensorType],
    evaluate: Callable[..., Array],
    sources: Callable[..., tuple[Source, ...]],
    *,
    vjp: Callable[..., Any] | None = None,
    samples: Callable[[], list[Sample]] = list,
    doc: str = "",
) -> Op:
    """Declare an op that moves values and computes none."""
    return register(
        Op(name, Lowering.VIEW, type_rule, evaluate, vjp, samples, sources=sources, doc=doc)
    )


def reduction(
    name: str,
    evaluate: Callable[..., Array],
    *,
    vjp: Callable[..., Any],
    combine: str = "",
    domain: tuple[float, float] = (-2.0, 2.0),
    doc: str = "",
) -> Op:
    """Declare an op that combines the values along `axes` (ascending) into one, by `combine` (its
    own name where none is given)."""

    def type_rule(x: TensorType, *, axes: tuple[int, ...]) -> TensorType:
        if x.dtype.kind not in NUMBERS:
            raise ValueError(f"{name} does not take {x.dtype}")
        if list(axes) != sorted(set(axes)) or any(not 0 <= a < x.rank for a in axes):
            raise ValueError(f"{name} of {x}: axes {axes} are not ascending axes of it")
        return x.with_shape(d for a, d in enumerate(x.shape) if a not in axes)

    def samples() -> list[Sample]:
        random = random_for(name)

        def one(shape: tuple[int, ...], axes: tuple[int, ...]) -> Sample:
            return Sample((random.uniform(*domain, shape),), {"axes": axes}, smooth=0 not in shape)

        flat = [one(s, tuple(range(len(s)))) for s in SHAPES]
        return [
            *flat,
            one((3, 5), (0,)),
            one((3, 5), (1,)),
            one((2, 3, 7), (0, 2)),
            one((2, 3), ()),
        ]

    op = Op(
        name, Lowering.REDUCE, type_rule, evaluate, vjp, samples, combine=combine or name, doc=doc
    )
    return register(op)


def index_of(value: int) -> Index:
    return Index((), value)


def dim_less(dim: Dim, amount: int) -> Dim:
    """dim - amount; a symbolic extent only gives itself."""
    if amount == 0:
        return dim
    if isinstance(dim, Extent):
        raise ValueError(f"the symbolic extent '{dim}' cannot be cut")
    return dim - amount
