"""Takes index expressions, gives scalar expressions: what is computed at one point of a loop nest.

One language shared by kernels and loop statements. Expressions are hash-consed, so a value that is
used twice is one object and is computed once.

    Scalar = const(value) | load(buffer, index, guards, fill) | at(index) | extent(dim)
           | apply(op, args) | ref(name)
"""

from __future__ import annotations

import struct
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ir.index import Guard, Index, Var
from ir.types import Dim, DType

ORIGIN = Index()


@dataclass(frozen=True, eq=False)
class Scalar:
    """One scalar expression; `kind` tells which of the fields below are in use."""

    kind: str  # const | load | at | extent | apply | ref
    dtype: DType
    name: str = ""  # load: buffer; apply: op; ref: the let or accumulator
    args: tuple[Scalar, ...] = ()  # apply: operands; load: data-dependent indices
    value: float | int | bool = 0  # const
    index: Index = ORIGIN  # load: element offset; at: the value
    strides: tuple[int, ...] = ()  # load: elements per unit of each data-dependent index
    guards: tuple[Guard, ...] = ()  # load: outside of them the value is `fill`
    fill: float | int | bool = 0
    dim: Dim = 0  # extent

    def __str__(self) -> str:
        return render(self)


_table: weakref.WeakValueDictionary[Any, Scalar] = weakref.WeakValueDictionary()


def _number_key(value: float | int | bool) -> Any:
    return struct.pack("<d", value) if isinstance(value, float) else (type(value).__name__, value)


def _intern(s: Scalar) -> Scalar:
    key: Any = (s.kind, s.dtype, s.name, tuple(map(id, s.args)), _number_key(s.value), s.index)
    key += (s.strides, s.guards, _number_key(s.fill), s.dim)
    return _table.setdefault(key, s)


def const(value: float | int | bool, dtype: DType) -> Scalar:
    value = bool(value) if dtype.kind == "bool" else float(value) if dtype.is_float else int(value)
    return _intern(Scalar("const", dtype, value=value))


def load(
    buffer: str,
    index: Index,
    dtype: DType,
    *,
    indirect: Iterable[tuple[Scalar, int]] = (),
    guards: tuple[Guard, ...] = (),
    fill: float | int | bool = 0,
) -> Scalar:
    """buffer[index + sum(indirect index * stride)], or `fill` where a guard does not hold."""
    pairs = tuple(indirect)
    return _intern(
        Scalar(
            "load",
            dtype,
            buffer,
            tuple(s for s, _ in pairs),
            index=index,
            strides=tuple(k for _, k in pairs),
            guards=guards,
            fill=fill,
        )
    )


def at(index: Index, dtype: DType) -> Scalar:
    """An index expression as a value (what iota computes)."""
    return _intern(Scalar("at", dtype, index=index))


def extent(dim: Dim, dtype: DType) -> Scalar:
    """A (symbolic) extent as a value, e.g. the batch size as a float."""
    return _intern(Scalar("extent", dtype, dim=dim))


def apply(op: str, args: Iterable[Scalar], dtype: DType) -> Scalar:
    return _intern(Scalar("apply", dtype, op, tuple(args)))


def ref(name: str, dtype: DType) -> Scalar:
    """The value of a let or of an accumulator."""
    return _intern(Scalar("ref", dtype, name))


def walk(roots: Iterable[Scalar]) -> Iterator[Scalar]:
    """Every subexpression once, operands first."""
    seen: set[Scalar] = set()
    stack: list[Scalar | tuple[Scalar]] = [*roots]
    stack.reverse()
    while stack:
        node = stack.pop()
        if isinstance(node, tuple):  # its operands are done
            (node,) = node
        elif node.args and node not in seen:
            stack.append((node,))
            stack.extend(node.args[::-1])
            continue
        if node not in seen:
            seen.add(node)
            yield node


def rewrite(root: Scalar, rule: Callable[[Scalar], Scalar | None]) -> Scalar:
    """Replace subexpressions top-down: rule(s) gives another, or None to go on into operands."""
    memo: dict[Scalar, Scalar] = {}

    def visit(s: Scalar) -> Scalar:
        if s not in memo:
            new = rule(s)
            if new is None:
                new = with_args(s, tuple(visit(a) for a in s.args)) if s.args else s
            memo[s] = new
        return memo[s]

    return visit(root)


def with_args(s: Scalar, args: tuple[Scalar, ...]) -> Scalar:
    if all(a is b for a, b in zip(args, s.args, strict=True)):
        return s
    return _intern(
        Scalar(s.kind, s.dtype, s.name, args, s.value, s.index, s.strides, s.guards, s.fill, s.dim)
    )


def map_indices(root: Scalar, function: Callable[[Index], Index]) -> Scalar:
    """Rewrite every index of the expression: of loads, of guards, and where it is a value."""
    memo: dict[Scalar, Scalar] = {}
    for s in walk([root]):
        guards = tuple(Guard(function(g.value), g.low, g.high) for g in s.guards)
        args, index = tuple(memo[a] for a in s.args), function(s.index)
        memo[s] = _intern(
            Scalar(s.kind, s.dtype, s.name, args, s.value, index, s.strides, guards, s.fill, s.dim)
        )
    return memo[root]


def substitute(root: Scalar, values: Mapping[Var, Index]) -> Scalar:
    """Replace loop variables in every index of the expression."""
    return map_indices(root, lambda index: index.substitute(values))


def rename(root: Scalar, names: Mapping[str, str]) -> Scalar:
    """Give buffers (and refs) that are in `names` other names."""
    memo: dict[Scalar, Scalar] = {}
    for s in walk([root]):
        name = names.get(s.name, s.name) if s.kind in ("load", "ref") else s.name
        args = tuple(memo[a] for a in s.args)
        memo[s] = _intern(
            Scalar(
                s.kind, s.dtype, name, args, s.value, s.index, s.strides, s.guards, s.fill, s.dim
            )
        )
    return memo[root]


def loads(root: Scalar) -> tuple[Scalar, ...]:
    return tuple(s for s in walk([root]) if s.kind == "load")


def variables(root: Scalar) -> frozenset[Var]:
    """The loop variables that the expression depends on."""
    found: set[Var] = set()
    for s in walk([root]):
        found |= s.index.variables
        for guard in s.guards:
            found |= guard.value.variables
    return frozenset(found)


_INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "lt": "<",
    "le": "<=",
    "eq": "==",
    "ne": "!=",
    "and": "&",
    "or": "|",
    "xor": "^",
    "shl": "<<",
    "shr": ">>",
}


LONG = 24  # characters: a shared value of more is written once, after "where"


def render(root: Scalar) -> str:
    """C-like text of the expression; long values used more than once get a name:

    (t0 * t0) where t0 = tanh((x[i*4 + j] + b[j]))
    """
    ((named, text),) = render_together([[root]])
    shared = ", ".join(f"{name} = {value}" for name, _, value in named)
    return f"{text[0]} where {shared}" if shared else text[0]


Named = tuple[str, Scalar, str]  # name, what it stands for, text


def render_together(groups: Sequence[Sequence[Scalar]]) -> list[tuple[list[Named], list[str]]]:
    """The texts of groups of expressions, each with the names that it is the first to need."""
    every = list(walk(root for roots in groups for root in roots))
    uses = Counter(a for s in every for a in s.args)
    uses.update(root for roots in groups for root in roots)
    texts: dict[Scalar, str] = {}
    found = []
    count = 0
    for roots in groups:
        named: list[Named] = []
        for s in walk(roots):
            if s in texts:
                continue
            text = _render_one(s, [texts[a] for a in s.args])
            if uses[s] > 1 and s.args and len(text) > LONG:
                named.append((f"t{count}", s, text))
                text = f"t{count}"
                count += 1
            texts[s] = text
        found.append((named, [texts[root] for root in roots]))
    return found


def _render_one(s: Scalar, args: list[str]) -> str:
    match s.kind:
        case "const":
            return f"{s.value:g}" if isinstance(s.value, float) else str(s.value).lower()
        case "load":
            return _render_load(s, args)
        case "at":
            return f"{s.dtype}({s.index})"
        case "extent":
            return f"{s.dtype}({s.dim})"
        case "ref":
            return s.name
    if s.name in _INFIX and len(args) == 2:
        return f"({args[0]} {_INFIX[s.name]} {args[1]})"
    name = str(s.dtype) if s.name == "cast" else s.name
    return f"{name}({', '.join(args)})"


def _render_load(s: Scalar, args: list[str]) -> str:
    index = str(s.index)
    for arg, stride in zip(args, s.strides, strict=True):
        index += f" + {arg}*{stride}"
    text = f"{s.name}[{index}]"
    if s.guards:
        text = f"({' and '.join(map(str, s.guards))} ? {text} : {s.fill})"
    return text
