"""Takes many graphs of neurons or genomes of neat-python, gives their nodes and edges in columns.

A population is read every generation, so a graph of nothing but activations, aggregations, biases
and weights is read in one pass; whatever is unusual in one goes the way of single networks
(wiring.py), which has the checks and the errors.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np

from ir.ops import formula
from ir.types import DType
from nncompiler.errors import CompileError
from nncompiler.frontend.activations import ACTIVATIONS, ROW_WISE, make_activation
from nncompiler.frontend.graphs import check_acyclic, check_directed, check_names, fail, order
from nncompiler.frontend.neat import from_neat, read_genes
from nncompiler.frontend.packing import check_shared
from nncompiler.frontend.wiring import AGGREGATIONS, ALIASES, read_wiring

PLAIN = frozenset({"activation", "bias", "aggregation"})
KINDS = {name: number for number, name in enumerate(AGGREGATIONS)}
KINDS |= {alias: KINDS[name] for alias, name in ALIASES.items()}
INPUT = -1  # instead of a formula's number
NUMBER = {float, int}

Array = np.ndarray[Any, Any]
Names = Sequence[Hashable]


@dataclass(frozen=True, eq=False)
class Genes:
    """Nodes and edges of many graphs. A node's number counts through all graphs, in each of them in
    the order of names. Formulas and aggregations are numbers; the formula of inputs is -1."""

    names: Sequence[Sequence[Hashable]]
    inputs: Array  # (graphs, inputs)
    outputs: Array
    output_counts: Array
    formulas: Array
    aggregations: Array
    biases: Array
    sources: Array
    targets: Array
    weights: Array

    @cached_property
    def sizes(self) -> Array:
        return np.array([len(names) for names in self.names])

    @cached_property
    def first(self) -> Array:
        """The number of every graph's first node."""
        return starts(self.sizes)

    def names_of(self, graph: int, nodes: Array) -> list[Any]:
        """The names of nodes of a graph."""
        return [self.names[graph][i] for i in (nodes - self.first[graph]).tolist()]

    def outputs_of(self, graph: int) -> Array:
        first = int(starts(self.output_counts)[graph])
        return self.outputs[first : first + int(self.output_counts[graph])]


class UnusualError(Exception):
    """The graph has to be read carefully."""


class Formulas:
    """Numbers of formulas: those of all names first, in one order for every population."""

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype
        self.texts, self.activations, names = map(list, _named(dtype))
        self.known: dict[Any, int] = {name: self.texts.index(text) for name, text in names}

    def number(self, activation: Any) -> int:
        """ValueError or TypeError where it is unknown, or no formula of one number."""
        text = _trace(make_activation(activation)[1], self.dtype)
        if text not in self.texts:
            self.texts.append(text)
            self.activations.append(activation)
        return self.texts.index(text)


@cache
def _named(dtype: DType) -> tuple[tuple[str, ...], tuple[Any, ...], tuple[tuple[str, str], ...]]:
    """Texts, an activation of each, and (name, text) of all names."""
    names = [(n, _trace(f, dtype)) for n, f in ACTIVATIONS.items() if n not in ROW_WISE]
    first: dict[str, Any] = {}
    for name, text in names:
        first.setdefault(text, name)
    return tuple(first), tuple(first.values()), tuple(names)


def _trace(function: Callable[..., Any], dtype: DType) -> str:
    return formula.trace(function, extras=0, dtype=dtype)


@dataclass
class Columns:
    """Of one graph: nodes in the order of their names, numbered from 0."""

    names: list[Hashable]
    inputs: list[int]
    outputs: list[int]
    formulas: list[int]
    aggregations: list[int]
    biases: list[float]
    sources: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


class Reader:
    """Reads the members of one population."""

    def __init__(
        self, formulas: Formulas, inputs: Names | None, outputs: Names | None, config: Any
    ) -> None:
        self.formulas, self.inputs, self.outputs = formulas, inputs, outputs
        self.config = config

    def read(self, member: Any) -> Columns:
        """CompileError naming the neuron for whatever is wrong."""
        if self.config is not None:
            return self._genome(member)
        try:
            return self._plain(member)
        except UnusualError:
            return self._careful(member)

    def check(self, member: Any) -> None:
        """CompileError for all that may be wrong with a member, cycles included."""
        self._careful(member if self.config is None else from_neat(member, self.config))

    # ------------------------------------------------------------ graphs

    def _plain(self, graph: Any) -> Columns:
        nodes = _contents(graph)
        names = _ordered(nodes)
        number = {name: i for i, name in enumerate(names)}
        columns = Columns(names, [], [], [], [], [])
        targets: list[Hashable] = []
        edges: list[dict[str, Any]] = []
        for u, after in graph.adjacency():
            columns.sources += [number[u]] * len(after)
            targets += after
            edges += after.values()
        columns.targets = [number[v] for v in targets]
        if not set(map(len, edges)) <= {1}:
            raise UnusualError
        try:
            columns.weights = [data["weight"] for data in edges]
        except KeyError:
            raise UnusualError from None
        chosen = self.inputs, self.outputs
        given, wanted = (
            graph.graph.get(key) if names is None else names
            for key, names in zip(("inputs", "outputs"), chosen, strict=True)
        )
        reached, left = set(columns.targets), set(columns.sources)
        columns.inputs = _ends(given, nodes, number, reached)
        columns.outputs = _ends(wanted, nodes, number, left)
        if not reached.isdisjoint(columns.inputs):
            raise UnusualError
        self._neurons(columns, nodes, reached)
        if not set(map(type, [*columns.biases, *columns.weights])) <= NUMBER:
            raise UnusualError
        return columns

    def _neurons(
        self, columns: Columns, nodes: dict[Any, dict[str, Any]], reached: set[int]
    ) -> None:
        known = self.formulas.known
        used: set[str] = set()
        inputs = set(columns.inputs)
        formulas, aggregations, biases = columns.formulas, columns.aggregations, columns.biases
        try:
            for i, name in enumerate(columns.names):
                data = nodes[name]
                if i in inputs:
                    if data:
                        raise UnusualError
                    formulas.append(INPUT)
                    aggregations.append(0)
                    biases.append(0.0)
                    continue
                if not data and i not in reached:
                    raise UnusualError
                used.update(data)
                formulas.append(known[data.get("activation", "linear")])
                aggregations.append(KINDS[data.get("aggregation", "sum")])
                biases.append(data.get("bias", 0.0))
        except (KeyError, TypeError):
            raise UnusualError from None
        if not used <= PLAIN:
            raise UnusualError

    def _careful(self, graph: Any) -> Columns:
        check_directed(graph)
        if self.inputs is not None:
            graph = graph.copy()
            graph.graph["inputs"] = list(self.inputs)
        check_names(graph)
        check_acyclic(graph)
        wiring = check_shared(read_wiring(graph, self.outputs, self.formulas.dtype))
        names = sorted((*wiring.inputs, *wiring.neurons), key=order)
        number = {name: i for i, name in enumerate(names)}
        inputs, outputs = ([number[n] for n in e] for e in (wiring.inputs, wiring.outputs))
        nothing = [0] * len(names)
        columns = Columns(names, inputs, outputs, [INPUT] * len(names), nothing, [0.0] * len(names))
        for node, neuron in wiring.neurons.items():
            i = number[node]
            columns.formulas[i] = self._formula(node, neuron.activation)
            columns.aggregations[i] = KINDS[neuron.aggregation]
            columns.biases[i] = neuron.bias
            for edge in wiring.incoming[node]:
                if edge.weight != edge.weight:
                    hint = "a population draws no weights: give every edge one"
                    raise fail(f"edge '{edge.name}' has no weight", node=node, hint=hint)
                columns.sources.append(number[edge.source])
                columns.targets.append(i)
                columns.weights.append(edge.weight)
        return columns

    def _formula(self, node: Hashable, activation: Any) -> int:
        try:
            return self.formulas.number(activation)
        except (ValueError, TypeError) as error:
            message = f"the activation of '{node}' is not made of elementwise functions"
            raise fail(message, node=node) from error

    # ------------------------------------------------------------ neat-python

    def _genome(self, genome: Any) -> Columns:
        if not hasattr(genome, "connections"):
            raise TypeError(f"with a config a member is a genome, not {type(genome).__name__}")
        keys = self.config.genome_config
        genes = list(read_genes(genome, self.config))
        genes.sort(key=lambda gene: order(gene.key))
        names = [*keys.input_keys, *(gene.key for gene in genes)]
        number = {name: i for i, name in enumerate(names)}
        width = len(keys.input_keys)
        known = self.formulas.known
        columns = Columns(
            names,
            list(range(width)),
            [number[key] for key in keys.output_keys],
            [INPUT] * width + [known[gene.activation] for gene in genes],
            [0] * width + [KINDS[gene.aggregation] for gene in genes],
            [0.0] * width + [gene.bias for gene in genes],
        )
        for i, gene in enumerate(genes, width):
            columns.sources += [number[source] for source in gene.sources]
            columns.targets += [i] * len(gene.sources)
            columns.weights += gene.weights
        return columns


def _contents(graph: Any) -> dict[Any, dict[str, Any]]:
    """The nodes and their attributes."""
    import networkx as nx  # there already, where there is a graph

    if type(graph) is not nx.DiGraph or not graph:
        raise UnusualError
    return dict(graph.nodes(data=True))


def _ordered(nodes: Iterable[Hashable]) -> list[Any]:
    """The names in their order; UnusualError where two might read the same."""
    kinds = set(map(type, nodes))
    if kinds == {int}:
        return sorted(nodes)
    if kinds != {str} or "" in nodes:
        raise UnusualError
    return sorted(nodes)


def _ends(
    chosen: Any, nodes: Iterable[Hashable], number: dict[Any, int], joined: set[int]
) -> list[int]:
    """The chosen nodes, or those that no edge joins on that side, in the order of the graph."""
    if chosen is None:
        return [number[n] for n in nodes if number[n] not in joined]
    try:
        found = [number[n] for n in ([chosen] if isinstance(chosen, str) else chosen)]
    except (KeyError, TypeError):
        raise UnusualError from None
    if not found or len(set(found)) < len(found):
        raise UnusualError
    return found


def read_genomes(
    members: Sequence[Any],
    *,
    dtype: DType,
    inputs: Names | None,
    outputs: Names | None,
    config: Any,
) -> tuple[Genes, Formulas, Reader]:
    """All members of a population; CompileError naming the member and the neuron."""
    formulas = Formulas(dtype)
    reader = Reader(formulas, inputs, outputs, config)
    found = [of_member(i, reader.read, member) for i, member in enumerate(members)]
    for i, columns in enumerate(found):
        if not columns.inputs:
            raise fail(f"genome {i}: there are no inputs")
        if len(columns.inputs) != len(found[0].inputs):
            few, many = len(columns.inputs), len(found[0].inputs)
            hint = "name them in graph.graph['inputs'] or with inputs=[...]"
            raise fail(f"genome {i}: {few} inputs, but genome 0 has {many}", hint=hint)
    genes = _joined(found)
    for values in (genes.biases, genes.weights):
        if not np.isfinite(values).all():  # the careful way says which one
            for i, member in enumerate(members):
                of_member(i, reader.check, member)
    return genes, formulas, reader


def of_member(number: int, function: Callable[[Any], Any], member: Any) -> Any:
    """function(member); errors tell which member it was."""
    try:
        return function(member)
    except CompileError as error:
        message = f"genome {number}: {error.message}"
        raise CompileError(message, node=error.node, stage=error.stage, hint=error.hint) from error


def starts(counts: Array) -> Array:
    """Where each begins of parts of such lengths, one after the other."""
    return np.cumsum(counts) - counts


def _joined(found: Sequence[Columns]) -> Genes:
    first = starts(np.array([len(c.names) for c in found]))

    def column(name: str, dtype: type = np.int64) -> Array:
        return np.array([v for c in found for v in getattr(c, name)], dtype)

    def numbers(name: str) -> Array:
        """Nodes, counted through all members."""
        nodes = column(name)
        nodes += np.repeat(first, [len(getattr(c, name)) for c in found])
        return nodes

    return Genes(
        names=[c.names for c in found],
        inputs=numbers("inputs").reshape(len(found), -1),
        outputs=numbers("outputs"),
        output_counts=np.array([len(c.outputs) for c in found]),
        formulas=column("formulas"),
        aggregations=column("aggregations"),
        biases=column("biases", np.float64),
        sources=numbers("sources"),
        targets=numbers("targets"),
        weights=column("weights", np.float64),
    )
