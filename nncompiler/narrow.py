"""Takes a graph with few numbers per row, gives the same in columns, which are vectors of rows.

    h = tanh(contract(x f32[batch,2], W f32[2,2]))     ->     h_0 = tanh(x_0 * W_0_0 + x_1 * W_1_0)
    dW = contract(x, dh)                                      h_1 = tanh(x_0 * W_0_1 + x_1 * W_1_1)
                                                              dW_0_0 = sum(x_0 * dh_0), ...

Tensors with one or two elements per row fill no vector, and from kernel to kernel a tiny step waits
for the memory. Columns are maps over the rows and sums over them, which share one loop.
Only graphs whose results have no rows (an update, a gradient, a loss) gain: their columns need not
be put into rows again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from math import prod

from ir.graph import Graph, Literal, Node, make
from ir.index import Guard, Index, Var
from ir.op import Lowering
from ir.ops.core import broadcast_to, literal
from ir.ops.pieces import concatenate, slice_
from ir.ops.views import reshape
from ir.types import Dim, Extent, Shape
from nncompiler.groups import split_spec
from nncompiler.schedule.heuristics import MOST_COLUMN_SUMS, MOST_COLUMNS, MOST_WIDE

Place = tuple[Index, ...]
COMBINE = {"sum": "add", "prod": "mul", "max": "maximum", "min": "minimum"}


def narrow(graph: Graph) -> Graph:
    """The graph in columns where that pays, else the graph itself."""
    rows = _rows(graph)
    if rows is None or len(graph.nodes) > MOST_COLUMNS:
        return graph
    columns = _Columns(rows)
    try:
        outputs = {name: columns.whole(node) for name, node in graph.outputs.items()}
    except _UnfitError:
        return graph
    return replace(graph, outputs=outputs, names=columns.names(graph))


class _UnfitError(Exception):
    """The graph is too large, or has what cannot be taken apart."""


def _rows(graph: Graph) -> Extent | None:
    """The extent of all rows, where no result has rows and no input long ones."""
    extents = {d for n in graph.nodes for d in n.shape if isinstance(d, Extent)}
    if len(extents) != 1 or any(n.type.symbols for n in graph.outputs.values()):
        return None
    widths = (
        prod(d for d in n.shape if isinstance(d, int)) for n in graph.inputs if n.type.symbols
    )
    return None if max(widths, default=0) > MOST_WIDE else extents.pop()


class _Columns:
    """Columns found so far, by node and place: the row's variable first where the node has rows."""

    def __init__(self, rows: Extent) -> None:
        self.rows = rows
        self.row = Index.of(Var("i", rows))
        self.found: dict[tuple[Node, Place], Node] = {}
        self.work = 0
        self.sums: set[Node] = set()
        self.terms: dict[Node, list[Node]] = {}  # of sums that are no nodes of the graph

    def names(self, graph: Graph) -> dict[Node, str]:
        """The columns of h are h_0, h_1, ...; the only one of y is y."""
        names = dict(graph.names)
        for (node, at), column in self.found.items():
            if node in graph.names and column is not node:
                long = [i for i, d in zip(at, node.shape, strict=True) if d not in (1, self.rows)]
                name = "_".join([graph.names[node], *(str(i.constant) for i in long)])
                names.setdefault(column, name)
        return names

    def whole(self, node: Node) -> Node:
        """A result, put together from its elements."""
        if node.op.lowering is Lowering.LEAF:
            return node
        parts = [reshape(self.column(node, at), (1,)) for at in self._places(node.shape)]
        return reshape(concatenate(parts), node.shape)

    def _places(self, shape: Iterable[Dim]) -> list[Place]:
        dims = tuple(shape)
        if not 0 < prod(d for d in dims if isinstance(d, int)) <= MOST_COLUMNS:
            raise _UnfitError
        each = [[self.row] if isinstance(d, Extent) else map(Index.of, range(d)) for d in dims]
        return list(product(*each))

    # ------------------------------------------------------------ one column

    def column(self, node: Node, at: Place) -> Node:
        """An element of every row, of shape (rows,); of shape () where it is the same in all."""
        if (node, at) not in self.found:
            if any(i.terms and i != self.row for i in at):
                raise _UnfitError
            self.found[node, at] = self._column(node, at)
        return self.found[node, at]

    def _column(self, node: Node, at: Place) -> Node:
        match node.op.lowering:
            case Lowering.LEAF:
                return self._leaf(node, at)
            case Lowering.MAP:
                return self._apply(node, [self.column(i, at) for i in node.inputs])
            case Lowering.VIEW:
                return self._view(node, at)
            case Lowering.REDUCE:
                return self._reduce(node, at)
            case Lowering.CONTRACT:
                return self._contract(node, at)
        raise _UnfitError

    def _leaf(self, node: Node, at: Place) -> Node:
        match node.op.name:
            case "constant":
                value: Literal = node.attrs["value"]
                return literal(value.array[tuple(i.constant for i in at)], node.dtype)
            case "iota" if at[node.attrs["axis"]] == self.row:
                return make("iota", shape=(self.rows,), axis=0, dtype=node.dtype)
            case "iota":
                return literal(at[node.attrs["axis"]].constant, node.dtype)
            case "extent":
                return node
        starts = tuple(i.constant for i in at)
        ends = tuple(self.rows if i.terms else i.constant + 1 for i in at)
        shape: Shape = (self.rows,) if self.row in at else ()
        return reshape(slice_(node, starts, ends, (1,) * len(at)), shape)

    def _apply(self, node: Node, args: list[Node]) -> Node:
        if node.op.name == COMBINE["sum"] and args[0] in self.terms:
            # the bias first: it is there before the last product is
            return self._combine([args[1], *self.terms[args[0]]], "sum", False)
        return self._count(make(node.op, *self._alike(args), **node.attrs))

    def _alike(self, args: list[Node]) -> list[Node]:
        """Single numbers meet vectors of rows."""
        has_rows = any(a.shape for a in args)
        return [broadcast_to(a, (self.rows,)) for a in args] if has_rows else args

    def _count(self, node: Node) -> Node:
        self.work += 1
        if self.work > MOST_COLUMNS:
            raise _UnfitError
        return node

    def _view(self, node: Node, at: Place) -> Node:
        assert node.op.sources is not None
        types = [i.type for i in node.inputs]
        for source in node.op.sources(at, types, **node.attrs):
            if all(self._holds(g) for g in source.guards):
                return self.column(node.inputs[source.operand], source.indices)
        return literal(node.attrs["value"], node.dtype)

    def _holds(self, guard: Guard) -> bool:
        if guard.value == self.row and guard.low <= 0 and guard.high == self.rows:
            return True
        if guard.value.terms or isinstance(guard.high, Extent):
            raise _UnfitError
        return guard.low <= guard.value.constant < guard.high

    def _reduce(self, node: Node, at: Place) -> Node:
        assert node.op.combine is not None
        (x,), axes = node.inputs, node.attrs["axes"]
        values = []
        for inner in self._places(x.shape[a] for a in axes):
            kept, reduced = iter(at), iter(inner)
            place = tuple(next(reduced if a in axes else kept) for a in range(x.ndim))
            values.append(self.column(x, place))
        over_rows = any(isinstance(x.shape[a], Extent) for a in axes)
        return self._combine(values, node.op.combine, over_rows)

    def _contract(self, node: Node, at: Place) -> Node:
        left, right, out = split_spec(node.attrs["spec"])
        x, y = node.inputs
        extents = dict(zip(left + right, (*x.shape, *y.shape), strict=True))
        summed = [c for c in dict.fromkeys(left + right) if c not in out]
        values = []
        for inner in self._places(extents[c] for c in summed):
            places = dict(zip(out, at, strict=True)) | dict(zip(summed, inner, strict=True))
            factors = [
                self.column(operand, tuple(places[c] for c in letters))
                for operand, letters in ((x, left), (y, right))
            ]
            values.append(self._count(make("mul", *self._alike(factors))))
        return self._combine(values, "sum", any(isinstance(extents[c], Extent) for c in summed))

    def _combine(self, values: list[Node], how: str, over_rows: bool) -> Node:
        total, *rest = values
        for value in rest:
            total = self._count(make(COMBINE[how], *self._alike([total, value])))
        if not over_rows:
            if how == "sum" and rest:
                self.terms[total] = values
            return total
        self.sums.add(total)
        if len(self.sums) > MOST_COLUMN_SUMS:
            raise _UnfitError
        return make(how, broadcast_to(total, (self.rows,)), axes=(0,))
