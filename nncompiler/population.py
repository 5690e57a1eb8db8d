"""Takes many small graphs of neurons, gives a Population that evaluates them all at once.

One native evaluator, compiled once for all populations, runs through tables of their neurons and
edges; a member that is called often by itself gets code of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ir.types import DType, dtype_of
from nncompiler.api import compile
from nncompiler.codegen import llvm
from nncompiler.evaluator import PLACES, X, Y, open_evaluator
from nncompiler.frontend.genomes import (
    Array,
    Formulas,
    Genes,
    of_member,
    read_genomes,
)
from nncompiler.frontend.graphs import fail
from nncompiler.frontend.wiring import AGGREGATIONS
from nncompiler.model import Model
from nncompiler.options import Options
from nncompiler.programs import Column, CycleError, Programs, build_programs
from runtime.session import Session
from runtime.state import ParameterView, State

if TYPE_CHECKING:
    import networkx as nx

BIASES, WEIGHTS = "biases", "weights"


def compile_population(
    graphs: Sequence[Any],
    *,
    inputs: Sequence[Hashable] | None = None,
    outputs: Sequence[Hashable] | None = None,
    dtype: Any = "float32",
    config: Any = None,
    specialize_after: int | None = 1000,
    options: Options | None = None,
) -> Population:
    """Many graphs of neurons, ready to be evaluated together, without compiling any of them.

    graphs            networkx graphs, every edge with a weight; with `config` genomes of
                      neat-python, whose feed-forward networks are meant
    inputs, outputs   names of neurons, the same in every graph; else each graph's own choice
    dtype             "float32" or "float64": of weights and values; data are cast to it
    config            neat-python's configuration
    specialize_after  how many calls of `population[i]` until it is compiled; None: never
    options           threads, cache: see nnc.Options

    Raises CompileError (a ValueError) naming the graph by its number and the neuron, also where the
    graphs differ in their number of inputs; ValueError where there are no graphs.
    """
    members = list(graphs)
    if not members:
        raise ValueError("a population needs at least one graph")
    after = specialize_after
    if after is not None and (isinstance(after, bool) or not isinstance(after, int) or after < 0):
        raise ValueError(f"specialize_after is a whole number or None, not {after!r}")
    real = dtype_of(dtype)
    if not real.is_float:
        raise fail(f"the dtype has to be float32 or float64, not {real.numpy}")
    genes, formulas, reader = read_genomes(
        members, dtype=real, inputs=inputs, outputs=outputs, config=config
    )
    try:
        programs = build_programs(genes, real.numpy, llvm.host().lanes(real))
    except CycleError as error:
        number = error.graph
        of_member(number, reader.check, members[number])
        raise
    return Population(genes, programs, formulas, after, options or Options())


class Population:
    """Many networks with the same number of inputs; their number is `len(population)`."""

    def __init__(
        self,
        genes: Genes,
        programs: Programs,
        formulas: Formulas,
        specialize_after: int | None,
        options: Options,
    ) -> None:
        self.dtype: DType = formulas.dtype
        self.options, self.specialize_after = options, specialize_after
        self._state = State({BIASES: programs.biases, WEIGHTS: programs.weights})
        self._genes, self._formulas = genes, formulas
        self._programs = replace(programs, biases=self._state[BIASES], weights=self._state[WEIGHTS])
        self._evaluator = Evaluator(self._programs, tuple(formulas.texts), options)
        self._members: dict[int, Member] = {}
        heights = programs.heights.tolist()
        self._height = heights[0] if len(set(heights)) == 1 else None

    def __len__(self) -> int:
        return len(self._programs.genomes)

    def __repr__(self) -> str:
        p = self._programs
        return (
            f"Population({len(self)} networks, {len(p.nodes)} neurons, {len(p.edges)} edges, "
            f"{p.width} inputs)"
        )

    def __call__(self, x: Any) -> Any:
        """The outputs of all networks, an array (networks, batch, outputs).

        x is (batch, inputs), the same rows for every network, or (networks, batch, inputs), rows of
        its own for each. The bits of a network's outputs depend neither on the other networks nor
        on the number of threads. Where networks differ in their number of outputs: a list of arrays
        (batch, outputs). ValueError on other shapes, TypeError on dtypes that are not real.
        """
        y, batch = self._evaluator(x)
        if self._height is not None:
            return y.reshape(len(self), batch, self._height)
        heights = self._programs.heights
        parts = np.split(y, np.cumsum(heights)[:-1] * batch)
        return [p.reshape(batch, height) for p, height in zip(parts, heights, strict=True)]

    def __getitem__(self, i: int) -> Member:
        """Network i by itself; IndexError where there is none."""
        i = self._index(i)
        if i not in self._members:
            self._members[i] = Member(self, i)
        return self._members[i]

    def __iter__(self) -> Iterator[Member]:
        return (self[i] for i in range(len(self)))

    def _index(self, i: int) -> int:
        if not -len(self) <= i < len(self):
            raise IndexError(f"there is no network {i} among {len(self)}")
        return int(i) % len(self)

    def evaluator(self, i: int) -> Evaluator:
        """Of network i alone."""
        programs, options = self._programs.alone(self._index(i)), replace(self.options, threads=1)
        return Evaluator(programs, tuple(self._formulas.texts), options)

    def parameters(self, i: int) -> ParameterView:
        """Live weights `u->v` and biases `v.bias` of network i, as 0-d arrays by name: writing into
        them changes the network. Of a genome the weights hold its responses too."""
        i = self._index(i)
        first = self._programs.nodes_of(i).start
        names, edges = self._wires(i)
        found = {f"{n}.bias": (BIASES, (k,)) for k, n in enumerate(names, first)}
        first = self._programs.edges_of(i).start
        found |= {f"{u}->{v}": (WEIGHTS, (k,)) for k, (u, v) in enumerate(edges, first)}
        return ParameterView(self._state, found)

    def graph(self, i: int) -> nx.DiGraph[Any]:
        """Network i as a graph of neurons with its present weights: the inputs, and what some
        output depends on."""
        import networkx as nx

        i = self._index(i)
        genes, programs = self._genes, self._programs
        inputs, outputs = genes.inputs[i], genes.outputs_of(i)
        ends = {"inputs": genes.names_of(i, inputs), "outputs": genes.names_of(i, outputs)}
        g: nx.DiGraph[Any] = nx.DiGraph(**ends)
        g.add_nodes_from(ends["inputs"])
        names, edges = self._wires(i)
        nodes = programs.nodes_of(i)
        numbers, biases = programs.node_ids[nodes], programs.biases[nodes].tolist()
        for number, name, bias in zip(numbers, names, biases, strict=True):
            g.add_node(
                name,
                activation=self._formulas.activations[genes.formulas[number]],
                aggregation=AGGREGATIONS[genes.aggregations[number]],
                bias=bias,
            )
        weights = programs.weights[programs.edges_of(i)].tolist()
        for (u, v), weight in zip(edges, weights, strict=True):
            g.add_edge(u, v, weight=weight)
        return g

    def _wires(self, i: int) -> tuple[list[Any], list[tuple[Any, Any]]]:
        """The names of neurons of network i, and the ends of its edges, as they stand in tables."""
        programs, genes, nodes = self._programs, self._genes, self._programs.nodes_of(i)
        names = genes.names_of(i, programs.node_ids[nodes])
        targets = np.repeat(np.arange(len(names)), programs.nodes[nodes]).tolist()
        sources = genes.names_of(i, programs.source_ids[programs.edges_of(i)])
        return names, [(u, names[v]) for u, v in zip(sources, targets, strict=True)]

    def numbers(self, i: int) -> tuple[Array, Array]:
        """The weights and biases of network i, as live views."""
        p = self._programs
        return p.weights[p.edges_of(i)], p.biases[p.nodes_of(i)]


class Member:
    """One network of a population: a function of (batch, inputs) that gives (batch, outputs).

    After `specialize_after` calls it is compiled like any graph, which takes up to some tenths of
    a second once. The results agree then to rounding: both ways add in single steps of the dtype,
    but not always in the same order.
    """

    def __init__(self, population: Population, i: int) -> None:
        self.population, self.number = population, i
        self.calls = 0
        self._evaluator = population.evaluator(i)
        self._weights, self._biases = population.numbers(i)
        self._seen = b""  # the numbers that the model has

    def __repr__(self) -> str:
        return f"Member {self.number} of {self.population!r}"

    @property
    def inputs(self) -> int:
        """How many inputs it has."""
        return self._evaluator.width

    @property
    def graph(self) -> nx.DiGraph[Any]:
        """See Population.graph."""
        return self.population.graph(self.number)

    @property
    def parameters(self) -> ParameterView:
        """See Population.parameters."""
        return self.population.parameters(self.number)

    @property
    def is_compiled(self) -> bool:
        """Whether it has code of its own."""
        return "_model" in self.__dict__

    def __call__(self, x: Any) -> Array:
        limit = self.population.specialize_after
        self.calls += 1
        if limit is not None and self.calls > limit:
            return self._updated()(x)  # type: ignore[no-any-return]
        array = np.asarray(x)
        if array.ndim != 2:
            raise ValueError(f"x: expected shape (batch, {self.inputs}), got {array.shape}")
        y, batch = self._evaluator(array)
        return y.reshape(batch, self._evaluator.programs.heights[0])

    @cached_property
    def _model(self) -> Model:
        names, options = self.population.dtype.numpy.name, self.population.options
        return compile(self.graph, dtype=names, options=options)

    def _updated(self) -> Model:
        """The compiled network with the weights that the population has now."""
        model = self._model
        numbers = self._weights.tobytes() + self._biases.tobytes()
        if numbers != self._seen:
            for name, value in self.parameters.items():
                model.parameters[name] = value
            self._seen = numbers
        return model


class Evaluator:
    """Runs tables of graphs on the user's arrays."""

    def __init__(self, programs: Programs, formulas: tuple[str, ...], options: Options) -> None:
        self.programs, self._formulas, self._options = programs, formulas, options
        self.count, self.width = len(programs.genomes), programs.width
        self._places = np.zeros(self.count, np.int32)
        self._own_places = np.array(programs.genomes[:, Column.X])

    def __call__(self, x: Any) -> tuple[Array, int]:
        """(All outputs one after the other, the batch) of x as Population takes it."""
        array = np.asarray(x)
        apart = array.ndim == 3
        leading = (self.count,) if apart else ()
        if array.ndim not in (2, 3) or array.shape != (*leading, array.shape[-2], self.width):
            shapes = f"(batch, {self.width}) or ({self.count}, batch, {self.width})"
            raise ValueError(f"x: expected shape {shapes}, got {array.shape}")
        columns = array.swapaxes(-1, -2)
        if array.dtype.kind in "fiub":
            columns = np.ascontiguousarray(columns, self.programs.biases.dtype)
        session, places = (self._apart, self._own_places) if apart else (self._shared, self._places)
        results = session({X: columns.reshape(-1), PLACES: places})
        return results[Y], array.shape[-2]

    @cached_property
    def _shared(self) -> Session:
        return self._open(apart=False)

    @cached_property
    def _apart(self) -> Session:
        return self._open(apart=True)

    def _open(self, *, apart: bool) -> Session:
        return open_evaluator(self.programs, self._formulas, self._options, apart=apart)
