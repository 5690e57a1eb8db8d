"""Takes op records, gives the graph IR: a hash-consed DAG of immutable nodes.

Building the same node twice gives the same object, so common subexpressions vanish, tests compare
with `is`, and forward, backward and update graphs share structure.
"""

from __future__ import annotations

import struct
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ir.op import REGISTRY, Op
from ir.types import DType, Extent, Shape, TensorType, bind_dim


@dataclass(frozen=True)
class Literal:
    """The value of a constant: raw bytes, so that equality is equality of bits."""

    dtype: DType
    shape: tuple[int, ...]
    data: bytes

    @staticmethod
    def of(array: np.ndarray[Any, Any], dtype: DType) -> Literal:
        array = np.asarray(array, dtype.numpy, order="C")
        return Literal(dtype, np.shape(array), array.tobytes())

    @cached_property
    def array(self) -> np.ndarray[Any, Any]:
        """Read-only array over the bytes."""
        return np.frombuffer(self.data, self.dtype.numpy).reshape(self.shape)


class Node:
    """One value: an op applied to inputs. Immutable; compared by identity; never built directly."""

    __slots__ = ("__weakref__", "attrs", "inputs", "op", "type")
    op: Op
    inputs: tuple[Node, ...]
    attrs: Mapping[str, Any]
    type: TensorType

    # numpy must hand `array * node` to us instead of looping over the array
    __array_ufunc__ = None

    def __init__(
        self, op: Op, inputs: tuple[Node, ...], attrs: Mapping[str, Any], type: TensorType
    ) -> None:
        object.__setattr__(self, "op", op)
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "attrs", attrs)
        object.__setattr__(self, "type", type)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("nodes are immutable")

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def ndim(self) -> int:
        return self.type.rank

    def __repr__(self) -> str:
        return f"<{self.op.name} {self.type}>"

    def __bool__(self) -> bool:
        raise TypeError(
            "a symbolic value has no truth value while the graph is built: "
            "use where(condition, a, b) instead of if"
        )

    def __iter__(self) -> Iterator[Node]:
        if not self.shape or not isinstance(self.shape[0], int):
            raise TypeError(f"cannot iterate over a symbolic value of type {self.type}")
        return (self[i] for i in range(self.shape[0]))

    def __len__(self) -> int:
        if not self.shape or not isinstance(self.shape[0], int):
            raise TypeError(f"a symbolic value of type {self.type} has no length")
        return self.shape[0]

    def _binary(self, name: str, other: object, swap: bool = False) -> Node:
        return _OPERATORS[name](other, self) if swap else _OPERATORS[name](self, other)

    def __add__(self, other: object) -> Node:
        return self._binary("add", other)

    def __radd__(self, other: object) -> Node:
        return self._binary("add", other, swap=True)

    def __sub__(self, other: object) -> Node:
        return self._binary("sub", other)

    def __rsub__(self, other: object) -> Node:
        return self._binary("sub", other, swap=True)

    def __mul__(self, other: object) -> Node:
        return self._binary("mul", other)

    def __rmul__(self, other: object) -> Node:
        return self._binary("mul", other, swap=True)

    def __truediv__(self, other: object) -> Node:
        return self._binary("div", other)

    def __rtruediv__(self, other: object) -> Node:
        return self._binary("div", other, swap=True)

    def __pow__(self, other: object) -> Node:
        return self._binary("pow", other)

    def __rpow__(self, other: object) -> Node:
        return self._binary("pow", other, swap=True)

    def __matmul__(self, other: object) -> Node:
        return self._binary("matmul", other)

    def __rmatmul__(self, other: object) -> Node:
        return self._binary("matmul", other, swap=True)

    def __neg__(self) -> Node:
        return _OPERATORS["neg"](self)

    def __pos__(self) -> Node:
        return self

    def __abs__(self) -> Node:
        return _OPERATORS["abs"](self)

    def __invert__(self) -> Node:
        return _OPERATORS["not"](self)

    def __and__(self, other: object) -> Node:
        return self._binary("and", other)

    def __or__(self, other: object) -> Node:
        return self._binary("or", other)

    def __xor__(self, other: object) -> Node:
        return self._binary("xor", other)

    def __lshift__(self, other: object) -> Node:
        return self._binary("shl", other)

    def __rshift__(self, other: object) -> Node:
        return self._binary("shr", other)

    def __lt__(self, other: object) -> Node:
        return self._binary("lt", other)

    def __le__(self, other: object) -> Node:
        return self._binary("le", other)

    def __gt__(self, other: object) -> Node:
        return self._binary("lt", other, swap=True)

    def __ge__(self, other: object) -> Node:
        return self._binary("le", other, swap=True)

    def __eq__(self, other: object) -> bool:
        """Identity, as of any object; numbers and arrays are refused, for `(x == 0) * y` would be
        taken for a comparison of elements (which `equal` makes)."""
        if isinstance(other, (bool, int, float, np.ndarray, np.generic)):
            raise TypeError(
                "== compares symbolic values by identity: use nnc.equal(x, y) for elements"
            )
        return self is other

    __hash__ = object.__hash__

    def __getitem__(self, key: object) -> Node:
        return _OPERATORS["getitem"](self, key)

    def reshape(self, *shape: Any) -> Node:
        return _OPERATORS["reshape"](
            self, shape[0] if len(shape) == 1 and not _is_dim(shape[0]) else shape
        )

    @property
    def T(self) -> Node:  # noqa: N802 - numpy's name
        return _OPERATORS["transpose"](self)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Node:
        return _OPERATORS["sum"](self, axis, keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Node:
        return _OPERATORS["mean"](self, axis, keepdims)

    def astype(self, dtype: object) -> Node:
        return _OPERATORS["cast"](self, dtype)


def _is_dim(value: object) -> bool:
    return isinstance(value, (int, np.integer, Extent, str))


# Filled by ir/ops: what the operators of Node mean, with broadcasting and constants made explicit.
_OPERATORS: dict[str, Callable[..., Node]] = {}


def define_operators(functions: Mapping[str, Callable[..., Node]]) -> None:
    """Give Node's operators their meaning (called once, by ir.ops)."""
    _OPERATORS.update(functions)


# --------------------------------------------------------------------------- interning

_table: weakref.WeakValueDictionary[Any, Node] = weakref.WeakValueDictionary()
_lock = threading.RLock()


def attribute_key(value: Any) -> Any:
    """A hashable key that tells 1, True and 1.0 apart, and 0.0 from -0.0; NaN equals itself."""
    kind = type(value)
    if kind is int or kind is str:  # nearly all
        return kind, value
    if isinstance(value, float):
        return "float", struct.pack("<d", value)
    if isinstance(value, (tuple, list)):
        return "tuple", tuple(map(attribute_key, value))
    return kind.__name__, value


def make(op: Op | str, *inputs: Node, **attrs: Any) -> Node:
    """The node `op(*inputs, **attrs)`; the same one for the same arguments.

    Raises ValueError (from the op's type rule) where the types do not fit.
    """
    record = REGISTRY[op] if isinstance(op, str) else op
    ordered = dict(sorted(attrs.items())) if len(attrs) > 1 else attrs
    values = tuple([(name, attribute_key(value)) for name, value in ordered.items()])
    key = (record.name, tuple(map(id, inputs)), values)
    with _lock:
        node = _table.get(key)
        if node is None:
            type = record.type_rule(*(i.type for i in inputs), **ordered)
            node = Node(record, inputs, ordered, type)
            _table[key] = node
    return node


# --------------------------------------------------------------------------- graphs


def topological(roots: Iterable[Node]) -> tuple[Node, ...]:
    """All nodes that the roots depend on, inputs first; the order depends on structure alone."""
    order: dict[Node, None] = {}
    stack: list[tuple[Node, bool]] = [(r, False) for r in reversed(list(roots))]
    while stack:
        node, ready = stack.pop()
        if node in order:
            continue
        if ready:
            order[node] = None
            continue
        stack.append((node, True))
        stack.extend((i, False) for i in reversed(node.inputs) if i not in order)
    return tuple(order)


@dataclass(frozen=True, eq=False)
class Graph:
    """A function: ordered inputs (leaf nodes) to named outputs.

    `names` gives nodes the user's names; they never take part in a node's identity.
    """

    name: str
    inputs: tuple[Node, ...]
    outputs: Mapping[str, Node]
    names: Mapping[Node, str] = field(default_factory=dict)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Inputs first, then every node that an output needs, in topological order."""
        return topological((*self.inputs, *self.outputs.values()))

    @cached_property
    def users(self) -> Mapping[Node, tuple[Node, ...]]:
        users: dict[Node, list[Node]] = {n: [] for n in self.nodes}
        for node in self.nodes:
            for i in dict.fromkeys(node.inputs):
                users[i].append(node)
        return {n: tuple(u) for n, u in users.items()}

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(s for n in self.nodes for s in sorted(n.type.symbols)))

    def name_of(self, node: Node) -> str | None:
        return self.names.get(node)


@dataclass(frozen=True)
class Body:
    """The graph of one step of a scan: closed, so that equal bodies are equal values."""

    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]

    @cached_property
    def graph(self) -> Graph:
        return Graph("body", self.inputs, {str(i): n for i, n in enumerate(self.outputs)})


def rewrite(graph: Graph, rule: Callable[[Node, tuple[Node, ...]], Node]) -> Graph:
    """Rebuild a graph bottom-up by rule(old node, new inputs); names follow their node."""
    new: dict[Node, Node] = {}
    for node in graph.nodes:
        new[node] = rule(node, tuple(new[i] for i in node.inputs))
    names: dict[Node, str] = {}
    for node, name in graph.names.items():
        if node in new:
            names.setdefault(new[node], name)
    inputs = tuple(new[i] for i in graph.inputs)
    return Graph(graph.name, inputs, {k: new[v] for k, v in graph.outputs.items()}, names)


def rebuild(node: Node, inputs: tuple[Node, ...]) -> Node:
    """The same op on other inputs (the node itself where nothing changes)."""
    if len(inputs) == len(node.inputs) and all(
        a is b for a, b in zip(inputs, node.inputs, strict=True)
    ):
        return node
    return make(node.op, *inputs, **node.attrs)


def substitute(graph: Graph, replacements: Mapping[Node, Node]) -> Graph:
    """Replace nodes (usually inputs) by others and rebuild what depends on them."""

    def rule(node: Node, inputs: tuple[Node, ...]) -> Node:
        return replacements[node] if node in replacements else rebuild(node, inputs)

    return rewrite(graph, rule)


def bind_attrs(value: Any, symbols: Mapping[str, int]) -> Any:
    """Attributes with every symbolic extent replaced by its number."""
    if isinstance(value, Extent):
        return bind_dim(value, symbols)
    if isinstance(value, tuple):
        return tuple(bind_attrs(v, symbols) for v in value)
    return value
