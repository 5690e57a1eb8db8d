"""Takes a network of layers and an objective, gives its definitions and their derivatives.

    a_hidden = W_hidden^T z_x + b_hidden               z_hidden = tanh(a_hidden)
    delta_hidden = (W_scores delta_scores) * (1 - z_hidden^2)
    dL/dW_hidden = 1/N sum_n z_x delta_hidden^T

Whatever the graph gives a name is a value of its own; what lies between is one definition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from ir import ops
from ir.graph import Node, make, rebuild, topological
from ir.op import Lowering
from ir.reverse import pull_back
from nncompiler.explain.forms import replaced, tidy
from nncompiler.explain.objective import is_per_example, seed_of
from nncompiler.explain.symbols import Symbol, derivative, of_name, of_node
from nncompiler.explain.tape import Formula, Slopes, Tape
from nncompiler.explain.writing import Call
from nncompiler.frontend.activations import make_activation
from nncompiler.frontend.losses import LABELS, is_label
from nncompiler.frontend.objective import Objective, Target
from nncompiler.frontend.site import COUNTER, SEED

SEEN = ".z"  # what the frontend calls a layer's value before its activation


class Layers:
    """The definitions of all named values on the way to the losses.

    `by_name` gives what stands for a value, `parameters` for an array, `data` for what a caller
    or the model's state brings: leaf -> input id.
    """

    def __init__(self, nodes: Mapping[Hashable, Mapping[str, Any]], objective: Objective) -> None:
        self.objective = objective
        built = objective.training
        self.tape = Tape(Pulls())
        self.calls: dict[Node, Call] = {}
        self.data: dict[Node, str] = {}
        self.parameters: dict[str, Node] = {}
        self.by_name: dict[str, Node] = {}
        self.losses: list[Formula] = []
        self._activations = {str(n): data.get("activation") for n, data in nodes.items()}
        self._names = built.names
        self._stands: dict[Node, Node] = {}
        scores = {name: objective.scores(built, name) for name in objective.losses}
        per_example = all(
            is_per_example(loss, scores[name], objective.targets[name].node)
            for name, loss in objective.losses.items()
        )
        self.of = "L_n" if per_example else "L"
        self.rows = next(iter(scores.values())).shape[:1]
        order = topological([*scores.values(), *(built.outputs[n] for n in scores)])
        needed = topological(scores.values())
        self._uses = Counter(i for node in needed for i in set(node.inputs))
        self._parts: Counter[str] = Counter()
        self._owners = self._find_owners(order)
        for node in order:
            self._stands[node] = self._read(node)
        for name in self.by_name:
            self._name_adjoint(name)
        for name, node in scores.items():
            self._add_loss(name, self._stands[node], objective.targets[name])

    # ------------------------------------------------------------------ values

    def _read(self, node: Node) -> Node:
        if node.op.name == "input":
            return self._leaf(node)
        value = rebuild(node, tuple(self._stands[i] for i in node.inputs))
        name = self._names.get(node)
        if not node.inputs or (name is None and not self._is_part(node, value)):
            return value
        if name is None:
            return self._add_part(self._owners[node], value)
        leaf = self.tape.leaf(f"value:{name}", self._symbol(name), value)
        self.tape.define(leaf, value)
        self.by_name[name] = leaf
        self._note_activation(name, value)
        return leaf

    def _is_part(self, node: Node, value: Node) -> bool:
        """Whether a value without a name is used so often that it gets one: u_norm.1"""
        if self._uses[node] < 2 or not value.dtype.is_float or _is_elementwise(value):
            return False
        if value.op.lowering is Lowering.VIEW:
            return False
        return any(n in self.tape.names for n in topological([value]))

    def _find_owners(self, order: Sequence[Node]) -> dict[Node, str]:
        """The layer that every value belongs to: the next one that has a name."""
        owners: dict[Node, str] = {}
        for node in reversed(order):
            name = self._names.get(node)
            own = owners.setdefault(node, "") if name is None else name.removesuffix(SEEN)
            for operand in node.inputs:
                owners[operand] = own
        return owners

    def _add_part(self, owner: str, value: Node) -> Node:
        self._parts[owner] += 1
        number = self._parts[owner]
        leaf = self.tape.leaf(f"part:{owner}.{number}", of_node("u", owner, number), value)
        self.tape.define(leaf, value)
        symbol = of_node("gamma", owner, number)
        self.tape.call_adjoint(leaf, symbol, derivative(self.of, self.tape.names[leaf]))
        return leaf

    def _symbol(self, name: str) -> Symbol:
        if name.endswith(SEEN):
            return of_node("a", name.removesuffix(SEEN))
        return of_node("z", name)

    def _leaf(self, node: Node) -> Node:
        id: str = node.attrs["id"]
        layer, _, part = id.rpartition(".")
        if id in self.objective.network.parameters:
            letter = {"weight": "W", "bias": "b"}.get(part)
            symbol = of_node(letter, layer) if letter and layer else of_name(id)
            leaf = self.tape.leaf(f"number:{id}", symbol, node)
            self.parameters[id] = leaf
        else:
            known = id in self.objective.network.inputs
            leaf = self.tape.leaf(f"data:{id}", of_node("z", id) if known else of_name(id), node)
            self.by_name |= {id: leaf} if known and node.dtype.is_float else {}
        self.data[leaf] = id
        return leaf

    def _note_activation(self, name: str, value: Node) -> None:
        """gelu(a_hidden), where the graph names the activation; what is drawn is not spelled out"""
        sources = [n for n in topological([value]) if n in self.data]
        if sources and all(self.data[n] in (SEED, COUNTER) for n in sources):
            self.calls[value] = Call("random", tuple(sources))
        activation = self._activations.get(name)
        seen = self.by_name.get(f"{name}{SEEN}")
        if seen is None or not isinstance(activation, (str, tuple, list)):
            return
        title, function = make_activation(activation)
        if function(seen) is value:
            options = getattr(function, "keywords", {})
            self.calls[value] = Call(title, (seen,), tuple(f"{k}={v}" for k, v in options.items()))

    def _name_adjoint(self, name: str) -> None:
        """delta is the derivative by what the activation sees, where there is one."""
        leaf = self.by_name[name]
        if leaf in self.data or not leaf.dtype.is_float or f"{name}{SEEN}" in self.by_name:
            return
        symbol = of_node("delta", name.removesuffix(SEEN))
        self.tape.call_adjoint(leaf, symbol, derivative(self.of, self.tape.names[leaf]))

    # ------------------------------------------------------------------ losses

    def _add_loss(self, name: str, y: Node, target: Target) -> None:
        several = len(self.objective.losses) > 1
        loss = self.objective.losses[name]
        symbol = of_node("t", name) if several else Symbol("t", "t")
        t = self.tape.leaf(f"target:{name}", symbol, target.node)
        self.data[t] = target.id
        weight = self.objective.loss_weights.get(name, 1.0)
        seed = seed_of(loss, y, t, weight, self.of == "L_n")
        share = ops.softmax(y)
        back = {seed.softmax: share, seed.top: make("max", y, axes=(1,)) if y.ndim == 2 else y}
        self.calls[share] = Call("softmax", (y,))
        if target.kind == LABELS:
            one = ops.where(is_label(y, t), ops.full_like(y, 1.0), 0.0)
            self.calls[tidy(one)[0]] = Call("e", (t,))
        back |= {f.value: leaf for leaf, f in self.tape.made.items() if leaf is not y}
        slope = replaced(replaced(seed.slope, back), back)
        known = self.tape.seeds.get(y)
        self.tape.seeds[y] = slope if known is None else known + slope
        of = of_node(self.of, name) if several else Symbol(self.of, self.of)
        leaf = ops.input(f"loss:{name}", seed.value.dtype, seed.value.shape)
        self.losses.append(Formula(of, leaf, replaced(seed.value, back)))


class Pulls:
    """Pulls back through definitions: elementwise ones by their slope, others by their records."""

    def __init__(self) -> None:
        self._slopes = Slopes({})

    def __call__(self, formula: Formula, leaf: Node, adjoint: Node) -> Node | None:
        if formula.value.shape == leaf.shape and _is_elementwise(formula.value):
            return self._slopes(formula, leaf, adjoint)
        stand_in = ops.input("adjoint", formula.value.dtype, formula.value.shape)
        found = pull_back([(formula.value, stand_in)], [leaf]).get(leaf)
        if found is None:
            return None
        if found.op.lowering is Lowering.CONTRACT and not any(i.inputs for i in found.inputs):
            return replaced(found, {stand_in: adjoint})  # W delta, whatever the extents
        short, own = tidy(found, formula.value)
        if ops.uniform_value(short) == 0:
            return None
        return replaced(short, {own: formula.leaf, stand_in: adjoint})


def _is_elementwise(value: Node) -> bool:
    allowed = (Lowering.MAP, Lowering.LEAF)
    return all(
        n.op.lowering in allowed or ops.uniform_value(n) is not None for n in topological([value])
    )
