"""Takes a graph of neurons and an objective, gives its definitions and their derivatives.

a_6 = b_6 + w36 z_3 + w46 z_4 + w56 z_5        z_6 = sigmoid(a_6)
delta_6 = dL_n/da_6                            dL/dw36 = 1/N sum_n z_3 delta_6
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import reduce

import networkx as nx

from ir import ops
from ir.graph import Node
from nncompiler.explain.elements import Elements, Place
from nncompiler.explain.forms import replaced, tidy
from nncompiler.explain.objective import is_per_example, seed_of
from nncompiler.explain.symbols import Symbol, derivative, of_edge, of_name, of_node
from nncompiler.explain.tape import Formula, Slopes, Tape
from nncompiler.explain.writing import Call
from nncompiler.frontend.activations import make_activation
from nncompiler.frontend.graphs import fail
from nncompiler.frontend.losses import LABELS
from nncompiler.frontend.neurons import OUTPUT
from nncompiler.frontend.objective import Objective
from nncompiler.frontend.packing import check_shared
from nncompiler.frontend.wiring import Edge, Neuron, Wiring, read_wiring
from nncompiler.programs import comparators

BATCH = ("batch",)


class Neurons:
    """The definitions of all neurons that the outputs need, under the user's names.

    `values`, `seen` are what stands for a neuron's value and for what its activation sees;
    `numbers` for weights and biases, by parameter name; `columns` tells where data come from:
    leaf -> (input id, column or None for the whole); `edges` gives the parameter of every edge.
    """

    def __init__(
        self, graph: nx.DiGraph[Hashable], outputs: Sequence[Hashable] | None, objective: Objective
    ) -> None:
        self.objective = objective
        self.dtype = objective.network.dtype
        self.wiring: Wiring = check_shared(read_wiring(graph, outputs, self.dtype))
        spread: dict[Node, Node] = {}
        self.tape = Tape(Slopes(spread), spread=spread)
        self.values: dict[Hashable, Node] = {}
        self.seen: dict[Hashable, Node] = {}
        self.numbers: dict[str, Node] = {}
        self.calls: dict[Node, Call] = {}
        self.columns: dict[Node, tuple[str, int | None]] = {}
        self.losses: list[Formula] = []
        self.of = "L_n"
        self.rows = ops.input("", self.dtype, BATCH).shape
        self.edges: dict[tuple[str, str], str] = {}
        taken = {e.shared for edges in self.wiring.incoming.values() for e in edges}
        self._taken = taken | {str(n) for n in self.wiring.neurons}
        for column, node in enumerate(self.wiring.inputs):
            leaf = self._lane("value", "z", node)
            self.values[node] = leaf
            self.columns[leaf] = (next(iter(objective.network.inputs)), column)
        for neuron in self.wiring.neurons.values():
            self._define(neuron)
        self._add_loss()
        for node, leaf in self.seen.items():
            symbol = of_node("delta", node)
            self.tape.call_adjoint(leaf, symbol, derivative(self.of, self.tape.names[leaf]))

    # ------------------------------------------------------------------ values

    def _lane(self, kind: str, letter: str, node: Hashable, part: int | None = None) -> Node:
        """A number for every example that belongs to a neuron."""
        tail = "" if part is None else f".{part}"
        like = ops.input("", self.dtype, BATCH)
        return self.tape.leaf(f"{kind}:{node}{tail}", of_node(letter, node, part), like)

    def _number(self, name: str, symbol: Symbol) -> Node:
        """A weight or bias, the same for every example."""
        if name not in self.numbers:
            leaf = self.tape.leaf(f"number:{name}", symbol, ops.input("", self.dtype, ()))
            self.numbers[name] = leaf
            self.tape.spread[leaf] = ops.broadcast_to(leaf, BATCH)
        return self.tape.spread[self.numbers[name]]

    def _weight(self, edge: Edge) -> Node:
        self.edges[str(edge.source), str(edge.target)] = edge.shared or edge.name
        if edge.shared:
            return self._number(edge.shared, of_name(edge.shared))
        symbol = of_edge(edge.source, edge.target)
        if symbol.text in self._taken:
            symbol = Symbol(f"w[{edge.name}]", symbol.latex)
        return self._number(edge.name, symbol)

    def _define(self, neuron: Neuron) -> None:
        node = neuron.node
        bias = self._number(f"{node}.bias", of_node("b", node))
        edges = self.wiring.incoming[node]
        terms = [self._weight(e) * self.values[e.source] for e in edges]
        a = self._lane("seen", "a", node)
        if terms and neuron.aggregation != "sum":
            terms = [self._aggregate(neuron, terms)]
        self.tape.define(a, reduce(ops.add, terms, bias))
        z = self._lane("value", "z", node)
        self.tape.define(z, self._activate(neuron, a))
        self.seen[node], self.values[node] = a, z

    def _activate(self, neuron: Neuron, a: Node) -> Node:
        name, function = make_activation(neuron.activation)
        if neuron.formula is None:
            message = f"the activation of '{neuron.node}' is not made of elementwise functions"
            raise fail(message, node=neuron.node)
        value = function(a)
        if isinstance(neuron.activation, str | tuple | list) and value is not a:
            options = getattr(function, "keywords", {})
            texts = tuple(f"{k}={v}" for k, v in options.items())
            self.calls[value] = Call(name, (a,), texts)
            return value
        return value

    # ------------------------------------------------------------------ aggregations

    def _aggregate(self, neuron: Neuron, terms: list[Node]) -> Node:
        """m_3 = max(w13 z_1, w23 z_2), and what stands for it"""
        m = self._lane("aggregate", "m", neuron.node)
        aggregation = neuron.aggregation if len(terms) > 1 else "product"  # of one: itself
        match aggregation:
            case "product":
                self.tape.define(m, reduce(ops.mul, terms))
            case "mean":
                self.tape.define(m, reduce(ops.add, terms) * (1.0 / len(terms)))
            case "min" | "max" as name:
                # as the network has it: its derivative shares ties evenly
                function, pair = (ops.min, ops.minimum) if name == "min" else (ops.max, ops.maximum)
                self.tape.define(m, reduce(pair, terms), function(ops.stack(terms, 1), 1))
            case "maxabs":
                far = self._lane("sorted", "s", neuron.node, 1)
                high, low = reduce(ops.maximum, terms), reduce(ops.minimum, terms)
                self.tape.define(far, ops.where(high >= -low, high, low))
                value = _equal_to(far, terms)
                self.tape.define(m, value)
                self.calls[value] = Call("maxabs", tuple(terms))
            case _:
                low, high = self._middle(neuron, terms)
                value = _equal_to(low, terms)
                if low is not high:
                    value = 0.5 * (value + _equal_to(high, terms))
                self.tape.define(m, value)
                self.calls[value] = Call("median", tuple(terms))
        return m

    def _middle(self, neuron: Neuron, terms: list[Node]) -> tuple[Node, Node]:
        """The one or two in the middle of the terms put in order; every exchange is two
        definitions."""
        node, count = neuron.node, len(terms)
        middle = {count // 2, (count - 1) // 2}
        wires = list(terms)
        number = 0
        for i, j in _needed(comparators(count), middle):
            pair = wires[i], wires[j]
            for place, function in ((i, ops.minimum), (j, ops.maximum)):
                number += 1
                wire = self._lane("sorted", "s", node, number)
                self.tape.define(wire, function(*pair))
                wires[place] = wire
        return wires[min(middle)], wires[max(middle)]

    # ------------------------------------------------------------------ loss

    def _add_loss(self) -> None:
        """The loss of an example by the values (or what they are activations of) of the outputs."""
        if not self.objective.losses:
            return
        ((name, loss),) = self.objective.losses.items()
        outputs = self.wiring.outputs
        target = self.objective.targets[name]
        built = self.objective.training
        undone = self.objective.scores(built, name) is not built.outputs[OUTPUT]
        ends = [self.seen[n] if undone else self.values[n] for n in outputs]
        y = ops.input("prediction", self.dtype, (*BATCH, len(outputs)))
        per_example = is_per_example(loss, y, target.node)
        weight = self.objective.loss_weights.get(name, 1.0)
        seed = seed_of(loss, y, target.node, weight, per_example)
        self.of = "L_n" if per_example else "L"
        targets = self._targets(target.node, target.kind == LABELS)
        softmax, top = self._softmax(ends)

        def leaf(node: Node, place: Place) -> Node:
            if node is y:
                return ends[place[0]]
            if node is seed.softmax:
                return softmax[place[0]]
            return top if node is seed.top else targets[place]

        read = Elements(leaf)
        of = ops.input("loss", seed.value.dtype, seed.value.shape)
        self.losses.append(Formula(Symbol(self.of, self.of), of, tidy(read(seed.value))[0]))
        made = {self.tape.made[z].value: z for z in self.values.values() if z in self.tape.made}
        slopes = [
            replaced(s, made) for s in tidy(*(read(seed.slope, (i,)) for i in range(len(ends))))
        ]
        for end, slope in zip(ends, slopes, strict=True):
            known = self.tape.seeds.get(end)
            self.tape.seeds[end] = slope if known is None else known + slope

    def _targets(self, target: Node, labels: bool) -> dict[Place, Node]:
        id = target.attrs["id"]
        if labels:
            leaf = self.tape.leaf("target", Symbol("t", "t"), target)
            self.columns[leaf] = (id, None)
            return {(): leaf}
        found: dict[Place, Node] = {}
        for column, node in enumerate(self.wiring.outputs):
            leaf = self._lane("target", "t", node)
            self.columns[leaf] = (id, column)
            found[(column,)] = leaf
        return found

    def _softmax(self, ends: Sequence[Node]) -> tuple[list[Node], Node]:
        """p_5 = exp(z_5) / S for every output, and M, the largest of them"""
        total = self.tape.leaf("total", Symbol("S", "S"), ends[0])
        self.tape.define(total, reduce(ops.add, map(ops.exp, ends)))
        top = self.tape.leaf("top", Symbol("M", "M"), ends[0])
        self.tape.define(top, reduce(ops.maximum, ends))
        found = []
        for node, end in zip(self.wiring.outputs, ends, strict=True):
            p = self._lane("share", "p", node)
            self.tape.define(p, ops.exp(end) / total)
            found.append(p)
        return found, top


def _equal_to(value: Node, terms: list[Node]) -> Node:
    """That value as the mean of all terms that equal it, which share its derivative evenly."""
    hits = [ops.eq(term, value) for term in terms]
    found = [ops.where(hit, term, 0.0) for hit, term in zip(hits, terms, strict=True)]
    return reduce(ops.add, found) / reduce(ops.add, [ops.cast(h, value.dtype) for h in hits])


def _needed(pairs: Sequence[tuple[int, int]], wanted: set[int]) -> list[tuple[int, int]]:
    """The exchanges on which the wanted places depend."""
    live = set(wanted)
    kept = []
    for pair in reversed(pairs):
        if live & set(pair):
            live |= set(pair)
            kept.append(pair)
    return kept[::-1]
