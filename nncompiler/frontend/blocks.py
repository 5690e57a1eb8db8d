"""Takes blocks of neurons, gives their values as nodes of the graph, and their parameters.

dense       y = f(x @ weight + bias)         weight (sources, neurons), zero where no edge is
sparse      z = sweep(weight, x, bias)       one number per edge, node after node
aggregate   y = f(max(weight * x) + bias)    over the edges of every neuron
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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


@dataclass(frozen=True)
class Part:
    """A matrix whose columns are neurons' values; `seen` is what their activation saw."""

    value: Node
    seen: Node | None = None
    activation: str = ""


@dataclass
class Values:
    """Where the value of every neuron stands: (number of the part, column)."""

    parts: list[Part] = field(default_factory=list)
    place: dict[Hashable, tuple[int, int]] = field(default_factory=dict)

    def add(self, part: Part, neurons: Sequence[Hashable]) -> None:
        self.place |= {n: (len(self.parts), i) for i, n in enumerate(neurons)}
        self.parts.append(part)

    def columns(self, neurons: Sequence[Hashable]) -> Node:
        """The neurons' values side by side."""
        return _beside([self.parts[k].value[:, a:b] for k, a, b in self._stretches(neurons)])

    def before(self, neurons: Sequence[Hashable], activation: str) -> Node | None:
        """What the neurons' activation saw, if all have this one."""
        found: list[Node] = []
        for k, a, b in self._stretches(neurons):
            part = self.parts[k]
            if part.seen is None or part.activation != activation:
                return None
            found.append(part.seen[:, a:b])
        return _beside(found)

    def _stretches(self, neurons: Sequence[Hashable]) -> list[tuple[int, int, int]]:
        """(part, first column, end) of neighbours."""
        places = [self.place[n] for n in neurons]
        found = []
        for _, run in groupby(enumerate(places), lambda p: (p[1][0], p[1][1] - p[0])):
            members = [place for _, place in run]
            found.append((members[0][0], members[0][1], members[-1][1] + 1))
        return found


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
    texts = [str(wiring.neurons[n].formula) for n in block.members]
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
        make = {DENSE: self._dense, SPARSE: self._sparse}.get(block.kind, self._aggregate)
        try:
            value = make(block)
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
        self.values.add(Part(value, seen, name), block.members)
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
        rows = self.values.parts[0].value.shape[0]
        every = ops.broadcast_to(bias, (rows, len(nodes)))
        if not layout.weights:  # constants
            value = self._constants(layout, every)
            self.values.add(Part(value), block.members)
            return value
        weight = pack(self.program, block.name, "weight", layout.weights, self.views)
        kept = self._kept(block, layout)
        y = ops.sweep(
            weight,
            layout.edges,
            layout.formulas,
            x=self.values.columns(block.sources) if block.sources else None,
            extras=(every,),
            kept=kept,
        )
        self.program.names.setdefault(y, block.name)
        place = {slot: i for i, slot in enumerate(kept)}
        members = enumerate(block.members, len(block.sources))
        texts = layout.texts
        for (text, has_sum), run in groupby(
            ((s, n) for s, n in members if s in place),
            lambda m: (texts[m[0] - len(block.sources)], m[0] + len(nodes) in place),
        ):
            items = list(run)
            slots = [s for s, _ in items]
            seen = None
            if has_sum and text == SIGMOID:
                first = place[slots[0] + len(nodes)]
                columns = np.asarray(slots, np.int32) - len(block.sources)
                given = ops.broadcast_to(
                    ops.gather(bias, ops.constant(columns)), (rows, len(slots))
                )
                seen = y[:, first : first + len(slots)] + given
            first = place[slots[0]]
            part = Part(
                y[:, first : first + len(slots)], seen, "sigmoid" if seen is not None else ""
            )
            self.values.add(part, [n for _, n in items])
        return y

    def _kept(self, block: Block, layout: Layout) -> list[int]:
        """Slots in the result: all for the backward pass; at inference the states that are read,
        and the sums of outputs that are sigmoids, for the losses that undo these."""
        width, count = len(block.sources), len(block.members)
        if self.program.training:
            return list(range(width + 2 * count))
        slots = {n: width + i for i, n in enumerate(block.members)}
        states = [s for n, s in slots.items() if n in self.needed]
        texts = layout.texts
        wanted = set(self.wiring.outputs)
        undone = [s for n, s in slots.items() if n in wanted and texts[s - width] == SIGMOID]
        return states + [s + count for s in undone]

    def _constants(self, layout: Layout, every: Node) -> Node:
        """The values of neurons without predecessors."""
        parts, at = [], 0
        for text, count in layout.formulas:
            given = every[:, at : at + count]
            value, _, _ = formula.derivative(text, ops.full_like(given, 0.0), (given,))
            parts.append(value)
            at += count
        return _beside(parts)

    # ------------------------------------------------------------ other aggregations

    def _aggregate(self, block: Block) -> Node:
        edges = [e for n in block.members for e in self.wiring.incoming[n]]
        slot = {n: i for i, n in enumerate(block.sources)}
        weight = pack(
            self.program, block.name, "weight", weights_of(self.wiring, edges), self.views
        )
        count = np.arange(len(edges))
        products = ops.sweep(
            weight,
            ops.Edges(np.asarray([slot[e.source] for e in edges]), count, count),
            (("", len(edges)),),
            x=self.values.columns(block.sources),
        )
        each = len(edges) // len(block.members)
        shape = (products.shape[0], len(block.members), each)
        return self._finish(block, AGGREGATE[block.kind](ops.reshape(products, shape)))


def _mean(x: Node) -> Node:
    return ops.mean(x, 2)


def _median(x: Node) -> Node:
    """The middle value, or the mean of the two: by a sorting network (Batcher's)."""
    count = x.shape[2]
    assert isinstance(count, int)
    values = [x[:, :, i] for i in range(count)]
    for i, j in comparators(count):
        low, high = values[i], values[j]
        values[i], values[j] = ops.minimum(low, high), ops.maximum(low, high)
    if count % 2:
        return values[count // 2]
    return 0.5 * (values[count // 2 - 1] + values[count // 2])


def comparators(count: int) -> list[tuple[int, int]]:
    """Pairs to put in order, one after the other, so that `count` values are sorted (odd-even merge
    sort; Knuth, volume 3, algorithm 5.2.2 M)."""
    found = []
    p = 1
    while p < count:
        k = p
        while k >= 1:
            for j in range(k % p, count - k, 2 * k):
                for i in range(min(k, count - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        found.append((i + j, i + j + k))
            k //= 2
        p *= 2
    return found


AGGREGATE = {
    "product": lambda x: ops.prod(x, 2),
    "min": lambda x: ops.min(x, 2),
    "max": lambda x: ops.max(x, 2),
    "mean": _mean,
    "median": _median,
}


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
    return "neurons" if block.kind == DENSE else f"neurons, {block.kind}"
