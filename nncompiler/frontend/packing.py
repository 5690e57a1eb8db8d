"""Takes numbers of many neurons or edges, gives the vector of them, packed in few parameters.

Numbers that are trained alike lie in one array; a number that several edges share is a parameter of
its own name. Where there is one array, it is the vector; else it is gathered from all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ir import ops
from ir.graph import Node
from ir.types import DType
from nncompiler.frontend.graphs import fail
from nncompiler.frontend.initializers import Array, Fans, Initializer
from nncompiler.frontend.site import Program, Site, View
from nncompiler.frontend.wiring import Edge, Neuron, Terms, Wiring


class Number(NamedTuple):
    """One weight or bias: its name, first value (NaN: drawn), terms, and the name it shares."""

    name: str
    value: float
    terms: Terms
    fans: Fans
    shared: str = ""


@dataclass(frozen=True, eq=False)
class Numbers:
    """First values of an array of numbers: those that are given, the others drawn.

    They are drawn in the order of their names, all of the same fans at once, so that the order in
    which nodes and edges were added changes nothing.
    """

    numbers: tuple[Number, ...]
    initializer: Initializer

    def draw(
        self, rng: np.random.Generator, shape: Sequence[int], fans: Fans, dtype: DType
    ) -> Array:
        values = np.asarray([n.value for n in self.numbers])
        missing = np.flatnonzero(np.isnan(values)).tolist()
        alike: dict[Fans, list[int]] = {}
        for i in sorted(missing, key=lambda i: self.numbers[i].name):
            alike.setdefault(self.numbers[i].fans, []).append(i)
        for each, places in sorted(alike.items()):
            drawn = self.initializer.draw(rng, (len(places), 1), each, dtype)
            values[places] = np.asarray(drawn).reshape(-1)
        return values.astype(dtype.numpy).reshape(tuple(shape))


def weights_of(wiring: Wiring, edges: Sequence[Edge]) -> list[Number]:
    """An edge u -> v counts as one of a layer with v's predecessors and u's successors."""
    return [
        Number(
            e.name,
            e.weight,
            e.terms,
            (len(wiring.incoming[e.target]), wiring.leaving[e.source]),
            e.shared,
        )
        for e in edges
    ]


def biases_of(neurons: Sequence[Neuron]) -> list[Number]:
    return [Number(f"{n.node}.bias", n.bias, n.terms, (1, 1)) for n in neurons]


def pack(
    program: Program,
    owner: str,
    suffix: str,
    numbers: Sequence[Number],
    views: dict[str, View],
) -> Node:
    """The vector of the numbers, in their order; enters parameters, and where each of them is."""
    made: dict[object, list[int]] = {}
    for i, number in enumerate(numbers):
        made.setdefault(number.shared or number.terms, []).append(i)
    plain = sorted((k for k in made if isinstance(k, Terms)), key=lambda k: (k != Terms(), k.rank))
    is_weight = suffix != "bias"
    arrays: list[Node] = []
    places = np.zeros(len(numbers), np.int32)
    first = 0
    for position, terms in enumerate(plain):
        name = suffix if not position and terms == Terms() else f"{suffix}{position + 1}"
        items = made[terms]
        array = Site(program, owner, owner, False, "neurons").parameter(
            name,
            (len(items),),
            fans=(1, 1),
            initializer=Numbers(tuple(numbers[i] for i in items), program.initializer),
            regularizer=terms.regularizer,
            trainable=terms.trainable,
            is_weight=is_weight,
        )
        arrays.append(array)
        places[items] = first + np.arange(len(items))
        if not program.training:  # the views are the same in training
            id = f"{owner}.{name}"
            views |= {numbers[i].name: View(id, (place,)) for place, i in enumerate(items)}
        first += len(items)
    for shared in sorted(k for k in made if isinstance(k, str)):
        arrays.append(ops.reshape(_shared(program, shared, numbers[made[shared][0]]), (1,)))
        views[shared] = View(shared, ())
        places[made[shared]] = first
        first += 1
    if len(arrays) == 1 and np.array_equal(places, np.arange(len(numbers))):
        return arrays[0]
    whole = arrays[0] if len(arrays) == 1 else ops.concatenate(arrays, 0)
    return ops.gather(whole, ops.constant(places))


def _shared(program: Program, name: str, number: Number) -> Node:
    return Site(program, name, name, True, "neurons").parameter(
        "",
        (),
        fans=number.fans,
        initializer=Numbers((number,), program.initializer),
        regularizer=number.terms.regularizer,
        trainable=number.terms.trainable,
    )


def check_shared(wiring: Wiring) -> Wiring:
    """The same wiring, every edge of a shared name with the one first value that is given;
    CompileError where two edges disagree."""
    sharing: dict[str, list[Edge]] = {}
    names = {e.name for edges in wiring.incoming.values() for e in edges}
    names |= {f"{n}.bias" for n in wiring.neurons}
    for edges in wiring.incoming.values():
        for edge in edges:
            if edge.shared:
                sharing.setdefault(edge.shared, []).append(edge)
    for name, members in sharing.items():
        first = members[0]
        if name in names:
            raise fail(f"weight_name '{name}' is the name of another parameter", node=first.target)
        for other in members:
            if other.terms != first.terms:
                raise fail(
                    f"edges '{first.name}' and '{other.name}' share '{name}' but are trained "
                    "differently",
                    node=other.target,
                )
    values = {name: _common(name, members) for name, members in sharing.items()}
    if not values:
        return wiring
    incoming = {
        node: tuple(
            Edge(e.source, e.target, values.get(e.shared, e.weight), e.terms, e.shared)
            for e in edges
        )
        for node, edges in wiring.incoming.items()
    }
    return replace(wiring, incoming=incoming)


def _common(name: str, edges: Sequence[Edge]) -> float:
    given = sorted({e.weight for e in edges if not math.isnan(e.weight)})
    if len(given) > 1:
        raise fail(f"the edges that share '{name}' start from {given}", node=edges[0].target)
    return given[0] if given else math.nan
