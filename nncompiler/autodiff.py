"""Takes a graph of values, gives the graph of their derivatives, by reverse accumulation.

    y = tanh(x @ w)      ->      d_w = x' @ (d_y * (1 - y * y))

Derivatives are ordinary nodes, so they can be differentiated again.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

from ir import ops
from ir.graph import Node, topological
from ir.reverse import pull_back


def differentiate(
    output: Node,
    wrt: Sequence[Node],
    cotangent: Node | None = None,
    names: MutableMapping[Node, str] | None = None,
) -> tuple[Node, ...]:
    """The derivative of `output` by each node of `wrt` (inputs or values on the way).

    `cotangent` has the type of `output` and weighs its elements; it may be left out for a scalar.
    A node that the output does not depend on gets zeros. `names` is given the name "d_<name>" for
    the cotangent of every node that has a name there. ValueError for integers.
    """
    seed = _seed(output, cotangent)
    for node in wrt:
        if not node.dtype.is_float:
            raise ValueError(f"cannot differentiate by a value of type {node.type}")
    cotangents = pull_back([(output, seed)], wrt)
    order = topological([output])
    if names is not None:
        _name(names, cotangents, order)
    return tuple(cotangents.get(n, ops.full_like(n, 0)) for n in wrt)


def _seed(output: Node, cotangent: Node | None) -> Node:
    if not output.dtype.is_float:
        raise ValueError(f"cannot differentiate a value of type {output.type}: it is not real")
    if cotangent is None:
        if output.shape:
            raise ValueError(
                f"cannot differentiate {output.type} without a cotangent: not a scalar"
            )
        return ops.full_like(output, 1)
    if cotangent.type != output.type:
        raise ValueError(f"the cotangent is {cotangent.type}, the value is {output.type}")
    return cotangent


def _name(
    names: MutableMapping[Node, str], cotangents: dict[Node, Node], order: Sequence[Node]
) -> None:
    for node in order:
        name, g = names.get(node), cotangents.get(node)
        if name is not None and g is not None and g not in names and g.op.name != "constant":
            names[g] = f"d_{name}"
