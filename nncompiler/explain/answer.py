"""Takes a model and the name of one of its parts, gives the explanation of its derivative."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ir import ops
from ir.graph import Node
from ir.types import Shape
from nncompiler.autodiff import differentiate
from nncompiler.blueprint import Kinds
from nncompiler.data import convert_all, graph_ports
from nncompiler.explain.elements import Elements, Place
from nncompiler.explain.explanation import Array, Explanation, gather
from nncompiler.explain.forms import replaced, tidy
from nncompiler.explain.layers import SEEN, Layers
from nncompiler.explain.neurons import Neurons
from nncompiler.explain.symbols import derivative
from nncompiler.explain.tape import Formula, Tape
from nncompiler.explain.writing import Call
from nncompiler.frontend.losses import DENSE, LABELS
from nncompiler.frontend.names import suggest
from nncompiler.frontend.objective import Objective

if TYPE_CHECKING:
    from nncompiler.machine import Machine

ROOT = ops.input("answer", "f64", ())  # what stands for the head of an explanation
FEW = 6  # names that a note lists


Known = dict[Kinds, Neurons | Layers]  # by the kinds of targets


class Definitions(Protocol):
    """What `Neurons` and `Layers` have in common."""

    objective: Objective
    tape: Tape
    calls: dict[Node, Call]
    losses: list[Formula]
    of: str
    rows: Shape


def explain(model: Machine, what: Any, targets: str | None, known: Known) -> Explanation:
    """See `Model.explain`; `known` keeps the model's definitions for the next question."""
    blueprint = model.blueprint
    if not blueprint.targets:
        raise ValueError("there is no loss to differentiate: compile(graph, loss=...)")
    if targets not in (None, LABELS, DENSE):
        raise ValueError(f"targets is '{LABELS}' or '{DENSE}', not {targets!r}")
    kinds = blueprint.kinds
    if targets is not None:
        kinds = tuple((name, targets) for name, _ in kinds)
    if kinds not in known:
        known[kinds] = _define(model, blueprint.find(kinds, False))
    net = known[kinds]
    if isinstance(net, Neurons):
        return _OfNeurons(model, net).explain(what)
    return _OfLayers(model, net).explain(what)


def _define(model: Machine, objective: Objective) -> Neurons | Layers:
    blueprint = model.blueprint
    if blueprint.network.views:
        return Neurons(blueprint.source, blueprint.settings.outputs, objective)
    return Layers(blueprint.source.nodes, objective)


# --------------------------------------------------------------------------- both kinds of graphs


def over_batch(net: Definitions, total: Node, like: Node) -> Node:
    """The mean over the examples of dL_n/dw (their sum where the loss is one of the batch); a
    total of the parameter's shape has been summed already."""
    if total.shape != like.shape:
        total = ops.sum(total, 0)
    elif not like.shape and not _depends_on_batch(total):
        total = ops.sum(ops.broadcast_to(total, net.rows), 0)
    return total if net.of == "L" else total / ops.extent(net.rows[0], total.dtype)


def _depends_on_batch(total: Node) -> bool:
    return any(n.shape for n in (total, *total.inputs))


def slope_of_penalty(objective: Objective, name: str) -> Node | None:
    """The derivative of the regularizer of a parameter by it."""
    parameter = objective.trainable.get(name)
    penalty = None if parameter is None else objective.penalty_of(parameter)
    if parameter is None or penalty is None:
        return None
    return differentiate(penalty(parameter.node), [parameter.node])[0]


def finish(
    net: Definitions, head: Formula, notes: list[str], data: Any, names: tuple[list[str], list[str]]
) -> Explanation:
    backward, losses, forward = gather(net.tape, head, net.losses)
    return Explanation(
        head,
        (*backward, *losses, *forward),
        (*notes, _legend(net, *names)),
        net.tape.names,
        net.calls,
        data,
        frozenset({len(backward), len(backward) + len(losses)}),
    )


def _legend(net: Definitions, inputs: list[str], targets: list[str]) -> str:
    losses = " + ".join(f.symbol.text for f in net.losses)
    if net.of == "L_n":
        terms = losses if len(net.losses) == 1 else f"({losses})"
        text = f"L = 1/N sum_n {terms} over N examples"
    else:
        text = "L is the loss of all N examples" + (f", {losses}" if len(net.losses) > 1 else "")
    if any(net.objective.penalty_of(p) for p in net.objective.trainable.values()):
        text += ", and the regularizers' penalties"
    return f"{text}; inputs {_listed(inputs)}; targets {_listed(targets)}"


def _listed(names: list[str]) -> str:
    return ", ".join(names if len(names) <= FEW else [*names[:3], "...", names[-1]])


def arrays_of(model: Machine, objective: Objective, x: Any, t: Any) -> dict[str, Array]:
    """Inputs and targets by input id, checked and converted as a training step does."""
    packed = model.blueprint.pack(x, t)
    found = model.blueprint.kinds_of(packed)
    for name, kind in found:
        if kind != objective.targets[name].kind:
            raise ValueError(f"these targets are '{kind}': explain(..., targets='{kind}')")
    ports = graph_ports(objective.graph("backward"), model.state)
    return convert_all(ports, packed)


# --------------------------------------------------------------------------- neurons


class _OfNeurons:
    def __init__(self, model: Machine, net: Neurons) -> None:
        self.model = model
        self.net = net
        self.names = net.tape.names

    def explain(self, what: Any) -> Explanation:
        number = self._number(what)
        if number is not None:
            head = self._of_number(number)
            return self._finish(head, self._notes(number))
        return self._finish(self._of_neuron(what), [])

    def _number(self, what: Any) -> str | None:
        """The parameter's name, from one of its names; None where it is none."""
        edges, numbers = self.net.edges, self.net.numbers
        if isinstance(what, (tuple, list)) and len(what) == 2:
            pair = (str(what[0]), str(what[1]))
            if pair not in edges:
                raise ValueError(f"no edge '{pair[0]}' -> '{pair[1]}' takes part in the outputs")
            return edges[pair]
        name = str(what)
        by_edge = {f"{u}->{v}": number for (u, v), number in edges.items()}
        by_symbol = {self.names[leaf].text: n for n, leaf in numbers.items()}
        return name if name in numbers else by_edge.get(name) or by_symbol.get(name)

    def _of_number(self, name: str) -> Formula:
        leaf = self.net.numbers[name]
        total = self.net.tape.total(leaf)
        value = None if total is None else over_batch(self.net, total, leaf)
        penalty = self._penalty(name)
        if penalty is not None:
            value = penalty if value is None else value + penalty
        value = ops.full_like(leaf, 0.0) if value is None else value
        return Formula(derivative("L", self.names[leaf]), ROOT, value)

    def _penalty(self, name: str) -> Node | None:
        """The derivative of the penalty of the array in which the weight lies."""
        views, numbers = self.model.blueprint.network.views, self.net.numbers
        view = views[name]
        slope = slope_of_penalty(self.net.objective, view.array)
        if slope is None:
            return None
        there = {v.index: numbers[n] for n, v in views.items() if v.array == view.array}
        zero = ops.constant(0.0, slope.dtype)  # where there is no edge

        def leaf(_: Node, place: Place) -> Node:
            return there.get(place, zero)

        return tidy(Elements(leaf)(slope, view.index))[0]

    def _of_neuron(self, what: Any) -> Formula:
        net = self.net
        by_name = {str(n): n for n in net.values}
        if str(what) not in by_name:
            known = [*net.numbers, *(self.names[n].text for n in net.numbers.values()), *by_name]
            hint = suggest(what, known)
            raise ValueError(
                f"no weight, bias or neuron {str(what)!r} takes part in the outputs; {hint}"
            )
        node = by_name[str(what)]
        if node in net.seen:
            return net.tape.adjoint_formula(net.seen[node])
        leaf = net.values[node]
        total = net.tape.total(leaf)
        value = ops.full_like(leaf, 0.0) if total is None else total
        return Formula(derivative(net.of, self.names[leaf]), ROOT, value)

    def _notes(self, name: str) -> list[str]:
        symbol = self.names[self.net.numbers[name]].text
        notes = []
        if self.model.blueprint.network.views[name].array not in self.net.objective.trainable:
            notes.append(f"{symbol} is frozen: training does not change it")
        shared = [f"{u}->{v}" for (u, v), number in self.net.edges.items() if number == name]
        if len(shared) > 1:
            notes.append(f"{symbol} is the weight of {len(shared)} edges: {_listed(shared)}")
        return notes

    def _finish(self, head: Formula, notes: list[str]) -> Explanation:
        first = [self.names[self.net.values[n]].text for n in self.net.wiring.inputs]
        rest = [self.names[n].text for n in self.net.columns][len(first) :]
        return finish(self.net, head, notes, self._data, (first, rest))

    def _data(self, x: Any, t: Any) -> dict[str, Array]:
        """What brings data and numbers, by the ids of the formulas' leaves."""
        arrays = arrays_of(self.model, self.net.objective, x, t)
        values = {
            leaf.attrs["id"]: arrays[id] if column is None else arrays[id][:, column]
            for leaf, (id, column) in self.net.columns.items()
        }
        numbers = self.net.numbers.items()
        return values | {n.attrs["id"]: self.model.parameters[name] for name, n in numbers}


# --------------------------------------------------------------------------- layers


class _OfLayers:
    def __init__(self, model: Machine, net: Layers) -> None:
        self.model = model
        self.net = net
        self.names = net.tape.names

    def explain(self, what: Any) -> Explanation:
        name = str(what)
        by_symbol = {self.names[leaf].text: n for n, leaf in self.net.parameters.items()}
        name = by_symbol.get(name, name)
        notes: list[str] = []
        if name in self.net.parameters:
            head = self._of_parameter(name)
            if name not in self.net.objective.trainable:
                symbol = self.names[self.net.parameters[name]]
                notes.append(f"{symbol} is frozen: training does not change it")
        else:
            head = self._of_layer(name, [*by_symbol, *by_symbol.values()])
        return self._finish(head, notes)

    def _of_parameter(self, name: str) -> Formula:
        leaf = self.net.parameters[name]
        total = self.net.tape.total(leaf)
        value = None if total is None else over_batch(self.net, total, leaf)
        penalty = slope_of_penalty(self.net.objective, name)
        if penalty is not None:
            node = self.net.objective.trainable[name].node
            (short,) = tidy(replaced(penalty, {node: leaf}))
            value = short if value is None else value + short
        value = ops.full_like(leaf, 0.0) if value is None else value
        return Formula(derivative("L", self.names[leaf]), ROOT, value)

    def _of_layer(self, name: str, known: list[str]) -> Formula:
        net = self.net
        leaf = net.by_name.get(f"{name}{SEEN}", net.by_name.get(name))
        if leaf is None or not leaf.dtype.is_float:
            layers = [n.removesuffix(SEEN) for n in net.by_name]
            hint = suggest(name, dict.fromkeys([*layers, *known]))
            raise ValueError(f"no layer or parameter '{name}' takes part in the loss; {hint}")
        if leaf in net.tape.adjoints:
            return net.tape.adjoint_formula(leaf)
        total = net.tape.total(leaf)
        value = ops.full_like(leaf, 0.0) if total is None else total
        return Formula(derivative(net.of, self.names[leaf]), ROOT, value)

    def _finish(self, head: Formula, notes: list[str]) -> Explanation:
        notes = [*notes, "vectors are columns; * and powers are taken element by element"]
        objective = self.net.objective
        ids = {t.id for t in objective.targets.values()}
        first = [
            self.names[n].text for n, i in self.net.data.items() if i in objective.network.inputs
        ]
        rest = [self.names[n].text for n, i in self.net.data.items() if i in ids]
        return finish(self.net, head, notes, self._data, (first, rest))

    def _data(self, x: Any, t: Any) -> dict[str, Array]:
        """What brings data, parameters and states, by the ids of the formulas' leaves."""
        arrays = arrays_of(self.model, self.net.objective, x, t)
        state = self.model.state
        return {
            leaf.attrs["id"]: arrays[id] if id in arrays else state[id]
            for leaf, id in self.net.data.items()
        }
