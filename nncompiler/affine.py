"""Takes a graph and its fixed values, gives one that adds and multiplies them at once.

    ((x - m) * k + b) + c           ->  x * k + (b - m * k + c)
    contract(x, w) * k + b          ->  contract(x, w * k) + b

What is fixed (m, k, b, c, w: a batch norm's statistics, weights) costs nothing to compute, for it
is computed once; so a norm after a convolution costs a bias. Results change by their rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass

from ir import ops
from ir.graph import Graph, Node, make, rebuild, rewrite
from ir.ops.contraction import parse_spec
from nncompiler.rules.match import spread

Axes = tuple[int, ...]
ARITHMETIC = ("add", "sub", "mul", "div")


@dataclass(frozen=True)
class _Step:
    """One of + - * / with a fixed value along some axes of the other operand."""

    op: str
    x: Node
    value: Node
    axes: Axes
    x_first: bool


def absorb(graph: Graph, fixed: Set[Node]) -> Graph:
    """Chains of steps with fixed values as one factor and one shift at most, and the factors of
    contractions in their fixed operands."""
    outputs = set(graph.outputs.values())
    chains: dict[Node, list[_Step]] = {}
    inner: set[Node] = set()
    for node in reversed(graph.nodes):
        if node in inner:
            continue
        chain = list(_chain(node, graph, fixed, outputs))
        if chain:
            chains[node] = chain
            inner |= {step.x for step in chain[:-1]}

    new: dict[Node, Node] = {}  # a chain is rebuilt on what has become of its first operand

    def rule(node: Node, inputs: tuple[Node, ...]) -> Node:
        found = None
        if node in chains:
            found = _joined(chains[node], graph, fixed, outputs, new.__getitem__)
        new[node] = rebuild(node, inputs) if found is None else found
        return new[node]

    return rewrite(graph, rule)


def _chain(node: Node, graph: Graph, fixed: Set[Node], outputs: Set[Node]) -> Iterator[_Step]:
    """The steps that lead to the node, last one first; all but it are read by the next alone."""
    axes: Axes = ()
    while (step := _step(node, fixed)) is not None:
        if step.axes and axes and step.axes != axes:
            return
        axes = axes or step.axes
        yield step
        node = step.x
        if len(graph.users[node]) != 1 or node in outputs:
            return


def _step(node: Node, fixed: Set[Node]) -> _Step | None:
    if node.op.name not in ARITHMETIC or node in fixed or not node.dtype.is_float:
        return None
    a, b = node.inputs
    for x, value, x_first in ((a, b, True), (b, a, False)):
        if value.op.name != "broadcast" or not _is_known(value.inputs[0], fixed):
            continue
        if x_first or node.op.name != "div":
            return _Step(node.op.name, x, value.inputs[0], value.attrs["axes"], x_first)
    return None


def _is_known(value: Node, fixed: Set[Node]) -> bool:
    return value in fixed or value.op.name == "constant"


def _joined(
    chain: list[_Step],
    graph: Graph,
    fixed: Set[Node],
    outputs: Set[Node],
    now: Callable[[Node], Node],
) -> Node | None:
    """The chain's value by one factor and one shift; None where it has no more than that."""
    factor: Node | None = None
    shift: Node | None = None
    for step in reversed(chain):
        factor, shift = _after(step, factor, shift)
    first = chain[-1].x
    axes = max((step.axes for step in chain), key=len)
    y = now(first)
    if factor is not None:
        alone = len(graph.users[first]) == 1 and first not in outputs
        scaled = _scaled(first, y, factor, axes, fixed) if alone else None
        needed = (scaled is None) + (shift is not None)
        if needed >= len(chain):
            return None
        y = y * spread(factor, y.shape, axes if factor.ndim else ()) if scaled is None else scaled
    elif len(chain) < 2:
        return None
    return y if shift is None else y + spread(shift, y.shape, axes if shift.ndim else ())


def _after(step: _Step, factor: Node | None, shift: Node | None) -> tuple[Node | None, Node | None]:
    """(factor, shift) of x * factor + shift after one more step; None stands for 1 and 0."""
    v = step.value
    match step.op:
        case "add":
            return factor, v if shift is None else shift + v
        case "sub" if step.x_first:
            return factor, -v if shift is None else shift - v
        case "sub":
            negated = ops.full_like(v, -1.0) if factor is None else -factor
            return negated, v if shift is None else v - shift
        case "mul":
            return v if factor is None else factor * v, None if shift is None else shift * v
    inverse = 1.0 / v
    return (inverse if factor is None else factor / v), None if shift is None else shift / v


def _scaled(old: Node, node: Node, factor: Node, axes: Axes, fixed: Set[Node]) -> Node | None:
    """The contraction with the factor in its fixed operand, where each axis is that operand's."""
    if old.op.name != "contract" or node.op.name != "contract":
        return None
    left, right, out = parse_spec(node.attrs["spec"])
    letters = [out[a] for a in axes] if factor.ndim else []
    for number, (own, other) in enumerate(((left, right), (right, left))):
        if old.inputs[number] not in fixed or any(c not in own or c in other for c in letters):
            continue
        w = node.inputs[number]
        inputs = list(node.inputs)
        inputs[number] = w * spread(factor, w.shape, tuple(own.index(c) for c in letters))
        return make(node.op, *inputs, **node.attrs)
    return None
