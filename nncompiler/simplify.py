"""Takes a graph, gives its normal form: equal values, fewer and smaller operations.

    relu(transpose(transpose(x)) + 0)  ->  relu(x)

Normal form: no rule of rules/{algebra,views,convolution,reductions}.py applies to any node whose
inputs are in normal form. A rule is a function Node -> Node | None that looks at a node and its
inputs alone, never at its users, so that the result depends on nothing but the value and
`simplify(simplify(g))` has the very same nodes as `simplify(g)`.

Laws that all rules keep: NaN and infinities of the inputs come out as they would have (exceptions
are named in a rule's docstring); what rules may change is the sign of a zero, the rounding of
results, and the bits of a NaN.
"""

from __future__ import annotations

from ir.graph import Body, Graph, Node, make, rebuild, rewrite
from ir.op import Lowering
from nncompiler.rules import algebra, convolution, reductions, tables, views

RULES = (*algebra.RULES, *views.RULES, *convolution.RULES, *reductions.RULES, *tables.RULES)


def simplify(graph: Graph) -> Graph:
    """The graph in normal form; names follow their nodes, inputs and output names are kept."""
    settle = _Settle()
    return rewrite(graph, lambda node, _: settle(node))


class _Settle:
    """The normal form of nodes, remembered."""

    def __init__(self) -> None:
        self.settled: dict[Node, Node] = {}

    def __call__(self, root: Node) -> Node:
        """Inputs first, by a stack of our own: graphs may be deeper than Python's."""
        settled = self.settled
        rewriting: set[Node] = set()
        stack: list[tuple[Node, Node | None]] = [(root, None)]
        while stack:
            node, successor = stack.pop()
            if node in settled:
                continue
            if successor is not None:
                settled[node] = settled[successor]
                continue
            waiting = [i for i in node.inputs if i not in settled]
            if waiting:
                stack.append((node, None))
                stack.extend((i, None) for i in reversed(waiting))
                continue
            current = rebuild(node, tuple(settled[i] for i in node.inputs))
            better = settled[current] if current in settled else apply_rules(current)
            if better is current:
                settled[node] = settled[current] = current
            else:
                is_circle = better in rewriting and better not in settled
                assert not is_circle, f"rules lead from {current} back to {better}"
                rewriting |= {node, current}
                stack += [(node, better), (current, better), (better, None)]
        return settled[root]


def apply_rules(node: Node) -> Node:
    """What the first rule that applies makes of the node, or the node itself."""
    if node.op.lowering is Lowering.SCAN:
        return _simplify_body(node)
    for rule in RULES:
        better = rule(node)
        if better is not None and better is not node:
            return better
    return node


def _simplify_body(node: Node) -> Node:
    """A scan whose body is in normal form."""
    body = node.attrs["body"]
    simple = simplify(body.graph)
    changed = Body(simple.inputs, tuple(simple.outputs.values()))
    return make(node.op, *node.inputs, **{**node.attrs, "body": changed})
