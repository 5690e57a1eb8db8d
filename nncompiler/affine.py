"""Takes a graph and its fixed values, gives one that adds and multiplies them at once.

    ((x - m) * k + b) + c           ->  x * k + (b - m * k + c)
    contract(x, w) * k + b          ->  contract(x, w * k) + b

What is fixed (m, k, b, c, w: a batch norm's statistics, weights) costs nothing to compute, for it
is computed once; so a norm after a convolution costs a bias. Results change by their rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass

from ir import ops
from ir.graph import Graph, Node, rebuild, rewrite
from ir.ops.contraction import parse_spec
from ir.types import multiply
from nncompiler.rules.match import spread

Axes = tuple[int, ...]
ARITHMETIC = ("add", "sub", "mul", "div")


def absorb(graph: Graph, fixed: Set[Node]) -> Graph:
    """Chains of steps with fixed values as one factor and one shift at most, and the factors of
    contractions in their fixed operands."""
    return _Absorber(graph, fixed).run()


@dataclass(frozen=True)
class _Step:
    """One of + - * / with a fixed value along some axes of the other operand."""

    op: str
    x: Node
    value: Node
    axes: Axes
    x_first: bool


class _Absorber:
    def __init__(self, graph: Graph, fixed: Set[Node]) -> None:
        self.graph, self.fixed = graph, fixed
        self.outputs = set(graph.outputs.values())
        self.new: dict[Node, Node] = {}

    def run(self) -> Graph:
        chains: dict[Node, list[_Step]] = {}
        inner: set[Node] = set()
        for node in reversed(self.graph.nodes):
            if node not in inner and (chain := list(self._chain(node))):
                chains[node] = chain
                inner |= {step.x for step in chain[:-1]}

        def rule(node: Node, inputs: tuple[Node, ...]) -> Node:
            found = self._joined(chains[node]) if node in chains else None
            self.new[node] = rebuild(node, inputs) if found is None else found
            return self.new[node]

        return rewrite(self.graph, rule)

    # ------------------------------------------------------------ chains

    def _chain(self, node: Node) -> Iterator[_Step]:
        """The steps that lead to the node, last one first; each is read by the next alone."""
        axes: Axes = ()
        while (step := self._step(node)) is not None:
            if step.axes and axes and step.axes != axes:
                return
            axes = axes or step.axes
            yield step
            node = step.x
            if not self._is_alone(node):
                return

    def _step(self, node: Node) -> _Step | None:
        if node.op.name not in ARITHMETIC or node in self.fixed or not node.dtype.is_float:
            return None
        a, b = node.inputs
        for x, value, x_first in ((a, b, True), (b, a, False)):
            if value.op.name != "broadcast" or not self._is_known(value.inputs[0]):
                continue
            if x_first or node.op.name != "div":
                return _Step(node.op.name, x, value.inputs[0], value.attrs["axes"], x_first)
        return None

    def _is_known(self, value: Node) -> bool:
        return value in self.fixed or value.op.name == "constant"

    def _is_alone(self, node: Node) -> bool:
        """Has the node one reader and no other use?"""
        return len(self.graph.users[node]) == 1 and node not in self.outputs

    # ------------------------------------------------------------ what they become

    def _joined(self, chain: list[_Step]) -> Node | None:
        """The chain's value by one factor and one shift; None where it has no more than that."""
        factor: Node | None = None
        shift: Node | None = None
        for step in reversed(chain):
            factor, shift = _after(step, factor, shift)
        first = chain[-1].x
        axes = max((step.axes for step in chain), key=len)
        y = self.new[first]
        if factor is not None:
            at = axes if factor.ndim else ()
            scaled = self._scaled(first, factor, at)
            needed = (scaled is None) + (shift is not None)
            if needed >= len(chain):
                return None
            y = y * spread(factor, y.shape, at) if scaled is None else scaled
        elif len(chain) < 2:
            return None
        return y if shift is None else y + spread(shift, y.shape, axes if shift.ndim else ())

    def _scaled(self, old: Node, factor: Node, axes: Axes) -> Node | None:
        """What is now computed for a contraction, or for one whose axes were joined (groups of
        channels), with the factor in its fixed operand; None where that is not possible."""
        node = self.new[old]
        if not self._is_alone(old) or node.op.name != old.op.name:
            return None
        if old.op.name == "reshape":
            split = _split(old, axes)
            if split is None:
                return None
            thin = ops.reshape(factor, tuple(old.inputs[0].shape[a] for a in split))
            inner = self._scaled(old.inputs[0], thin, split)
            return None if inner is None else rebuild(node, (inner,))
        if old.op.name != "contract":
            return None
        left, right, out = parse_spec(node.attrs["spec"])
        letters = [out[a] for a in axes]
        for number, own in enumerate((left, right)):
            if old.inputs[number] in self.fixed and all(c in own for c in letters):
                w = node.inputs[number]
                inputs = list(node.inputs)
                inputs[number] = w * spread(factor, w.shape, tuple(own.index(c) for c in letters))
                return rebuild(node, tuple(inputs))
        return None


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


def _split(view: Node, axes: Axes) -> Axes | None:
    """The axes of a reshape's operand that the given ones of its result are made of, of known
    lengths and in the same order; None where one of them is made of parts of others."""
    (x,) = view.inputs
    found: list[int] = []
    for a in axes:
        step, extent = view.type.strides[a], view.shape[a]
        if not isinstance(extent, int):
            return None
        within = [
            b
            for b, (stride, dim) in enumerate(zip(x.type.strides, x.shape, strict=True))
            if dim != 1 and step <= stride < step * extent
        ]
        if multiply(x.shape[b] for b in within) != extent:
            return None
        found += within
    return tuple(found)
