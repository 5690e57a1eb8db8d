"""Takes a function of real numbers, gives it as text; takes the text, applies it to anything.

    z tanh(z + b)        ->    "add z x0; tanh %0"

One instruction after the other, each an elementwise op and its operands: `z` and `x0 x1 ...` are
the arguments, `%n` the result of instruction n, all else a number. The last result is the value,
the empty text is z itself. Text is an attribute that prints, parses and hashes like any other.

Before the instructions may stand how the terms of a node become its z, where that is not their
sum: "max: add z x0".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

from ir.graph import Node, make, topological
from ir.op import REGISTRY, Lowering
from ir.ops.core import full_like
from ir.ops.leaves import input
from ir.types import DType, boolean

T = TypeVar("T")
Instruction = tuple[str, tuple[str, ...]]
TRUTH = frozenset({"eq", "ne", "lt", "le", "and", "or", "xor", "not"})
SUM, PRODUCT, MIN, MAX, MEDIAN, MAXABS = COMBINES = (
    "sum",
    "prod",
    "min",
    "max",
    "median",
    "maxabs",
)


def combined(combine: str, text: str) -> str:
    """The formula of a node whose terms are combined so."""
    return text if combine == SUM else f"{combine}: {text}"


def combine_of(text: str) -> str:
    """How the terms of a node with that formula become its z; ValueError where nobody knows."""
    combine = text.partition(":")[0] if ":" in text else SUM
    if combine not in COMBINES:
        raise ValueError(f"formula '{text}': '{combine}' is none of {', '.join(COMBINES)}")
    return combine


@cache
def instructions(text: str) -> tuple[Instruction, ...]:
    """The parsed text; ValueError for an op or operand that does not exist."""
    combine_of(text)
    found: list[Instruction] = []
    body = text.rpartition(":")[2]
    for number, line in enumerate(part for part in body.split(";") if part.strip()):
        op, *operands = line.split()
        if op not in REGISTRY or REGISTRY[op].lowering is not Lowering.MAP:
            raise ValueError(f"formula '{text}': '{op}' is no elementwise op")
        for operand in operands:
            if operand[0] == "%" and not int(operand[1:]) < number:
                raise ValueError(f"formula '{text}': {operand} is used before it is computed")
            if operand[0] not in "%xz":
                float(operand)
        found.append((op, tuple(operands)))
    return tuple(found)


def arity(text: str) -> int:
    """How many arguments x0, x1 ... a formula takes."""
    used = [int(o[1:]) for _, operands in instructions(text) for o in operands if o[0] == "x"]
    return max(used, default=-1) + 1


def apply(
    text: str,
    z: T,
    extras: Sequence[T],
    *,
    number: Callable[[float], T],
    operation: Callable[[str, list[T], DType], T],
    dtype: DType,
) -> T:
    """The value of a formula; `operation` gets an op's name, operands and the result's dtype."""
    results: list[T] = []
    for op, operands in instructions(text):
        args = [_operand(o, z, extras, results, number) for o in operands]
        kind = boolean if op in TRUTH else dtype
        results.append(operation(op, args, kind))
    return results[-1] if results else z


def _operand(
    text: str, z: T, extras: Sequence[T], results: Sequence[T], number: Callable[[float], T]
) -> T:
    if text == "z":
        return z
    if text[0] == "x":
        return extras[int(text[1:])]
    return results[int(text[1:])] if text[0] == "%" else number(float(text))


def without_offset(text: str) -> str | None:
    """The formula of z + x0 where that is all that z and x0 stand in, else None: a sum may start
    from x0.

        "add z x0; tanh %0"    ->    "tanh z"
    """
    lines = instructions(text)
    if not lines or combine_of(text) != SUM or lines[0] != ("add", ("z", "x0")):
        return None
    if any(o in ("z", "x0") for _, operands in lines[1:] for o in operands):
        return None
    moved = {"%0": "z"} | {f"%{n}": f"%{n - 1}" for n in range(1, len(lines))}
    return "; ".join(" ".join([op, *(moved.get(o, o) for o in os)]) for op, os in lines[1:])


def derivative(text: str, z: Node, extras: Sequence[Node]) -> tuple[Node, Node, list[Node]]:
    """The value of a formula at every element, its derivative by z, and those by the arguments."""
    values: list[Node] = []
    inputs: list[tuple[Node, ...]] = []
    for op, operands in instructions(text):
        args = [_operand(o, z, extras, values, lambda v: full_like(z, v)) for o in operands]
        inputs.append(tuple(args))
        values.append(make(op, *args))
    if not values:
        return z, full_like(z, 1.0), [full_like(e, 0.0) for e in extras]
    slopes: dict[str, Node] = {f"%{len(values) - 1}": full_like(z, 1.0)}
    for number, (op, operands) in reversed(list(enumerate(instructions(text)))):
        g, record = slopes.get(f"%{number}"), REGISTRY[op]
        if g is None or record.vjp is None:
            continue
        parts = record.vjp(g, values[number], *inputs[number])
        for name, part in zip(
            operands, parts if isinstance(parts, tuple) else (parts,), strict=True
        ):
            if part is not None and name[0] in "%xz":
                slopes[name] = part if name not in slopes else slopes[name] + part
    zero = full_like(z, 0.0)
    by_extras = [slopes.get(f"x{i}", zero) for i in range(len(extras))]
    return values[-1], slopes.get("z", zero), by_extras


def trace(function: Callable[..., Node], *, extras: int, dtype: DType) -> str:
    """The formula of a Python function of symbolic values (z, x0, x1 ...).

    ValueError where it is not a composition of elementwise operations on real numbers.
    """
    arguments = [input(name, dtype, ()) for name in ("z", *(f"x{i}" for i in range(extras)))]
    result = function(*arguments)
    names = {node: str(node.attrs["id"]) for node in arguments}
    lines: list[str] = []
    for node in topological([result]):
        if node not in names:
            names[node] = _text(node, names, lines)
    if result is arguments[0]:
        return ""
    if names[result] != f"%{len(lines) - 1}":
        lines.append(f"mul {names[result]} 1.0")
    return "; ".join(lines)


def _text(node: Node, names: dict[Node, str], lines: list[str]) -> str:
    if node.op.name == "constant" and not node.shape:
        return repr(float(node.attrs["value"].array))
    if node.op.lowering is not Lowering.MAP or node.attrs or node.shape:
        raise ValueError(f"{node.op.name} is not a function of one number")
    lines.append(" ".join([node.op.name, *(names[i] for i in node.inputs)]))
    return f"%{len(lines) - 1}"
