"""Takes nodes, gives groups of them: the points that a kernel computes, and what it reads there."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

from ir import scalar
from ir.graph import Node
from ir.index import Guard, Index, Var, flatten
from ir.op import Lowering
from ir.types import Shape
from nncompiler.access import Indices, axis_variables, element, point

Read = tuple[Node, Indices]
MOST_PARTS = 64  # elements of a view that one kernel writes one by one


@dataclass(eq=False)
class Group:
    """Nodes computed by one kernel, over the points of `full`; `reduced` axes are combined away.

    kind: "map" (no reduction), "rows" (reductions over the same axes), "contract", "scatter",
    "sparse", "scan". The last three compute one node and nothing else; the items of a scan are
    members of its group.
    """

    number: int
    kind: str
    full: Shape
    reduced: tuple[int, ...] = ()
    nodes: list[Node] = field(default_factory=list)
    ancestors: int = 0  # bit set of the numbers of all groups that this one depends on

    @property
    def variables(self) -> tuple[Var, ...]:
        return axis_variables(self.full)

    @property
    def is_single(self) -> bool:
        """Is there one row only, whose results are numbers?"""
        return all(v.extent == 1 for v in self.row_variables)

    @property
    def row_variables(self) -> tuple[Var, ...]:
        return tuple(v for axis, v in enumerate(self.variables) if axis not in self.reduced)

    def position(self, shape: Shape) -> Indices | None:
        """Where a value of this shape stands at a point of the group: per row, or per element."""
        row = _match(shape, self.row_variables)
        return row if row is not None else _match(shape, self.variables)


def _match(shape: Shape, variables: tuple[Var, ...]) -> Indices | None:
    """Indices over the variables for a shape that equals theirs up to extents of one."""
    long = [v for v in variables if v.extent != 1]
    if [d for d in shape if d != 1] != [v.extent for v in long]:
        return None
    rest = iter(long)
    return tuple(Index() if dim == 1 else Index.of(next(rest)) for dim in shape)


def own_group(node: Node, number: int) -> Group:
    match node.op.lowering:
        case Lowering.REDUCE:
            return Group(number, "rows", node.inputs[0].shape, node.attrs["axes"])
        case Lowering.CONTRACT:
            return Group(number, "contract", node.shape)
        case Lowering.SCATTER:
            return Group(number, "scatter", node.inputs[-2].shape)
        case Lowering.SPARSE:
            return Group(number, "sparse", node.shape)
        case Lowering.SCAN:
            return Group(number, "scan", node.shape)
    return Group(number, "map", node.shape)


def domain(group: Group) -> tuple[Shape, tuple[int, ...]]:
    return group.full, group.reduced


def element_places(node: Node) -> list[Indices] | None:
    """The indices of every element of a small view; None for anything else."""
    if node.op.lowering is not Lowering.VIEW or not isinstance(node.type.size, int):
        return None
    if not 0 < node.type.size <= MOST_PARTS:
        return None
    ranges = (range(d) for d in node.shape if isinstance(d, int))
    return [tuple(map(Index.of, place)) for place in product(*ranges)]


def contract_variables(node: Node) -> dict[str, Var]:
    """The loop variable of every letter of a spec; output letters as a group's axes."""
    left, right, out = split_spec(node.attrs["spec"])
    extents = dict(zip(left, node.inputs[0].shape, strict=True))
    extents.update(zip(right, node.inputs[1].shape, strict=True))
    letters = dict(zip(out, axis_variables(node.shape), strict=True))
    summed = [c for c in dict.fromkeys(left + right) if c not in out]
    for number, letter in enumerate(summed):
        letters[letter] = Var("k" if len(summed) == 1 else f"k{number}", extents[letter])
    return letters


def split_spec(spec: str) -> tuple[str, str, str]:
    operands, out = spec.split("->")
    left, right = operands.split(",")
    return left, right, out


class Reads:
    """What computing a node in a group reads: stored nodes, and the indices they are read at."""

    def __init__(self, inline: frozenset[Node]) -> None:
        self.inline = inline
        self._memo: dict[tuple[Node, Shape, tuple[int, ...]], list[Read]] = {}

    def __call__(self, node: Node, group: Group) -> list[Read]:
        key = (node, group.full, group.reduced)
        if key not in self._memo:
            self._memo[key] = _reads(node, group, self.inline)
        return self._memo[key]


def _reads(node: Node, group: Group, inline: frozenset[Node]) -> list[Read]:
    found: dict[Read, None] = {}

    def resolve(source: Node, indices: Indices, guards: tuple[Guard, ...]) -> scalar.Scalar | None:
        if source in inline:
            return None
        found[source, indices] = None
        offset = flatten(indices, source.type.strides)
        return scalar.load(f"#{id(source)}", offset, source.dtype, guards=guards)

    match node.op.lowering:
        case Lowering.REDUCE:
            element(node.inputs[0], point(group.variables), resolve)
        case Lowering.CONTRACT:
            letters = contract_variables(node)
            for operand, spec in zip(node.inputs, split_spec(node.attrs["spec"]), strict=False):
                element(operand, point(letters[c] for c in spec), resolve)
        case Lowering.SCATTER:
            *base, updates, rows = node.inputs
            for start in base:
                element(start, point(axis_variables(start.shape)), resolve)
            element(updates, point(group.variables), resolve)
            element(rows, point(group.variables[: rows.ndim]), resolve)
        case Lowering.SPARSE | Lowering.SCAN:
            for operand in node.inputs:
                element(operand, point(axis_variables(operand.shape)), resolve)
        case Lowering.ITEM:
            pass
        case _:
            position = group.position(node.shape)
            places = [position] if position is not None else element_places(node)
            assert places is not None
            outside = inline | {node}
            if node.op.lowering is Lowering.MAP:
                for i in node.inputs:
                    element(i, places[0], resolve)
            else:
                for place in places:
                    element(node, place, lambda n, i, g: None if n in outside else resolve(n, i, g))
    return list(found)
