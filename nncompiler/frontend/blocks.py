"""Takes blocks of neurons, gives their values as nodes of the graph, and their parameters.

dense       y = f(x @ weight + bias)         weight (sources, neurons), zero where no edge is
sparse      z = sweep(weight, x, bias)       one number per edge, node after node
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from ir import ops
from ir.graph import Node
from ir.ops import formula
from ir.types import DType
from nncompiler.errors import CompileError
from nncompiler.frontend.graphs import fail
from nncompiler.frontend.initializers import Array, Fans, Initializer
from nncompiler.frontend.layers import activate
from nncompiler.frontend.lifting import DENSE, SPARSE, Block
from nncompiler.frontend.packing import Number, biases_of, pack, weights_of
from nncompiler.frontend.site import Layer, Program, Site, View
from nncompiler.frontend.wiring import Wiring

SIGMOID = "add z x0; sigmoid %0"


@dataclass
class Values:
    """Where the value of every neuron stands, and what its activation saw if that is known: the
    number of a matrix, and a column of it."""

    parts: list[Node] = field(default_factory=list)
    place: dict[Hashable, tuple[int, int]] = field(default_factory=dict)
    seen: dict[Hashable, tuple[str, tuple[int, int]]] = field(default_factory=dict)

    def add(self, value: Node, neurons: Sequence[Hashable]) -> None:
        self.place |= {n: (len(self.parts), i) for i, n in enumerate(neurons)}
        self.parts.append(value)

    def add_seen(self, value: Node, activation: str, neurons: Sequence[Hashable]) -> None:
        self.seen |= {n: (activation, (len(self.parts), i)) for i, n in enumerate(neurons)}
        self.parts.append(value)

    def columns(self, neurons: Sequence[Hashable]) -> Node:
        """The neurons' values side by side."""
        return self._beside([self.place[n] for n in neurons])

    def before(self, neurons: Sequence[Hashable], activation: str) -> Node | None:
        """What the neurons' activation saw, if all have this one."""
        found = [self.seen.get(n, ("", (0, 0))) for n in neurons]
        if any(name != activation for name, _ in found):
            return None
        return self._beside([place for _, place in found])

    def _beside(self, places: Sequence[tuple[int, int]]) -> Node:
        found = []
        for _, run in groupby(enumerate(places), lambda p: (p[1][0], p[1][1] - p[0])):
            neighbours = [place for _, place in run]
            (part, first), (_, last) = neighbours[0], neighbours[-1]
            found.append(self.parts[part][:, first : last + 1])
        return _beside(found)


def _beside(parts: list[Node]) -> Node:
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, 1)


@dataclass(frozen=True)
class Layout:
    """A sparse block in numbers: formulas with counts of nodes, and the edges in the order in
    which they are used: slots of the sources, columns of the targets, the weights."""

    formulas: tuple[tuple[str, int], ...]
    slots: Array
    targets: Array
    weights: tuple[Number, ...]

    @property
    def edges(self) -> ops.Edges:
        return ops.Edges(self.slots, self.targets, np.arange(len(self.slots)))

    @property
    def texts(self) -> list[str]:
        return [text for text, count in self.formulas for _ in range(count)]


def lay_out(wiring: Wiring, block: Block) -> Layout:
    """CompileError where an activation is no formula."""
    for node in block.members:
        if wiring.neurons[node].formula is None:
            message = f"the activation of '{node}' is not made of elementwise functions"
            raise fail(message, node=node)
    texts = [str(wiring.neurons[n].text) for n in block.members]
    formulas = tuple((text, len(list(run))) for text, run in groupby(texts))
    column = {n: i for i, n in enumerate(block.members)}
    slot = {n: len(block.sources) + i for n, i in column.items()}
    slot |= {n: i for i, n in enumerate(block.sources)}
    edges = [e for n in block.members for e in wiring.incoming[n]]
    slots = np.asarray([slot[e.source] for e in edges], np.int64)
    targets = np.asarray([column[e.target] for e in edges], np.int64)
    kinds = np.repeat(np.arange(len(formulas)), [n for _, n in formulas])
    plan = ops.Structure.of(
        slots, targets, np.arange(len(edges)), kinds, np.arange(len(texts)), len(block.sources)
    )
    used = plan.edges[:, 1]
    weights = tuple(weights_of(wiring, [edges[i] for i in used.tolist()]))
    return Layout(formulas, slots[used], targets[used], weights)


@dataclass
class Builder:
    """Builds one block after the other into `values`; `needed` are neurons that a later block or
    the user reads (at inference no others are kept)."""

    program: Program
    wiring: Wiring
    values: Values
    needed: set[Hashable]
    layouts: dict[str, Layout] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)

    def build(self, block: Block) -> None:
        before = set(self.program.parameters)
        try:
            value = self._dense(block) if block.kind == DENSE else self._sparse(block)
        except CompileError:
            raise
        except (ValueError, TypeError) as error:
            raise fail(f"neuron '{block.members[0]}': {error}", node=block.members[0]) from error
        made = tuple(p for p in self.program.parameters if p not in before)
        self.program.layers.append(Layer(_title(block), _what(block), value.type, made))

    def _site(self, block: Block) -> Site:
        return Site(self.program, _title(block), block.name, False, "neurons")

    def _finish(self, block: Block, z: Node) -> Node:
        """Bias and activation of neurons that all have the same one."""
        neurons = [self.wiring.neurons[n] for n in block.members]
        bias = pack(self.program, block.name, "bias", biases_of(neurons), self.views)
        site = self._site(block)
        seen = z + bias
        value = activate(site, seen, neurons[0].activation)
        site.call_it(value)
        name, _ = self.program.ends.get(value, ("", seen))
        self.values.add(value, block.members)
        self.values.add_seen(seen, name, block.members)
        return value

    # ------------------------------------------------------------ dense

    def _dense(self, block: Block) -> Node:
        edges = self.wiring.incoming
        row = {n: i for i, n in enumerate(block.sources)}
        shape = (len(block.sources), len(block.members))
        given = np.zeros(shape)
        mask = np.zeros(shape, bool)
        for j, v in enumerate(block.members):
            rows = [row[e.source] for e in edges[v]]
            given[rows, j] = [e.weight for e in edges[v]]
            mask[rows, j] = True
            for i, e in zip(rows, edges[v], strict=True):
                self.views[e.name] = View(f"{block.name}.weight", (i, j))
        terms = edges[block.members[0]][0].terms
        drawn = PartlyGiven(
            given, _ranks(block.sources), _ranks(block.members), self.program.initializer
        )
        weight = self._site(block).parameter(
            "weight",
            shape,
            fans=shape,
            initializer=drawn,
            regularizer=terms.regularizer,
            trainable=terms.trainable,
        )
        if self.program.training and not mask.all():
            # weights that do not exist are zero and stay so, since their gradient is
            weight = weight * ops.constant(mask.astype(weight.dtype.numpy), weight.dtype)
        return self._finish(block, self.values.columns(block.sources) @ weight)

    # ------------------------------------------------------------ sparse

    def _sparse(self, block: Block) -> Node:
        nodes = [self.wiring.neurons[n] for n in block.members]
        if block.name not in self.layouts:
            self.layouts[block.name] = lay_out(self.wiring, block)
        layout = self.layouts[block.name]
        bias = pack(self.program, block.name, "bias", biases_of(nodes), self.views)
        rows = self.values.parts[0].shape[0]
        every = ops.broadcast_to(bias, (rows, len(nodes)))
        if not layout.weights:  # constants
            value = self._constants(layout, every)
            self.values.add(value, block.members)
            return value
        weight = pack(self.program, block.name, "weight", layout.weights, self.views)
        means = np.asarray([n.aggregation == "mean" for n in nodes])[layout.targets]
        if means.any():
            shares = 1 / np.bincount(layout.targets)[layout.targets]
            weight = weight * ops.constant(np.where(means, shares, 1.0), weight.dtype)
        outputs = set(self.wiring.outputs)
        kinds = zip(block.members, layout.texts, strict=True)
        # losses may want to know what these activations saw
        undone = {c for c, (n, text) in enumerate(kinds) if n in outputs and text == SIGMOID}
        states, sums = self._kept(block, undone)
        width, count = len(block.sources), len(nodes)
        # with all that there is the backward pass needs no other sweep
        before = range(width if self.program.training else 0)
        y = ops.sweep(
            weight,
            layout.edges,
            layout.formulas,
            x=self.values.columns(block.sources) if block.sources else None,
            extras=(every,),
            kept=[*before, *(width + c for c in states), *(width + count + c for c in sums)],
        )
        self.program.names.setdefault(y, block.name)
        end = len(before) + len(states)
        self.values.add(y[:, len(before) : end], [block.members[c] for c in states])
        for start, members in _neighbours(sums, undone):
            first = end + start
            given = ops.gather(bias, ops.constant(np.asarray(members, np.int32)))
            seen = y[:, first : first + len(members)]
            seen = seen + ops.broadcast_to(given, (rows, len(members)))
            self.values.add_seen(seen, "sigmoid", [block.members[c] for c in members])
        return y

    def _kept(self, block: Block, undone: set[int]) -> tuple[list[int], list[int]]:
        """Members whose states the result has, and those whose sums it has. The backward pass needs
        all of them."""
        every = range(len(block.members))
        if self.program.training:
            return list(every), list(every)
        return [c for c in every if block.members[c] in self.needed], sorted(undone)

    def _constants(self, layout: Layout, every: Node) -> Node:
        """The values of neurons without predecessors."""
        parts, at = [], 0
        for text, count in layout.formulas:
            given = every[:, at : at + count]
            value, _, _ = formula.derivative(text, ops.full_like(given, 0.0), (given,))
            parts.append(value)
            at += count
        return _beside(parts)


@dataclass(frozen=True, eq=False)
class PartlyGiven:
    """The weights that the graph gives; the others (NaN) are drawn.

    They are drawn for the neurons in the order of their names, so that the order in which nodes
    and edges were added changes nothing.
    """

    given: Array
    rows: tuple[int, ...]  # the position of every row in the sorted order
    columns: tuple[int, ...]
    initializer: Initializer

    def draw(
        self, rng: np.random.Generator, shape: Sequence[int], fans: Fans, dtype: DType
    ) -> Array:
        given = self.given.astype(dtype.numpy)
        if not np.isnan(given).any():
            return given
        drawn = self.initializer.draw(rng, shape, fans, dtype)
        return np.where(np.isnan(given), drawn[np.ix_(self.rows, self.columns)], given)


def _ranks(nodes: Sequence[Hashable]) -> tuple[int, ...]:
    """The place of every node in the order of names."""
    place = {name: i for i, name in enumerate(sorted(map(str, nodes)))}
    return tuple(place[str(n)] for n in nodes)


def _neighbours(sums: Sequence[int], wanted: set[int]) -> Iterator[tuple[int, list[int]]]:
    """(place of the first one, members) of wanted ones that stand side by side."""
    found = [i for i, c in enumerate(sums) if c in wanted]
    for _, run in groupby(enumerate(found), lambda p: p[1] - p[0]):
        places = [i for _, i in run]
        yield places[0], [sums[i] for i in places]


def _title(block: Block) -> str:
    if len(block.members) == 1 and block.kind != SPARSE:
        return str(block.members[0])
    return block.name


def _what(block: Block) -> str:
    """What the summary says of a block."""
    if block.kind == SPARSE:
        return f"{len(block.members)} neurons, {block.weights} edges, sparse"
    if block.is_masked:
        share = round(100 * block.weights / (len(block.members) * len(block.sources)))
        return f"neurons, {share} % of a dense layer"
    return "neurons"
