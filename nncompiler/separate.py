"""Takes a graph and which inputs are fixed, gives what is computed from them once, and the rest.

    y = relu((conv(x, w) - mean) * scale * rsqrt(variance + e) + shift)
    once:  w' = w * k,  b' = shift - mean * k      with k = scale * rsqrt(variance + e)
    rest:  y = relu(conv(x, w') + b')              with w' and b' as inputs "fixed:..."

Views stay in the rest: how weights are laid out is decided by the schedule, whose copies of fixed
inputs are made once too (codegen/once.py).
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from ir import ops
from ir.graph import Graph, Node, substitute
from ir.op import Lowering
from nncompiler.affine import absorb
from nncompiler.simplify import simplify
from nncompiler.stored import contract_base
from runtime.artifact import FIXED

EVERY_TIME = (Lowering.SCAN, Lowering.ITEM)  # loops over time are left whole


@dataclass(frozen=True)
class Halves:
    """`once` computes outputs from fixed inputs; `rest` reads these under the same names, and the
    fixed inputs `taken` under their ids behind FIXED, instead of the fixed inputs themselves."""

    once: Graph
    rest: Graph
    taken: tuple[str, ...]


def separate(graph: Graph, ids: Set[str]) -> Halves:
    """The graph in two halves, where the inputs of those ids are fixed."""
    graph = simplify(graph)
    graph = simplify(absorb(graph, fixed_nodes(graph, ids)))
    cuts = _cuts(graph, fixed_nodes(graph, ids))
    names = {base: _name(base, number, ids) for number, base in enumerate(cuts)}
    leaves = {base: ops.input(name, base.dtype, base.shape) for base, name in names.items()}
    changed = substitute(graph, leaves)
    data = [n for n in graph.inputs if n.attrs["id"] not in ids]
    shown = {leaf: changed.names.get(leaf, leaf.attrs["id"]) for leaf in leaves.values()}
    rest = Graph(graph.name, (*data, *leaves.values()), changed.outputs, {**changed.names, **shown})
    computed = {name: base for base, name in names.items() if base.op.name != "input"}
    read = set(Graph("", (), computed).nodes)
    inputs = tuple(n for n in graph.inputs if n in read)
    kept = {n: name for n, name in graph.names.items() if n in read}
    once = Graph(f"{graph.name}_once", inputs, computed, kept)
    taken = tuple(str(base.attrs["id"]) for base in cuts if base.op.name == "input")
    return Halves(once, rest, taken)


def _name(base: Node, number: int, ids: Set[str]) -> str:
    """The input's id behind FIXED, or a number that is no input's id."""
    if base.op.name == "input":
        return FIXED + str(base.attrs["id"])
    name = str(number)
    while name in ids:
        name += "'"
    return FIXED + name


def fixed_nodes(graph: Graph, ids: Set[str]) -> set[Node]:
    """What depends on the inputs of those ids, and else on nothing that a call brings."""
    fixed: set[Node] = set()
    known: set[Node] = set()
    for node in graph.nodes:
        if node.op.name == "input":
            if node.attrs["id"] in ids:
                fixed.add(node)
        elif node.op.lowering in EVERY_TIME or node.type.symbols:
            continue
        elif all(i in fixed or i in known for i in node.inputs):
            (fixed if any(i in fixed for i in node.inputs) else known).add(node)
    return fixed


def _cuts(graph: Graph, fixed: Set[Node]) -> list[Node]:
    """The fixed values that others read, below views that are plain addressing."""
    read = [n for n in graph.outputs.values() if n in fixed]
    read += [i for n in graph.nodes if n not in fixed for i in n.inputs if i in fixed]
    bases = (i if i in graph.outputs.values() else contract_base(i) for i in read)
    return list(dict.fromkeys(b for b in bases if b in fixed))
