"""Takes the cotangents of a scan's results, gives those of its operands: a scan back in time.

    h' = tanh(x + h @ w)      d_z = d_h' * (1 - y * y);  d_h = d_z @ w';  results: d_z
                              d_x = d_z of all times;    d_w = sum over batch and time of h' d_z

The body of the way back is the derivative of the body; what it needs of the way forward it reads
from the sequences that the scan has kept. The derivative by a value that is the same at all times
is a sum over the times: where it is linear in values of the step, the sum is one contraction after
the loop; else it is carried along.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ir.graph import Body, Node, make, topological
from ir.op import Lowering
from ir.ops.contraction import contract, parse_spec
from ir.ops.core import full_like
from ir.ops.reductions import sum
from ir.ops.steps import fresh_leaf, make_scan, replace_nodes, stacked
from ir.reverse import pull_back

Nodes = tuple[Node, ...]
Stack = Callable[[Node], Node]


def scan_vjp(
    g: tuple[Node | None, ...],
    y: Node,
    *operands: Node,
    body: Body,
    carries: int,
    sequences: int,
    length: int,
    reverse: bool,
) -> tuple[Node | None, ...]:
    way = _WayBack(g, y, operands, body, carries, sequences, length)
    return way.cotangents(reverse)


class _WayBack:
    def __init__(
        self,
        g: tuple[Node | None, ...],
        y: Node,
        operands: Nodes,
        body: Body,
        carries: int,
        sequences: int,
        length: int,
    ) -> None:
        self.y, self.operands, self.length = y, operands, length
        self.carried = body.inputs[:carries]
        self.streams = body.inputs[carries : carries + sequences]
        self.fixed = body.inputs[carries + sequences :]
        self.starts: list[Node] = []  # of what the way back carries
        self.leaves: list[Node] = []  # that stand for it
        self.whole: dict[Node, Node] = {}  # a value of the step -> its sequence
        seeds: list[tuple[Node, Node]] = []
        for place, new in enumerate(body.outputs[:carries]):
            if new.dtype.is_float:
                leaf = fresh_leaf(new.type)
                self.leaves.append(leaf)
                part = g[place]
                self.starts.append(full_like(operands[place], 0) if part is None else part)
                seeds.append((new, leaf))
        for place, result in enumerate(body.outputs[carries:], carries):
            self.whole.setdefault(result, make("item", y, index=place))
            part = g[place]
            if part is not None:
                leaf = fresh_leaf(result.type)
                self.whole[leaf] = part
                seeds.append((result, leaf))
        self.whole |= dict(zip(self.streams, operands[carries:], strict=False))
        wrt = [n for n in body.inputs if n.dtype.is_float]
        found = pull_back(seeds, wrt)
        self.found = {n: found[n] for n in wrt if n in found}

    def cotangents(self, reverse: bool) -> tuple[Node | None, ...]:
        back = [n for n in self.carried if n.dtype.is_float]
        new = [self.found.get(n, full_like(n, 0)) for n in back]
        results = {self.found[n]: None for n in self.streams if n in self.found}
        summed: list[Node] = []
        for n in self.fixed:
            if n not in self.found:
                continue
            wanted: dict[Node, None] = {}
            if self._sum(self.found[n], partial(self._note, wanted)) is None:
                total = fresh_leaf(n.type)
                self.leaves.append(total)
                self.starts.append(full_like(n, 0))
                new.append(total + self.found[n])
                summed.append(n)
            else:
                results |= wanted
        scan = self._make(new, list(results), reverse)
        kept = {v: len(new) + i for i, v in enumerate(results)}

        def stack(value: Node) -> Node:
            if value in kept:
                return make("item", scan, index=kept[value])
            return self.whole[value]

        by_input: dict[Node, Node] = {}
        for place, n in enumerate(back):
            by_input[n] = make("item", scan, index=place)
        for n in self.streams:
            if n in self.found:
                by_input[n] = stack(self.found[n])
        for n in self.fixed:
            if n in self.found and n not in summed:
                total_node = self._sum(self.found[n], stack)
                assert total_node is not None
                by_input[n] = total_node
        for place, n in enumerate(summed, len(back)):
            by_input[n] = make("item", scan, index=place)
        return tuple(by_input.get(n) for n in (*self.carried, *self.streams, *self.fixed))

    def _note(self, wanted: dict[Node, None], value: Node) -> Node:
        """Ask for the sequence of a value, unless there is one already."""
        if value not in self.whole:
            wanted[value] = None
        return fresh_leaf(stacked(value.type, self.length))

    def _make(self, new: list[Node], results: list[Node], reverse: bool) -> Node:
        """The scan back in time; it reads what was kept and computes again what was not."""
        outer = dict(zip(self.fixed, self.operands[-len(self.fixed) :], strict=False))
        used: dict[Node, Node] = {}

        def rule(node: Node) -> Node | None:
            if node in self.whole:
                if node not in used:
                    used[node] = fresh_leaf(node.type)
                return used[node]
            return outer.get(node)

        values = replace_nodes([*new, *results], rule)
        sequences = tuple(self.whole[n] for n in used)
        streams = tuple(used.values())
        return make_scan(
            tuple(self.leaves),
            streams,
            values[: len(new)],
            values[len(new) :],
            self.starts,
            sequences,
            self.length,
            not reverse,
        )

    # ------------------------------------------------------------ sums over the times

    def _sum(self, value: Node, stack: Stack) -> Node | None:
        """The sum of a step's value over all times, from sequences of what it is linear in; None
        where it is not."""
        match node_class(value):
            case "contract":
                a, b = value.inputs
                if not (self._varies(a) and self._varies(b)):
                    return None
                left, right, out = parse_spec(value.attrs["spec"])
                return contract(stack(a), stack(b), f"{_timed(left)},{_timed(right)}->{out}")
            case "sum":
                (x,) = value.inputs
                axes = [a + (a > 0) for a in value.attrs["axes"]]
                return sum(stack(x), (*axes, min(1, x.ndim)))
            case "linear":
                parts = [self._sum(i, stack) for i in value.inputs]
                if any(p is None for p in parts):
                    return None
                return make(value.op, *(p for p in parts if p is not None), **value.attrs)
        return None

    def _varies(self, node: Node) -> bool:
        return not set(topological([node])).isdisjoint({*self.whole, *self.leaves, *self.carried})


def _timed(letters: str) -> str:
    """The letters of an operand of a contraction with those of time: T is no index of a spec."""
    return letters[:1] + "T" + letters[1:]


def node_class(node: Node) -> str:
    """How a value depends on its operands: "contract", "sum", "linear" in all of them, or ""."""
    match node.op.lowering:
        case Lowering.CONTRACT:
            return "contract"
        case Lowering.REDUCE if node.op.combine == "sum":
            return "sum"
        case Lowering.VIEW if node.attrs.get("value", 0) == 0:
            return "linear"
        case Lowering.MAP if node.op.name in ("add", "sub", "neg"):
            return "linear"
    return ""
